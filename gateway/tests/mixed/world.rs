//! The simulated cluster: five whole nodes with gateways on simulated disks and a bad network,
//! which can be cut off, killed, lose their power, and come back.
//!
//! Not here: how clients ask (`asking`), what they ask (`clients`), and what is right (`ledger`,
//! `judge`).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_eventual::{EventualNode, EventualOptions, Witness};
use quorate_gateway::{Gateway, GatewayOptions, Limits, start_eventual};
use quorate_proto::internal::CatalogNode;
use quorate_proto::v1;
use quorate_raft::peer::{Quality, SimulatedNetwork};
use quorate_raft::seam::{Clock, SeededRandomness, SimulatedClock};
use quorate_raft::{Group, RaftNode, RaftNodeOptions, Seams, seed_thread};
use quorate_storage::disk::sim::Dice;
use quorate_storage::disk::{Disk, SimDisk};
use quorate_storage::engine::{Engine, EngineOptions};
use quorate_storage::log::{LogIdentity, LogOptions, NodeLog};
use quorate_types::{ClientId, NodeId, RangeId, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::ledger::Ledger;

pub const NODES: usize = 5;
/// When every run begins.
pub const EPOCH: Timestamp = Timestamp(1_700_000_000_000_000);
/// Simulated time that anything may take to work at all.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Links of a storm.
pub const BAD: Quality = Quality {
    lost_per_mille: 10,
    slow_per_mille: 20,
    slow_max_micros: 150_000,
    doubled_per_mille: 0,
    late_per_mille: 0,
    late_max: Duration::ZERO,
};

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    pub eventual: EventualOptions,
    pub raft: quorate_raft::Faults,
    pub gateway: quorate_gateway::Faults,
    /// Of the keyspace that is asked; `None`: the default one, of siblings.
    pub conflict: Option<&'static str>,
    pub memory_bytes: usize,
    pub segment_bytes: u64,
    pub sync_latency: Duration,
    pub purge_entries: u64,
    pub kept_entries: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            eventual: EventualOptions {
                // Small, so that a round takes several entries.
                absorb_keys_max: 2,
                ..EventualOptions::default()
            },
            raft: quorate_raft::Faults::default(),
            gateway: quorate_gateway::Faults::default(),
            conflict: None,
            memory_bytes: 32 << 10,
            segment_bytes: 128 << 10,
            sync_latency: Duration::from_micros(300),
            purge_entries: 30,
            kept_entries: 10,
        }
    }
}

/// A running process.
#[derive(Clone)]
pub struct Process {
    pub raft: RaftNode,
    pub eventual: EventualNode,
    pub gateway: Gateway,
    /// Closes when the process ends.
    pub life: watch::Receiver<()>,
}

struct Member {
    disk: SimDisk,
    clock: SimulatedClock,
    process: Option<Process>,
    life: Option<watch::Sender<()>>,
    starts: u64,
}

/// A cluster, and what is known against it. Nodes are counted from 0.
pub struct World {
    pub seed: u64,
    pub network: SimulatedNetwork,
    pub ledger: Arc<Mutex<Ledger>>,
    /// Requests that were answered.
    pub answered: AtomicU64,
    pub settings: Settings,
    members: Vec<Mutex<Member>>,
    dice: Mutex<Dice>,
    /// Of the range that is asked, as it was last known.
    place: Mutex<Option<(RangeId, Vec<NodeId>)>>,
    /// The cluster's name and the keyspace's identity, once known: all nodes may be down when a
    /// context is opened.
    pub binding: OnceLock<(String, [u8; 12])>,
    violations: Mutex<Vec<String>>,
}

pub type Shared = Arc<World>;

impl World {
    /// Starts all nodes, and waits until the keyspace is known and led.
    pub async fn start(seed: u64, settings: Settings) -> Shared {
        seed_thread(Some(seed));
        let member = || {
            let disk = SimDisk::new();
            disk.set_sync_latency(settings.sync_latency);
            Mutex::new(Member {
                disk,
                clock: SimulatedClock::new(EPOCH),
                process: None,
                life: None,
                starts: 0,
            })
        };
        let members = (0..NODES).map(|_| member()).collect();
        let world = Arc::new(World {
            seed,
            network: SimulatedNetwork::new(seed),
            ledger: Arc::default(),
            answered: AtomicU64::new(0),
            members,
            dice: Mutex::new(Dice::new(seed ^ 0x5eed)),
            place: Mutex::default(),
            binding: OnceLock::new(),
            violations: Mutex::default(),
            settings,
        });
        for at in world.all() {
            world.restart(at).await;
        }
        world.await_keyspace("default").await;
        if let Some(conflict) = world.settings.conflict {
            world.create(conflict).await;
        }
        world.learn_binding();
        world.leader().await;
        world
    }

    async fn create(&self, conflict: &str) {
        let request = v1::CreateKeyspaceRequest {
            name: self.keyspace().to_owned(),
            options: Some(v1::KeyspaceOptions {
                mode: "mixed".to_owned(),
                conflict: conflict.to_owned(),
                ..v1::KeyspaceOptions::default()
            }),
        };
        let gateway = self.process(0).unwrap().gateway;
        let created = gateway.create_keyspace(request, Instant::now() + PATIENCE);
        created.await.unwrap();
        self.await_keyspace(self.keyspace()).await;
    }

    async fn await_keyspace(&self, name: &str) {
        let knows = |at: usize| {
            let catalog = self.process(at).unwrap().raft.catalog();
            catalog.keyspace(name).is_some()
        };
        self.eventually("the keyspace is known everywhere", || self.all().all(knows))
            .await;
    }

    pub fn keyspace(&self) -> &'static str {
        self.settings.conflict.map_or("default", |_| "other")
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

    pub fn disk(&self, at: usize) -> SimDisk {
        self.members[at].lock().disk.clone()
    }

    pub fn clock(&self, at: usize) -> SimulatedClock {
        self.members[at].lock().clock.clone()
    }

    /// A node's process, if it runs.
    pub fn process(&self, at: usize) -> Option<Process> {
        self.members[at].lock().process.clone()
    }

    /// The range of all keys that are asked, and its primaries.
    pub fn range(&self) -> (RangeId, Vec<usize>) {
        let mut running = self.all().filter_map(|at| self.process(at));
        let known = running.find_map(|process| {
            let catalog = process.raft.catalog();
            let (range, _) = catalog.keyspace(self.keyspace())?.route(b"");
            Some((range.id, range.replicas.clone()))
        });
        // While no node runs that knows the catalog, it is where it was: nothing moves it.
        let mut place = self.place.lock();
        *place = known.or(place.take());
        let (range, replicas) = place.clone().unwrap();
        let at = |node: NodeId| usize::try_from(node.0 - 1).unwrap();
        (range, replicas.into_iter().map(at).collect())
    }

    pub fn primaries(&self) -> Vec<usize> {
        self.range().1
    }

    /// A node's replica of the range.
    pub fn group(&self, at: usize) -> Option<Arc<Group>> {
        let range = self.range().0;
        self.process(at)?.raft.group(range)
    }

    /// The node that leads the range, once a majority believes so.
    pub async fn leader(&self) -> usize {
        let believed = || {
            let primaries = self.primaries();
            let groups = primaries.iter().filter_map(|at| self.group(*at));
            let leaders: Vec<_> = groups.filter_map(|group| group.leader()).collect();
            let agreed = leaders.iter().find(|leader| {
                leaders.iter().filter(|other| other == leader).count() * 2 > primaries.len()
            });
            let at = usize::try_from(agreed?.0 - 1).unwrap();
            self.process(at).map(|_| at)
        };
        self.eventually("there is a leader", || believed().is_some())
            .await;
        believed().unwrap()
    }

    /// Waits until something is so; accuses the cluster if it does not come to be.
    pub async fn eventually(&self, what: &str, mut so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so() {
            assert!(
                Instant::now() < deadline,
                "seed {}: not in time: {what}",
                self.seed
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn accuse(&self, what: String) {
        self.violations.lock().push(what);
    }

    /// Notes what happened, with the time.
    pub fn note(&self, what: impl FnOnce() -> String) {
        let at = self.clock(0).now().0.saturating_sub(EPOCH.0);
        self.ledger.lock().note(|| format!("-- {at} {}", what()));
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    pub fn count_answer(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Cuts one node off from all others.
    pub fn isolate(&self, at: usize) {
        let others: Vec<usize> = self.all().filter(|other| *other != at).collect();
        self.part(&[at], &others);
    }

    /// Cuts both ways between two groups.
    pub fn part(&self, left: &[usize], right: &[usize]) {
        self.note(|| format!("cut {left:?} | {right:?}"));
        self.network.partition(&ids_of(left), &ids_of(right));
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
        self.note(|| format!("node {at} ends"));
        self.network.crash(id_of(at));
        let mut member = self.members[at].lock();
        member.disk = what_is_left(&member.disk);
        member.life = None;
        if let Some(process) = member.process.take() {
            process.gateway.stop();
            process.eventual.stop();
            process.raft.abandon();
        }
    }

    /// Takes nodes down whose log or engine has failed, as the server does.
    pub fn reap_failed(&self) {
        for at in self.all() {
            let failed = self.process(at).is_some_and(|process| {
                let raft = process.raft;
                raft.log().failed().is_some() || raft.engine().failed().is_some()
            });
            if failed {
                self.kill(at);
            }
        }
    }

    /// Starts a node that does not run, on what its disk holds.
    pub async fn restart(&self, at: usize) {
        if self.process(at).is_some() {
            return;
        }
        self.note(|| format!("node {at} starts"));
        let (alive, life) = watch::channel(());
        match self.open(at, life).await {
            Ok(process) => {
                let mut member = self.members[at].lock();
                member.process = Some(process);
                member.life = Some(alive);
            }
            Err(problem) => self.accuse(format!("node {at} does not start: {problem}")),
        }
    }

    async fn open(&self, at: usize, life: watch::Receiver<()>) -> Result<Process, String> {
        let (disk, clock, starts) = {
            let mut member = self.members[at].lock();
            member.starts += 1;
            let disk: Arc<dyn Disk> = Arc::new(member.disk.clone());
            (disk, Arc::new(member.clock.clone()), member.starts)
        };
        let id = id_of(at);
        let dir = PathBuf::from(format!("/node{id}"));
        disk.create_dir_all(&dir).map_err(|e| format!("{e:?}"))?;
        let (log, engine) = self.storage(&disk, &dir, id)?;
        let seed = self.seed.wrapping_mul(31).wrapping_add(id.0) ^ starts << 48;
        let seams = Seams {
            clock,
            randomness: Arc::new(SeededRandomness::new(seed)),
            transport: self.network.link(id),
            disk,
        };
        let raft = RaftNode::start(self.raft_options(at, dir), seams, log, engine);
        let raft = raft.await.map_err(|e| format!("{e:?}"))?;
        let mut options = self.settings.eventual.clone();
        let ledger = self.ledger.clone();
        options.witness = Witness(Some(Arc::new(
            move |_: RangeId, _: &Bytes, deltas: &[Bytes]| ledger.lock().named(deltas),
        )));
        let eventual = start_eventual(&raft, options);
        let eventual = eventual.await.map_err(|e| format!("{e:?}"))?;
        let options = GatewayOptions {
            // The low bits are the gateway's: two starts must not give out the same names.
            client: ClientId(id.0 << 32 | starts << 8),
            limits: Limits {
                // Small, so that watches stop within revisions.
                watch_events_max: 1,
                ..Limits::default()
            },
            faults: self.settings.gateway,
        };
        let gateway = Gateway::new(raft.clone(), eventual.clone(), options);
        Ok(Process {
            raft,
            eventual,
            gateway,
            life,
        })
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
        let options = LogOptions::small(self.settings.segment_bytes);
        let log = NodeLog::open(disk.clone(), &dir.join("log"), identity, options);
        let log = log.map_err(|e| format!("{e:?}"))?;
        let options = EngineOptions {
            files: 1,
            cache_bytes: 1 << 20,
            memory_bytes_max: self.settings.memory_bytes,
            flush_interval: Duration::from_millis(300),
            ..EngineOptions::default()
        };
        let engine = Engine::open(disk.clone(), &dir.join("engine"), options);
        Ok((log, engine.map_err(|e| format!("{e:?}"))?))
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
            purge_entries: self.settings.purge_entries,
            kept_entries: self.settings.kept_entries,
            // Small, so that watches fall behind.
            followed_events_max: 12,
            faults: self.settings.raft,
            ..RaftNodeOptions::new(me, "simulated", dir)
        }
    }

    /// Everything runs, reaches everything, and has the right time again.
    pub async fn make_whole(&self) {
        self.network.heal();
        self.network.set_quality(Quality::default());
        self.reap_failed();
        for at in self.all() {
            self.clock(at).set_offset(0);
            self.restart(at).await;
        }
    }

    /// Ends all processes, so that the runtime has nothing left to do.
    pub fn end_all(&self) {
        self.all().for_each(|at| self.kill(at));
    }
}

pub fn id_of(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}

fn ids_of(all: &[usize]) -> Vec<NodeId> {
    all.iter().copied().map(id_of).collect()
}
