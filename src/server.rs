//! The assembly of one node: opens its folder, log and engine, starts its groups, and serves its
//! ports until it is told to stop.
//!
//! Only here do the parts meet. What each of them does is in its own crate.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_eventual::{EventualError, EventualNode, EventualOptions};
use quorate_gateway::{EtcdOptions, Gateway, GatewayOptions, Limits, ServeError, start_eventual};
use quorate_proto::internal::CatalogNode;
use quorate_proto::internal::peer_server::PeerServer;
use quorate_raft::peer::{GrpcTransport, PeerService, TransportOptions};
use quorate_raft::seam::{Clock, OffsetClock, Randomness, SystemClock, SystemRandomness};
use quorate_raft::{RaftNode, RaftNodeOptions, Seams, StartError};
use quorate_storage::disk::{Disk, FaultDisk, FolderLock, RealDisk};
use quorate_storage::engine::{Engine, EngineError, EngineOptions};
use quorate_storage::log::{LogError, LogIdentity, LogOptions, NodeLog};
use quorate_types::limits::MESSAGE_MAX_BYTES;
use quorate_types::{ClientId, NodeId, chain, stable_hash};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::planted::Planted;

/// Clients' requests in work when a node stops get so long to be answered.
const DRAIN_CLIENTS_MAX: Duration = Duration::from_millis(150);
/// After that, and with the calls of its peers at their end, everything may take so long.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// Largest share of a range's memory that its log's cache takes, bytes.
const LOG_CACHE_MAX_BYTES: u64 = 16 << 20;
/// A file that makes the clock wrong is looked at so often.
const CLOCK_OFFSET_LOOK_PAUSE: Duration = Duration::from_millis(20);
/// The page cache of the engine's files, bytes.
const ENGINE_CACHE_BYTES: usize = 64 << 20;

/// One other node that this one knows from its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerOptions {
    /// The node's id.
    pub id: u64,
    /// Where it serves gRPC.
    pub address: SocketAddr,
    /// Its failure domain.
    pub zone: String,
    /// Its weight on the ring.
    pub weight: u32,
}

/// All that a node is told when it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerOptions {
    /// This node's id.
    pub id: u64,
    /// Its data folder.
    pub dir: PathBuf,
    /// Where it serves gRPC.
    pub listen: SocketAddr,
    /// Where it serves metrics and health over HTTP.
    pub http_listen: SocketAddr,
    /// Where it serves etcd's clients; none: nowhere.
    pub etcd_listen: Option<SocketAddr>,
    /// The keyspace that these see.
    pub etcd_keyspace: String,
    /// The other nodes.
    pub peers: Vec<PeerOptions>,
    /// Nodes that are dialled at a relay, by id.
    pub detours: Vec<(u64, SocketAddr)>,
    /// A file with a number, by which this node's clock is wrong, milliseconds.
    pub clock_offset_file: Option<PathBuf>,
    /// A file that says what is wrong with this node's disk, which then holds back what is not synced.
    pub disk_fault_file: Option<PathBuf>,
    /// Entries that a range's log keeps for late followers; none: as many as is usual.
    pub kept_entries: Option<u64>,
    /// What it does wrong on purpose.
    pub planted: Planted,
    /// This node's failure domain.
    pub zone: String,
    /// This node's weight on the ring.
    pub weight: u32,
    /// The cluster's name.
    pub cluster: String,
    /// Join a cluster that is there, instead of founding one with the peers.
    pub join: bool,
    /// Addresses outside loopback are allowed.
    pub insecure: bool,
    /// Stop as on SIGTERM when standard input ends.
    pub stdin_watch: bool,
    /// How long a follower waits for its leader before it stands for election, milliseconds.
    pub election_ms: u64,
    /// How suspicious a node's silence may be before it is taken to be away.
    pub phi_max: f64,
    /// Memory that the engine's tables may take, bytes.
    pub engine_memory_max_bytes: u64,
    /// Bytes of requests that may be in work at once.
    pub in_flight_max_bytes: u64,
}

/// Why a node did not start, or stopped.
#[derive(Debug, Error)]
pub enum ServerError {
    /// An address that others can reach, without TLS.
    #[error("{address} can be reached from outside, and there is no TLS yet")]
    Exposed {
        /// The address.
        address: SocketAddr,
    },
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder belongs to a running node.
    #[error("the folder {dir} is in use by another process")]
    FolderInUse {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder cannot be used.
    #[error("the folder {dir} cannot be used")]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The log does not open.
    #[error("the log in {dir} does not open")]
    Log {
        /// The folder.
        dir: PathBuf,
        /// Why.
        #[source]
        source: LogError,
    },
    /// The engine does not open.
    #[error("the engine in {dir} does not open")]
    Engine {
        /// The folder.
        dir: PathBuf,
        /// Why.
        #[source]
        source: EngineError,
    },
    /// The groups do not start.
    #[error("the node does not start")]
    Start(#[from] StartError),
    /// The eventual path does not start.
    #[error("the eventual path does not start")]
    Eventual(#[source] EventualError),
    /// Metrics cannot be collected.
    #[error("metrics: {0}")]
    Metrics(String),
    /// A port is not served any more.
    #[error("a port is not served any more")]
    Serve(#[from] ServeError),
    /// The disk has failed: nothing may be acknowledged any more.
    #[error("the node stops serving: {0}")]
    DiskFailed(String),
    /// What is on the disk does not match its checksum.
    #[error("the node stops serving: {0}")]
    DataLost(String),
    /// Signals cannot be taken.
    #[error("signals cannot be taken")]
    Signals(#[source] io::Error),
}

impl ServerError {
    /// Whether acknowledged data of this node is damaged: it must be replaced.
    pub fn is_data_loss(&self) -> bool {
        matches!(self, Self::DataLost(_)) || is_damage(self)
    }
}

/// Whether an error, or what led to it, is a checksum that did not match.
fn is_damage(error: &(dyn Error + 'static)) -> bool {
    let log = error.downcast_ref::<LogError>();
    let engine = error.downcast_ref::<EngineError>();
    // What an error of the system wraps is not among its sources.
    let wrapped = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    log.is_some_and(|log| matches!(log, LogError::Damaged { .. }))
        || engine.is_some_and(|engine| {
            matches!(
                engine,
                EngineError::Damaged { .. } | EngineError::Corrupt { .. }
            )
        })
        || wrapped.is_some_and(|wrapped| is_damage(wrapped))
        || error.source().is_some_and(is_damage)
}

/// What a node holds until it stops.
struct Node {
    raft: RaftNode,
    eventual: EventualNode,
    gateway: Gateway,
    _lock: Box<dyn FolderLock>,
}

/// Runs one node until SIGTERM, SIGINT, or the end of a watched standard input.
///
/// # Errors
///
/// [`ServerError`] where the node cannot start or cannot go on.
pub async fn run(options: ServerOptions) -> Result<(), ServerError> {
    let grpc = listen(options.listen, options.insecure).await?;
    let http = listen(options.http_listen, options.insecure).await?;
    let etcd = match options.etcd_listen {
        Some(address) => Some(listen(address, options.insecure).await?),
        None => None,
    };
    let metrics = quorate_gateway::install_recorder()
        .map_err(|error| ServerError::Metrics(error.to_string()))?;
    let node = start(&options).await?;
    let (stop, stopped) = watch::channel(false);
    let (stop_peers, peers_stopped) = watch::channel(false);
    let until = |mut stopped: watch::Receiver<bool>| async move {
        // An error means that the node is gone: stop as well.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let peers = PeerServer::new(PeerService::new(
        transport_options(&options),
        node.raft.peer_handler(),
        peers_stopped,
    ))
    .max_decoding_message_size(MESSAGE_MAX_BYTES)
    .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let routes = quorate_gateway::routes(&node.gateway)?.add_service(peers);
    let mut serving = tokio::spawn(quorate_gateway::serve_grpc(
        routes,
        grpc,
        until(stopped.clone()),
    ));
    let pages =
        quorate_gateway::serve_http(node.gateway.clone(), metrics, http, until(stopped.clone()));
    let pages = tokio::spawn(pages);
    let etcd = etcd.map(|listener| serve_etcd(&options, &node, listener, until(stopped.clone())));
    tracing::info!(id = options.id, listen = %options.listen, http = %options.http_listen, "serving");
    let ended = tokio::select! {
        told = told_to_stop(options.stdin_watch) => told.map_err(ServerError::Signals),
        failed = disk_failed(&node.raft) => Err(failed),
        served = &mut serving => match served {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) | Err(_) => Ok(()),
        },
    };
    tracing::info!("stopping");
    if ended.is_ok() {
        node.raft.hand_over().await;
    }
    node.gateway.stop();
    stop.send_replace(true);
    // Answers to requests that this node has sent on come in by its peers' calls: those end last.
    if tokio::time::timeout(DRAIN_CLIENTS_MAX, &mut serving)
        .await
        .is_err()
    {
        stop_peers.send_replace(true);
        if tokio::time::timeout(DRAIN_MAX, &mut serving).await.is_err() {
            serving.abort();
        }
    }
    pages.abort();
    if let Some(etcd) = etcd {
        etcd.abort();
    }
    node.eventual.stop();
    node.raft.stop().await;
    ended
}

/// Serves etcd's clients beside ours.
fn serve_etcd(
    options: &ServerOptions,
    node: &Node,
    listener: TcpListener,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> tokio::task::JoinHandle<Result<(), ServeError>> {
    let endpoint = options.etcd_listen.map(|address| address.to_string());
    node.raft.set_etcd_endpoint(endpoint.unwrap_or_default());
    let etcd = EtcdOptions {
        keyspace: options.etcd_keyspace.clone(),
    };
    tokio::spawn(quorate_gateway::serve_etcd(
        node.gateway.clone(),
        etcd,
        listener,
        stopped,
    ))
}

async fn listen(address: SocketAddr, insecure: bool) -> Result<TcpListener, ServerError> {
    let outside = match address.ip() {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback(),
    };
    if outside && !insecure {
        return Err(ServerError::Exposed { address });
    }
    TcpListener::bind(address)
        .await
        .map_err(|source| ServerError::Listen { address, source })
}

fn transport_options(options: &ServerOptions) -> TransportOptions {
    TransportOptions {
        node: NodeId(options.id),
        cluster: options.cluster.clone(),
        detours: options
            .detours
            .iter()
            .map(|(id, relay)| (NodeId(*id), relay.to_string()))
            .collect(),
    }
}

/// Sixteen bytes that stand for the cluster's name in files.
fn cluster_tag(name: &str) -> [u8; 16] {
    let mut tag = [0; 16];
    tag[..8].copy_from_slice(&stable_hash(name.as_bytes()).to_be_bytes());
    let salted = [name.as_bytes(), b"/quorate"].concat();
    tag[8..].copy_from_slice(&stable_hash(&salted).to_be_bytes());
    tag
}

async fn start(options: &ServerOptions) -> Result<Node, ServerError> {
    let disk = disk(options)?;
    let lock = take_folder(&disk, options)?;
    let dir = options.dir.join("log");
    let identity = LogIdentity {
        cluster: cluster_tag(&options.cluster),
        node: options.id,
    };
    let log_options = LogOptions {
        cache_bytes_max: LOG_CACHE_MAX_BYTES,
        acknowledged_early: options.planted.acknowledged_early,
        ..LogOptions::default()
    };
    let log = NodeLog::open(disk.clone(), &dir, identity, log_options)
        .map_err(|source| ServerError::Log { dir, source })?;
    let dir = options.dir.join("engine");
    let engine_options = EngineOptions {
        memory_bytes_max: usize::try_from(options.engine_memory_max_bytes).unwrap_or(usize::MAX),
        cache_bytes: ENGINE_CACHE_BYTES,
        ..EngineOptions::default()
    };
    let engine = Engine::open(disk.clone(), &dir, engine_options)
        .map_err(|source| ServerError::Engine { dir, source })?;
    let randomness = Arc::new(SystemRandomness);
    let seams = Seams {
        clock: clock(options),
        randomness: randomness.clone(),
        transport: GrpcTransport::new(transport_options(options)),
        disk,
    };
    let raft = RaftNode::start(raft_options(options), seams, log, engine).await?;
    let limits = Limits {
        request_bytes_max: usize::try_from(options.in_flight_max_bytes).unwrap_or(usize::MAX),
        ..Limits::default()
    };
    let client = ClientId(randomness.next());
    let eventual_options = EventualOptions {
        faults: options.planted.eventual,
        ..EventualOptions::default()
    };
    let eventual = start_eventual(&raft, eventual_options)
        .await
        .map_err(ServerError::Eventual)?;
    let gateway = Gateway::new(
        raft.clone(),
        eventual.clone(),
        GatewayOptions {
            client,
            limits,
            faults: options.planted.gateway,
        },
    );
    Ok(Node {
        raft,
        eventual,
        gateway,
        _lock: lock,
    })
}

/// The node's disk; a faulty one if a test wants that.
fn disk(options: &ServerOptions) -> Result<Arc<dyn Disk>, ServerError> {
    let Some(orders) = &options.disk_fault_file else {
        return Ok(RealDisk::shared());
    };
    // Another seed with each start: what reaches the disk early is not to be the same for ever.
    let disk = FaultDisk::new(orders, SystemRandomness.next());
    let disk = disk.map_err(|source| ServerError::Folder {
        dir: orders.clone(),
        source,
    })?;
    Ok(Arc::new(disk))
}

/// The node's clock; a wrong one if a test wants that.
fn clock(options: &ServerOptions) -> Arc<dyn Clock> {
    let Some(path) = options.clock_offset_file.clone() else {
        return Arc::new(SystemClock);
    };
    let clock = OffsetClock::default();
    let offset = clock.offset_micros();
    offset.store(offset_in(&path), Ordering::Relaxed);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(CLOCK_OFFSET_LOOK_PAUSE).await;
            offset.store(offset_in(&path), Ordering::Relaxed);
        }
    });
    Arc::new(clock)
}

/// Microseconds; a file that is not there, or is just being written, leaves the clock right.
fn offset_in(path: &Path) -> i64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let millis: i64 = text.trim().parse().unwrap_or(0);
    millis.saturating_mul(1000)
}

fn take_folder(
    disk: &Arc<dyn Disk>,
    options: &ServerOptions,
) -> Result<Box<dyn FolderLock>, ServerError> {
    let dir = options.dir.clone();
    let folder = |source| ServerError::Folder {
        dir: dir.clone(),
        source,
    };
    disk.create_dir_all(&dir).map_err(folder)?;
    disk.lock_folder(&dir)
        .map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => ServerError::FolderInUse { dir: dir.clone() },
            _ => folder(source),
        })
}

fn raft_options(options: &ServerOptions) -> RaftNodeOptions {
    let me = CatalogNode {
        id: options.id,
        endpoint: options.listen.to_string(),
        http: options.http_listen.to_string(),
        zone: options.zone.clone(),
        weight: options.weight,
        removed: false,
    };
    let mut nodes = vec![me.clone()];
    nodes.extend(options.peers.iter().map(|peer| CatalogNode {
        id: peer.id,
        endpoint: peer.address.to_string(),
        http: String::new(),
        zone: peer.zone.clone(),
        weight: peer.weight,
        removed: false,
    }));
    nodes.sort_by_key(|node| node.id);
    let join = options
        .peers
        .iter()
        .map(|peer| (NodeId(peer.id), peer.address.to_string()))
        .collect();
    let (bootstrap, join) = if options.join {
        (Vec::new(), join)
    } else {
        (nodes, Vec::new())
    };
    let election = options.election_ms.max(50);
    let usual = RaftNodeOptions::new(me, &options.cluster, options.dir.clone());
    RaftNodeOptions {
        bootstrap,
        join,
        heartbeat_ms: (election / 5).max(10),
        election_min_ms: election * 5 / 6,
        election_max_ms: election * 3 / 2,
        phi_max: options.phi_max,
        kept_entries: options.kept_entries.unwrap_or(usual.kept_entries),
        purge_entries: options.kept_entries.unwrap_or(usual.purge_entries),
        flush_entries: options.kept_entries.unwrap_or(usual.flush_entries),
        faults: options.planted.raft,
        ..usual
    }
}

async fn told_to_stop(stdin_watch: bool) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stdin_ended(), if stdin_watch => {}
    }
    Ok(())
}

async fn stdin_ended() {
    let mut stdin = tokio::io::stdin();
    let mut nothing = [0; 64];
    // The parent writes nothing; the end, or an error, means that it is gone.
    while matches!(stdin.read(&mut nothing).await, Ok(read) if read > 0) {}
}

/// Waits until the log, the engine or a replica has failed, and says why.
async fn disk_failed(node: &RaftNode) -> ServerError {
    let mut log = node.log().on_failure();
    let mut engine = node.engine().on_failure();
    let mut replicas = node.on_failure();
    tokio::select! {
        failed = log.wait_for(Option::is_some) => match failed.as_deref() {
            Ok(Some(error)) => told_of_disk(error.as_ref()),
            Ok(None) | Err(_) => ServerError::DiskFailed("the log is closed".to_owned()),
        },
        failed = engine.wait_for(Option::is_some) => match failed.as_deref() {
            Ok(Some(error)) => told_of_disk(error.as_ref()),
            Ok(None) | Err(_) => ServerError::DiskFailed("the engine is closed".to_owned()),
        },
        failed = replicas.wait_for(Option::is_some) => match failed.as_deref() {
            Ok(Some(error)) => ServerError::DiskFailed(error.to_string()),
            Ok(None) | Err(_) => ServerError::DiskFailed("consensus has ended".to_owned()),
        },
    }
}

fn told_of_disk(error: &(dyn Error + 'static)) -> ServerError {
    match is_damage(error) {
        true => ServerError::DataLost(chain(error)),
        false => ServerError::DiskFailed(chain(error)),
    }
}
