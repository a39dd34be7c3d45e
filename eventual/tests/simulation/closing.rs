//! Starts that are over are closed: clocks stay small however often nodes start, and nothing that
//! was acknowledged goes with the gaps.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use quorate_eventual::Faults;
use quorate_types::causal::Update;
use quorate_types::{Copies, NodeId};
use tokio::time::Instant;

use crate::clients::{key, read, rung, write_of};
use crate::run::{must_be_found, number_from, run_all};
use crate::storm::{Storm, storm};
use crate::world::{NODES, PATIENCE, PRIMARIES, SIBLINGS, Settings, Shared};

/// Restarts of nodes, unless `QUORATE_RESTARTS` says otherwise.
const RESTARTS_DEFAULT: u64 = 100;
/// Writes of nodes that are cut off.
const ROUNDS: u64 = 12;
/// A clock takes no more, however many starts there were.
const CLOCK_MAX_BYTES: usize = 4 << 10;

/// Starts are closed whenever they can be.
fn closing(faults: Faults) -> Settings {
    let mut settings = Settings::with_faults(faults);
    settings.options.close_interval = Duration::ZERO;
    settings
}

/// Nodes write, crash and start, one after the other.
async fn start_often(world: Shared) {
    for _ in 0..number_from("QUORATE_RESTARTS").unwrap_or(RESTARTS_DEFAULT) {
        let at = world.any();
        if let Some(node) = world.node(at) {
            let rung = rung(Copies::One, Duration::from_secs(1));
            let update = Update::Put(Bytes::from_static(b"value"));
            // One that fails leaves a gap all the same.
            let request = write_of(SIBLINGS, key(world.roll(4)), update, rung);
            if node.write(request).await.is_ok() {
                world.answered.fetch_add(1, Ordering::Relaxed);
            }
        }
        world.cut_power(at);
        world.restart(at).await;
        tokio::time::sleep(Duration::from_millis(world.roll(100))).await;
    }
    world.make_whole().await;
    let began = Instant::now();
    while let Some(problem) = large_clock(&world) {
        if began.elapsed() > PATIENCE {
            world.accuse(problem);
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    world.converge(SIBLINGS).await;
}

/// Which primary's clock still names starts that are over.
fn large_clock(world: &Shared) -> Option<String> {
    (0..PRIMARIES).find_map(|at| {
        let clock = world.node(at)?.clock(SIBLINGS).ok()?;
        let (starts, bytes) = (clock.dots().actors().count(), clock.encode().len());
        (starts > NODES || bytes > CLOCK_MAX_BYTES)
            .then(|| format!("the clock of node {at} names {starts} starts, in {bytes} bytes"))
    })
}

#[test]
fn clocks_stay_small_however_often_nodes_start() {
    run_all(
        "clocks_stay_small_however_often_nodes_start",
        5,
        &closing(Faults::default()),
        start_often,
    );
}

#[test]
fn nothing_is_lost_while_starts_are_closed() {
    run_all(
        "nothing_is_lost_while_starts_are_closed",
        100,
        &closing(Faults::default()),
        |world| storm(world, Storm::ALL),
    );
}

/// Nodes write while they are cut off, crash before anyone else has it, and start again: each time
/// there is a start to be closed, and a write of it on one node alone.
async fn write_alone(world: Shared) {
    let mut kept = Vec::new();
    for number in 0..ROUNDS {
        let at = world.any();
        let ids = world.all().map(|at| world.id(at));
        let others: Vec<NodeId> = ids.filter(|id| *id != world.id(at)).collect();
        world.network.partition(&[world.id(at)], &others);
        tokio::time::sleep(Duration::from_millis(world.roll(600))).await;
        let node = world.node(at).unwrap();
        let update = Update::Put(Bytes::from_static(b"value"));
        let rung = rung(Copies::One, Duration::from_millis(100));
        let request = write_of(SIBLINGS, key(number), update, rung);
        if node.write(request).await.is_ok() {
            world.answered.fetch_add(1, Ordering::Relaxed);
            kept.push(key(number));
        }
        world.kill(at);
        world.network.heal();
        world.restart(at).await;
        tokio::time::sleep(Duration::from_millis(world.roll(2_500))).await;
    }
    world.converge(SIBLINGS).await;
    for (key, at) in kept
        .iter()
        .flat_map(|key| (0..PRIMARIES).map(move |at| (key, at)))
    {
        let node = world.node(at).unwrap();
        let found = read(&node, SIBLINGS, key.clone(), Copies::One).await;
        if !found.is_ok_and(|found| found.state.live().len() == 1) {
            world.accuse(format!("{key:?} is lost at node {at}"));
        }
    }
}

#[test]
fn what_one_node_alone_has_survives_the_closing_of_its_start() {
    let settings = closing(Faults::default());
    run_all(
        "what_one_node_alone_has_survives_the_closing_of_its_start",
        30,
        &settings,
        write_alone,
    );
}

fn is_lost(violation: &str) -> bool {
    violation.contains("is lost")
}

#[test]
fn closing_before_the_last_repair_is_noticed() {
    let settings = closing(Faults {
        close_before_repair: true,
        ..Faults::default()
    });
    must_be_found(1_000, &settings, is_lost, write_alone);
}

#[test]
fn closing_starts_of_which_there_are_hints_is_noticed() {
    let settings = closing(Faults {
        close_despite_hints: true,
        ..Faults::default()
    });
    must_be_found(1_000, &settings, is_lost, write_alone);
}
