//! Mistakes that the storms have found, each made small.

use std::time::Duration;

use quorate_proto::v1;
use quorate_raft::seam::Clock;

use crate::asking::{Asked, Level, ONE, Saw};
use crate::judge::{EMPTY_WITHIN, judge};
use crate::run::{must_be_right, run};
use crate::world::{Settings, Shared, id_of};

const KEY: &str = "key-0";
const WITHIN: Duration = Duration::from_secs(2);

/// A step that began a new row with what the log has decided, and left it as it was, wrote the row
/// and told neither tree nor overlay of it: nobody absorbed it, and when it went, the tree's
/// count fell below zero, which ended the node's work in the background.
#[test]
fn a_new_row_that_its_step_leaves_alone_is_counted() {
    must_be_right(1, Settings::default(), |world: Shared| async move {
        let at = world.primaries()[0];
        let ledger = world.ledger.clone();
        ledger
            .lock()
            .begin(KEY, Some("value"), [].into(), true, None);
        let saw = Saw::default();
        let put = world.put(at, KEY, "value", Level::Linearizable, &saw);
        put.await.unwrap();
        for primary in world.primaries() {
            world.read(primary, KEY, ONE).await.unwrap();
        }
        world
            .eventually("trees are built", || world.overlay_rows().is_some())
            .await;
        // It has seen nothing, and so deletes nothing.
        let saw = Saw::nothing();
        let delete = world.delete(at, KEY, (ONE, WITHIN), 0, &saw);
        delete.await.unwrap();
        let rows = world.overlay_rows().unwrap();
        if rows.iter().all(|(_, rows)| *rows == 0) {
            world.accuse("no row is counted".to_owned());
        }
        world.await_empty(EMPTY_WITHIN).await;
        judge(&world, &[KEY.to_owned()]).await;
    });
}

/// A gateway whose connection to a put's coordinator broke asked the next one, or coordinated itself;
/// and when that one found too few primaries, its word was passed on: the put, which stood on all
/// primaries by then, was said to have had no effect.
#[test]
fn a_put_whose_first_coordinator_is_lost_is_not_said_to_have_failed() {
    must_be_right(3, Settings::default(), |world| async move {
        let primaries = world.primaries();
        let outside = world.all().find(|at| !primaries.contains(at)).unwrap();
        for primary in &primaries {
            world.network.cut(id_of(*primary), id_of(outside));
        }
        let level = Level::Eventual {
            copies: v1::Copies::All,
            strict: true,
        };
        // Not named: else the gateway does not try again.
        let saw = Saw::nothing();
        let put = world.put_within(
            outside,
            KEY,
            "value",
            (level, Duration::from_secs(10)),
            &saw,
        );
        let breaking = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let shown = world.read(primaries[0], KEY, ONE).await.unwrap();
            assert_eq!(shown.texts(), ["value"]);
            world.kill(primaries[0]);
            world.kill(primaries[1]);
            world.network.heal();
            tokio::time::sleep(Duration::from_secs(3)).await;
            // What is sent to those that are gone is lost as well.
            for _ in 0..primaries.len() {
                for primary in &primaries {
                    let (of, to) = (id_of(outside), id_of(*primary));
                    world.network.break_connections(of, to);
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        let (put, ()) = tokio::join!(put, breaking);
        if let Asked::Refused(why) = put {
            world.accuse(format!("it stands, and is said to have failed: {why}"));
        }
    });
}

/// A gateway whose connection to a put's coordinator broke gave the put to the next one, which named
/// it anew. The first dot had been seen and replaced, or not; the second nobody had seen, and it
/// came back beside whatever stood there, as if it had been resurrected. A put that its client has
/// named is made once, or its client hears that nobody knows.
#[test]
fn a_named_put_whose_coordinator_is_lost_has_one_dot() {
    for delay in 0..12 {
        must_be_right(delay, Settings::default(), |world| async move {
            let primaries = world.primaries();
            let outside = world.all().find(|at| !primaries.contains(at)).unwrap();
            let saw = Saw {
                id: Some(v1::RequestId {
                    client: 7,
                    sequence: 1,
                    first_tried: world.clock(outside).now().0,
                }),
                ..Saw::nothing()
            };
            let breaking = async {
                tokio::time::sleep(Duration::from_micros(200 * (delay + 1))).await;
                for primary in &primaries {
                    world
                        .network
                        .break_connections(id_of(outside), id_of(*primary));
                }
            };
            let put = world.put(outside, KEY, "value", ONE, &saw);
            tokio::join!(put, breaking);
            tokio::time::sleep(WITHIN).await;
            for primary in primaries {
                let shown = world.read(primary, KEY, ONE).await.unwrap();
                if shown.values.len() > 1 {
                    world.accuse(format!("one put has {} dots", shown.values.len()));
                }
            }
        });
    }
}

const KEYS: u64 = 50;
const WRITE_EVERY: Duration = Duration::from_millis(100);

fn settings_of_waits() -> Settings {
    // No snapshot, which would take longer than the clock waits.
    let mut settings = Settings {
        purge_entries: 100_000,
        ..Settings::default()
    };
    // What hints bring in time hides the mistake.
    settings.eventual.hand_over = false;
    settings
}

/// A primary that only one other still reached compared with that one, and waited for the log
/// before it took over the other's clock. A row that began meanwhile had the old state of the log
/// for its seed: with the clock it killed what the log had absorbed since, on all planes.
#[test]
fn a_row_that_began_while_a_clock_waited_kills_nothing() {
    // Comparisons wait for two seconds of every few: one of these heals meets such a wait.
    for heal in (10..KEYS).step_by(4) {
        must_be_right(heal, settings_of_waits(), |world| {
            a_clock_waits(world, heal)
        });
    }
}

/// The mistake, planted again: the course above meets it.
#[test]
fn a_clock_beside_rows_that_lack_what_the_log_has_is_noticed() {
    let found = (10..KEYS).step_by(4).any(|heal| {
        let mut settings = settings_of_waits();
        settings.eventual.faults.merge_beside_old_rows = true;
        let shown = run(heal, settings, |world| a_clock_waits(world, heal));
        !shown.violations.is_empty()
    });
    assert!(found, "no course notices it");
}

/// `heal`: after how many writes.
async fn a_clock_waits(world: Shared, heal: u64) {
    let leader = world.leader().await;
    let mut primaries = world.primaries();
    primaries.retain(|at| *at != leader);
    let (link, alone) = (primaries[0], primaries[1]);
    let key = |number: u64| format!("key-{number}");
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    world.part(&[alone], &[leader]);
    let saw = Saw::nothing();
    let put = async |at: usize, key: &str, value: &str| {
        let begun = |key: &str| {
            let mut ledger = world.ledger.lock();
            ledger.begin(key, Some(value), [].into(), false, None)
        };
        let number = begun(key);
        let stored = world.put(at, key, value, ONE, &saw).await.unwrap();
        world.ledger.lock().acknowledged(number, stored.dot, 0);
    };
    for key in &keys {
        put(leader, key, &format!("old {key}")).await;
    }
    let has_rows = |at: usize| {
        let rows = world.overlay_rows().unwrap_or_default();
        rows.into_iter().any(|(node, rows)| node == at && rows > 0)
    };
    world
        .eventually("rows of those who hear the log are gone", || {
            world.overlay_rows().is_some() && !has_rows(leader) && !has_rows(link)
        })
        .await;
    put(alone, "lingering", "value").await;
    for (number, key) in keys.iter().enumerate() {
        put(link, key, &format!("new {key}")).await;
        tokio::time::sleep(WRITE_EVERY).await;
        for key in &keys {
            let shown = world.read(alone, key, ONE).await.unwrap();
            let context = world.opened(key, &shown.context);
            let judged = world.ledger.lock().judge_context(key, &shown, &context);
            if let Some(problem) = judged {
                world.accuse(problem);
            }
        }
        if number as u64 == heal {
            world.network.heal();
        }
    }
}
