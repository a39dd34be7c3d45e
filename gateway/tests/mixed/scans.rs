//! Scans of the view: no key is missed at the border of a page, whatever is absorbed, trimmed or
//! deleted beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};

use crate::asking::{ALL, Asked, Level, ONE, QUORUM, Saw};
use crate::run::{must_be_right, run_all};
use crate::world::{PATIENCE, Settings, Shared, World};

/// Keys that nobody changes.
const KEPT: u64 = 24;
const SCANS: u64 = 40;
const PAGE_ROWS: u32 = 3;
const WITHIN: Duration = Duration::from_secs(2);

fn kept(number: u64) -> String {
    format!("key-{number:02}")
}

impl World {
    /// All rows, page by page, each asked of some node; `None`: not all pages came.
    async fn scan(&self, level: Level, reverse: bool) -> Option<Vec<v1::KeyValue>> {
        let mut rows = Vec::new();
        let mut page_token = Bytes::new();
        loop {
            let request = v1::ScanRequest {
                keyspace: self.keyspace().to_owned(),
                consistency: level.wire(),
                limit: PAGE_ROWS,
                reverse,
                page_token,
                ..v1::ScanRequest::default()
            };
            let asked = self.ask(self.any(), WITHIN, Request::Scan(request)).await;
            let Asked::Done(Response::Scan(page)) = asked else {
                return None;
            };
            rows.extend(page.entries);
            if page.next_page_token.is_empty() {
                return Some(rows);
            }
            page_token = page.next_page_token;
        }
    }
}

/// Keys between the kept ones come and go on both planes.
async fn churn(world: Shared, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let key = format!("{}-more", kept(world.roll(KEPT)));
        let (at, saw) = (world.any(), Saw::default());
        let level = [ONE, QUORUM, Level::Linearizable][world.roll(3) as usize];
        let number = world
            .ledger
            .lock()
            .begin(&key, Some("more"), [].into(), false, None);
        if world.percent(60) {
            world.put(at, &key, "more", level, &saw).await.done();
        } else {
            world
                .delete(at, &key, (level, WITHIN), 0, &saw)
                .await
                .done();
        }
        world.ledger.lock().undone(number);
        tokio::time::sleep(Duration::from_millis(world.roll(30))).await;
    }
}

async fn scan_beside_churn(world: Shared) {
    for number in 0..KEPT {
        let level = [ALL, Level::Linearizable][(number % 2) as usize];
        let saw = Saw::default();
        let (at, key) = (world.any(), kept(number));
        let put = world.put_within(at, &key, "kept", (level, PATIENCE), &saw);
        put.await.unwrap();
    }
    // A strong write may reach some views a moment later.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|_| tokio::spawn(churn(world.clone(), stop.clone())))
        .collect();
    for _ in 0..SCANS {
        let level = [ONE, QUORUM, ALL][world.roll(3) as usize];
        let reverse = world.percent(40);
        let Some(mut rows) = world.scan(level, reverse).await else {
            continue;
        };
        if reverse {
            rows.reverse();
        }
        if !rows.is_sorted_by(|one, next| one.key < next.key) {
            world.accuse(format!("{level:?}: rows are out of order, or twice"));
        }
        for number in 0..KEPT {
            if !rows.iter().any(|row| row.key == kept(number)) {
                world.accuse(format!(
                    "{level:?}, reverse: {reverse}: {} is missed",
                    kept(number)
                ));
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
}

#[test]
fn no_key_is_missed_at_the_border_of_a_page() {
    run_all(
        "no_key_is_missed_at_the_border_of_a_page",
        5,
        &Settings::default(),
        scan_beside_churn,
    );
}

/// What one side of a cut took is shown there, tentative, beside what the log has; concurrent
/// values are counted.
#[test]
fn a_scan_shows_the_view_and_says_what_is_tentative() {
    must_be_right(1, Settings::default(), |world: Shared| async move {
        let saw = Saw::nothing();
        let leader = world.leader().await;
        for (key, value) in [("a", "strong"), ("b", "strong")] {
            let put = world.put(leader, key, value, Level::Linearizable, &saw);
            put.await.unwrap();
        }
        let at = world
            .primaries()
            .into_iter()
            .find(|at| *at != leader)
            .unwrap();
        for key in ["a", "b"] {
            let shown = world.read(at, key, Level::Linearizable).await;
            shown.unwrap();
        }
        world.isolate(at);
        for key in ["b", "c"] {
            world.put(at, key, "tentative", ONE, &saw).await.unwrap();
        }
        let request = v1::ScanRequest {
            keyspace: world.keyspace().to_owned(),
            consistency: ONE.wire(),
            ..v1::ScanRequest::default()
        };
        let asked = world.ask(at, WITHIN, Request::Scan(request)).await;
        let Response::Scan(page) = asked.unwrap() else {
            panic!("it is no scan")
        };
        let rows: Vec<_> = page
            .entries
            .iter()
            .map(|row| (row.key.clone(), row.siblings))
            .collect();
        let expected = [("a", 0), ("b", 1), ("c", 0)];
        let expected =
            expected.map(|(key, siblings)| (Bytes::from_static(key.as_bytes()), siblings));
        let receipt = page.receipt.unwrap();
        if rows != expected || !receipt.tentative || receipt.siblings != 1 {
            world.accuse(format!("{rows:?}, {receipt:?}"));
        }
    });
}
