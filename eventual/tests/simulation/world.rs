//! The simulated cluster: five nodes with real logs, engines and eventual paths on simulated
//! disks, which can be cut off, killed, lose their power or their disk, and come back.
//!
//! Not here: what clients do (`clients`), and what is right (`oracle`).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_eventual::quorum::Holders;
use quorate_eventual::{
    EventualNode, EventualOptions, Faults, NoLogs, Place, Places, RangeReport, Witness,
};
use quorate_storage::disk::sim::Dice;
use quorate_storage::disk::{Disk, SimDisk};
use quorate_storage::engine::{Engine, EngineOptions};
use quorate_storage::log::{LogIdentity, LogOptions, NodeLog};
use quorate_types::{ConflictPolicy, NodeId, RangeId};
use tokio::time::Instant;

use crate::network::{Network, Quality};
use crate::oracle::Oracle;

pub const NODES: usize = 5;
pub const PRIMARIES: usize = 3;
/// The range of keys with siblings, of counters, and of sets.
pub const SIBLINGS: RangeId = RangeId(1);
pub const COUNTERS: RangeId = RangeId(2);
pub const SETS: RangeId = RangeId(3);
/// Simulated time that anything may take to become whole again.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// A node hears of a change of the catalog within this.
const CATALOG_LAG_MAX_MILLIS: u64 = 1_500;

/// Clocks are ahead of the right one by less.
const CLOCK_AHEAD_MAX_MICROSECONDS: u64 = 100_000;

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    pub options: EventualOptions,
    pub quality: Quality,
    /// A lost primary comes back under its old name, with nothing: a mistake.
    pub rejoin_empty: bool,
    /// A member whose clock is ahead of the others', and how far.
    pub clock_ahead: Option<(usize, Duration)>,
    pub sync_latency: Duration,
    pub memory_bytes: usize,
    pub segment_bytes: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            options: EventualOptions::default(),
            quality: Quality::BAD,
            rejoin_empty: false,
            clock_ahead: None,
            sync_latency: Duration::from_micros(300),
            memory_bytes: 64 << 10,
            segment_bytes: 64 << 10,
        }
    }
}

impl Settings {
    pub fn with_faults(faults: Faults) -> Settings {
        let mut settings = Settings::default();
        settings.options.faults = faults;
        settings
    }
}

/// Where ranges live, as one node knows it.
struct Catalog(Mutex<Vec<NodeId>>);

impl Places for Catalog {
    fn place(&self, range: RangeId) -> Option<Arc<Place>> {
        let nodes = self.0.lock().clone();
        let policy = match range {
            SIBLINGS => ConflictPolicy::Siblings,
            COUNTERS => ConflictPolicy::Counter,
            SETS => ConflictPolicy::Set,
            _ => return None,
        };
        Some(Arc::new(Place {
            holders: Holders {
                primaries: nodes[..PRIMARIES].to_vec(),
                stand_ins: nodes[PRIMARIES..].to_vec(),
                local: 0,
            },
            founders: (1..=PRIMARIES as u64).map(NodeId).collect(),
            policy,
            has_log: false,
        }))
    }

    fn was_dropped(&self, _: RangeId) -> bool {
        false
    }
}

struct Member {
    id: NodeId,
    disk: SimDisk,
    catalog: Arc<Catalog>,
    node: Option<EventualNode>,
}

/// A cluster, and what is known against it. Members are counted from 0, primaries first.
pub struct World {
    pub network: Network,
    pub oracle: Arc<Mutex<Oracle>>,
    /// Disks that were lost.
    pub lost_disks: AtomicU64,
    /// Times that something that was not synced may have been lost.
    pub crashes: AtomicU64,
    /// Requests of clients that were answered.
    pub answered: AtomicU64,
    settings: Settings,
    members: Vec<Mutex<Member>>,
    dice: Mutex<Dice>,
    violations: Mutex<Vec<String>>,
}

pub type Shared = Arc<World>;

impl World {
    pub async fn start(seed: u64, settings: Settings) -> Shared {
        let ids: Vec<NodeId> = (1..=NODES as u64).map(NodeId).collect();
        let member = |id: &NodeId| {
            Mutex::new(Member {
                id: *id,
                disk: new_disk(&settings),
                catalog: Arc::new(Catalog(Mutex::new(ids.clone()))),
                node: None,
            })
        };
        let world = Arc::new(World {
            network: Network::new(seed, settings.quality),
            oracle: Arc::default(),
            lost_disks: AtomicU64::new(0),
            crashes: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            members: ids.iter().map(member).collect(),
            dice: Mutex::new(Dice::new(seed ^ 0x5eed)),
            violations: Mutex::default(),
            settings,
        });
        for at in world.all() {
            world.restart(at).await;
        }
        // Until all have heard of each other.
        tokio::time::sleep(Duration::from_millis(400)).await;
        world
    }

    pub fn all(&self) -> std::ops::Range<usize> {
        0..NODES
    }

    pub fn roll(&self, bound: u64) -> u64 {
        self.dice.lock().below(bound)
    }

    pub fn percent(&self, percent: u64) -> bool {
        self.dice.lock().percent(percent)
    }

    pub fn any(&self) -> usize {
        self.roll(NODES as u64) as usize
    }

    pub fn id(&self, at: usize) -> NodeId {
        self.members[at].lock().id
    }

    pub fn disk(&self, at: usize) -> SimDisk {
        self.members[at].lock().disk.clone()
    }

    /// A node, if it runs.
    pub fn node(&self, at: usize) -> Option<EventualNode> {
        self.members[at].lock().node.clone()
    }

    pub fn accuse(&self, what: String) {
        self.violations.lock().push(what);
    }

    pub fn violations(&self) -> Vec<String> {
        let mut violations = self.violations.lock().clone();
        violations.extend(self.oracle.lock().problems.clone());
        violations
    }

    pub fn report(&self, at: usize, range: RangeId) -> Option<RangeReport> {
        self.node(at)?.report(range).ok()
    }

    /// Kills a node's process: what it wrote stays, whether synced or not.
    pub fn kill(&self, at: usize) {
        self.end(at, SimDisk::process_kill);
    }

    /// Cuts a node's power: what was not synced is lost, torn or reordered.
    pub fn cut_power(&self, at: usize) {
        let seed = self.roll(u64::MAX);
        self.end(at, |disk| disk.power_cut(seed));
    }

    fn end(&self, at: usize, what_is_left: impl FnOnce(&SimDisk) -> SimDisk) {
        let mut member = self.members[at].lock();
        self.crashes.fetch_add(1, Ordering::Relaxed);
        member.disk = what_is_left(&member.disk);
        if let Some(node) = member.node.take() {
            self.network.detach(member.id);
            node.stop();
        }
    }

    /// A node's disk is lost: in its place comes a new one with an empty disk, under a new name,
    /// which all hear of sooner or later.
    pub fn lose_disk(self: &Arc<Self>, at: usize) {
        self.kill(at);
        let lost = self.lost_disks.fetch_add(1, Ordering::Relaxed) + 1;
        self.members[at].lock().disk = new_disk(&self.settings);
        if self.settings.rejoin_empty {
            return;
        }
        self.members[at].lock().id = NodeId(NODES as u64 + lost);
        let ids: Vec<NodeId> = self.all().map(|at| self.id(at)).collect();
        for other in self.all() {
            let (world, ids) = (self.clone(), ids.clone());
            let lag = Duration::from_millis(self.roll(CATALOG_LAG_MAX_MILLIS));
            tokio::spawn(async move {
                tokio::time::sleep(lag).await;
                let catalog = world.members[other].lock().catalog.clone();
                // A later change may have come first.
                let mut known = catalog.0.lock();
                if known.iter().max() < ids.iter().max() {
                    *known = ids;
                }
            });
        }
    }

    /// A primary leaves alive: it and the last stand-in change places.
    pub fn retire(&self, at: usize) {
        let mut leaving = self.members[at].lock();
        let mut coming = self.members[NODES - 1].lock();
        std::mem::swap(&mut *leaving, &mut *coming);
        drop((leaving, coming));
        let ids: Vec<NodeId> = self.all().map(|at| self.id(at)).collect();
        for at in self.all() {
            *self.members[at].lock().catalog.0.lock() = ids.clone();
        }
    }

    /// Starts a node that does not run, on what its disk holds.
    pub async fn restart(self: &Arc<Self>, at: usize) {
        if self.members[at].lock().node.is_some() {
            return;
        }
        match self.open(at).await {
            Ok(node) => {
                let mut member = self.members[at].lock();
                self.network.attach(member.id, &node);
                member.node = Some(node);
            }
            Err(problem) => self.accuse(format!("node {at} does not start: {problem}")),
        }
    }

    async fn open(&self, at: usize) -> Result<EventualNode, String> {
        let (id, disk, catalog) = {
            let member = self.members[at].lock();
            let disk: Arc<dyn Disk> = Arc::new(member.disk.clone());
            (member.id, disk, member.catalog.clone())
        };
        let dir = PathBuf::from(format!("/node{}", id.0));
        disk.create_dir_all(&dir).map_err(|e| e.to_string())?;
        let identity = LogIdentity {
            cluster: [7; 16],
            node: id.0,
        };
        let log_options = LogOptions::small(self.settings.segment_bytes);
        let log = NodeLog::open(disk.clone(), &dir.join("log"), identity, log_options)
            .map_err(|e| format!("{e:?}"))?;
        let engine_options = EngineOptions {
            files: 1,
            cache_bytes: 1 << 20,
            memory_bytes_max: self.settings.memory_bytes,
            flush_interval: Duration::from_millis(400),
            ..EngineOptions::default()
        };
        let engine = Engine::open(disk, &dir.join("engine"), engine_options)
            .map_err(|e| format!("{e:?}"))?;
        let oracle = self.oracle.clone();
        let mut options = self.settings.options.clone();
        options.witness = Witness(Some(Arc::new(
            move |range: RangeId, key: &Bytes, deltas: &[Bytes]| {
                if range == SIBLINGS {
                    oracle.lock().named(key, deltas);
                }
            },
        )));
        let ahead = match self.settings.clock_ahead {
            Some((which, ahead)) if which == at => u64::try_from(ahead.as_micros()).unwrap(),
            Some(_) | None => self.roll(CLOCK_AHEAD_MAX_MICROSECONDS),
        };
        let peers = self.network.link(id, ahead);
        let logs = Arc::new(NoLogs);
        EventualNode::start(id, (log, engine), (peers, catalog, logs), options)
            .await
            .map_err(|e| format!("{e:?}"))
    }

    /// Everything runs and reaches everything again, on a good network.
    pub async fn make_whole(self: &Arc<Self>) {
        self.network.heal();
        self.network.set_quality(Quality::GOOD);
        for at in self.all() {
            self.restart(at).await;
        }
    }

    /// Whether all primaries hold the same, and no hint is left.
    pub fn is_converged(&self, range: RangeId) -> bool {
        let reports: Vec<_> = self.all().map(|at| self.report(at, range)).collect();
        let Some(first) = reports[0].and_then(|report| report.hash) else {
            return false;
        };
        let same = |report: &Option<RangeReport>| {
            report.is_some_and(|report| report.filled && report.hash == Some(first))
        };
        reports[..PRIMARIES].iter().all(same)
            && reports.iter().flatten().all(|report| report.hints == 0)
    }

    /// Waits until a range has converged; returns after how long.
    pub async fn converge(&self, range: RangeId) -> Duration {
        let began = Instant::now();
        while !self.is_converged(range) {
            if began.elapsed() > PATIENCE {
                let reports: Vec<_> = self.all().map(|at| self.report(at, range)).collect();
                self.accuse(format!("not converged after {PATIENCE:?}: {reports:?}"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    }

    /// Ends all processes, so that the runtime has nothing left to do.
    pub fn end_all(&self) {
        self.all().for_each(|at| self.kill(at));
    }
}

fn new_disk(settings: &Settings) -> SimDisk {
    let disk = SimDisk::new();
    disk.set_sync_latency(settings.sync_latency);
    disk
}
