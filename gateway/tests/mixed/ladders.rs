//! Ladders of writes across cuts, with exact times: clients on the side of a minority put in time
//! whatever the log can do, are told truthfully how, and each value is there once afterwards.
//! `QUORATE_PUTS` says how many puts are made while the cuts last.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use tokio::time::Instant;

use crate::asking::{Asked, Level};
use crate::judge::{EMPTY_WITHIN, EQUAL_WITHIN};
use crate::run::{must_be_right, number_from};
use crate::world::{NODES, Settings, Shared, World};

const PUTS: u64 = 360;
const CLIENTS: u64 = 8;
const CUTS: u64 = 3;
/// Each put is answered within this, the sum of the budgets and half as much again.
const WITHIN: Duration = Duration::from_millis(450);
/// After a heal, from when on the log decides again.
const CLIMB_WITHIN: Duration = Duration::from_secs(1);
const PAUSE_MAX_MILLISECONDS: u64 = 20;

/// `linearizable@200ms > eventual:quorum@100ms > eventual:one`
fn ladder() -> v1::Consistency {
    let rung = |level: v1::Level, copies: v1::Copies, budget_ms| v1::Rung {
        level: level as i32,
        copies: copies as i32,
        budget_ms,
        ..v1::Rung::default()
    };
    let eventual = v1::Level::Eventual;
    v1::Consistency {
        rungs: vec![
            rung(v1::Level::Linearizable, v1::Copies::Unspecified, 200),
            rung(eventual, v1::Copies::Quorum, 100),
            rung(eventual, v1::Copies::One, 0),
        ],
        ..v1::Consistency::default()
    }
}

/// What is wrong with what a receipt says of itself.
fn contradiction(put: &v1::PutResponse, receipt: &v1::Receipt) -> Option<&'static str> {
    let copies = receipt.replicas.len() + receipt.stand_ins.len();
    let level = receipt.level.unwrap_or_default();
    let is_strong = level.level == v1::Level::Linearizable as i32;
    let right = match receipt.rung {
        0 => is_strong && receipt.revision > 0 && !receipt.tentative && receipt.failed.is_empty(),
        1 => level.copies == v1::Copies::Quorum as i32 && copies >= 2 && receipt.failed.len() == 1,
        2 => level.copies == v1::Copies::One as i32 && copies >= 1 && receipt.failed.len() == 2,
        _ => false,
    };
    let is_named = receipt.rung == 0 || receipt.tentative && !put.dot.is_empty() && !is_strong;
    (!right || !is_named).then_some("the receipt contradicts itself")
}

/// One put, judged; the rung that was met.
async fn put(world: &World, at: usize, key: &str, far: usize) -> Option<u32> {
    let request = Request::Put(v1::PutRequest {
        keyspace: world.keyspace().to_owned(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(key.as_bytes()),
        consistency: Some(ladder()),
        ..v1::PutRequest::default()
    });
    let began = Instant::now();
    let asked = world.ask(at, WITHIN, request).await;
    let took = began.elapsed();
    let Asked::Done(Response::Put(put)) = asked else {
        world.accuse(format!("{key} after {took:?}: {asked:?}"));
        return None;
    };
    let receipt = put.receipt.clone().unwrap_or_default();
    if took > WITHIN {
        world.accuse(format!("{key} took {took:?}"));
    }
    if let Some(problem) = contradiction(&put, &receipt) {
        world.accuse(format!("{key}: {problem}: {receipt:?}"));
    }
    if receipt.rung == 0 {
        let read = world.read(far, key, Level::Linearizable).await;
        if read.done().is_some_and(|shown| shown.texts() != [key]) {
            world.accuse(format!("{key} is said to be decided, and is not"));
        }
    }
    Some(receipt.rung)
}

/// How often each rung was met while a cut lasted.
type Rungs = BTreeMap<u32, u64>;

/// A cut, puts on the smaller side, the heal, and puts until well after it.
async fn one_cut(world: &Shared, number: u64, rungs: &mut Rungs, keys: &mut Vec<String>) {
    let first = world.roll(NODES as u64) as usize;
    let few = [first, (first + 1) % NODES];
    let many: Vec<usize> = world.all().filter(|at| !few.contains(at)).collect();
    world.part(&few, &many);
    let puts = number_from("QUORATE_PUTS").unwrap_or(PUTS) / CUTS / CLIENTS;
    let client = async |client: u64, puts: u64, phase: &str| {
        let mut met = Vec::new();
        for turn in 0..puts {
            let key = format!("key-{number}-{phase}-{client}-{turn}");
            let began = Instant::now();
            let at = few[world.roll(2) as usize];
            let rung = put(world, at, &key, many[0]).await;
            met.push((key, began, rung));
            let pause = world.roll(PAUSE_MAX_MILLISECONDS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        met
    };
    for met in join_all((0..CLIENTS).map(|n| client(n, puts, "cut"))).await {
        for (key, _, rung) in met {
            *rungs.entry(rung.unwrap_or(u32::MAX)).or_default() += 1;
            keys.push(key);
        }
    }
    world.network.heal();
    let healed = Instant::now();
    for met in join_all((0..CLIENTS).map(|n| client(n, 100, "healed"))).await {
        for (key, began, rung) in met {
            if began > healed + CLIMB_WITHIN && rung != Some(0) {
                let after = began - healed;
                world.accuse(format!("{key} met rung {rung:?} {after:?} after the heal"));
            }
            keys.push(key);
        }
    }
    assert!(healed.elapsed() > CLIMB_WITHIN, "puts did not go on");
}

#[test]
fn ladders_hold_through_cuts_and_climb_back() {
    must_be_right(5, Settings::default(), |world| async move {
        let (mut rungs, mut keys) = (Rungs::new(), Vec::new());
        for number in 0..CUTS {
            one_cut(&world, number, &mut rungs, &mut keys).await;
        }
        println!("puts during cuts, by rung: {rungs:?}");
        for at in world.all() {
            let raft = world.process(at).map(|process| process.raft);
            let failed = raft.and_then(|raft| raft.log().failed());
            if let Some(error) = failed {
                world.accuse(format!("node {at}'s log has failed: {error}"));
            }
        }
        assert!(rungs.get(&1).is_some_and(|met| *met > 0), "{rungs:?}");
        world.await_logs(EQUAL_WITHIN).await;
        world.await_empty(EMPTY_WITHIN).await;
        for key in &keys {
            let shown = world.read(world.any(), key, Level::Linearizable).await;
            let texts = shown.unwrap().texts();
            if texts != [key.as_str()] {
                world.accuse(format!("{key} shows {texts:?}"));
            }
        }
        println!("{} values, each there once", keys.len());
    });
}
