//! Mistakes that were made once, each with the shortest course that shows it.

use std::time::Duration;

use bytes::Bytes;
use quorate_eventual::EventualNode;
use quorate_proto::internal::{
    ClockMerge, EventualRequest, Store, Stores, TreeRoot, eventual_request::Request,
    eventual_response::Response,
};
use quorate_types::causal::{Actor, Clock, Delta, Dot, Dots, Update};
use quorate_types::{Copies, NodeId, RangeId, Timestamp};

use crate::clients::{key, read, rung, write_of};
use crate::network::Quality;
use crate::run::run;
use crate::world::{PRIMARIES, SIBLINGS, Settings, Shared};

const OTHER: NodeId = NodeId(2);

/// A cluster that does nothing by itself.
fn quiet() -> Settings {
    let mut settings = Settings {
        quality: Quality::GOOD,
        ..Settings::default()
    };
    settings.options.repair = false;
    settings.options.hand_over = false;
    settings
}

/// A node whose replica is open and has its hash tree.
async fn warm(world: &Shared, at: usize) -> EventualNode {
    let node = world.node(at).unwrap();
    while world.report(at, SIBLINGS).unwrap().hash.is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    node
}

fn delta(counter: u64, value: Option<&'static str>) -> Bytes {
    let delta = Delta {
        dot: Dot::new(Actor { disk: 77, start: 1 }, counter),
        context: Dots::new(),
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
        timestamp: Timestamp(1),
        expiry: None,
    };
    delta.encode()
}

fn store(number: u64, deltas: Vec<Bytes>, memory: bool) -> Request {
    let store = Store {
        key: key(number),
        deltas,
        holders_wanted: 1,
    };
    Request::Stores(Stores {
        stores: vec![store],
        memory,
    })
}

async fn ask(node: &EventualNode, request: Request) -> Response {
    let request = EventualRequest {
        request: Some(request),
    };
    let answer = node.answer(OTHER, SIBLINGS, request).await;
    answer.response.unwrap()
}

/// A report of a range that has no eventual plane made one.
#[test]
fn to_look_at_a_range_that_is_not_here_does_not_open_it() {
    run(1, quiet(), |world| async move {
        let node = world.node(0).unwrap();
        let strange = RangeId(99);
        assert!(node.report(strange).is_err());
        assert!(!node.has(strange));
    });
}

/// A late copy that changed nothing itself, but settled records of other keys, kept the change to
/// itself: tree and table parted for ever.
#[test]
fn what_a_late_copy_settles_is_stored() {
    let shown = run(1, quiet(), |world: Shared| async move {
        let node = warm(&world, 0).await;
        // More than are settled at once, all waiting for the first.
        for counter in 2..=600 {
            ask(&node, store(counter, vec![delta(counter, None)], true)).await;
        }
        ask(&node, store(1, vec![delta(1, None)], true)).await;
        ask(&node, store(1, vec![delta(1, None)], true)).await;
        if let Err(broken) = node.validate(SIBLINGS) {
            world.accuse(broken);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let report = world.report(0, SIBLINGS).unwrap();
        if report.record_bytes > 0 {
            world.accuse(format!("deleted keys are left: {report:?}"));
        }
    });
    assert_eq!(shown.violations, Vec::<String>::new());
}

/// Peers were told of records that only memory held. A power cut took them, and then the clock of
/// a peer that had found them equal killed them everywhere.
#[test]
fn what_repair_was_told_of_survives_a_power_cut() {
    let settings = Settings {
        sync_latency: Duration::from_millis(500),
        ..quiet()
    };
    let shown = run(1, settings, |world: Shared| async move {
        let node = warm(&world, 0).await;
        let stored = ask(&node, store(1, vec![delta(1, Some("told"))], true)).await;
        assert!(matches!(stored, Response::StoresTaken(_)), "{stored:?}");
        let told = ask(&node, Request::TreeRoot(TreeRoot::default())).await;
        assert!(matches!(told, Response::TreeSums(_)), "{told:?}");
        world.cut_power(0);
        world.restart(0).await;
        let node = world.node(0).unwrap();
        let found = read(&node, SIBLINGS, key(1), Copies::One).await.unwrap();
        if found.state.live().len() == 0 {
            world.accuse("what was told is gone".to_owned());
        }
    });
    assert_eq!(shown.violations, Vec::<String>::new());
}

/// Of a pair the node with the lower id asked, and looked at its own changes alone: what only the
/// other one had came after half a minute.
#[test]
fn what_the_higher_of_two_took_in_is_repaired_soon() {
    let mut settings = quiet();
    settings.options.repair = true;
    let shown = run(1, settings, |world: Shared| async move {
        for at in 0..PRIMARIES {
            warm(&world, at).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let node = world.node(PRIMARIES - 1).unwrap();
        ask(&node, store(1, vec![delta(1, Some("value"))], false)).await;
        let took = world.converge(SIBLINGS).await;
        if took > Duration::from_secs(8) {
            world.accuse(format!("a change of one side alone took {took:?}"));
        }
    });
    assert_eq!(shown.violations, Vec::<String>::new());
}

/// A primary that another one came in place of kept to itself what no other one had.
#[test]
fn a_primary_that_leaves_hands_over() {
    let mut settings = quiet();
    settings.options.repair = true;
    let shown = run(1, settings, |world: Shared| async move {
        for at in 0..PRIMARIES {
            warm(&world, at).await;
        }
        let node = world.node(PRIMARIES - 1).unwrap();
        ask(&node, store(1, vec![delta(1, Some("value"))], false)).await;
        world.retire(PRIMARIES - 1);
        world.converge(SIBLINGS).await;
        let found = async |at| {
            let node = world.node(at).unwrap();
            read(&node, SIBLINGS, key(1), Copies::One).await
        };
        let is_everywhere = async || {
            for at in 0..PRIMARIES {
                if !found(at)
                    .await
                    .is_ok_and(|found| found.state.live().len() == 1)
                {
                    return false;
                }
            }
            true
        };
        let began = tokio::time::Instant::now();
        while !is_everywhere().await {
            if began.elapsed() > Duration::from_secs(10) {
                world.accuse("what the one that left had is missing".to_owned());
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert_eq!(shown.violations, Vec::<String>::new());
}

/// A step that failed in its midst left its dots in the clock: their values were taken for dead
/// when they came again.
#[test]
fn a_step_that_fails_leaves_the_clock_alone() {
    run(1, quiet(), |world: Shared| async move {
        let node = world.node(0).unwrap();
        let torn = vec![delta(1, Some("good")), Bytes::from_static(b"torn")];
        let refused = ask(&node, store(1, torn, false)).await;
        let is_refused =
            matches!(&refused, Response::StoresTaken(taken) if taken.refused.len() == 1);
        assert!(is_refused, "{refused:?}");
        ask(&node, store(1, vec![delta(1, Some("good"))], false)).await;
        let found = read(&node, SIBLINGS, key(1), Copies::One).await.unwrap();
        assert_eq!(found.state.live().len(), 1);
    });
}

/// A hint that was kept as a courtesy stayed one when an acknowledgement came to count on it.
#[test]
fn a_courtesy_that_is_counted_on_is_data() {
    run(1, quiet(), |world: Shared| async move {
        let stand_in = world.node(3).unwrap();
        for holders_wanted in [0, 2] {
            let request = Store {
                key: key(1),
                deltas: vec![delta(1, Some("value"))],
                holders_wanted,
            };
            let stores = vec![request];
            let memory = false;
            ask(&stand_in, Request::Stores(Stores { stores, memory })).await;
        }
        assert_eq!(world.report(3, SIBLINGS).unwrap().counted_hints, 1);
        world.kill(3);
        world.restart(3).await;
        assert_eq!(world.report(3, SIBLINGS).unwrap().counted_hints, 1);
    });
}

/// An old copy of a disk takes the start number that the disk took after the copy was made: only
/// the count of writes tells them apart.
#[test]
fn a_write_that_this_start_never_made_shows_an_old_copy() {
    run(1, quiet(), |world: Shared| async move {
        let node = world.node(0).unwrap();
        let mut clock = Dots::new();
        clock.insert(Dot::new(node.actor(), 1));
        let merge = ClockMerge {
            clock: Clock::of(clock).encode(),
            filled: true,
            decided: 0,
            epoch: 0,
        };
        let refused = ask(&node, Request::ClockMerge(merge)).await;
        assert!(matches!(refused, Response::Problem(_)), "{refused:?}");
        let rung = rung(Copies::One, Duration::from_secs(1));
        let update = Update::Put(Bytes::from_static(b"value"));
        let written = node.write(write_of(SIBLINGS, key(1), update, rung)).await;
        assert!(written.is_err());
    });
}
