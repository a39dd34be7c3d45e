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

const KEYS: u64 = 3;
const CLIENTS: u64 = 3;
/// Faults of one run.
const FAULTS: u64 = 8;
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

async fn one_fault(world: &Shared, away: Option<usize>) {
    let at = world.any();
    let mut planned = None;
    match world.roll(100) {
        0..30 => partition(world),
        30..55 => world.network.heal(),
        55..70 => world.kill(at),
        70..82 => world.cut_power(at),
        82..92 => {
            let operations = world.roll(OPERATIONS_MAX);
            world.disk(at).fail_power_after(operations);
            planned = Some(at);
        }
        _ if world.lost_disks.load(Ordering::Relaxed) == 0 => world.lose_disk(at),
        _ => {}
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
async fn judge(world: &Shared) {
    let lost = world.lost_disks.load(Ordering::Relaxed) > 0;
    let must_be_kept = |promise: Promise| promise.durable && (!lost || promise.holders >= 2);
    for at in 0..PRIMARIES {
        let Some(node) = world.node(at) else { continue };
        if let Err(broken) = node.validate(SIBLINGS) {
            world.accuse(format!("node {at}: {broken}"));
        }
        for key in (0..KEYS).map(key) {
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
async fn delete_all(world: &Shared) {
    for number in 0..KEYS {
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

async fn storm(world: Shared) {
    let away = world
        .percent(20)
        .then(|| world.roll(PRIMARIES as u64) as usize);
    if let Some(at) = away {
        world.kill(at);
    }
    let clients = Clients::start(&world, CLIENTS, KEYS);
    for _ in 0..FAULTS {
        one_fault(&world, away).await;
    }
    clients.stop().await;
    world.make_whole().await;
    tokio::time::sleep(QUIET).await;
    world.converge(SIBLINGS).await;
    judge(&world).await;
    delete_all(&world).await;
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_replaced_comes_back() {
    run_all(
        "nothing_acknowledged_is_lost_and_nothing_replaced_comes_back",
        300,
        &Settings::default(),
        storm,
    );
}
