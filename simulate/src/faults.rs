//! What befalls nodes: each fault begins at its time, lasts, and is undone.

use std::time::Duration;

use quorate_raft::peer::Quality;
use quorate_storage::disk::sim::{Dice, Fault as DiskFault, FaultError, Operation};

use crate::plan::Family;
use crate::world::{Shared, id_of};

/// Nodes are drawn as any number, and taken modulo how many there are: a plan with fewer nodes has
/// the same faults.
type Node = u64;

/// Furthest that a clock goes wrong, either way.
const OFFSET_MAX_MILLIS: u64 = 400;
/// Furthest that a clock jumps and stays, either way.
const JUMP_MAX_MILLIS: u64 = 4_000;
/// How much later a late copy of a message comes at the most.
const LATE_MAX: Duration = Duration::from_secs(6);
/// Bits that are flipped at once.
const FLIPS_MAX: u64 = 12;
/// A snapshot that is to be cut off is waited for so long.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(4);
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
    /// Of a thousand messages so many come once more, seconds later, whatever process is there.
    Late(u64),
    /// All that a node sends and gets takes up to so many microseconds more; so do its syncs.
    SlowNode(Node, u64),
    /// The next snapshot that is sent is cut off after so many of its chunks; what is done.
    CutSnapshot(u64, Cutting),
    /// A process is killed; much of what it was sent in its beginning comes again to the next one.
    Echo(Node),
    /// A clock jumps by so many milliseconds, and stays so.
    Jump(Node, i64),
    /// Reads of a part of a node's files fail, until it has been started again.
    ReadFails(Node, Part),
    /// A node's process is killed, and so many bits of a part of its files are wrong from then on.
    FlipBits(Node, Part, u64),
    /// A write of a node's engine goes to another place: after so many more, so many sectors; its
    /// power fails before that is synced.
    Misdirect(Node, u64, u64),
}

/// A part of a node's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Of all groups together.
    Log,
    /// Of all ranges together.
    Engine,
}

impl Part {
    pub(crate) const fn folder(self) -> &'static str {
        match self {
            Part::Log => "log",
            Part::Engine => "engine",
        }
    }
}

/// What cuts a snapshot off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cutting {
    /// Sender and receiver do not hear each other.
    Link,
    /// The receiver is killed.
    Receiver,
    /// The sender is.
    Sender,
}

impl Fault {
    /// Whether it takes a copy of what is stored away for good.
    pub(crate) const fn damages(self) -> bool {
        matches!(self, Fault::FlipBits(..) | Fault::Misdirect(..))
    }
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
    kind(Family::Network, |dice| Fault::Late(5 + dice.below(60))),
    kind(Family::Network, |dice| {
        Fault::SlowNode(dice.any(), 2_000 + dice.below(80_000))
    }),
    kind(Family::Network, |dice| {
        let cutting = [Cutting::Link, Cutting::Receiver, Cutting::Sender];
        Fault::CutSnapshot(dice.below(4), cutting[dice.below(3) as usize])
    }),
    kind(Family::Crashes, |dice| Fault::Echo(dice.any())),
    kind(Family::Clocks, |dice| {
        let millis = dice.below(2 * JUMP_MAX_MILLIS) as i64 - JUMP_MAX_MILLIS as i64;
        Fault::Jump(dice.any(), millis)
    }),
    kind(Family::Disks, |dice| {
        Fault::ReadFails(dice.any(), part(dice))
    }),
    kind(Family::Disks, |dice| {
        Fault::FlipBits(dice.any(), part(dice), 1 + dice.below(FLIPS_MAX))
    }),
    kind(Family::Disks, |dice| {
        Fault::Misdirect(dice.any(), dice.below(40), 1 + dice.below(64))
    }),
];

fn part(dice: &mut Dice) -> Part {
    match dice.percent(50) {
        true => Part::Log,
        false => Part::Engine,
    }
}

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
                ..Quality::default()
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
        Fault::Late(late) => {
            world.network.set_quality(Quality {
                late_per_mille: late,
                late_max: LATE_MAX,
                ..Quality::default()
            });
            tokio::time::sleep(planned.lasts).await;
            world.network.set_quality(Quality::default());
        }
        Fault::SlowNode(node, micros) => {
            world.slow_down(at(node), Duration::from_micros(micros));
            tokio::time::sleep(planned.lasts).await;
            world.slow_down(at(node), Duration::ZERO);
        }
        Fault::CutSnapshot(chunks, cutting) => {
            cut_snapshot(&world, chunks, cutting, planned.lasts).await;
        }
        Fault::Echo(node) => {
            world.network.echo(id_of(at(node)));
            world.kill(at(node));
            world.restart_after(at(node), planned.lasts);
        }
        Fault::Jump(node, millis) => world.clock(at(node)).set_offset(millis * 1_000),
        Fault::ReadFails(node, part) => {
            let fault = DiskFault {
                path_contains: format!("/{}", part.folder()),
                ..for_ever(Operation::Read, FaultError::Broken)
            };
            world.disk(at(node)).inject(fault);
        }
        Fault::FlipBits(node, part, bits) if world.condemn(at(node)) => {
            world.kill(at(node));
            world.flip_bits(at(node), part, bits);
            world.restart_after(at(node), planned.lasts);
        }
        Fault::Misdirect(node, writes, sectors) if world.condemn(at(node)) => {
            let part = Part::Engine.folder();
            let disk = world.disk(at(node));
            disk.misdirect_after(&format!("/{part}"), writes, sectors);
            tokio::time::sleep(planned.lasts).await;
            world.cut_power(at(node));
            world.restart_after(at(node), planned.lasts);
        }
        Fault::FlipBits(..) | Fault::Misdirect(..) => {}
    }
}

/// Waits for a snapshot, and cuts it off in its midst.
async fn cut_snapshot(world: &Shared, chunks: u64, cutting: Cutting, lasts: Duration) {
    let Some((from, to)) = world.snapshot_seen(chunks, SNAPSHOT_WAIT).await else {
        return;
    };
    match cutting {
        Cutting::Link => world.cut_for((vec![from], vec![to]), true, lasts).await,
        Cutting::Receiver | Cutting::Sender => {
            let at = if cutting == Cutting::Sender { from } else { to };
            world.kill(at);
            world.restart_after(at, lasts);
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
            Fault::Late(late) => format!("of 1000 messages {late} come again much later"),
            Fault::SlowNode(node, micros) => {
                format!("node {} takes up to {micros} us more for all", name(node))
            }
            Fault::CutSnapshot(chunks, cutting) => {
                format!("the next snapshot is cut off after {chunks} chunks: {cutting:?}")
            }
            Fault::Echo(node) => {
                let node = name(node);
                format!("node {node} is killed, and what it was first sent comes again")
            }
            Fault::Jump(node, millis) => {
                format!(
                    "node {}'s clock jumps by {millis} ms, and stays",
                    name(node)
                )
            }
            Fault::ReadFails(node, part) => {
                format!("node {}'s {} is not to be read", name(node), part.folder())
            }
            Fault::FlipBits(node, part, bits) => {
                let part = part.folder();
                format!(
                    "{bits} bits of node {}'s {part} flip while it is down",
                    name(node)
                )
            }
            Fault::Misdirect(node, writes, sectors) => format!(
                "node {}'s engine writes {sectors} sectors too far, after {writes} writes, and its power fails",
                name(node)
            ),
        }
    }
}
