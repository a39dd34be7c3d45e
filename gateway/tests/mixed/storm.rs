//! Everything at once: cuts, kills, lost power, a bad network, wrong clocks, a node that is away,
//! while clients read and write on both planes.

use std::time::Duration;

use crate::clients::{Clients, key};
use crate::judge::judge;
use crate::run::run_all;
use crate::world::{BAD, NODES, Settings, Shared};

/// What happens in a storm.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    pub keys: u64,
    pub clients: u64,
    pub faults: u64,
    /// Longest pause of a client between two requests.
    pub pause_max_millis: u64,
    /// Longest time between two faults.
    pub calm_max_millis: u64,
    /// Nothing but cuts that leave a primary a link to one other.
    pub apart: bool,
}

impl Storm {
    pub const ALL: Storm = Storm {
        keys: 3,
        clients: 4,
        faults: 6,
        pause_max_millis: 120,
        calm_max_millis: 900,
        apart: false,
    };
    /// Cuts that last until repair looks for what the log does not bring.
    pub const LONG: Storm = Storm {
        faults: 3,
        pause_max_millis: 400,
        calm_max_millis: 7_000,
        ..Storm::ALL
    };
    /// Repair between primaries one of whom does not hear the leader of the log.
    pub const APART: Storm = Storm {
        keys: 12,
        clients: 5,
        faults: 3,
        pause_max_millis: 500,
        calm_max_millis: 9_000,
        apart: true,
    };
    /// Many writes while rows are absorbed and trimmed.
    pub const BUSY: Storm = Storm {
        keys: 5,
        clients: 8,
        faults: 3,
        pause_max_millis: 25,
        ..Storm::ALL
    };
}

/// Changing operations of a disk within which a planned cut strikes.
const OPERATIONS_MAX: u64 = 60;
/// Furthest that a clock goes wrong.
const OFFSET_MAX_MILLIS: u64 = 400;

fn partition(world: &Shared) {
    let side = 1 + world.roll(30);
    let (left, right): (Vec<usize>, Vec<usize>) = world.all().partition(|at| side & (1 << at) != 0);
    if world.percent(70) {
        return world.part(&left, &right);
    }
    for one in &left {
        for other in &right {
            let (from, to) = (crate::world::id_of(*one), crate::world::id_of(*other));
            world.network.cut(from, to);
        }
    }
}

/// Two primaries that do not hear each other, while others hear both.
fn part_primaries(world: &Shared) {
    let mut primaries = world.primaries();
    let one = primaries.remove(world.roll(3) as usize);
    let other = primaries[world.roll(2) as usize];
    world.part(&[one], &[other]);
}

/// A primary that hears nobody but another primary: no hint reaches it, and perhaps no log.
fn leave_one_link(world: &Shared) {
    let mut primaries = world.primaries();
    let one = primaries.remove(world.roll(3) as usize);
    let other = primaries[world.roll(2) as usize];
    let others: Vec<usize> = world
        .all()
        .filter(|at| ![one, other].contains(at))
        .collect();
    world.part(&[one], &others);
}

async fn one_fault(world: &Shared, storm: Storm, away: Option<usize>) {
    let at = world.any();
    let mut planned = None;
    match world.roll(100) {
        0..80 if storm.apart => leave_one_link(world),
        _ if storm.apart => world.network.heal(),
        0..18 => partition(world),
        18..26 => world.isolate(at),
        26..36 => part_primaries(world),
        36..58 => world.network.heal(),
        58..70 => world.kill(at),
        70..82 => world.cut_power(at),
        82..88 => {
            world.all().for_each(|at| world.cut_power(at));
        }
        88..92 => {
            let millis = world.roll(2 * OFFSET_MAX_MILLIS) as i64 - OFFSET_MAX_MILLIS as i64;
            world.clock(at).set_offset(millis * 1_000);
        }
        _ => {
            let operations = world.roll(OPERATIONS_MAX);
            world.disk(at).fail_power_after(operations);
            planned = Some(at);
        }
    }
    let millis = match world.percent(20) {
        true => 0,
        false => world.roll(storm.calm_max_millis),
    };
    tokio::time::sleep(Duration::from_millis(millis)).await;
    if let Some(at) = planned {
        world.cut_power(at);
    }
    world.reap_failed();
    for at in world.all() {
        if Some(at) != away && world.percent(70) {
            world.restart(at).await;
        }
    }
}

/// All faults of a storm, one after the other.
pub async fn faults(world: &Shared, storm: Storm) {
    if !storm.apart && world.percent(60) {
        world.network.set_quality(BAD);
    }
    let away = (!storm.apart && world.percent(20)).then(|| world.roll(NODES as u64) as usize);
    if let Some(at) = away {
        world.kill(at);
    }
    for _ in 0..storm.faults {
        one_fault(world, storm, away).await;
    }
}

pub async fn storm(world: Shared, storm: Storm) {
    let clients = Clients::start(&world, storm.clients, storm.keys, storm.pause_max_millis);
    faults(&world, storm).await;
    clients.stop().await;
    world.make_whole().await;
    let keys: Vec<String> = (0..storm.keys).map(key).collect();
    judge(&world, &keys).await;
}

fn must_hold(name: &str, seeds: u64, settings: &Settings, what: Storm) {
    run_all(name, seeds, settings, |world| storm(world, what));
}

#[test]
fn both_planes_keep_what_they_promise() {
    let name = "both_planes_keep_what_they_promise";
    must_hold(name, 25, &Settings::default(), Storm::ALL);
}

#[test]
fn both_planes_agree_after_long_cuts() {
    let name = "both_planes_agree_after_long_cuts";
    must_hold(name, 6, &Settings::default(), Storm::LONG);
}

#[test]
fn repair_does_not_run_ahead_of_the_log() {
    let name = "repair_does_not_run_ahead_of_the_log";
    must_hold(name, 6, &Settings::default(), Storm::APART);
}

#[test]
fn absorption_meets_many_writes() {
    let name = "absorption_meets_many_writes";
    must_hold(name, 6, &Settings::default(), Storm::BUSY);
}

#[test]
fn the_last_write_wins_on_both_planes() {
    let settings = Settings {
        conflict: Some("last_write_wins"),
        ..Settings::default()
    };
    let name = "the_last_write_wins_on_both_planes";
    must_hold(name, 6, &settings, Storm::ALL);
}
