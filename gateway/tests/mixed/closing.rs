//! Starts that are over are closed by an entry of the log: clocks of both planes stay small however
//! often nodes start, and nothing that was acknowledged goes with the gaps.

use std::time::Duration;

use quorate_eventual::Faults;
use quorate_types::causal::{Actor, Clock};
use tokio::time::Instant;

use crate::asking::{Level, ONE, Saw};
use crate::judge::{EMPTY_WITHIN, EQUAL_WITHIN};
use crate::run::{must_be_found, number_from, run_all};
use crate::storm::{Storm, storm};
use crate::world::{NODES, PATIENCE, Settings, Shared};

/// Restarts of nodes, unless `QUORATE_RESTARTS` says otherwise.
const RESTARTS_DEFAULT: u64 = 40;
/// Writes of nodes that are cut off.
const ROUNDS: u64 = 8;
/// A clock takes no more, however many starts there were.
const CLOCK_MAX_BYTES: usize = 4 << 10;
const WITHIN: Duration = Duration::from_millis(200);

/// Starts are closed whenever they can be.
fn closing(faults: Faults) -> Settings {
    let mut settings = Settings::default();
    settings.eventual.close_interval = Duration::ZERO;
    settings.eventual.faults = faults;
    settings
}

/// Nodes write, crash and start, one after the other.
async fn start_often(world: Shared) {
    for number in 0..number_from("QUORATE_RESTARTS").unwrap_or(RESTARTS_DEFAULT) {
        let at = world.any();
        let key = format!("key-{}", world.roll(4));
        let saw = Saw::default();
        let value = format!("value {number}");
        // One that fails leaves a gap all the same.
        let put = world.put_within(at, &key, &value, (ONE, WITHIN), &saw);
        put.await.done();
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
    world.await_logs(EQUAL_WITHIN).await;
    world.await_empty(EMPTY_WITHIN).await;
}

/// Which primary's clock still names starts that are over: beside the log, or the log's.
fn large_clock(world: &Shared) -> Option<String> {
    world.primaries().into_iter().find_map(|at| {
        let beside = world.process(at)?.eventual.clock(world.range().0).ok()?;
        let of_log = Clock::of(world.group(at)?.taken_in().0);
        [beside, of_log].into_iter().find_map(|clock| {
            let starts = clock.dots().actors();
            let starts = starts.filter(|(actor, _)| *actor != Actor::LOG).count();
            let bytes = clock.encode().len();
            (starts > NODES || bytes > CLOCK_MAX_BYTES)
                .then(|| format!("a clock of node {at} names {starts} starts, in {bytes} bytes"))
        })
    })
}

#[test]
fn clocks_stay_small_however_often_nodes_start() {
    run_all(
        "clocks_stay_small_however_often_nodes_start",
        3,
        &closing(Faults::default()),
        start_often,
    );
}

#[test]
fn nothing_is_lost_while_starts_are_closed() {
    run_all(
        "nothing_is_lost_while_starts_are_closed",
        20,
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
        world.isolate(at);
        tokio::time::sleep(Duration::from_millis(world.roll(600))).await;
        let (key, saw) = (format!("key-{number}"), Saw::nothing());
        let put = world.put_within(at, &key, "value", (ONE, WITHIN), &saw);
        if put.await.done().is_some() {
            kept.push(key);
        }
        world.kill(at);
        world.network.heal();
        world.restart(at).await;
        tokio::time::sleep(Duration::from_millis(world.roll(3_500))).await;
    }
    world.make_whole().await;
    world.await_logs(EQUAL_WITHIN).await;
    world.await_empty(EMPTY_WITHIN).await;
    for key in kept {
        for (at, level) in world
            .primaries()
            .into_iter()
            .flat_map(|at| [(at, ONE), (at, Level::Linearizable)])
        {
            let shown = world.read(at, &key, level).await.done();
            if shown.is_none_or(|shown| shown.values.len() != 1) {
                world.accuse(format!("{key} is lost at node {at}, {level:?}"));
            }
        }
    }
}

#[test]
fn what_one_node_alone_has_survives_the_closing_of_its_start() {
    run_all(
        "what_one_node_alone_has_survives_the_closing_of_its_start",
        20,
        &closing(Faults::default()),
        write_alone,
    );
}

#[test]
fn closing_before_the_last_repair_is_noticed() {
    let faults = Faults {
        close_before_repair: true,
        ..Faults::default()
    };
    must_be_found(300, &closing(faults), write_alone);
}

#[test]
fn closing_before_the_log_has_what_the_repair_found_is_noticed() {
    let faults = Faults {
        close_unabsorbed: true,
        ..Faults::default()
    };
    must_be_found(300, &closing(faults), write_alone);
}
