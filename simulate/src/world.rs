//! The simulated cluster: whole nodes with gateways on simulated disks and a network, which can be
//! cut off, killed, lose their power, and come back.
//!
//! Not here: when that befalls them (`faults`), what clients ask (`ask`, `work`), and what must be
//! so at the end (`ending`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_eventual::{EventualNode, EventualOptions};
use quorate_gateway::{Gateway, GatewayOptions, Limits, start_eventual};
use quorate_proto::internal::{CatalogNode, envelope::Body};
use quorate_proto::v1;
use quorate_raft::peer::{Passage, Quality, SimulatedNetwork};
use quorate_raft::seam::{SeededRandomness, SimulatedClock};
use quorate_raft::{Group, RaftNode, RaftNodeOptions, Seams, seed_thread};
use quorate_storage::disk::sim::{Dice, FaultError, Operation};
use quorate_storage::disk::{Disk, SimDisk};
use quorate_storage::engine::{Engine, EngineOptions};
use quorate_storage::log::{LogIdentity, LogOptions, NodeLog};
use quorate_types::{ClientId, NodeId, RangeId, Timestamp, chain};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::faults::{Fault, Part, for_ever};
use crate::plan::Plan;
use crate::trace::Trace;

/// When every run begins.
pub(crate) const EPOCH: Timestamp = Timestamp(1_700_000_000_000_000);
/// Simulated time within which a cluster that nothing befalls is ready.
const READY_MAX: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// How often nodes that have failed are looked for, as their server would notice at once.
const REAP_PAUSE: Duration = Duration::from_millis(20);
/// A server that has stopped because of its disk is started again after this.
const RESTART_PAUSE: Duration = Duration::from_millis(300);
/// The last bytes of a log, which no planned damage touches.
const LOG_END_BYTES: u64 = 4_096;

/// The sync of a start that lies, if one is to, is among so many.
const LYING_SYNC_MAX: u64 = 400;

/// A running process.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) raft: RaftNode,
    pub(crate) eventual: EventualNode,
    pub(crate) gateway: Gateway,
    /// Closes when the process ends.
    pub(crate) life: watch::Receiver<()>,
}

struct Member {
    disk: SimDisk,
    clock: SimulatedClock,
    process: Option<Process>,
    life: Option<watch::Sender<()>>,
    starts: u64,
    /// Which start is under way.
    starting: Option<u64>,
    /// Its disk was damaged: it need not start again, and says nothing wrong.
    condemned: bool,
}

impl Process {
    fn end(self) {
        self.gateway.stop();
        self.eventual.stop();
        self.raft.abandon();
    }
}

/// The last chunk of a snapshot that was sent: its number, sender and receiver.
#[derive(Clone, Default)]
struct Snapshots {
    last: Arc<Mutex<(u64, (NodeId, NodeId))>>,
    sent: Arc<Notify>,
}

impl Snapshots {
    fn saw(&self, number: u64, way: (NodeId, NodeId)) {
        *self.last.lock() = (number, way);
        self.sent.notify_waiters();
    }
}

/// A cluster, and what is known against it. Nodes are counted from 0.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) network: SimulatedNetwork,
    pub(crate) trace: Trace,
    members: Vec<Mutex<Member>>,
    dice: Mutex<Dice>,
    snapshots: Snapshots,
    /// Groups of nodes that do not hear each other now, with the number of the cut.
    cuts: Mutex<Vec<(u64, Sides, bool)>>,
    faults: AtomicU64,
    violations: Mutex<Vec<String>>,
    /// All is whole again: nothing but sound nodes starts.
    healed: AtomicBool,
    /// Nothing starts any more.
    over: AtomicBool,
}

type Sides = (Vec<usize>, Vec<usize>);

pub(crate) type Shared = Arc<World>;

impl World {
    /// Starts all nodes, makes the keyspaces, and waits until they are known and led.
    pub(crate) async fn start(plan: Plan, trace: Trace) -> Result<Shared, String> {
        seed_thread(Some(plan.course));
        trace.begin();
        let member = || {
            let disk = SimDisk::new();
            disk.set_sync_latency(plan.settings.sync_latency);
            disk.lie_about_sync(plan.mistakes.lying_syncs);
            Mutex::new(Member {
                disk,
                clock: SimulatedClock::new(EPOCH),
                process: None,
                life: None,
                starts: 0,
                starting: None,
                condemned: false,
            })
        };
        let network = SimulatedNetwork::new(plan.course);
        let sees = trace.clone();
        let snapshots = Snapshots::default();
        let chunks = snapshots.clone();
        network.watch(move |from, to, _, envelope, passage| {
            sees.message(from, to, envelope, passage);
            if let (Some(Body::Snapshot(chunk)), Passage::Sent) = (&envelope.body, passage) {
                chunks.saw(chunk.number, (from, to));
            }
        });
        if plan
            .faults
            .iter()
            .any(|planned| matches!(planned.fault, Fault::Echo(_)))
        {
            network.keep_beginnings();
        }
        let world = Arc::new(World {
            members: (0..plan.nodes).map(|_| member()).collect(),
            dice: Mutex::new(Dice::new(plan.course ^ 0x5eed)),
            plan,
            network,
            trace,
            snapshots,
            cuts: Mutex::default(),
            faults: AtomicU64::new(0),
            violations: Mutex::default(),
            healed: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        for at in world.all() {
            world.restart(at).await;
        }
        world.make_keyspaces().await?;
        Ok(world)
    }

    async fn make_keyspaces(&self) -> Result<(), String> {
        let knows = |at: usize, name: &str| {
            let process = self.process(at);
            process.is_some_and(|process| process.raft.catalog().keyspace(name).is_some())
        };
        self.eventually("the catalog is known everywhere", READY_MAX, || {
            self.all().all(|at| knows(at, "default"))
        })
        .await?;
        for work in &self.plan.work {
            let name = work.keyspace();
            if knows(0, name) {
                continue;
            }
            let request = v1::CreateKeyspaceRequest {
                name: name.to_owned(),
                options: Some(v1::KeyspaceOptions {
                    mode: work.mode().to_owned(),
                    replication: self.plan.settings.replication,
                    ..v1::KeyspaceOptions::default()
                }),
            };
            let gateway = self.process(0).ok_or("node 1 does not start")?.gateway;
            let created = gateway.create_keyspace(request, Instant::now() + READY_MAX);
            created.await.map_err(|error| chain(&error))?;
            self.eventually("a keyspace is known everywhere", READY_MAX, || {
                self.all().all(|at| knows(at, name))
            })
            .await?;
        }
        let led = |(range, primaries): (RangeId, Vec<usize>)| {
            let groups = primaries.iter().filter_map(|at| self.group(*at, range));
            groups.filter(|group| group.is_leader()).count() > 0
        };
        self.trace.learn(|names| {
            let known = self.process(0).map(|process| process.raft.catalog());
            let keyspaces = self.plan.work.iter().map(|work| work.keyspace());
            let found =
                keyspaces.filter_map(|name| Some((known.as_ref()?.keyspace(name)?.id, name)));
            names.keyspaces = found.map(|(id, name)| (id.0, name.to_owned())).collect();
        });
        self.eventually("all ranges are led", READY_MAX, || {
            self.ranges().into_iter().all(led)
        })
        .await
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn all(&self) -> std::ops::Range<usize> {
        0..self.len()
    }

    pub(crate) fn disk(&self, at: usize) -> SimDisk {
        self.members[at].lock().disk.clone()
    }

    pub(crate) fn clock(&self, at: usize) -> SimulatedClock {
        self.members[at].lock().clock.clone()
    }

    /// A node's process, if it runs.
    pub(crate) fn process(&self, at: usize) -> Option<Process> {
        self.members[at].lock().process.clone()
    }

    /// The ranges that clients work in, each with its primaries, as a node that runs knows them.
    pub(crate) fn ranges(&self) -> Vec<(RangeId, Vec<usize>)> {
        let Some(process) = self.all().find_map(|at| self.process(at)) else {
            return Vec::new();
        };
        let catalog = process.raft.catalog();
        let keyspaces = self.plan.work.iter().map(|work| work.keyspace());
        let mut ranges: Vec<_> = keyspaces
            .filter_map(|name| {
                let (range, _) = catalog.keyspace(name)?.route(b"");
                let at = |node: &NodeId| usize::try_from(node.0 - 1).unwrap_or_default();
                Some((range.id, range.replicas.iter().map(at).collect()))
            })
            .collect();
        ranges.sort();
        ranges.dedup();
        ranges
    }

    /// A node's replica of a range.
    pub(crate) fn group(&self, at: usize, range: RangeId) -> Option<Arc<Group>> {
        self.process(at)?.raft.group(range)
    }

    /// Waits until something is so.
    pub(crate) async fn eventually(
        &self,
        what: &str,
        within: Duration,
        mut so: impl FnMut() -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + within;
        while !so() {
            if Instant::now() >= deadline {
                return Err(format!("not within {within:?}: {what}"));
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Ok(())
    }

    pub(crate) fn accuse(&self, what: String) {
        self.trace.line(|| format!("WRONG: {what}"));
        self.violations.lock().push(what);
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    pub(crate) fn count_fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// Faults that have befallen it so far.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Cuts between two groups for a while, one way or both; other cuts stay.
    pub(crate) async fn cut_for(&self, sides: Sides, both: bool, lasts: Duration) {
        let number = {
            let mut cuts = self.cuts.lock();
            let number = cuts.last().map_or(0, |(last, _, _)| last + 1);
            cuts.push((number, sides, both));
            number
        };
        self.cut_again();
        tokio::time::sleep(lasts).await;
        self.cuts.lock().retain(|(other, _, _)| *other != number);
        self.cut_again();
    }

    fn cut_again(&self) {
        self.network.heal();
        for (_, (left, right), both) in self.cuts.lock().iter() {
            let pairs = left
                .iter()
                .flat_map(|one| right.iter().map(move |other| (id_of(*one), id_of(*other))));
            for (one, other) in pairs {
                self.network.cut(one, other);
                if *both {
                    self.network.cut(other, one);
                }
            }
        }
    }

    pub(crate) fn pause(&self, at: usize, lasts: Duration) {
        self.network.pause(id_of(at), lasts);
    }

    pub(crate) fn break_connections(&self, one: usize, other: usize) {
        self.network.break_connections(id_of(one), id_of(other));
    }

    /// Asks the leaders of ranges to hand over to a node.
    pub(crate) async fn hand_over(&self, to: usize) {
        for (range, primaries) in self.ranges() {
            let mut groups = primaries.iter().filter_map(|at| self.group(*at, range));
            let leader = groups.find(|group| group.is_leader());
            if let Some(leader) = leader.filter(|_| primaries.contains(&to)) {
                let deadline = Instant::now() + Duration::from_secs(1);
                // One that refuses leads on.
                let _ = leader.move_leader(id_of(to), deadline).await;
            }
        }
    }

    pub(crate) fn fail_disk(&self, at: usize, operation: Operation, error: FaultError) {
        self.disk(at).inject(for_ever(operation, error));
    }

    /// Kills a node's process: what it wrote stays, whether synced or not.
    pub(crate) fn kill(&self, at: usize) {
        self.end(at, SimDisk::process_kill);
    }

    /// Cuts a node's power: what was not synced is lost, torn or reordered.
    pub(crate) fn cut_power(&self, at: usize) {
        let seed = self.dice.lock().any();
        self.end(at, |disk| disk.power_cut(seed));
    }

    fn end(&self, at: usize, what_is_left: impl FnOnce(&SimDisk) -> SimDisk) {
        self.trace.line(|| format!("node {} ends", id_of(at)));
        self.network.crash(id_of(at));
        let mut member = self.members[at].lock();
        member.disk = what_is_left(&member.disk);
        member.life = None;
        member.starting = None;
        if let Some(process) = member.process.take() {
            process.end();
        }
    }

    /// Takes nodes down whose log or engine has failed, as the server does, and starts them again;
    /// until it is dropped.
    pub(crate) async fn reap(self: Arc<Self>) {
        loop {
            tokio::time::sleep(REAP_PAUSE).await;
            for at in self.all().filter(|at| self.has_failed(*at)) {
                self.kill(at);
                // Who has read what is damaged is not asked to try again.
                if !self.is_condemned(at) {
                    self.restart_after(at, RESTART_PAUSE);
                }
            }
        }
    }

    pub(crate) fn has_failed(&self, at: usize) -> bool {
        self.process(at).is_some_and(|process| {
            let raft = process.raft;
            raft.log().failed().is_some()
                || raft.engine().failed().is_some()
                || raft.failed().is_some()
        })
    }

    /// In a task of its own: a start is not cut off in its midst.
    pub(crate) fn restart_after(self: &Arc<Self>, at: usize, pause: Duration) {
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            world.restart(at).await;
        });
    }

    /// Starts a node that does not run, on what its disk holds.
    pub(crate) async fn restart(self: &Arc<Self>, at: usize) {
        let starts = {
            let mut member = self.members[at].lock();
            let runs = member.process.is_some() || member.starting.is_some();
            let stays_away = member.condemned && self.healed.load(Ordering::Relaxed);
            let over = self.over.load(Ordering::Relaxed) || stays_away;
            if runs || over || member.disk.is_powered_off() {
                return;
            }
            member.starts += 1;
            member.starting = Some(member.starts);
            member.starts
        };
        self.trace.line(|| format!("node {} starts", id_of(at)));
        if self.plan.mistakes.lying_sync {
            let after = self.dice.lock().below(LYING_SYNC_MAX);
            self.disk(at).lie_once_after(after);
        }
        let (alive, life) = watch::channel(());
        let opened = self.open(at, starts, life).await;
        let mut member = self.members[at].lock();
        if member.starting != Some(starts) {
            // It was ended while it was starting.
            if let Ok(process) = opened {
                process.end();
            }
            return;
        }
        member.starting = None;
        match opened {
            Ok(process) => {
                member.process = Some(process);
                member.life = Some(alive);
            }
            Err(_) if member.disk.is_powered_off() => {}
            Err(problem) if member.condemned => {
                let name = id_of(at);
                self.trace
                    .line(|| format!("node {name} refuses: {problem}"));
            }
            // Whoever runs the server sees to the disk, and starts it again.
            Err(_) if member.disk.has_faults() => {
                drop(member);
                self.kill(at);
                self.restart_after(at, RESTART_PAUSE);
            }
            Err(problem) => {
                drop(member);
                self.accuse(format!("node {} does not start: {problem}", id_of(at)));
            }
        }
    }

    async fn open(
        &self,
        at: usize,
        starts: u64,
        life: watch::Receiver<()>,
    ) -> Result<Process, String> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk(at));
        let clock = Arc::new(self.clock(at));
        let id = id_of(at);
        let dir = PathBuf::from(format!("/node{id}"));
        disk.create_dir_all(&dir).map_err(|error| chain(&error))?;
        let (log, engine) = self.storage(&disk, &dir, id)?;
        let seed = self.plan.course.wrapping_mul(31).wrapping_add(id.0) ^ starts << 48;
        let seams = Seams {
            clock,
            randomness: Arc::new(SeededRandomness::new(seed)),
            transport: self.network.link(id),
            disk,
        };
        let raft = RaftNode::start(self.raft_options(at, dir), seams, log, engine);
        let raft = raft.await.map_err(|error| chain(&error))?;
        let eventual = start_eventual(&raft, self.eventual_options());
        let eventual = eventual.await.map_err(|error| {
            raft.abandon();
            chain(&error)
        })?;
        let options = GatewayOptions {
            // The low bits are the gateway's: two starts must not give out the same names.
            client: ClientId(id.0 << 32 | starts << 8),
            limits: Limits::default(),
            faults: self.plan.mistakes.gateway,
        };
        let gateway = Gateway::new(raft.clone(), eventual.clone(), options);
        let disk = eventual.actor().disk;
        self.trace.learn(|names| {
            names.disks.insert(disk, id.0);
        });
        Ok(Process {
            raft,
            eventual,
            gateway,
            life,
        })
    }

    fn eventual_options(&self) -> EventualOptions {
        let usual = EventualOptions::default();
        EventualOptions {
            absorb_keys_max: self.plan.settings.absorb_keys_max,
            close_interval: match self.plan.settings.closes_at_once {
                true => Duration::ZERO,
                false => usual.close_interval,
            },
            faults: self.plan.mistakes.eventual,
            ..usual
        }
    }

    fn storage(
        &self,
        disk: &Arc<dyn Disk>,
        dir: &Path,
        id: NodeId,
    ) -> Result<(NodeLog, Engine), String> {
        let identity = LogIdentity {
            cluster: [7; 16],
            node: id.0,
        };
        let options = LogOptions::small(self.plan.settings.segment_bytes);
        let log = NodeLog::open(disk.clone(), &dir.join("log"), identity, options);
        let log = log.map_err(|error| chain(&error))?;
        let options = EngineOptions {
            files: 1,
            cache_bytes: 1 << 20,
            memory_bytes_max: self.plan.settings.memory_bytes,
            flush_interval: self.plan.settings.flush_interval,
            ..EngineOptions::default()
        };
        let engine = Engine::open(disk.clone(), &dir.join("engine"), options);
        Ok((log, engine.map_err(|error| chain(&error))?))
    }

    fn raft_options(&self, at: usize, dir: PathBuf) -> RaftNodeOptions {
        let nodes: Vec<CatalogNode> = self
            .all()
            .map(|at| CatalogNode {
                id: id_of(at).0,
                weight: 1,
                ..CatalogNode::default()
            })
            .collect();
        let me = nodes[at].clone();
        RaftNodeOptions {
            bootstrap: nodes,
            purge_entries: self.plan.settings.purge_entries,
            kept_entries: self.plan.settings.kept_entries,
            faults: self.plan.mistakes.raft,
            ..RaftNodeOptions::new(me, "simulated", dir)
        }
    }

    /// Everything runs, reaches everything, and has the right time again.
    pub(crate) async fn make_whole(self: &Arc<Self>) {
        self.trace.line(|| "all is made whole".to_owned());
        self.healed.store(true, Ordering::Relaxed);
        self.cuts.lock().clear();
        self.network.heal();
        self.network.end_echoes();
        self.network.set_quality(Quality::default());
        for at in self.all() {
            let disk = self.disk(at);
            disk.clear_faults();
            disk.set_sync_latency(self.plan.settings.sync_latency);
            if disk.is_powered_off() {
                self.cut_power(at);
            }
            if self.has_failed(at) {
                self.kill(at);
            }
            self.clock(at).set_offset(0);
            self.slow_down(at, Duration::ZERO);
            disk.set_sync_latency(self.plan.settings.sync_latency);
            // As long as a damaged node runs, what nobody else has may come from it.
            if self.is_condemned(at) {
                self.kill(at);
            }
            self.restart(at).await;
        }
    }

    /// Nodes of which all is asked.
    pub(crate) fn sound(&self) -> impl Iterator<Item = usize> + '_ {
        self.all().filter(|at| !self.is_condemned(*at))
    }

    /// Whether something is wrong with a node's disk: reading it may fail.
    pub(crate) fn is_struck(&self, at: usize) -> bool {
        let disk = self.disk(at);
        self.is_condemned(at) || disk.has_faults() || disk.is_powered_off()
    }

    pub(crate) fn is_condemned(&self, at: usize) -> bool {
        self.members[at].lock().condemned
    }

    /// Counts a node's disk as damaged, if no other one's is: a majority of the copies of each byte
    /// is to stay.
    pub(crate) fn condemn(&self, at: usize) -> bool {
        let is_first = self.sound().count() == self.len();
        if is_first {
            self.members[at].lock().condemned = true;
        }
        is_first
    }

    /// Flips bits of a node that does not run, in one of the files of a part.
    pub(crate) fn flip_bits(&self, at: usize, part: Part, bits: u64) {
        let disk = self.disk(at);
        let dir = PathBuf::from(format!("/node{}", id_of(at))).join(part.folder());
        let Ok(names) = disk.list(&dir) else { return };
        let last = names.last().cloned();
        let used = |name: String| {
            let path = dir.join(&name);
            let data = disk.read_whole(&path).ok()?;
            let used = data.iter().rposition(|byte| *byte != 0)? as u64;
            // Damage at the very end of a log is a torn write by all that can be seen.
            let is_end = part == Part::Log && Some(name) == last;
            let used = if is_end {
                used.saturating_sub(LOG_END_BYTES)
            } else {
                used
            };
            (used > 0).then_some((path, used))
        };
        let files: Vec<_> = names.into_iter().filter_map(used).collect();
        let mut dice = self.dice.lock();
        let chosen = dice.below(files.len() as u64) as usize;
        let Some((path, used)) = files.get(chosen) else {
            return;
        };
        for _ in 0..bits {
            let (offset, bit) = (dice.below(*used), dice.below(8) as u8);
            // A file that is there has those bytes.
            let _ = disk.flip_bit(path, offset, bit);
        }
    }

    /// A node takes so much longer for all that it does.
    pub(crate) fn slow_down(&self, at: usize, by: Duration) {
        self.network.slow_down(id_of(at), by);
        let usual = self.plan.settings.sync_latency;
        self.disk(at).set_sync_latency(usual + by);
    }

    /// Waits for a snapshot of which so many chunks were sent. Answers its sender and receiver.
    pub(crate) async fn snapshot_seen(
        &self,
        chunks: u64,
        within: Duration,
    ) -> Option<(usize, usize)> {
        let deadline = Instant::now() + within;
        loop {
            let sent = self.snapshots.sent.notified();
            tokio::time::timeout_at(deadline, sent).await.ok()?;
            let (number, (from, to)) = *self.snapshots.last.lock();
            if number >= chunks {
                let at = |node: NodeId| usize::try_from(node.0 - 1).unwrap_or_default();
                return Some((at(from), at(to)));
            }
        }
    }

    /// A hash of all that disks were told to do.
    pub(crate) fn disks_digest(&self) -> Vec<u64> {
        self.all().map(|at| self.disk(at).digest()).collect()
    }

    /// Ends all processes, so that the runtime has nothing left to do.
    pub(crate) fn end_all(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.all().for_each(|at| self.kill(at));
    }
}

pub(crate) fn id_of(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}
