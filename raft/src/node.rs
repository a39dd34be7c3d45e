//! A node's Raft groups: opening, finding and closing them. What runs in the background is in
//! `upkeep`, what peers ask in `inbound`, what the catalog demands in `controller`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use parking_lot::{Mutex, RwLock};
use quorate_proto::internal as wire;
use quorate_proto::internal::envelope::Body;
use quorate_proto::v1::PipelineRequest;
use quorate_storage::disk::Disk;
use quorate_storage::engine::{Engine, EngineError};
use quorate_storage::log::NodeLog;
use quorate_types::{KeyInterval, NodeId, RangeId, Timestamp};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::apply::{ChangeHook, RangeMachine};
use crate::catalog::{CATALOG_KEY, CatalogView};
use crate::group::{Group, RangeRaft};
use crate::hybrid::NodeClock;
use crate::inbound::{EventualHandler, ForwardHandler, Inbound, eventual_class};
use crate::leases::LeaseTimer;
use crate::liveness::{PHI_MAX_DEFAULT, PeerLiveness};
use crate::log_store::LogStore;
use crate::network::Factory;
use crate::peer::{CallError, Calls, Class, PeerHandler, SharedTransport};
use crate::read_index::Rounds;
use crate::renewals::Renewals;
use crate::seam::{Clock, Randomness};

/// Entries in one append to a follower.
const APPEND_ENTRIES_MAX: u64 = 4096;
/// Behind by more than this, a follower gets a snapshot.
const LAG_ENTRIES_MAX: u64 = 20_000;

/// What a node is, and how it behaves.
#[derive(Clone, Debug)]
pub struct RaftNodeOptions {
    /// This node as the catalog shall have it.
    pub node: wire::CatalogNode,
    /// The cluster's name.
    pub cluster: String,
    /// The nodes that form the cluster, this one included. Empty: this node joins one.
    pub bootstrap: Vec<wire::CatalogNode>,
    /// Addresses of nodes to join by, id and `HOST:PORT`.
    pub join: Vec<(NodeId, String)>,
    /// Where the catalog's copy and incoming snapshots are kept.
    pub dir: PathBuf,
    /// A leader is heard this often, milliseconds.
    pub heartbeat_ms: u64,
    /// A follower that hears no leader waits at least this long, milliseconds.
    pub election_min_ms: u64,
    /// And at most this long. Also the leader's lease.
    pub election_max_ms: u64,
    /// A group that was not used for so long stops its ticks.
    pub quiet_after: Duration,
    /// A peer counts as away once its phi is above this: `PHI_MAX_BOUNDS`.
    pub phi_max: f64,
    /// Entries after which a range is flushed, however small it is; usually size and age decide.
    pub flush_entries: u64,
    /// Entries after which the log of a range is purged.
    pub purge_entries: u64,
    /// Entries kept behind what is purged, for followers that are a little late.
    pub kept_entries: u64,
    /// Most events of a range that are kept in memory for those who follow it.
    pub followed_events_max: usize,
    /// What a test breaks on purpose. Never set elsewhere.
    #[doc(hidden)]
    pub faults: Faults,
}

impl RaftNodeOptions {
    /// Options with default timing.
    pub fn new(node: wire::CatalogNode, cluster: &str, dir: PathBuf) -> RaftNodeOptions {
        RaftNodeOptions {
            node,
            cluster: cluster.to_string(),
            bootstrap: Vec::new(),
            join: Vec::new(),
            dir,
            heartbeat_ms: 60,
            election_min_ms: 250,
            election_max_ms: 450,
            quiet_after: Duration::from_secs(3),
            phi_max: PHI_MAX_DEFAULT,
            flush_entries: u64::MAX,
            purge_entries: 20_000,
            kept_entries: 10_000,
            followed_events_max: crate::feed::WINDOW_EVENTS_MAX_DEFAULT,
            faults: Faults::default(),
        }
    }
}

/// Mistakes that the simulations must find: the negative controls of the tests.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A write is answered when it has been handed to the leader's log.
    pub acknowledge_before_majority: bool,
    /// A write is answered before its entry is in any log, the leader's own included.
    pub acknowledge_before_log: bool,
    /// Linearizable reads trust the leader's lease.
    pub lease_reads: bool,
    /// A read joins a confirmation round that began before it came.
    pub join_running_round: bool,
    /// A snapshot brings the values, and not what the log knows of writes beside them.
    pub snapshot_without_clock: bool,
    /// Who thinks that it leads serves linearizable reads without asking anybody.
    pub unconfirmed_reads: bool,
    /// A leader trusts a confirmation for longer than its followers wait for it.
    pub stale_lease: bool,
    /// A read does not wait until what its round told is applied here.
    pub read_before_applied: bool,
    /// A vote is kept in memory alone, and gone with the next start.
    pub forget_votes: bool,
    /// An entry that replaces a truncated one gets the payload of that one.
    pub reuse_truncated: bool,
    /// A snapshot comes without what was written last: it does not wait until the engine has it.
    pub snapshot_without_last: bool,
    /// The first entries after a start are applied twice.
    pub apply_twice: bool,
    /// A write under a name that was decided is done again.
    pub forget_names: bool,
    /// A replica says to be complete beyond what it knows nobody will write below.
    pub closed_too_far: bool,
    /// A value that replaced one that expires goes with that one's time.
    pub expire_newer: bool,
    /// Whether a value's time has come is judged by each replica's own clock.
    pub expire_by_own_clock: bool,
    /// A lease whose time had come when it was looked at goes, though it was renewed since.
    pub expire_renewed: bool,
    /// Whether a lease is over when it is renewed is judged by each replica's own clock.
    pub renew_by_own_clock: bool,
    /// A leader begins with half of what the one before has left of a lease.
    pub shorten_leases: bool,
    /// The end of a lease takes along what lies beside its keys' values.
    pub end_siblings: bool,
    /// A ladder's strong attempt replaces what its writer has not seen.
    pub tentative_as_put: bool,
    /// Of every eighth batch the first half is applied, and all of it is answered.
    pub half_batches: bool,
    /// Those who follow a range are not told that a snapshot has taken the place of its state.
    pub feed_over_snapshot: bool,
    /// Do not store the counter of an etcd keyspace.
    pub forget_revisions: bool,
    /// Each start of a node numbers its calls as the one before did.
    pub calls_numbered_again: bool,
    /// A leader trusts a confirmation for as long as is right, by the wall clock.
    pub lease_by_wall_clock: bool,
    /// The log is purged up to what is applied, whether the engine has it on disk or not.
    pub purge_before_flush: bool,
}

/// The seams that a node stands on.
#[derive(Clone, Debug)]
pub struct Seams {
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Ids and jitter.
    pub randomness: Arc<dyn Randomness>,
    /// Messages between nodes.
    pub transport: SharedTransport,
    /// Files.
    pub disk: Arc<dyn Disk>,
}

/// Why a node does not start, or a group does not open.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The catalog's copy cannot be read.
    #[error("the copy of the catalog: {0}")]
    CatalogCopy(#[source] std::io::Error),
    /// The engine cannot open the range.
    #[error("the engine cannot open range {range}")]
    Engine {
        /// Which.
        range: RangeId,
        /// Why.
        #[source]
        source: EngineError,
    },
    /// The stored state of a range cannot be used.
    #[error("the state of range {range} cannot be restored")]
    Restore {
        /// Which.
        range: RangeId,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Consensus does not start.
    #[error("range {range} does not start: {problem}")]
    Consensus {
        /// Which.
        range: RangeId,
        /// Why.
        problem: String,
    },
    /// Settings that contradict each other.
    #[error("the settings of consensus: {0}")]
    Settings(String),
}

/// A node's groups. Cheap to clone.
#[derive(Clone)]
pub struct RaftNode {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) weak: Weak<Inner>,
    pub(crate) options: RaftNodeOptions,
    pub(crate) node: NodeId,
    pub(crate) seams: Seams,
    pub(crate) log: NodeLog,
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<NodeClock>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) config: Arc<Config>,
    pub(crate) groups: RwLock<BTreeMap<RangeId, Arc<Group>>>,
    pub(crate) catalog: watch::Sender<Arc<CatalogView>>,
    pub(crate) inbound: Inbound,
    /// What followers of all ranges find in memory.
    pub(crate) feeds: crate::feed::Room,
    pub(crate) forward: OnceLock<Arc<dyn ForwardHandler>>,
    pub(crate) eventual: OnceLock<Arc<dyn EventualHandler>>,
    /// Where this node serves etcd's clients.
    pub(crate) etcd_endpoint: OnceLock<String>,
    pub(crate) started: u64,
    pub(crate) started_at: Instant,
    pub(crate) tasks: Mutex<Vec<AbortHandle>>,
    /// The first group that has ended by itself.
    pub(crate) failed: watch::Sender<Option<Arc<crate::failed::GroupFailed>>>,
}

impl std::fmt::Debug for RaftNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftNode")
            .field("node", &self.inner.node)
            .finish_non_exhaustive()
    }
}

fn config(options: &RaftNodeOptions) -> Result<Arc<Config>, StartError> {
    let config = Config {
        cluster_name: options.cluster.clone(),
        heartbeat_interval: options.heartbeat_ms,
        election_timeout_min: options.election_min_ms,
        election_timeout_max: options.election_max_ms,
        // Each group's upkeep asks for snapshots, by position and size.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: options.kept_entries,
        replication_lag_threshold: LAG_ENTRIES_MAX,
        max_payload_entries: APPEND_ENTRIES_MAX,
        // A vote asked for by a node that cannot win must not disturb who leads.
        enable_pre_vote: Some(true),
        // A leader that leads on after a restart knows less to be committed than it has
        // acknowledged, and would serve reads from before that: it must be elected anew, and
        // commit an entry of its new term first.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config
        .validate()
        .map(Arc::new)
        .map_err(|e| StartError::Settings(e.to_string()))
}

impl RaftNode {
    /// Opens the groups that this node holds, and starts to talk to its peers.
    pub async fn start(
        options: RaftNodeOptions,
        seams: Seams,
        log: NodeLog,
        engine: Engine,
    ) -> Result<RaftNode, StartError> {
        let node = NodeId(options.node.id);
        let config = config(&options)?;
        let first_call = match options.faults.calls_numbered_again {
            true => 1,
            false => seams.randomness.next(),
        };
        let inner = Arc::new_cyclic(|weak: &Weak<Inner>| {
            let handler: Weak<dyn PeerHandler> = weak.clone();
            seams.transport.start(handler);
            Inner {
                weak: weak.clone(),
                node,
                clock: Arc::new(NodeClock::new(seams.clock.clone())),
                calls: Arc::new(Calls::new(seams.transport.clone(), first_call)),
                config,
                groups: RwLock::default(),
                catalog: watch::Sender::default(),
                inbound: Inbound::new(options.phi_max),
                feeds: crate::feed::Room::new(options.followed_events_max),
                forward: OnceLock::new(),
                eventual: OnceLock::new(),
                etcd_endpoint: OnceLock::new(),
                started: seams.randomness.next(),
                started_at: Instant::now(),
                tasks: Mutex::default(),
                failed: watch::Sender::default(),
                options,
                seams,
                log,
                engine,
            }
        });
        let started = RaftNode { inner };
        started.inner.load_catalog_copy()?;
        let known = started.inner.know_peers();
        started.inner.open_known_meta().await?;
        started.inner.reconcile().await?;
        started.inner.start_tasks(known);
        Ok(started)
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.inner.node
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.inner.options.cluster
    }

    /// The newest catalog known here.
    pub fn catalog(&self) -> Arc<CatalogView> {
        self.inner.catalog.borrow().clone()
    }

    /// Tells when the catalog changes.
    pub fn watch_catalog(&self) -> watch::Receiver<Arc<CatalogView>> {
        self.inner.catalog.subscribe()
    }

    /// The local replica of a range.
    pub fn group(&self, range: RangeId) -> Option<Arc<Group>> {
        self.inner.groups.read().get(&range).cloned()
    }

    /// All local replicas, in order of ranges.
    pub fn groups(&self) -> Vec<Arc<Group>> {
        self.inner.all_groups()
    }

    /// A hybrid timestamp above all earlier ones of this node.
    pub fn clock(&self) -> Timestamp {
        self.inner.clock.tick()
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// 64 random bits from the seam.
    pub fn random(&self) -> u64 {
        self.inner.seams.randomness.next()
    }

    /// The node's log.
    pub fn log(&self) -> &NodeLog {
        &self.inner.log
    }

    /// The node's engine.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// The receiving side of the transport, for a server of this node's own making.
    pub fn peer_handler(&self) -> Weak<dyn PeerHandler> {
        let inner: Arc<dyn PeerHandler> = self.inner.clone();
        Arc::downgrade(&inner)
    }

    /// Who executes requests that other gateways forward. Set once.
    pub fn set_forward_handler(&self, handler: Arc<dyn ForwardHandler>) {
        // A second handler is ignored.
        let _ = self.inner.forward.set(handler);
    }

    /// Has another node execute a request.
    pub async fn forward(
        &self,
        to: NodeId,
        range: RangeId,
        timeout: Duration,
        request: PipelineRequest,
    ) -> Result<wire::ForwardResponse, CallError> {
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let forward = wire::Forward {
            range: range.0,
            timeout_ms,
            request: Some(request),
        };
        let class = Class::by_size(&forward);
        let body = Body::Forward(Box::new(forward));
        match self
            .inner
            .calls
            .call(to, class, range.0, body, timeout)
            .await?
        {
            Body::ForwardResponse(response) => Ok(*response),
            _ => Err(CallError::Refused("an answer of another kind".to_string())),
        }
    }

    /// Asks a node that holds a range for its events behind a place.
    ///
    /// # Errors
    /// [`CallError`]. Asking has no effect.
    pub async fn ask_events(
        &self,
        to: NodeId,
        range: RangeId,
        request: wire::EventsRequest,
        timeout: Duration,
    ) -> Result<wire::EventsResponse, CallError> {
        let body = Body::Events(Box::new(request));
        let calls = &self.inner.calls;
        match calls.call(to, Class::Bulk, range.0, body, timeout).await? {
            Body::EventsResponse(response) => Ok(*response),
            _ => Err(CallError::Refused("an answer of another kind".to_string())),
        }
    }

    /// Where this node serves etcd's clients, `HOST:PORT`, for others to be told. Set once.
    pub fn set_etcd_endpoint(&self, endpoint: String) {
        // A second one is ignored.
        let _ = self.inner.etcd_endpoint.set(endpoint);
    }

    /// Calls a replica of an etcd keyspace's range.
    ///
    /// # Errors
    /// [`CallError`], which says whether the peer may have done it.
    pub async fn ask_etcd(
        &self,
        to: NodeId,
        range: RangeId,
        call: wire::EtcdCall,
        timeout: Duration,
    ) -> Result<wire::EtcdAnswer, CallError> {
        let class = Class::by_size(&call);
        let body = Body::Etcd(Box::new(call));
        let calls = &self.inner.calls;
        match calls.call(to, class, range.0, body, timeout).await? {
            Body::EtcdAnswer(answer) => Ok(*answer),
            _ => Err(CallError::Refused("an answer of another kind".to_string())),
        }
    }

    /// Who answers what the eventual path of other nodes asks. Set once.
    pub fn set_eventual_handler(&self, handler: Arc<dyn EventualHandler>) {
        // A second handler is ignored.
        let _ = self.inner.eventual.set(handler);
    }

    /// Asks the eventual path of another node.
    ///
    /// # Errors
    /// [`CallError`], which says whether the peer may have done it.
    pub async fn ask_eventual(
        &self,
        to: NodeId,
        range: RangeId,
        request: wire::EventualRequest,
        timeout: Duration,
    ) -> Result<wire::EventualResponse, CallError> {
        let class = eventual_class(&request);
        let body = Body::Eventual(Box::new(request));
        match self
            .inner
            .calls
            .call(to, class, range.0, body, timeout)
            .await?
        {
            Body::EventualResponse(response) => Ok(*response),
            _ => Err(CallError::Refused("an answer of another kind".to_string())),
        }
    }

    /// Whether a peer is taken to live: its silence is not suspicious.
    pub fn peer_reachable(&self, node: NodeId) -> bool {
        node == self.inner.node || self.inner.inbound.heard_lately(node)
    }

    /// Whether it is, and has not come and gone of late.
    pub fn peer_steady(&self, node: NodeId) -> bool {
        node == self.inner.node || self.inner.inbound.is_steady(node)
    }

    /// What is known of a peer's life.
    pub fn peer_liveness(&self, node: NodeId) -> PeerLiveness {
        self.inner.inbound.look_at(node)
    }
}

impl Inner {
    /// A shared handle; `None` while the node is being taken down.
    pub(crate) fn this(&self) -> Option<Arc<Inner>> {
        self.weak.upgrade()
    }

    pub(crate) fn all_groups(&self) -> Vec<Arc<Group>> {
        let mut groups: Vec<_> = self.groups.read().values().cloned().collect();
        groups.sort_by_key(|g| g.range);
        groups
    }

    pub(crate) fn group(&self, range: RangeId) -> Option<Arc<Group>> {
        self.groups.read().get(&range).cloned()
    }

    /// Nodes that vote in the meta range of a new cluster: an odd number, at most five.
    pub(crate) fn meta_voters(&self) -> Vec<NodeId> {
        let mut ids: Vec<_> = self
            .options
            .bootstrap
            .iter()
            .map(|n| NodeId(n.id))
            .collect();
        ids.sort_unstable();
        let voters = if ids.len() >= 5 { 5 } else { ids.len().min(3) };
        ids.truncate(voters);
        ids
    }

    /// Opens the meta range where this node has it, or shall have it.
    async fn open_known_meta(self: &Arc<Self>) -> Result<(), StartError> {
        let founders = self.meta_voters();
        let known = self.log.group(RangeId::META.0).last().is_some()
            || self.stored_ranges()?.contains(&RangeId::META);
        if known || founders.contains(&self.node) {
            self.open_meta(&founders).await?;
        }
        Ok(())
    }

    fn stored_ranges(&self) -> Result<Vec<RangeId>, StartError> {
        let stored = self.engine.ranges();
        let engine = |source| StartError::Engine {
            range: RangeId::META,
            source,
        };
        Ok(stored
            .map_err(engine)?
            .into_iter()
            .map(|(range, _)| RangeId(range))
            .collect())
    }

    pub(crate) async fn open_meta(self: &Arc<Self>, founders: &[NodeId]) -> Result<(), StartError> {
        let interval = quorate_types::keyspace_interval(quorate_types::KeyspaceId(0));
        self.open_group(RangeId::META, &interval, founders).await
    }

    /// Opens a replica, and forms its group if it is new.
    pub(crate) async fn open_group(
        self: &Arc<Self>,
        range: RangeId,
        interval: &KeyInterval,
        founders: &[NodeId],
    ) -> Result<(), StartError> {
        if self.groups.read().contains_key(&range) {
            return Ok(());
        }
        let bounds = (interval.start.clone(), interval.end.clone());
        let table = self
            .engine
            .open_range(range.0, bounds)
            .map_err(|source| StartError::Engine { range, source })?;
        let hook = (range == RangeId::META).then(|| self.catalog_hook());
        let mut machine = RangeMachine::open(table, hook)
            .map_err(|source| StartError::Restore { range, source })?;
        machine.share_room(&self.feeds);
        machine.break_on_purpose(self.options.faults, &self.clock);
        let shared = machine.shared();
        let mut store = LogStore::new(self.log.group(range.0));
        store.break_on_purpose(self.options.faults);
        let acknowledged = Arc::default();
        let factory = Factory {
            range,
            calls: self.calls.clone(),
            acknowledged: Arc::clone(&acknowledged),
        };
        let raft = RangeRaft::new(self.node.0, self.config.clone(), factory, store, machine)
            .await
            .map_err(|error| StartError::Consensus {
                range,
                problem: error.to_string(),
            })?;
        let faults = self.options.faults;
        let breaks = (faults, self.clock.clone());
        let rounds = Rounds::new(raft.clone(), self.calls.clone(), range, self.node, breaks);
        let group = Arc::new(Group {
            range,
            node: self.node,
            raft,
            shared,
            calls: self.calls.clone(),
            clock: self.clock.clone(),
            rounds,
            acknowledged,
            faults,
            quiet: AtomicBool::new(false),
            lease_timer: Mutex::new(LeaseTimer::new(faults)),
            renewals: Renewals::default(),
            opened: Instant::now(),
            uses: AtomicU64::new(0),
        });
        self.groups.write().insert(range, group.clone());
        self.form(group, founders.to_vec());
        Ok(())
    }

    /// Initializes a new group. All founders may do it, since they give the same members; the
    /// first one does it at once, so that it leads, the others if that one does not come.
    fn form(self: &Arc<Self>, group: Arc<Group>, founders: Vec<NodeId>) {
        let Some(rank) = founders.iter().position(|r| *r == self.node) else {
            return;
        };
        let patience = Duration::from_millis(self.options.election_max_ms * 3 * rank as u64);
        tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            if !matches!(group.raft.is_initialized().await, Ok(false)) {
                return;
            }
            let members: BTreeSet<u64> = founders.iter().map(|r| r.0).collect();
            if let Err(error) = group.raft.initialize(members).await {
                tracing::debug!(range = %group.range, %error, "not formed here");
            }
        });
    }

    /// What follows when the meta range's keys change: the catalog may be a new one.
    fn catalog_hook(self: &Arc<Self>) -> ChangeHook {
        let weak = Arc::downgrade(self);
        Arc::new(move |table| {
            let Some(inner) = weak.upgrade() else { return };
            match table.get(CATALOG_KEY) {
                Ok(Some(version)) => inner.offer_catalog(version.value),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "the catalog cannot be read"),
            }
        })
    }
}
