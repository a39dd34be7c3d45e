//! Leases of keys that both planes write: what the lease holds goes, on both planes and in time, and
//! what was written beside it at an eventual level stays, whatever fails. By seed.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use tokio::time::Instant;

use crate::asking::{Asked, Level, ONE, Saw};
use crate::judge::EMPTY_WITHIN;
use crate::run::{must_be_found, must_be_right, run_all};
use crate::storm::{Storm, faults};
use crate::world::{Settings, Shared, World};

const CLIENTS: u64 = 3;
const TTL: Duration = Duration::from_secs(3);
/// A dead lease's keys are gone within its time and this, where nothing fails.
const GONE_WITHIN: Duration = Duration::from_secs(2);
const WITHIN: Duration = Duration::from_secs(2);
/// Between two keys of a client.
const PAUSE: Duration = Duration::from_millis(50);

async fn grant(world: &World, at: usize) -> Asked<u64> {
    let request = Request::LeaseGrant(v1::LeaseGrantRequest {
        keyspace: world.keyspace().to_owned(),
        ttl_ms: u64::try_from(TTL.as_millis()).unwrap(),
        ..v1::LeaseGrantRequest::default()
    });
    match world.ask(at, WITHIN, request).await {
        Asked::Done(Response::LeaseGrant(granted)) => Asked::Done(granted.id),
        Asked::Done(other) => panic!("{other:?}"),
        Asked::Refused(why) => Asked::Refused(why),
        Asked::Unknown(why) => Asked::Unknown(why),
    }
}

fn put_of(world: &World, key: &str, lease: u64, level: Level) -> v1::PutRequest {
    v1::PutRequest {
        keyspace: world.keyspace().to_owned(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::from(held(key)),
        consistency: level.wire(),
        lease,
        ..v1::PutRequest::default()
    }
}

/// What a lease holds.
fn held(key: &str) -> String {
    format!("held {key}")
}

/// What is written beside it, or over it.
fn free(key: &str) -> String {
    format!("free {key}")
}

async fn hold(world: &World, at: usize, key: &str, lease: u64) -> Asked<Response> {
    let put = put_of(world, key, lease, Level::Linearizable);
    world.ask(at, WITHIN, Request::Put(put)).await
}

async fn write_free(world: &World, at: usize, key: &str, level: Level, saw: &Saw) {
    let value = free(key);
    world.put(at, key, &value, level, saw).await.unwrap();
}

async fn shown(world: &World, at: usize, key: &str, level: Level) -> Option<Vec<String>> {
    let read = world.read(at, key, level).await.done()?;
    Some(read.texts())
}

/// Waits until a key shows this and nothing else, on both planes and at every primary.
async fn await_shown(world: &World, key: &str, texts: &[String], within: Duration) {
    let deadline = Instant::now() + within;
    for at in world.primaries() {
        for level in [Level::Linearizable, ONE] {
            loop {
                let now = shown(world, at, key, level).await;
                if now.as_deref() == Some(texts) {
                    break;
                }
                if Instant::now() > deadline {
                    world.accuse(format!("{key} is {now:?} at {at} {level:?}, not {texts:?}"));
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

#[test]
fn a_lease_takes_along_what_it_holds_and_nothing_beside_it() {
    must_be_right(1, Settings::default(), |world| async move {
        let leader = world.leader().await;
        let mut others = world.primaries();
        others.retain(|at| *at != leader);
        let alone = others[0];
        let keys = ["alone", "beside", "over", "late", "again"];
        let lease = grant(&world, leader).await.unwrap();
        let since = Instant::now();
        for key in keys {
            hold(&world, world.any(), key, lease).await.unwrap();
        }
        // An eventual write of who has not seen it, of who has, and a strong one.
        let nothing = Saw::nothing();
        write_free(&world, leader, "beside", ONE, &nothing).await;
        let read = world.read(leader, "over", ONE).await.unwrap();
        write_free(&world, leader, "over", ONE, &Saw::of(&read)).await;
        let strong = Level::Linearizable;
        write_free(&world, leader, "again", strong, &Saw::default()).await;
        let both = [free("beside"), held("beside")];
        await_shown(&world, "beside", &both, GONE_WITHIN).await;
        await_shown(&world, "over", &[free("over")], GONE_WITHIN).await;
        // One that the log hears of when the lease is over.
        world.isolate(alone);
        write_free(&world, alone, "late", ONE, &nothing).await;
        while shown(&world, leader, "alone", strong).await != Some(Vec::new()) {
            assert!(since.elapsed() < TTL + GONE_WITHIN, "it stays");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(since.elapsed() >= TTL, "gone after {:?}", since.elapsed());
        world.network.heal();
        world.await_empty(EMPTY_WITHIN).await;
        for key in &keys[1..] {
            await_shown(&world, key, &[free(key)], GONE_WITHIN).await;
        }
        await_shown(&world, "alone", &[], GONE_WITHIN).await;
    });
}

#[test]
fn an_eventual_write_goes_with_no_lease() {
    must_be_right(2, Settings::default(), |world| async move {
        let leader = world.leader().await;
        let lease = grant(&world, leader).await.unwrap();
        let refused = |asked: Asked<Response>| match asked {
            Asked::Refused(why) => assert!(why.contains("--level linearizable"), "{why}"),
            other => panic!("{other:?}"),
        };
        let put = put_of(&world, "k", lease, ONE);
        refused(world.ask(leader, WITHIN, Request::Put(put)).await);
        let put = v1::operation::Put {
            key: "k".into(),
            lease,
            ..v1::operation::Put::default()
        };
        let batch = |level: Level| v1::BatchRequest {
            keyspace: world.keyspace().to_owned(),
            operations: vec![v1::Operation {
                operation: Some(v1::operation::Operation::Put(put.clone())),
            }],
            consistency: level.wire(),
            ..v1::BatchRequest::default()
        };
        refused(world.ask(leader, WITHIN, Request::Batch(batch(ONE))).await);
        await_shown(&world, "k", &[], WITHIN).await;
        let batch = Request::Batch(batch(Level::Linearizable));
        world.ask(leader, WITHIN, batch).await.unwrap();
        await_shown(&world, "k", &[String::new()], WITHIN).await;
        await_shown(&world, "k", &[], TTL + GONE_WITHIN).await;
    });
}

/// Keys that a lease held, and whether something else was written that must stay.
type Keys = Rc<RefCell<Vec<(String, bool)>>>;

async fn one_key(world: &World, key: String, keys: &Keys) {
    let Asked::Done(lease) = grant(world, world.any()).await else {
        return;
    };
    let Asked::Done(_) = hold(world, world.any(), &key, lease).await else {
        return;
    };
    let saw = match world.roll(3) {
        0 => None,
        1 => Some(Saw::nothing()),
        _ => {
            let read = world.read(world.any(), &key, ONE).await;
            read.done().map(|shown| Saw::of(&shown))
        }
    };
    let Some(saw) = saw else {
        return keys.borrow_mut().push((key, false));
    };
    match world.put(world.any(), &key, &free(&key), ONE, &saw).await {
        Asked::Done(_) => keys.borrow_mut().push((key, true)),
        Asked::Refused(_) => keys.borrow_mut().push((key, false)),
        // It may be there, or not.
        Asked::Unknown(_) => {}
    }
}

async fn leases_in_a_storm(world: Shared) {
    let keys = Keys::default();
    let client = async |client: u64| {
        for turn in 0_u64.. {
            one_key(&world, format!("key-{client}-{turn}"), &keys).await;
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        _ = join_all((0..CLIENTS).map(client)) => {}
        () = faults(&world, Storm::ALL) => {}
    }
    world.make_whole().await;
    world.leader().await;
    // A new leader gives each lease its whole time again.
    tokio::time::sleep(TTL + GONE_WITHIN).await;
    world.await_empty(EMPTY_WITHIN).await;
    for (key, stays) in keys.take() {
        let expected: Vec<String> = stays.then(|| free(&key)).into_iter().collect();
        await_shown(&world, &key, &expected, GONE_WITHIN).await;
    }
}

#[test]
fn leases_end_and_what_is_beside_stays_through_faults() {
    let name = "leases_end_and_what_is_beside_stays_through_faults";
    run_all(name, 8, &Settings::default(), leases_in_a_storm);
}

#[test]
fn an_end_that_takes_along_what_is_beside_is_noticed() {
    let mut settings = Settings::default();
    settings.raft.end_siblings = true;
    must_be_found(20, &settings, leases_in_a_storm);
}
