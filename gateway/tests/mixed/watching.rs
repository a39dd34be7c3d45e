//! Watches through storms: through any node, over killed gateways, cuts, lost leaders and installed
//! snapshots each sees every committed version of its keys, once and in order, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use quorate_gateway::WatchService;
use quorate_proto::v1::watch_event::Kind;
use quorate_proto::v1::watch_server::Watch;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_types::causal::Actor;
use tokio::time::Instant;

use crate::asking::{Asked, Level, Saw};
use crate::clients::{Clients, key};
use crate::judge::await_whole;
use crate::run::{must_be_found, run_all};
use crate::storm::{Storm, faults};
use crate::twice::{Counts, Twice};
use crate::world::{EPOCH, PATIENCE, Settings, Shared, World};

const WATCHERS: u64 = 5;
/// A stream that says nothing for so long is left for another node's.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Revision, key, and whether it was deleted.
type Told = (u64, Bytes, bool);

/// A client that watches, and leaves its gateway for another one at any time.
struct Watcher {
    world: Shared,
    number: u64,
    request: v1::WatchRequest,
    positions: BTreeMap<u64, v1::WatchPosition>,
    /// Nothing up to it is told of.
    begun: Option<u64>,
    told: Vec<Told>,
    complete: Arc<AtomicU64>,
    /// Of a watch that also tells of the eventual plane.
    twice: Option<Twice>,
}

impl Watcher {
    fn new(world: &Shared, number: u64, counts: Option<&Counts>) -> Watcher {
        Watcher {
            world: world.clone(),
            number,
            request: v1::WatchRequest {
                keyspace: world.keyspace().to_owned(),
                prefix: Bytes::from_static(b"key-"),
                // Some from the beginning, some from when they come.
                from_revision: match number.is_multiple_of(2) {
                    true => EPOCH.0,
                    false => 0,
                },
                progress_interval_ms: 200,
                tentative: counts.is_some(),
                ..v1::WatchRequest::default()
            },
            positions: BTreeMap::new(),
            begun: None,
            told: Vec::new(),
            complete: Arc::default(),
            twice: counts.map(Twice::new),
        }
    }

    async fn run(mut self, stop: Arc<AtomicBool>) -> Watcher {
        while !stop.load(Ordering::Relaxed) {
            self.follow_one(&stop).await;
            let pause = self.world.roll(100);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self
    }

    /// Watches at some node until that ends, or for some time.
    async fn follow_one(&mut self, stop: &AtomicBool) {
        let Some(mut process) = self.world.process(self.world.any()) else {
            return;
        };
        let mut request = self.request.clone();
        request.positions = self.positions.values().cloned().collect();
        let service = WatchService::new(process.gateway.clone());
        let mut messages = match service.watch(tonic::Request::new(request)).await {
            Ok(opened) => opened.into_inner(),
            Err(status) => return self.refused(&status),
        };
        if let Some(twice) = &mut self.twice {
            twice.begin();
        }
        // How many messages it takes before it loses its gateway.
        let mut left = match self.world.percent(30) {
            true => self.world.roll(20),
            false => u64::MAX,
        };
        while left > 0 && !stop.load(Ordering::Relaxed) {
            left -= 1;
            let message = tokio::select! {
                biased;
                _ = process.life.changed() => return,
                message = tokio::time::timeout(SILENCE_MAX, messages.next()) => message,
            };
            match message {
                Ok(Some(Ok(message))) => self.take(message),
                Ok(Some(Err(status))) => return self.refused(&status),
                Ok(None) | Err(_) => return,
            }
            // A slow reader falls behind what is in memory.
            if self.world.percent(10) {
                let pause = self.world.roll(400);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }

    fn refused(&self, status: &tonic::Status) {
        let passing = [tonic::Code::Unavailable, tonic::Code::DeadlineExceeded];
        if !passing.contains(&status.code()) {
            self.accuse(&format!("is refused: {status}"));
        }
    }

    fn accuse(&self, what: &str) {
        self.world.accuse(format!("watcher {} {what}", self.number));
    }

    fn take(&mut self, mut message: v1::WatchResponse) {
        self.world.count_answer();
        let twice = self.twice.as_mut();
        for wrong in twice.map_or(Vec::new(), |twice| twice.take(&mut message)) {
            self.accuse(&format!("is told that {wrong}"));
        }
        for event in message.events {
            let is_delete = event.kind() == Kind::Delete;
            let entry = event.entry.unwrap_or_default();
            let told = (entry.revision, entry.key, is_delete);
            if let Some(last) = self.told.last()
                && (last.0, &last.1) >= (told.0, &told.1)
            {
                self.accuse(&format!("is told of {told:?} after {last:?}"));
            }
            self.told.push(told);
        }
        for position in message.positions {
            self.positions.insert(position.range, position);
        }
        self.begun.get_or_insert(match self.request.from_revision {
            0 => message.complete_revision,
            _ => 0,
        });
        self.complete
            .store(message.complete_revision, Ordering::Relaxed);
    }

    /// Compares with all that the log has decided up to a revision.
    fn judge(&self, decided: &BTreeSet<Told>, until: u64) {
        let begun = self.begun.unwrap_or(0);
        let within = |told: &&Told| told.0 > begun && told.0 <= until;
        let told: BTreeSet<&Told> = self.told.iter().filter(within).collect();
        let wanted: BTreeSet<&Told> = decided.iter().filter(within).collect();
        for lost in wanted.difference(&told) {
            self.accuse(&format!("was not told of {lost:?}, begun at {begun}"));
        }
        for other in told.difference(&wanted) {
            self.accuse(&format!("was told of {other:?}, which was not decided"));
        }
    }
}

impl Watcher {
    /// Each write of the eventual plane that the log has shown is named.
    fn judge_names(&self, shown: &BTreeSet<String>) {
        let Some(twice) = self
            .twice
            .as_ref()
            .filter(|_| self.request.from_revision > 0)
        else {
            return;
        };
        for lost in shown.difference(&twice.named) {
            self.accuse(&format!("was not told that {lost} is decided"));
        }
    }
}

impl World {
    /// All committed versions of keys.
    async fn decided(&self, keys: &[String]) -> BTreeSet<Told> {
        let mut decided = BTreeSet::new();
        for key in keys {
            let request = v1::HistoryRequest {
                keyspace: self.keyspace().to_owned(),
                key: Bytes::copy_from_slice(key.as_bytes()),
                ..v1::HistoryRequest::default()
            };
            let asked = self.ask(self.any(), SILENCE_MAX, Request::History(request));
            let Asked::Done(Response::History(history)) = asked.await else {
                panic!("seed {}: no history when all is whole", self.seed);
            };
            assert!(history.floor < EPOCH.0, "history is longer than a storm");
            decided.extend(history.entries.into_iter().filter_map(|entry| {
                let version = entry.version?;
                Some((version.revision, version.key, entry.deleted))
            }));
        }
        decided
    }
}

impl World {
    /// The names of all writes of the eventual plane that the log has shown.
    async fn shown(&self, keys: &[String]) -> BTreeSet<String> {
        let mut shown = BTreeSet::new();
        for key in keys {
            let dots = self
                .history(key)
                .await
                .into_iter()
                .flat_map(|(_, live)| live);
            let named = dots.filter(|dot| dot.actor != Actor::LOG);
            shown.extend(named.map(|dot| dot.to_string()));
        }
        shown
    }
}

/// `counts`: of watches that also tell of the eventual plane.
async fn watched_storm(world: Shared, storm: Storm, counts: Option<Counts>) {
    let stop = Arc::new(AtomicBool::new(false));
    let watchers = (0..WATCHERS).map(|at| Watcher::new(&world, at, counts.as_ref()));
    let watchers: Vec<Watcher> = watchers.collect();
    let twice = watchers.iter().filter_map(|it| it.twice.as_ref());
    let open: Vec<_> = twice.map(|twice| twice.open.clone()).collect();
    let complete: Vec<_> = watchers.iter().map(|it| it.complete.clone()).collect();
    let watching: Vec<_> = watchers
        .into_iter()
        .map(|watcher| tokio::spawn(watcher.run(stop.clone())))
        .collect();
    let clients = Clients::start(&world, storm.clients, storm.keys, storm.pause_max_millis);
    faults(&world, storm).await;
    clients.stop().await;
    world.make_whole().await;
    await_whole(&world).await;
    // The last that is decided, so that all before it is known to have come.
    let (leader, saw) = (world.leader().await, Saw::default());
    let last = world.put(leader, "last", "", Level::Linearizable, &saw);
    let until = last.await.unwrap().revision;
    let deadline = Instant::now() + PATIENCE;
    for (number, complete) in complete.iter().enumerate() {
        while complete.load(Ordering::Relaxed) < until {
            if Instant::now() > deadline {
                let complete = complete.load(Ordering::Relaxed);
                world.accuse(format!("watcher {number} stays at {complete}, not {until}"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let left = || {
        open.iter()
            .map(|it| it.load(Ordering::Relaxed))
            .sum::<u64>()
    };
    while left() > 0 {
        if Instant::now() > deadline {
            world.accuse(format!("{} tentative writes are never decided", left()));
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let keys: Vec<String> = (0..storm.keys).map(key).collect();
    let decided = world.decided(&keys).await;
    let shown = world.shown(&keys).await;
    for watching in watching {
        let watcher = watching.await.unwrap();
        watcher.judge(&decided, until);
        watcher.judge_names(&shown);
    }
}

#[test]
fn each_version_comes_once_and_in_order() {
    let name = "each_version_comes_once_and_in_order";
    run_all(name, 12, &Settings::default(), |world| {
        watched_storm(world, Storm::ALL, None)
    });
}

#[test]
fn each_version_comes_once_while_many_are_written() {
    let name = "each_version_comes_once_while_many_are_written";
    run_all(name, 5, &Settings::default(), |world| {
        watched_storm(world, Storm::BUSY, None)
    });
}

/// A write of the eventual plane is told once as tentative and once as decided.
#[test]
fn each_tentative_write_comes_once_and_then_what_the_log_made_of_it() {
    let name = "each_tentative_write_comes_once_and_then_what_the_log_made_of_it";
    let counts = Counts::default();
    for (seeds, storm) in [(8, Storm::ALL), (3, Storm::BUSY)] {
        run_all(name, seeds, &Settings::default(), |world| {
            watched_storm(world, storm, Some(counts.clone()))
        });
    }
    let all = [&counts.tentative, &counts.decided, &counts.settled];
    let [tentative, decided, settled] = all.map(|count| count.load(Ordering::Relaxed));
    println!("{tentative} tentative, of which {decided} are shown and {settled} settled besides");
    let is_enough = tentative > 100 && decided > 50 && settled > 5;
    assert!(is_enough, "too little to mean anything");
}

fn must_notice(settings: &Settings) {
    must_be_found(400, settings, |world| {
        watched_storm(world, Storm::BUSY, None)
    });
}

#[test]
fn a_tentative_write_that_the_log_has_decided_is_noticed() {
    let gateway = quorate_gateway::Faults {
        watch_tells_decided: true,
        ..quorate_gateway::Faults::default()
    };
    let settings = Settings {
        gateway,
        ..Settings::default()
    };
    must_be_found(400, &settings, |world| {
        watched_storm(world, Storm::BUSY, Some(Counts::default()))
    });
}

#[test]
fn a_watch_that_skips_what_is_not_recent_is_noticed() {
    let gateway = quorate_gateway::Faults {
        watch_skips_history: true,
        ..quorate_gateway::Faults::default()
    };
    must_notice(&Settings {
        gateway,
        ..Settings::default()
    });
}

#[test]
fn a_watch_that_takes_a_part_of_a_revision_for_all_is_noticed() {
    let gateway = quorate_gateway::Faults {
        watch_whole_revisions: true,
        ..quorate_gateway::Faults::default()
    };
    must_notice(&Settings {
        gateway,
        ..Settings::default()
    });
}

#[test]
fn followers_that_do_not_hear_of_a_snapshot_are_noticed() {
    let raft = quorate_raft::Faults {
        feed_over_snapshot: true,
        ..quorate_raft::Faults::default()
    };
    must_notice(&Settings {
        raft,
        ..Settings::default()
    });
}
