//! Counters and sets under cuts, kills and retries: increments count once, additions are all
//! there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_eventual::{EventualError, Faults, WriteRequest};
use quorate_types::causal::{Reading, Update, evaluate};
use quorate_types::{ClientId, ConflictPolicy, Copies, Effect, RequestId, Timestamp};

use crate::clients::{read, rung, write_of};
use crate::run::{must_be_found, run_all};
use crate::world::{COUNTERS, PRIMARIES, SETS, Settings, Shared};

const CLIENTS: u64 = 8;
const FAULTS: u64 = 6;
/// Attempts of one write.
const ATTEMPTS_MAX: usize = 4;

fn key() -> Bytes {
    Bytes::from_static(b"key")
}

/// What clients know of their writes.
#[derive(Default)]
struct Tally {
    acknowledged: AtomicI64,
    unknown: AtomicI64,
    added: Mutex<Vec<Bytes>>,
    stop: AtomicBool,
}

/// Tries a write until its outcome is known, or not to be known. `None`: it may have happened.
async fn write(world: &Shared, request: WriteRequest, at: usize) -> Option<bool> {
    let mut was_unknown = false;
    for _ in 0..ATTEMPTS_MAX {
        let Some(node) = world.node(at) else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut request = request.clone();
        request.rungs = vec![rung(
            Copies::Quorum,
            Duration::from_millis(20 + world.roll(200)),
        )];
        match node.write(request).await {
            Ok(_) => return Some(true),
            Err(EventualError::RetryUnknown) => return None,
            Err(error) if error.effect() == Effect::None => {}
            Err(_) => was_unknown = true,
        }
    }
    (!was_unknown).then_some(false)
}

async fn client(world: Shared, tally: Arc<Tally>, number: u64) {
    for sequence in 1_u64.. {
        if tally.stop.load(Ordering::Relaxed) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(world.roll(40))).await;
        let at = world.any();
        let Some(node) = world.node(at) else { continue };
        let id = RequestId {
            client: ClientId(number),
            sequence,
        };
        let name = Some((id, node.now()));
        let first = rung(Copies::One, Duration::ZERO);
        if number.is_multiple_of(2) {
            let request = write_of(COUNTERS, key(), Update::Increment(1), first);
            match write(&world, WriteRequest { name, ..request }, at).await {
                Some(true) => tally.acknowledged.fetch_add(1, Ordering::Relaxed),
                Some(false) => 0,
                None => tally.unknown.fetch_add(1, Ordering::Relaxed),
            };
        } else {
            let element = Bytes::from(format!("{number}-{sequence}"));
            let update = Update::Add(vec![element.clone()]);
            let request = write_of(SETS, key(), update, first);
            if write(&world, WriteRequest { name, ..request }, at).await == Some(true) {
                tally.added.lock().push(element);
            }
        }
        world.answered.fetch_add(1, Ordering::Relaxed);
    }
}

async fn disturb(world: &Shared) {
    let ids: Vec<_> = world.all().map(|at| world.id(at)).collect();
    for _ in 0..FAULTS {
        let at = world.any();
        match world.roll(4) {
            0 => {
                let others: Vec<_> = ids.iter().copied().filter(|id| *id != ids[at]).collect();
                world.network.partition(&[ids[at]], &others);
            }
            1 => world.network.heal(),
            2 => world.kill(at),
            _ => world.cut_power(at),
        }
        tokio::time::sleep(Duration::from_millis(100 + world.roll(500))).await;
        for at in world.all() {
            world.restart(at).await;
        }
    }
}

async fn judge(world: &Shared, tally: &Tally) {
    let node = world.node(0).unwrap();
    let reading = |policy, state| evaluate(policy, &state, Timestamp(0)).unwrap();
    let counter = read(&node, COUNTERS, key(), Copies::One).await.unwrap();
    let acknowledged = tally.acknowledged.load(Ordering::Relaxed);
    let unknown = tally.unknown.load(Ordering::Relaxed);
    let sum = match reading(ConflictPolicy::Counter, counter.state) {
        Reading::Counter(sum) => sum,
        _ => 0,
    };
    if sum < acknowledged || sum > acknowledged + unknown {
        world.accuse(format!(
            "the counter is {sum}; {acknowledged} increments were acknowledged, {unknown} may have happened"
        ));
    }
    let set = read(&node, SETS, key(), Copies::One).await.unwrap();
    let there = match reading(ConflictPolicy::Set, set.state) {
        Reading::Set(elements) => elements,
        _ => Default::default(),
    };
    for element in tally.added.lock().iter() {
        if !there.contains(element) {
            world.accuse(format!("the set lacks {element:?}"));
        }
    }
}

async fn count(world: Shared) {
    let tally = Arc::new(Tally::default());
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|number| tokio::spawn(client(world.clone(), tally.clone(), number)))
        .collect();
    disturb(&world).await;
    tally.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    world.make_whole().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    world.converge(COUNTERS).await;
    world.converge(SETS).await;
    for (range, at) in [(COUNTERS, 0), (SETS, PRIMARIES - 1)] {
        if let Err(broken) = world.node(at).unwrap().validate(range) {
            world.accuse(format!("node {at}: {broken}"));
        }
    }
    judge(&world, &tally).await;
}

#[test]
fn increments_count_once_and_additions_are_all_there() {
    run_all(
        "increments_count_once_and_additions_are_all_there",
        40,
        &Settings::default(),
        count,
    );
}

#[test]
fn a_retry_under_a_new_name_is_noticed() {
    let settings = Settings::with_faults(Faults {
        rename_retries: true,
        ..Faults::default()
    });
    must_be_found(1_000, &settings, |v| v.contains("the counter is"), count);
}
