//! Counters and sets on both planes: changed at all levels through the same storms, absorbed by the
//! log, and in the end the same on both planes and exact. What the log has decided is in every
//! linearizable read from then on.

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
    /// Of the sum, what the log has decided.
    decided: i64,
    /// All that was begun.
    begun: i64,
    added: BTreeSet<Bytes>,
    perhaps_added: BTreeSet<Bytes>,
    decided_added: BTreeSet<Bytes>,
    /// Perhaps removed: a coordinator removes what it has of an element, and that may be nothing.
    removed: BTreeSet<Bytes>,
}

type SharedKnown = Arc<Mutex<Known>>;

fn any_level(world: &Shared) -> Level {
    match world.roll(100) {
        0..40 => ONE,
        40..65 => QUORUM,
        _ => Level::Linearizable,
    }
}

async fn change(
    world: &Shared,
    (client, sequence): (u64, u64),
    (change, level): (Change, Level),
    saw: Saw,
) -> Asked<()> {
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
    let level = any_level(world);
    known.lock().begun += amount;
    let by = (Change::Increment(amount), level);
    let asked = change(world, (client, sequence), by, Saw::default()).await;
    let mut known = known.lock();
    match asked {
        Asked::Done(()) => {
            known.sum += amount;
            if level == Level::Linearizable {
                known.decided += amount;
            }
        }
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
    let level = any_level(world);
    let adding = (Change::Add(elements(&one)), level);
    let asked = change(world, (client, sequence), adding, Saw::default()).await;
    let mut known = known.lock();
    let _is_new = match asked {
        Asked::Done(()) => {
            if level == Level::Linearizable {
                known.decided_added.insert(one.clone());
            }
            known.added.insert(one)
        }
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
    let removing = (Change::Remove(elements(one)), any_level(world));
    known.lock().removed.insert(one.clone());
    let _any = change(world, (client, sequence), removing, Saw::of(&shown)).await;
}

/// A linearizable read shows all that was decided before it began.
async fn look(world: &Shared, known: &SharedKnown) {
    let (decided, decided_added) = {
        let known = known.lock();
        (known.decided, known.decided_added.clone())
    };
    let shown = world.read(world.any(), KEY, Level::Linearizable).await;
    let Some(shown) = shown.done() else { return };
    let (sum, set) = (sum_of(&shown), set_of(&shown));
    let known = known.lock();
    let is_right = decided <= sum && sum <= known.begun;
    if !is_right {
        let begun = known.begun;
        world.accuse(format!(
            "a strong read shows {sum}, of {decided} to {begun}"
        ));
    }
    let mut kept = decided_added
        .iter()
        .filter(|one| !known.removed.contains(*one));
    if let Some(lost) = kept.find(|one| !set.contains(*one)) {
        world.accuse(format!("a strong read lacks {lost:?}: {set:?}"));
    }
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
                match (is_counter, world.roll(100)) {
                    (_, 0..20) => look(&world, &known).await,
                    (true, _) => increment(&world, &known, client, sequence).await,
                    (false, 20..75) => add(&world, &known, client, sequence).await,
                    (false, _) => remove(&world, &known, client, sequence).await,
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
