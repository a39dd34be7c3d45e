//! Everything at once: cuts, kills, lost power, lost disks, a node that is away, while clients
//! read and write. Afterwards all primaries are equal, nothing acknowledged is lost, nothing that
//! was replaced is back, and deletes have left nothing behind.

use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_types::causal::Update;
use quorate_types::{Copies, NodeId};

use crate::clients::{Clients, key, read, rung, write_of};
use crate::oracle::Promise;
use crate::run::run_all;
use crate::world::{PRIMARIES, SIBLINGS, Settings, Shared};

/// What happens in a storm.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    keys: u64,
    clients: u64,
    faults: u64,
    /// Longest pause of a client between two requests.
    pause_max_millis: u64,
    /// Of a hundred faults, how many are lost disks; at most one in a run.
    lost_disks_percent: u64,
}

impl Storm {
    pub const ALL: Storm = Storm {
        keys: 3,
        clients: 3,
        faults: 8,
        pause_max_millis: 120,
        lost_disks_percent: 8,
    };
    /// Many writes while repair is under way.
    pub const BUSY: Storm = Storm {
        keys: 8,
        clients: 8,
        pause_max_millis: 20,
        ..Storm::ALL
    };
    pub const LOST_DISKS: Storm = Storm {
        lost_disks_percent: 25,
        ..Storm::ALL
    };
}

/// Changing operations of a disk within which a planned cut strikes.
const OPERATIONS_MAX: u64 = 60;
/// Late messages have arrived after this.
const QUIET: Duration = Duration::from_secs(4);

fn partition(world: &Shared) {
    let side = 1 + world.roll(30);
    let (left, right): (Vec<usize>, Vec<usize>) = world.all().partition(|at| side & (1 << at) != 0);
    let ids = |of: &[usize]| of.iter().map(|at| world.id(*at)).collect::<Vec<NodeId>>();
    let (left, right) = (ids(&left), ids(&right));
    if world.percent(70) {
        return world.network.partition(&left, &right);
    }
    for one in &left {
        for other in &right {
            world.network.cut(*one, *other);
        }
    }
}

async fn one_fault(world: &Shared, storm: Storm, away: Option<usize>) {
    let at = world.any();
    let mut planned = None;
    let is_lost =
        world.lost_disks.load(Ordering::Relaxed) == 0 && world.percent(storm.lost_disks_percent);
    match world.roll(92) {
        _ if is_lost => world.lose_disk(at),
        0..30 => partition(world),
        30..55 => world.network.heal(),
        55..70 => world.kill(at),
        70..82 => world.cut_power(at),
        _ => {
            let operations = world.roll(OPERATIONS_MAX);
            world.disk(at).fail_power_after(operations);
            planned = Some(at);
        }
    }
    let millis = if world.percent(30) {
        0
    } else {
        world.roll(700)
    };
    tokio::time::sleep(Duration::from_millis(millis)).await;
    if let Some(at) = planned {
        world.cut_power(at);
    }
    for at in world.all() {
        if Some(at) != away && world.percent(70) {
            world.restart(at).await;
        }
    }
}

/// Judges all keys as every primary holds them.
async fn judge(world: &Shared, storm: Storm) {
    let lost = world.lost_disks.load(Ordering::Relaxed) > 0;
    let must_be_kept = |promise: Promise| promise.durable && (!lost || promise.holders >= 2);
    for at in 0..PRIMARIES {
        let Some(node) = world.node(at) else { continue };
        if let Err(broken) = node.validate(SIBLINGS) {
            world.accuse(format!("node {at}: {broken}"));
        }
        for key in (0..storm.keys).map(key) {
            match read(&node, SIBLINGS, key.clone(), Copies::One).await {
                Ok(done) => {
                    let oracle = world.oracle.lock();
                    if let Some(problem) = oracle.judge_end(&key, &done.state, must_be_kept) {
                        world.accuse(problem);
                    }
                }
                Err(error) => world.accuse(format!("{key:?} cannot be read at {at}: {error}")),
            }
        }
    }
}

/// Deletes all keys. What is then left of them must go, unless some write was lost with a disk
/// or in memory: then its name is missing, until its start is closed.
async fn delete_all(world: &Shared, storm: Storm) {
    for number in 0..storm.keys {
        let Some(node) = world.node(0) else { return };
        let rung = rung(Copies::All, Duration::from_secs(2));
        let request = write_of(SIBLINGS, key(number), Update::Delete, rung);
        if let Err(error) = node.write(request).await {
            world.accuse(format!("a delete on a whole cluster fails: {error}"));
        }
    }
    world.converge(SIBLINGS).await;
    for at in 0..PRIMARIES {
        let (Some(node), Some(report)) = (world.node(at), world.report(at, SIBLINGS)) else {
            continue;
        };
        let clock = node.clock(SIBLINGS).unwrap();
        let all_there = world.oracle.lock().dots().all(|dot| clock.covers(dot));
        let bytes = report.record_bytes;
        if all_there && bytes > 0 {
            world.accuse(format!("node {at}: {bytes} bytes of deleted keys are left"));
        }
    }
}

pub async fn storm(world: Shared, storm: Storm) {
    let away = world
        .percent(20)
        .then(|| world.roll(PRIMARIES as u64) as usize);
    if let Some(at) = away {
        world.kill(at);
    }
    let clients = Clients::start(&world, storm.clients, storm.keys, storm.pause_max_millis);
    for _ in 0..storm.faults {
        one_fault(&world, storm, away).await;
    }
    clients.stop().await;
    world.make_whole().await;
    tokio::time::sleep(QUIET).await;
    world.converge(SIBLINGS).await;
    judge(&world, storm).await;
    delete_all(&world, storm).await;
}

fn must_hold(name: &str, seeds: u64, what: Storm) {
    run_all(name, seeds, &Settings::default(), |world| {
        storm(world, what)
    });
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_replaced_comes_back() {
    must_hold(
        "nothing_acknowledged_is_lost_and_nothing_replaced_comes_back",
        200,
        Storm::ALL,
    );
}

#[test]
fn nothing_is_lost_while_repair_meets_many_writes() {
    must_hold(
        "nothing_is_lost_while_repair_meets_many_writes",
        50,
        Storm::BUSY,
    );
}

#[test]
fn a_lost_disk_loses_nothing_that_two_holders_have() {
    must_hold(
        "a_lost_disk_loses_nothing_that_two_holders_have",
        100,
        Storm::LOST_DISKS,
    );
}
