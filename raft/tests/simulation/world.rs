//! The simulated cluster: nodes that can be cut off, killed, lose their power and come back; what
//! the clients found wrong is collected here. What clients do is in `clients`.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_proto::internal::CatalogNode;
use quorate_raft::peer::SimulatedNetwork;
use quorate_raft::seam::{Clock, SeededRandomness, SimulatedClock};
use quorate_raft::{Faults, Group, RaftNode, RaftNodeOptions, Seams, seed_thread};
use quorate_storage::disk::sim::Dice;
use quorate_storage::disk::{Disk, SimDisk};
use quorate_storage::engine::{Engine, EngineOptions};
use quorate_storage::log::{LogIdentity, LogOptions, NodeLog};
use quorate_types::{NodeId, Timestamp};
use tokio::time::Instant;

const EPOCH: Timestamp = Timestamp(1_700_000_000_000_000);
/// Simulated time that anything may take to work again once all is whole.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a disk's sync does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    /// What it should.
    Done,
    /// Nothing: a power cut loses any part of all that was ever written.
    Never,
    /// Nothing in the last moments before all nodes lose their power, which lose just these.
    Late,
}

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    pub nodes: u64,
    pub faults: Faults,
    pub syncs: Syncs,
    /// Small: the engine flushes all the time, segments of the log are many.
    pub memory_bytes: usize,
    pub segment_bytes: u64,
    pub sync_latency: Duration,
    pub purge_entries: u64,
    pub kept_entries: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            nodes: 3,
            faults: Faults::default(),
            syncs: Syncs::Done,
            memory_bytes: 16 << 10,
            segment_bytes: 64 << 10,
            sync_latency: Duration::from_micros(300),
            purge_entries: 50,
            kept_entries: 20,
        }
    }
}

struct Member {
    disk: SimDisk,
    clock: SimulatedClock,
    raft: Option<RaftNode>,
    starts: u64,
    /// Damaged by the test: it need not serve any more, but what it says must be right.
    condemned: bool,
}

/// A cluster, and what is known against it.
pub struct World {
    pub seed: u64,
    pub network: SimulatedNetwork,
    settings: Settings,
    members: Vec<Mutex<Member>>,
    dice: Mutex<Dice>,
    violations: Mutex<Vec<String>>,
    /// Reads and writes that were answered.
    pub answered: AtomicU64,
}

pub type Shared = Arc<World>;

impl World {
    /// Starts all nodes and waits until the default keyspace is known everywhere.
    pub async fn start(seed: u64, settings: Settings) -> Shared {
        seed_thread(Some(seed));
        let disk = || {
            let disk = SimDisk::new();
            disk.set_sync_latency(settings.sync_latency);
            disk.lie_about_sync(settings.syncs == Syncs::Never);
            disk
        };
        let member = || Member {
            disk: disk(),
            clock: SimulatedClock::new(EPOCH),
            raft: None,
            starts: 0,
            condemned: false,
        };
        let members = (0..settings.nodes).map(|_| Mutex::new(member())).collect();
        let world = Arc::new(World {
            seed,
            network: SimulatedNetwork::new(seed),
            settings,
            members,
            dice: Mutex::new(Dice::new(seed ^ 0x5eed)),
            violations: Mutex::default(),
            answered: AtomicU64::new(0),
        });
        for node in world.all() {
            world.restart(node).await.unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        while !world.all().all(|node| world.serves_default(node)) {
            assert!(Instant::now() < deadline, "seed {seed}: no catalog");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world
    }

    /// Whether what is synced just before a power cut is lost by it.
    pub fn syncs_are_ignored(&self) -> bool {
        self.settings.syncs == Syncs::Late
    }

    /// The nodes, counted from 0.
    pub fn all(&self) -> impl Iterator<Item = usize> + use<> {
        0..self.members.len()
    }

    pub fn roll(&self, bound: u64) -> u64 {
        self.dice.lock().below(bound)
    }

    pub fn any_node(&self) -> usize {
        self.roll(self.members.len() as u64) as usize
    }

    /// A node's process, if it runs.
    pub fn raft(&self, node: usize) -> Option<RaftNode> {
        self.members[node].lock().raft.clone()
    }

    pub fn clock(&self, node: usize) -> SimulatedClock {
        self.members[node].lock().clock.clone()
    }

    /// What some node's clock shows.
    pub fn clock_now(&self) -> u64 {
        self.clock(self.any_node()).now().0
    }

    pub fn disk(&self, node: usize) -> SimDisk {
        self.members[node].lock().disk.clone()
    }

    /// Whether a node knows the default keyspace, and its replica of it, if it is to have one.
    fn serves_default(&self, node: usize) -> bool {
        let Some(raft) = self.raft(node) else {
            return false;
        };
        let catalog = raft.catalog();
        let Some(keyspace) = catalog.keyspace("default") else {
            return false;
        };
        let (range, _) = keyspace.route(b"");
        !range.replicas.contains(&id_of(node)) || raft.group(range.id).is_some()
    }

    /// The default keyspace's one range on a node.
    pub fn group(&self, node: usize) -> Option<Arc<Group>> {
        self.group_of(node, "default", b"").map(|(group, _)| group)
    }

    /// The replica on a node of the range that holds a key, and the encoded key.
    pub fn group_of(&self, node: usize, keyspace: &str, key: &[u8]) -> Option<(Arc<Group>, Bytes)> {
        let raft = self.raft(node)?;
        let catalog = raft.catalog();
        let (range, encoded) = catalog.keyspace(keyspace)?.route(key);
        Some((raft.group(range.id)?, encoded))
    }

    /// The node that leads the default keyspace's range by its own belief and a majority's.
    pub fn leader(&self) -> Option<usize> {
        let believed: Vec<_> = self
            .all()
            .filter_map(|n| self.group(n)?.leader())
            .map(|id| id.0 as usize - 1)
            .collect();
        let agree = |leader: &usize| {
            let votes = believed.iter().filter(|b| *b == leader).count();
            votes * 2 > self.members.len() && believed.contains(leader)
        };
        self.all().find(agree)
    }

    pub async fn await_leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(leader) = self.leader().filter(|l| self.raft(*l).is_some()) {
                return leader;
            }
            assert!(Instant::now() < deadline, "seed {}: no leader", self.seed);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether the other nodes' logs have forgotten what a node would need next that is at `last`:
    /// then only a snapshot helps it.
    pub fn has_forgotten(&self, away: usize, last: u64) -> bool {
        self.all().filter(|n| *n != away).all(|node| {
            let Some((raft, group)) = self.raft(node).zip(self.group(node)) else {
                return false;
            };
            let log = raft.log().group(group.range_id().0);
            log.first_index().is_some_and(|first| first > last + 1)
        })
    }

    /// Cuts one node off from all others.
    pub fn isolate(&self, node: usize) {
        let others: Vec<NodeId> = self.all().filter(|n| *n != node).map(id_of).collect();
        self.network.partition(&[id_of(node)], &others);
    }

    /// Kills a node's process: what it wrote stays, whether synced or not.
    pub fn kill(&self, node: usize) {
        self.end(node, SimDisk::process_kill);
    }

    /// Cuts a node's power: what was not synced is lost, torn or reordered.
    pub fn cut_power(&self, node: usize) {
        let seed = self.roll(u64::MAX);
        self.end(node, |disk| disk.power_cut(seed));
    }

    fn end(&self, node: usize, what_is_left: impl FnOnce(&SimDisk) -> SimDisk) {
        self.network.crash(id_of(node));
        let mut member = self.members[node].lock();
        member.disk = what_is_left(&member.disk);
        if let Some(raft) = member.raft.take() {
            raft.abandon();
        }
    }

    /// Starts a node that does not run, on what its disk holds.
    pub async fn restart(&self, node: usize) -> Result<(), String> {
        if self.raft(node).is_some() {
            return Ok(());
        }
        let raft = self.open(node).await?;
        self.members[node].lock().raft = Some(raft);
        Ok(())
    }

    async fn open(&self, node: usize) -> Result<RaftNode, String> {
        let (disk, clock, starts) = {
            let mut member = self.members[node].lock();
            member.starts += 1;
            let disk: Arc<dyn Disk> = Arc::new(member.disk.clone());
            (disk, Arc::new(member.clock.clone()), member.starts)
        };
        let id = id_of(node).0;
        let dir = folder(node);
        disk.create_dir_all(&dir).map_err(|e| chain(&e))?;
        let identity = LogIdentity {
            cluster: [7; 16],
            node: id,
        };
        let log_options = LogOptions::small(self.settings.segment_bytes);
        let log = NodeLog::open(disk.clone(), &dir.join("log"), identity, log_options)
            .map_err(|e| chain(&e))?;
        let engine = Engine::open(disk.clone(), &dir.join("engine"), self.engine_options())
            .map_err(|e| chain(&e))?;
        let seed = self.seed.wrapping_mul(31).wrapping_add(id) ^ starts << 48;
        let seams = Seams {
            clock,
            randomness: Arc::new(SeededRandomness::new(seed)),
            transport: self.network.link(id_of(node)),
            disk,
        };
        RaftNode::start(self.options(node, &dir), seams, log, engine)
            .await
            .map_err(|e| chain(&e))
    }

    fn engine_options(&self) -> EngineOptions {
        EngineOptions {
            files: 1,
            cache_bytes: 1 << 20,
            memory_bytes_max: self.settings.memory_bytes,
            flush_interval: Duration::from_millis(300),
            ..EngineOptions::default()
        }
    }

    fn options(&self, node: usize, dir: &Path) -> RaftNodeOptions {
        let nodes: Vec<CatalogNode> = self
            .all()
            .map(|n| CatalogNode {
                id: id_of(n).0,
                weight: 1,
                ..CatalogNode::default()
            })
            .collect();
        let me = nodes[node].clone();
        RaftNodeOptions {
            bootstrap: nodes,
            purge_entries: self.settings.purge_entries,
            kept_entries: self.settings.kept_entries,
            faults: self.settings.faults,
            ..RaftNodeOptions::new(me, "simulated", dir.to_owned())
        }
    }

    /// Frees a node from having to serve.
    pub fn condemn(&self, node: usize) {
        self.members[node].lock().condemned = true;
    }

    pub fn is_condemned(&self, node: usize) -> bool {
        self.members[node].lock().condemned
    }

    /// Takes nodes down whose log or engine has failed, as the server does.
    pub fn reap_failed(&self) {
        let failed: Vec<usize> = self
            .all()
            .filter(|n| {
                let raft = self.raft(*n);
                raft.is_some_and(|r| r.log().failed().is_some() || r.engine().failed().is_some())
            })
            .collect();
        failed.iter().for_each(|node| self.kill(*node));
    }

    /// Puts down what must not be.
    pub fn accuse(&self, what: String) {
        self.violations.lock().push(what);
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    pub fn count_answer(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Everything runs and reaches everything again.
    pub async fn make_whole(&self) {
        self.network.heal();
        for node in self.all() {
            if let Err(problem) = self.restart(node).await {
                self.accuse(format!("node {} does not start: {problem}", node + 1));
            }
        }
    }

    /// Ends all processes, so that the runtime has nothing left to do.
    pub fn end_all(&self) {
        self.all().for_each(|node| self.kill(node));
    }
}

pub fn id_of(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

pub fn folder(node: usize) -> PathBuf {
    PathBuf::from(format!("/node{}", node + 1))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A number from the environment.
pub fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What one seed showed.
pub struct Shown {
    pub answered: u64,
    pub violations: Vec<String>,
}

/// Runs one seed in simulated time.
pub fn run<Test>(seed: u64, settings: Settings, test: impl FnOnce(Shared) -> Test) -> Shown
where
    Test: Future<Output = ()>,
{
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true);
    // Without it tokio wakes those who wait for one value in an order that no seed decides.
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()));
    let runtime = builder.build().unwrap();
    runtime.block_on(async {
        let world = World::start(seed, settings).await;
        test(world.clone()).await;
        world.end_all();
        Shown {
            answered: world.answered.load(Ordering::Relaxed),
            violations: world.violations(),
        }
    })
}

/// Runs many seeds, none of which may show a violation, and all of which must do something.
pub fn run_all<Test>(
    name: &str,
    seeds_default: u64,
    settings: &Settings,
    test: impl Fn(Shared) -> Test,
) where
    Test: Future<Output = ()>,
{
    let seeds = number_from("QUORATE_SEEDS").unwrap_or(seeds_default);
    let first = number_from("QUORATE_SEED").unwrap_or(0);
    let mut answered = 0;
    for seed in first..first + seeds {
        println!(
            "seed {seed}; replay: QUORATE_SEED={seed} \
             QUORATE_SEEDS=1 cargo test -p quorate-raft --test simulation {name}"
        );
        let shown = run(seed, settings.clone(), &test);
        assert!(
            shown.violations.is_empty(),
            "seed {seed}: {:#?}",
            shown.violations
        );
        answered += shown.answered;
    }
    println!("{seeds} seeds, {answered} answers");
    assert!(
        answered >= seeds * 20,
        "too little was done for {name} to mean anything: {answered}"
    );
}

/// Runs seeds with something broken on purpose, until one shows what `is_found` looks for. With
/// `QUORATE_SHARE` set it plays so many seeds to their ends, and says how many show it.
pub fn must_be_found<Test>(
    seeds: u64,
    settings: &Settings,
    is_found: impl Fn(&str) -> bool,
    test: impl Fn(Shared) -> Test,
) where
    Test: Future<Output = ()>,
{
    let show = |seed: u64| {
        let shown = run(seed, settings.clone(), &test);
        let found = shown.violations.into_iter().find(|v| is_found(v))?;
        println!("found with seed {seed}: {found}");
        Some(found)
    };
    if let Some(share_of) = number_from("QUORATE_SHARE") {
        let found = (0..share_of).filter_map(&show).count();
        return println!("{found} of {share_of} seeds show it; {seeds} are tried");
    }
    let is_noticed = (0..seeds).any(|seed| show(seed).is_some());
    assert!(is_noticed, "{seeds} seeds do not notice {settings:?}");
}
