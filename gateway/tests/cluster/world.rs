//! The cluster that the tests ask, and short ways to ask it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_eventual::EventualOptions;
use quorate_gateway::{Context, Gateway, GatewayError, GatewayOptions, Limits, start_eventual};
use quorate_proto::internal::CatalogNode;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_raft::peer::SimulatedNetwork;
use quorate_raft::seam::{SeededRandomness, SimulatedClock};
use quorate_raft::{RaftNode, RaftNodeOptions, Seams, seed_thread};
use quorate_storage::disk::{Disk, SimDisk};
use quorate_storage::engine::{Engine, EngineOptions};
use quorate_storage::log::{LogIdentity, LogOptions, NodeLog};
use quorate_types::{ClientId, NodeId, Timestamp};
use tokio::time::Instant;

pub const NODES: u64 = 4;
const EPOCH: Timestamp = Timestamp(1_700_000_000_000_000);
/// Long enough for an election; a test that needs longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    pub network: SimulatedNetwork,
    pub nodes: Vec<RaftNode>,
    pub gateways: Vec<Gateway>,
    pub clocks: Vec<Arc<SimulatedClock>>,
}

/// Runs a test on a cluster, in simulated time.
pub fn in_world<Test>(seed: u64, test: impl FnOnce(World) -> Test)
where
    Test: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { test(World::start(seed, Limits::default()).await).await });
}

impl World {
    pub async fn start(seed: u64, limits: Limits) -> World {
        seed_thread(Some(seed));
        let network = SimulatedNetwork::new(seed);
        let mut nodes = Vec::new();
        let mut gateways = Vec::new();
        let mut clocks = Vec::new();
        for id in 1..=NODES {
            let clock = Arc::new(SimulatedClock::new(EPOCH));
            let node = start_node(id, seed, &network, clock.clone()).await;
            clocks.push(clock);
            let options = GatewayOptions {
                client: ClientId(id << 32),
                limits,
                faults: quorate_gateway::Faults::default(),
            };
            let eventual = start_eventual(&node, EventualOptions::default()).await;
            gateways.push(Gateway::new(node.clone(), eventual.unwrap(), options));
            nodes.push(node);
        }
        let world = World {
            network,
            nodes,
            gateways,
            clocks,
        };
        world.await_catalog("default").await;
        world
    }

    /// Waits until every node knows a keyspace.
    pub async fn await_catalog(&self, keyspace: &str) {
        let knows = |node: &RaftNode| node.catalog().keyspace(keyspace).is_some();
        eventually("the catalog is known everywhere", || {
            self.nodes.iter().all(knows)
        })
        .await;
    }

    pub async fn create(&self, name: &str, options: v1::KeyspaceOptions) -> v1::Keyspace {
        let request = v1::CreateKeyspaceRequest {
            name: name.to_owned(),
            options: Some(options),
        };
        let answer = self.gateways[0]
            .create_keyspace(request, Instant::now() + PATIENCE)
            .await;
        self.await_catalog(name).await;
        answer.unwrap().keyspace.unwrap()
    }

    pub async fn ask_within(
        &self,
        node: usize,
        within: Duration,
        request: Request,
    ) -> Result<Response, GatewayError> {
        let now = Instant::now();
        self.gateways[node]
            .serve(request, Context::new(now, now + within))
            .await
    }

    pub async fn ask(&self, node: usize, request: Request) -> Result<Response, GatewayError> {
        self.ask_within(node, PATIENCE, request).await
    }

    pub async fn put(
        &self,
        node: usize,
        keyspace: &str,
        key: &str,
        value: &str,
    ) -> v1::PutResponse {
        match self.ask(node, put(keyspace, key, value)).await.unwrap() {
            Response::Put(put) => put,
            other => panic!("{other:?}"),
        }
    }

    pub async fn get(&self, node: usize, request: v1::GetRequest) -> v1::GetResponse {
        match self.ask(node, Request::Get(request)).await.unwrap() {
            Response::Get(get) => get,
            other => panic!("{other:?}"),
        }
    }

    /// The value of a key, read linearizably.
    pub async fn value(&self, node: usize, keyspace: &str, key: &str) -> Option<String> {
        let answer = self.get(node, get(keyspace, key)).await;
        assert_eq!(answer.found, answer.entry.is_some());
        answer
            .entry
            .map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
    }

    pub async fn scan(
        &self,
        node: usize,
        request: v1::ScanRequest,
    ) -> Result<v1::ScanResponse, GatewayError> {
        match self.ask(node, Request::Scan(request)).await? {
            Response::Scan(scan) => Ok(scan),
            other => panic!("{other:?}"),
        }
    }

    /// The nodes that hold a key's range, and its leader; as places in `nodes`.
    pub fn holders(&self, keyspace: &str, key: &str) -> (Vec<usize>, Option<usize>) {
        let place = |node: NodeId| usize::try_from(node.0 - 1).unwrap();
        let catalog = self.nodes[0].catalog();
        let (range, _) = catalog.keyspace(keyspace).unwrap().route(key.as_bytes());
        let holders: Vec<usize> = range.replicas.iter().copied().map(place).collect();
        let leads = |at: &usize| {
            self.nodes[*at]
                .group(range.id)
                .is_some_and(|g| g.is_leader())
        };
        let leader = holders.iter().copied().find(leads);
        (holders, leader)
    }

    /// The leader of a key's range, once there is one.
    pub async fn leader(&self, keyspace: &str, key: &str) -> usize {
        eventually("there is a leader", || {
            self.holders(keyspace, key).1.is_some()
        })
        .await;
        self.holders(keyspace, key).1.unwrap()
    }

    /// Cuts one node off from all others.
    pub fn isolate(&self, node: usize) {
        let alone = NodeId(node as u64 + 1);
        let others: Vec<NodeId> = (1..=NODES).map(NodeId).filter(|id| *id != alone).collect();
        self.network.partition(&[alone], &others);
    }
}

/// Waits until something is so.
pub async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn put(keyspace: &str, key: &str, value: &str) -> Request {
    Request::Put(v1::PutRequest {
        keyspace: keyspace.to_owned(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..v1::PutRequest::default()
    })
}

pub fn get(keyspace: &str, key: &str) -> v1::GetRequest {
    v1::GetRequest {
        keyspace: keyspace.to_owned(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        ..v1::GetRequest::default()
    }
}

/// One level, or a ladder with `@MILLISECONDS` behind its rungs.
pub fn level(text: &str) -> Option<v1::Consistency> {
    let rung = |text: &str| {
        let (name, budget) = text.trim().split_once('@').unwrap_or((text.trim(), "0"));
        let copies = match name {
            "eventual:one" => v1::Copies::One,
            _ => v1::Copies::Unspecified,
        };
        let (level, staleness_max_ms) = match name.split_once(':') {
            Some(("eventual", _)) => (v1::Level::Eventual, 0),
            Some((_, age)) => (v1::Level::Bounded, age.parse().unwrap()),
            None => (
                v1::Level::from_str_name(&format!("LEVEL_{}", name.to_uppercase())).unwrap(),
                0,
            ),
        };
        let budget_ms = budget.parse().unwrap();
        v1::Rung {
            level: level as i32,
            staleness_max_ms,
            budget_ms,
            copies: copies as i32,
            ..v1::Rung::default()
        }
    };
    let rungs = text.split('>').map(rung).collect();
    Some(v1::Consistency {
        fence: false,
        rungs,
        ..v1::Consistency::default()
    })
}

pub fn hashed(buckets: u16) -> v1::KeyspaceOptions {
    v1::KeyspaceOptions {
        partitioning: format!("hash({buckets})"),
        ..Default::default()
    }
}

async fn start_node(
    id: u64,
    seed: u64,
    network: &SimulatedNetwork,
    clock: Arc<SimulatedClock>,
) -> RaftNode {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let dir = PathBuf::from(format!("/node{id}"));
    disk.create_dir_all(&dir).unwrap();
    let identity = LogIdentity {
        cluster: [7; 16],
        node: id,
    };
    let log_options = LogOptions {
        segment_bytes: 1 << 20,
        first_segment_bytes: 1 << 20,
        fill_step_bytes: 1 << 16,
        ..LogOptions::default()
    };
    let log = NodeLog::open(disk.clone(), &dir.join("log"), identity, log_options).unwrap();
    let engine_options = EngineOptions {
        files: 1,
        cache_bytes: 1 << 20,
        ..Default::default()
    };
    let engine = Engine::open(disk.clone(), &dir.join("engine"), engine_options).unwrap();
    let nodes: Vec<CatalogNode> = (1..=NODES)
        .map(|id| CatalogNode {
            id,
            weight: 1,
            ..CatalogNode::default()
        })
        .collect();
    let me = nodes[usize::try_from(id - 1).unwrap()].clone();
    let options = RaftNodeOptions {
        bootstrap: nodes,
        ..RaftNodeOptions::new(me, "simulated", dir)
    };
    let seams = Seams {
        clock,
        randomness: Arc::new(SeededRandomness::new(
            seed.wrapping_mul(31).wrapping_add(id),
        )),
        transport: network.link(NodeId(id)),
        disk,
    };
    RaftNode::start(options, seams, log, engine).await.unwrap()
}
