//! Counters and sets on both planes: changed at eventual levels through the same storms, absorbed
//! by the log, and in the end the same on both planes and exact.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_proto::v1::{self, change::Change, typed_value::Value};

use crate::asking::{Asked, Level, ONE, QUORUM, Saw, Shown};
use crate::clients::request_id;
use crate::judge::await_whole;
use crate::run::run_all;
use crate::storm::{Storm, faults};
use crate::world::{Settings, Shared};

const KEY: &str = "key-0";
const CLIENTS: u64 = 4;
const PAUSE_MAX_MILLISECONDS: u64 = 60;

/// What is known of changes: certain ones, and those that may have taken effect.
#[derive(Debug, Default)]
struct Known {
    sum: i64,
    perhaps: i64,
    added: BTreeSet<Bytes>,
    perhaps_added: BTreeSet<Bytes>,
    /// Perhaps removed: a coordinator removes what it has of an element, and that may be nothing.
    removed: BTreeSet<Bytes>,
}

type SharedKnown = Arc<Mutex<Known>>;

async fn change(world: &Shared, client: u64, sequence: u64, change: Change, saw: Saw) -> Asked<()> {
    let level = if world.percent(60) { ONE } else { QUORUM };
    let within = Duration::from_millis(100 + world.roll(1_000));
    let saw = Saw {
        id: Some(request_id(world, client, sequence)),
        ..saw
    };
    world
        .change(world.any(), KEY, change, (level, within), &saw)
        .await
}

async fn increment(world: &Shared, known: &SharedKnown, client: u64, sequence: u64) {
    let amount = 1 + world.roll(9) as i64;
    let asked = change(
        world,
        client,
        sequence,
        Change::Increment(amount),
        Saw::default(),
    )
    .await;
    let mut known = known.lock();
    match asked {
        Asked::Done(()) => known.sum += amount,
        Asked::Unknown(_) => known.perhaps += amount,
        Asked::Refused(_) => {}
    }
}

fn elements(one: &Bytes) -> v1::change::Elements {
    v1::change::Elements {
        elements: vec![one.clone()],
    }
}

async fn add(world: &Shared, known: &SharedKnown, client: u64, sequence: u64) {
    let one = Bytes::from(format!("{client}-{sequence}"));
    let adding = Change::Add(elements(&one));
    let asked = change(world, client, sequence, adding, Saw::default()).await;
    let mut known = known.lock();
    let _is_new = match asked {
        Asked::Done(()) => known.added.insert(one),
        Asked::Unknown(_) => known.perhaps_added.insert(one),
        Asked::Refused(_) => false,
    };
}

/// Removes an element that a read has shown, with what that read saw.
async fn remove(world: &Shared, known: &SharedKnown, client: u64, sequence: u64) {
    let shown = world.read(world.any(), KEY, ONE).await.done();
    let Some(shown) = shown else { return };
    let all: Vec<Bytes> = set_of(&shown).into_iter().collect();
    if all.is_empty() {
        return;
    }
    let one = &all[world.roll(all.len() as u64) as usize];
    let removing = Change::Remove(elements(one));
    known.lock().removed.insert(one.clone());
    let _any = change(world, client, sequence, removing, Saw::of(&shown)).await;
}

fn set_of(shown: &Shown) -> BTreeSet<Bytes> {
    match &shown.typed {
        Some(Value::Set(set)) => set.elements.iter().cloned().collect(),
        Some(Value::Counter(_) | Value::Map(_)) | None => BTreeSet::new(),
    }
}

fn sum_of(shown: &Shown) -> i64 {
    match &shown.typed {
        Some(Value::Counter(sum)) => *sum,
        Some(Value::Set(_) | Value::Map(_)) | None => 0,
    }
}

fn judge(known: &Known, shown: &Shown, is_counter: bool) -> Option<String> {
    if is_counter {
        let sum = sum_of(shown);
        let right = known.sum <= sum && sum <= known.sum + known.perhaps;
        return (!right).then(|| format!("the sum is {sum}"));
    }
    let set = set_of(shown);
    let stays = |one: &&Bytes| !known.removed.contains(*one);
    let mut kept = known.added.iter().filter(stays);
    let lost = kept.find(|one| !set.contains(*one));
    let strange = |one: &&Bytes| !known.added.contains(*one) && !known.perhaps_added.contains(*one);
    let strange = set.iter().find(strange);
    (lost.is_some() || strange.is_some()).then(|| format!("lost {lost:?}, strange {strange:?}"))
}

async fn storm(world: Shared, is_counter: bool) {
    let known = SharedKnown::default();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients = (1..=CLIENTS).map(|client| {
        let (world, known, stop) = (world.clone(), known.clone(), stop.clone());
        tokio::spawn(async move {
            let mut sequence = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                sequence += 1;
                tokio::time::sleep(Duration::from_millis(world.roll(PAUSE_MAX_MILLISECONDS))).await;
                match (is_counter, world.percent(70)) {
                    (true, _) => increment(&world, &known, client, sequence).await,
                    (false, true) => add(&world, &known, client, sequence).await,
                    (false, false) => remove(&world, &known, client, sequence).await,
                }
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    faults(&world, Storm::ALL).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    world.make_whole().await;
    await_whole(&world).await;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let everywhere = world.all().map(|at| (at, Level::Linearizable));
    let eventual = world.primaries().into_iter().map(|at| (at, ONE));
    for (at, level) in everywhere.chain(eventual) {
        let shown = world.read(at, KEY, level).await.unwrap();
        seen.insert(format!("{:?}", shown.typed), at);
        let known = known.lock();
        if let Some(problem) = judge(&known, &shown, is_counter) {
            world.accuse(format!("{level:?} at {at}: {problem} of {known:?}"));
        }
    }
    if seen.len() > 1 {
        world.accuse(format!("nodes differ: {seen:?}"));
    }
}

fn must_be_exact(name: &str, conflict: &'static str) {
    let settings = Settings {
        conflict: Some(conflict),
        ..Settings::default()
    };
    run_all(name, 8, &settings, |world| {
        storm(world, conflict == "counter")
    });
}

#[test]
fn counters_are_exact_on_both_planes() {
    must_be_exact("counters_are_exact_on_both_planes", "counter");
}

#[test]
fn sets_are_exact_on_both_planes() {
    must_be_exact("sets_are_exact_on_both_planes", "set");
}
