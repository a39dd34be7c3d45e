//! What befalls nodes: each fault begins at its time, lasts, and is undone.

use std::time::Duration;

use quorate_raft::peer::Quality;
use quorate_storage::disk::sim::{Dice, Fault as DiskFault, FaultError, Operation};

use crate::plan::Family;
use crate::world::Shared;

/// Nodes are drawn as any number, and taken modulo how many there are: a plan with fewer nodes has
/// the same faults.
type Node = u64;

/// Furthest that a clock goes wrong, either way.
const OFFSET_MAX_MILLIS: u64 = 400;
/// Changing operations of a disk within which its power fails.
const OPERATIONS_MAX: u64 = 60;

/// One thing that befalls nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node is cut off from all others.
    Isolate(Node),
    /// Nodes whose bit is set neither hear the others nor are heard.
    Part(u64),
    /// They are not heard, and hear.
    Mute(u64),
    /// Two nodes do not hear each other, while others hear both.
    Split(Node, Node),
    /// Links lose, hold up and double messages, per mille.
    BadLinks {
        /// Messages that are lost.
        lost: u64,
        /// That come late.
        slow: u64,
        /// That come twice.
        doubled: u64,
    },
    /// A node is not heard of for a while, and goes on.
    Pause(Node),
    /// Connections of a node to another break.
    Break(Node, Node),
    /// A process is killed; what it wrote stays.
    Kill(Node),
    /// A node loses its power: what was not synced is lost, torn or reordered.
    PowerCut(Node),
    /// So do all.
    PowerCutAll,
    /// A node's power fails in the midst of a write, so many operations later.
    PowerFails(Node, u64),
    /// A disk's syncs fail from now on, until its node has been started again.
    SyncFails(Node),
    /// A disk is full, until its node has been started again.
    DiskFull(Node),
    /// A disk's syncs take so many microseconds.
    SlowDisk(Node, u64),
    /// A clock is wrong by so many milliseconds.
    Clock(Node, i64),
    /// A range's leader hands over to another node.
    HandOver(Node),
}

/// A kind of faults: which family it is of, and how one is drawn.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) family: Family,
    pub(crate) draw: fn(&mut Dice) -> Fault,
}

const fn kind(family: Family, draw: fn(&mut Dice) -> Fault) -> Kind {
    Kind { family, draw }
}

/// All kinds.
pub(crate) const KINDS: &[Kind] = &[
    kind(Family::Network, |dice| Fault::Isolate(dice.any())),
    kind(Family::Network, |dice| Fault::Part(dice.any())),
    kind(Family::Network, |dice| Fault::Mute(dice.any())),
    kind(Family::Network, |dice| Fault::Split(dice.any(), dice.any())),
    kind(Family::Network, |dice| Fault::BadLinks {
        lost: dice.below(80),
        slow: dice.below(80),
        doubled: 0,
    }),
    kind(Family::Network, |dice| Fault::BadLinks {
        lost: dice.below(20),
        slow: dice.below(20),
        doubled: dice.below(60),
    }),
    kind(Family::Network, |dice| Fault::Pause(dice.any())),
    kind(Family::Network, |dice| Fault::Break(dice.any(), dice.any())),
    kind(Family::Network, |dice| Fault::HandOver(dice.any())),
    kind(Family::Crashes, |dice| Fault::Kill(dice.any())),
    kind(Family::Crashes, |dice| Fault::PowerCut(dice.any())),
    kind(Family::Crashes, |_| Fault::PowerCutAll),
    kind(Family::Crashes, |dice| {
        Fault::PowerFails(dice.any(), dice.below(OPERATIONS_MAX))
    }),
    kind(Family::Disks, |dice| Fault::SyncFails(dice.any())),
    kind(Family::Disks, |dice| Fault::DiskFull(dice.any())),
    kind(Family::Disks, |dice| {
        Fault::SlowDisk(dice.any(), 2_000 + dice.below(60_000))
    }),
    kind(Family::Clocks, |dice| {
        let millis = dice.below(2 * OFFSET_MAX_MILLIS) as i64 - OFFSET_MAX_MILLIS as i64;
        Fault::Clock(dice.any(), millis)
    }),
];

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its place in the seed's plan.
    pub number: usize,
    /// When it begins.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What it is.
    pub fault: Fault,
}

/// Longest that a message is held up on a bad link.
const SLOW_MAX_MICROS: u64 = 150_000;

/// Lets one fault befall the cluster at its time, and undoes it.
pub(crate) async fn befall(world: Shared, planned: Planned) {
    tokio::time::sleep(planned.at).await;
    let Planned { number, fault, .. } = planned;
    world
        .trace
        .line(|| format!("fault {number}: {}", fault.told(&world)));
    world.count_fault();
    let at = |node: Node| (node % world.len() as u64) as usize;
    let sides = |bits: u64| {
        let (left, right): (Vec<usize>, Vec<usize>) =
            world.all().partition(|at| bits >> at & 1 == 1);
        (left, right)
    };
    match fault {
        Fault::Isolate(node) => {
            let others = world.all().filter(|other| *other != at(node)).collect();
            world
                .cut_for((vec![at(node)], others), true, planned.lasts)
                .await;
        }
        Fault::Part(bits) => world.cut_for(sides(bits), true, planned.lasts).await,
        Fault::Mute(bits) => world.cut_for(sides(bits), false, planned.lasts).await,
        Fault::Split(one, other) if at(one) != at(other) => {
            let pair = (vec![at(one)], vec![at(other)]);
            world.cut_for(pair, true, planned.lasts).await;
        }
        Fault::Split(..) => {}
        Fault::BadLinks {
            lost,
            slow,
            doubled,
        } => {
            world.network.set_quality(Quality {
                lost_per_mille: lost,
                slow_per_mille: slow,
                slow_max_micros: SLOW_MAX_MICROS,
                doubled_per_mille: doubled,
            });
            tokio::time::sleep(planned.lasts).await;
            world.network.set_quality(Quality::default());
        }
        Fault::Pause(node) => world.pause(at(node), planned.lasts),
        Fault::Break(one, other) => world.break_connections(at(one), at(other)),
        Fault::HandOver(node) => world.hand_over(at(node)).await,
        Fault::Kill(node) => {
            world.kill(at(node));
            world.restart_after(at(node), planned.lasts);
        }
        Fault::PowerCut(node) => {
            world.cut_power(at(node));
            world.restart_after(at(node), planned.lasts);
        }
        Fault::PowerCutAll => {
            world.all().for_each(|at| world.cut_power(at));
            for at in world.all() {
                world.restart_after(at, planned.lasts / 4);
            }
        }
        Fault::PowerFails(node, operations) => {
            world.disk(at(node)).fail_power_after(operations);
            tokio::time::sleep(planned.lasts).await;
            world.cut_power(at(node));
            world.restart_after(at(node), planned.lasts);
        }
        Fault::SyncFails(node) => {
            world.fail_disk(at(node), Operation::Sync, FaultError::Broken);
        }
        Fault::DiskFull(node) => world.fail_disk(at(node), Operation::Write, FaultError::Full),
        Fault::SlowDisk(node, micros) => {
            let slow = Duration::from_micros(micros);
            world.disk(at(node)).set_sync_latency(slow);
            tokio::time::sleep(planned.lasts).await;
            let usual = world.plan.settings.sync_latency;
            world.disk(at(node)).set_sync_latency(usual);
        }
        Fault::Clock(node, millis) => {
            world.clock(at(node)).set_offset(millis * 1_000);
            tokio::time::sleep(planned.lasts).await;
            world.clock(at(node)).set_offset(0);
        }
    }
}

/// A failure of everything of a kind on a disk, from now on.
pub(crate) fn for_ever(operation: Operation, error: FaultError) -> DiskFault {
    DiskFault {
        operation,
        path_contains: String::new(),
        after: 0,
        times: u64::MAX,
        error,
    }
}

impl Fault {
    /// In words, with the nodes of a cluster, counted from 1.
    fn told(self, world: &Shared) -> String {
        let name = |node: Node| node % world.len() as u64 + 1;
        let names = |bits: u64| {
            let side = world.all().filter(|at| bits >> at & 1 == 1);
            side.map(|at| at + 1).collect::<Vec<_>>()
        };
        match self {
            Fault::Isolate(node) => format!("node {} is cut off", name(node)),
            Fault::Part(bits) => format!("nodes {:?} are cut off", names(bits)),
            Fault::Mute(bits) => format!("nodes {:?} are not heard", names(bits)),
            Fault::Split(one, other) => {
                format!(
                    "nodes {} and {} do not hear each other",
                    name(one),
                    name(other)
                )
            }
            Fault::BadLinks {
                lost,
                slow,
                doubled,
            } => format!("of 1000 messages {lost} are lost, {slow} late, {doubled} doubled"),
            Fault::Pause(node) => format!("node {} is paused", name(node)),
            Fault::Break(one, other) => {
                format!("connections of node {} to {} break", name(one), name(other))
            }
            Fault::Kill(node) => format!("node {} is killed", name(node)),
            Fault::PowerCut(node) => format!("node {} loses its power", name(node)),
            Fault::PowerCutAll => "all nodes lose their power".to_owned(),
            Fault::PowerFails(node, after) => {
                format!(
                    "node {}'s power fails after {after} more writes",
                    name(node)
                )
            }
            Fault::SyncFails(node) => format!("node {}'s syncs fail", name(node)),
            Fault::DiskFull(node) => format!("node {}'s disk is full", name(node)),
            Fault::SlowDisk(node, micros) => {
                format!("node {}'s syncs take {micros} us", name(node))
            }
            Fault::Clock(node, millis) => {
                format!("node {}'s clock is wrong by {millis} ms", name(node))
            }
            Fault::HandOver(node) => format!("ranges are handed over to node {}", name(node)),
        }
    }
}
