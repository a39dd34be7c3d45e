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
use tokio::task::JoinHandle;

use crate::clients::{read, rung, write_of};
use crate::run::{must_be_found, number_from, run_all};
use crate::world::{COUNTERS, PRIMARIES, SETS, Settings, Shared};

const CLIENTS: u64 = 8;
const FAULTS: u64 = 6;
/// Attempts of one write.
const ATTEMPTS_MAX: usize = 4;
/// Increments of the test that counts many, unless `QUORATE_INCREMENTS` says otherwise.
const MANY_DEFAULT: u64 = 1_500;
/// Rounds of faults while they are made.
const MANY_ROUNDS: u64 = 3;

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
    /// All clients increment, and never pause for long.
    counts_alone: bool,
}

impl Tally {
    fn increments(&self) -> u64 {
        let sum = self.acknowledged.load(Ordering::Relaxed) + self.unknown.load(Ordering::Relaxed);
        u64::try_from(sum).unwrap()
    }
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
        let pause_max = if tally.counts_alone { 4 } else { 40 };
        tokio::time::sleep(Duration::from_millis(world.roll(pause_max))).await;
        let at = world.any();
        let Some(node) = world.node(at) else { continue };
        let id = RequestId {
            client: ClientId(number),
            sequence,
        };
        let name = Some((id, node.now()));
        let first = rung(Copies::One, Duration::ZERO);
        if tally.counts_alone || number.is_multiple_of(2) {
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

fn start_clients(world: &Shared, tally: &Arc<Tally>) -> Vec<JoinHandle<()>> {
    let start = |number| tokio::spawn(client(world.clone(), tally.clone(), number));
    (1..=CLIENTS).map(start).collect()
}

async fn count(world: Shared) {
    let tally = Arc::new(Tally::default());
    let clients = start_clients(&world, &tally);
    disturb(&world).await;
    settle(world, clients, &tally).await;
}

/// As `count`, until so many increments were acknowledged, or may have happened.
async fn count_many(world: Shared) {
    let wanted = number_from("QUORATE_INCREMENTS").unwrap_or(MANY_DEFAULT);
    let tally = Arc::new(Tally {
        counts_alone: true,
        ..Tally::default()
    });
    let clients = start_clients(&world, &tally);
    for round in 1..=MANY_ROUNDS {
        disturb(&world).await;
        world.network.heal();
        while tally.increments() < wanted * round / MANY_ROUNDS {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    settle(world, clients, &tally).await;
    println!(
        "{} increments were acknowledged, {} more may have happened",
        tally.acknowledged.load(Ordering::Relaxed),
        tally.unknown.load(Ordering::Relaxed)
    );
}

async fn settle(world: Shared, clients: Vec<JoinHandle<()>>, tally: &Tally) {
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
    judge(&world, tally).await;
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
fn many_increments_give_exactly_their_number() {
    run_all(
        "many_increments_give_exactly_their_number",
        1,
        &Settings::default(),
        count_many,
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
