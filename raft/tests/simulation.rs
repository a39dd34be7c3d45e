//! Three nodes in one process on simulated clock, network and disk: many seeds of puts, gets and a
//! partition. Every acknowledged write is read back by every later linearizable read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::internal::{CatalogNode, Command, Write, command};
use quorate_raft::peer::SimulatedNetwork;
use quorate_raft::seam::{SeededRandomness, SimulatedClock};
use quorate_raft::{Group, ProposeError, RaftNode, RaftNodeOptions, ReadError, Seams, seed_thread};
use quorate_storage::disk::{Disk, SimDisk};
use quorate_storage::engine::{Engine, EngineOptions};
use quorate_storage::log::{LogIdentity, LogOptions, NodeLog};
use quorate_types::{NodeId, RangeId, Timestamp};
use tokio::time::Instant;

const NODES: u64 = 3;
const EPOCH: Timestamp = Timestamp(1_700_000_000_000_000);

struct World {
    network: SimulatedNetwork,
    nodes: Vec<RaftNode>,
    dice: u64,
}

impl World {
    async fn start(seed: u64) -> World {
        seed_thread(Some(seed));
        let network = SimulatedNetwork::new(seed);
        let mut nodes = Vec::new();
        for id in 1..=NODES {
            nodes.push(start_node(id, seed, &network).await);
        }
        World { network, nodes, dice: seed | 1 }
    }

    fn roll(&mut self, bound: u64) -> u64 {
        // splitmix64
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// The default keyspace's range on a node, once the catalog has reached it.
    async fn group(&self, node: usize) -> (Arc<Group>, Bytes) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let catalog = self.nodes[node].catalog();
            if let Some(keyspace) = catalog.keyspace("default") {
                let (range, key) = keyspace.route(b"k");
                if let Some(group) = self.nodes[node].group(range.id) {
                    return (group, key);
                }
            }
            assert!(Instant::now() < deadline, "no catalog on node {}", node + 1);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn start_node(id: u64, seed: u64, network: &SimulatedNetwork) -> RaftNode {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let dir = PathBuf::from(format!("/node{id}"));
    disk.create_dir_all(&dir).unwrap();
    let identity = LogIdentity { cluster: [7; 16], node: id };
    let log_options = LogOptions {
        segment_bytes: 1 << 18,
        first_segment_bytes: 1 << 18,
        fill_step_bytes: 1 << 16,
        ..LogOptions::default()
    };
    let log = NodeLog::open(disk.clone(), &dir.join("log"), identity, log_options).unwrap();
    let engine_options = EngineOptions { files: 1, cache_bytes: 1 << 20, ..Default::default() };
    let engine = Engine::open(disk.clone(), &dir.join("engine"), engine_options).unwrap();
    let nodes: Vec<CatalogNode> = (1..=NODES)
        .map(|id| CatalogNode { id, weight: 1, ..CatalogNode::default() })
        .collect();
    let me = nodes[(id - 1) as usize].clone();
    let options =
        RaftNodeOptions { bootstrap: nodes, ..RaftNodeOptions::new(me, "simulated", dir) };
    let seams = Seams {
        clock: Arc::new(SimulatedClock::new(EPOCH)),
        randomness: Arc::new(SeededRandomness::new(seed.wrapping_mul(31).wrapping_add(id))),
        transport: network.link(NodeId(id)),
        disk,
    };
    RaftNode::start(options, seams, log, engine).await.unwrap()
}

fn put(key: &Bytes, value: u64) -> Command {
    let value = Bytes::copy_from_slice(&value.to_be_bytes());
    let write = Write { key: key.clone(), value, ttl: 0 };
    Command { operation: Some(command::Operation::Put(write)), ..Command::default() }
}

/// What a register may hold: writes are sequential, so it is the last acknowledged one, or one
/// after it whose outcome is not known.
#[derive(Default)]
struct Register {
    acknowledged: u64,
    unknown: Vec<u64>,
}

impl Register {
    fn check(&mut self, seed: u64, seen: u64) {
        let allowed = seen == self.acknowledged || self.unknown.contains(&seen);
        assert!(allowed, "seed {seed}: read {seen}, acknowledged was {}", self.acknowledged);
    }
}

async fn run(seed: u64) -> u64 {
    let mut world = World::start(seed).await;
    let mut registers: BTreeMap<u64, Register> = BTreeMap::new();
    let mut acknowledged = 0;
    for step in 1..=60u64 {
        match world.roll(20) {
            0 => {
                let alone = NodeId(world.roll(NODES) + 1);
                let others: Vec<NodeId> =
                    (1..=NODES).map(NodeId).filter(|n| *n != alone).collect();
                world.network.partition(&[alone], &others);
            }
            1 | 2 => world.network.heal(),
            _ => {}
        }
        let node = world.roll(NODES) as usize;
        let which = world.roll(3);
        let (group, key) = world.group_or_heal(node).await;
        let key = Bytes::from([key.as_ref(), &which.to_be_bytes()].concat());
        let register = registers.entry(which).or_default();
        let deadline = Instant::now() + Duration::from_millis(400);
        if world.dice % 2 == 0 {
            match group.propose(put(&key, step), deadline).await {
                Ok(_) => {
                    acknowledged += 1;
                    *register = Register { acknowledged: step, unknown: Vec::new() };
                }
                Err(ProposeError::Unknown) => register.unknown.push(step),
                Err(
                    ProposeError::NotLeader { .. }
                    | ProposeError::NoMajority
                    | ProposeError::Stopped,
                ) => {}
            }
        } else {
            match group.read_barrier(deadline).await {
                Ok(_) => {
                    let found = group.table().get(&key).unwrap();
                    let seen = found.map_or(0, |v| number(&v.value));
                    register.check(seed, seen);
                }
                Err(
                    ReadError::NotLeader { .. }
                    | ReadError::NoMajority
                    | ReadError::TimedOut
                    | ReadError::Stopped,
                ) => {}
            }
        }
    }
    world.network.heal();
    acknowledged + world.settle(seed, &mut registers).await
}

fn number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().unwrap())
}

impl World {
    async fn group_or_heal(&mut self, node: usize) -> (Arc<Group>, Bytes) {
        if self.nodes[node].catalog().epoch() == 0 {
            self.network.heal();
        }
        self.group(node).await
    }

    /// After the heal every node serves linearizable reads again, and they agree.
    async fn settle(&self, seed: u64, registers: &mut BTreeMap<u64, Register>) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut reads = 0;
        for node in 0..NODES as usize {
            let (group, key) = self.group(node).await;
            while group.read_barrier(Instant::now() + Duration::from_secs(1)).await.is_err() {
                assert!(Instant::now() < deadline, "seed {seed}: node {} does not serve", node + 1);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            for (which, register) in registers.iter_mut() {
                let key = [key.as_ref(), &which.to_be_bytes()].concat();
                let found = group.table().get(&key).unwrap();
                register.check(seed, found.map_or(0, |v| number(&v.value)));
                reads += 1;
            }
        }
        assert!(self.nodes[0].group(RangeId::META).is_some());
        reads
    }
}

#[test]
fn acknowledged_writes_survive_partitions() {
    let seeds = std::env::var("QUORATE_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(20);
    let first = std::env::var("QUORATE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let mut done = 0;
    for seed in first..first + seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        println!("seed {seed}; replay: QUORATE_SEED={seed} QUORATE_SEEDS=1 cargo test -p quorate-raft --test simulation");
        done += runtime.block_on(run(seed));
    }
    assert!(done > seeds * 5, "too little was done for the test to mean anything: {done}");
}
