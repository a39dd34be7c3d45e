//! The gateway of one node: what all operations share, and the one entry for a request of any kind.
//!
//! Not here: the operations themselves (a file each), and the services around them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::RwLock;
use quorate_eventual::EventualNode;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_raft::{CatalogView, KeyspaceView, RaftNode, RangeView};
use quorate_types::{Api, ClientId, NodeId, RangeId};
use tokio::sync::watch;

use crate::admission::{Admission, Admitted, Limits};
use crate::answer::{Answer, effect_of, hold, payload_bytes};
use crate::clock_watch;
use crate::context::Context;
use crate::costs::Costs;
use crate::errors::GatewayError;
use crate::faults::Faults;
use crate::lease_watch;
use crate::metrics::{Meters, OperationLabel};
use crate::names::Namer;
use crate::seal::ClusterTag;
use crate::validate;
use crate::watch::Watches;

/// Ranges without a replica here whose last server is remembered; beyond, all are forgotten.
const SERVED_BY_MAX_RANGES: usize = 65_536;

/// Answers from this size on take room until their readers have them; smaller ones are bounded by
/// the number of requests in work.
const LARGE_ANSWER_BYTES: usize = 16 << 10;

/// What a node chooses for its gateway.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Drawn at random for each start of the process: under it the gateway names writes whose
    /// clients named none.
    pub client: ClientId,
    /// Limits on work in progress.
    pub limits: Limits,
    /// What a test breaks on purpose. Never set elsewhere.
    #[doc(hidden)]
    pub faults: Faults,
}

/// Turns requests into proposals and reads, here or on other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

struct Shared {
    node: RaftNode,
    eventual: EventualNode,
    cluster: ClusterTag,
    names: Namer,
    faults: Faults,
    admission: Admission,
    meters: Meters,
    costs: Costs,
    watches: Watches,
    served_by: RwLock<HashMap<RangeId, NodeId>>,
    stopping: watch::Sender<bool>,
    /// Milliseconds; zero while it is within bounds.
    clock_offset_ms: AtomicI64,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("node", &self.node_id())
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// The gateway of a node. It also serves what other nodes' gateways send on. Needs a runtime.
    pub fn new(node: RaftNode, eventual: EventualNode, options: GatewayOptions) -> Gateway {
        let shared = Shared {
            node: node.clone(),
            eventual,
            cluster: ClusterTag::of(node.cluster().as_bytes()),
            names: Namer::new(options.client),
            faults: options.faults,
            admission: Admission::new(options.limits),
            meters: Meters::new(),
            costs: Costs::default(),
            watches: Watches::default(),
            served_by: RwLock::default(),
            stopping: watch::Sender::new(false),
            clock_offset_ms: AtomicI64::new(0),
        };
        let gateway = Gateway {
            shared: Arc::new(shared),
        };
        node.set_forward_handler(Arc::new(crate::forwarded::Handler::new(&gateway)));
        tokio::spawn(clock_watch::watch(gateway.downgrade()));
        tokio::spawn(lease_watch::watch(gateway.downgrade()));
        gateway
    }

    /// What it does wrong on purpose: nothing, but in tests.
    pub(crate) fn faults(&self) -> Faults {
        self.shared.faults
    }

    /// A handle that does not keep the gateway alive.
    pub(crate) fn downgrade(&self) -> WeakGateway {
        WeakGateway {
            shared: Arc::downgrade(&self.shared),
        }
    }

    /// No request is taken on any more: the node is about to stop.
    pub fn stop(&self) {
        self.shared.stopping.send_replace(true);
    }

    /// Tells when [`Gateway::stop`] is called.
    pub(crate) fn watch_stop(&self) -> watch::Receiver<bool> {
        self.shared.stopping.subscribe()
    }

    /// How far this node's clock is from most others', where that is too far.
    pub(crate) fn clock_offset_ms(&self) -> &AtomicI64 {
        &self.shared.clock_offset_ms
    }

    /// Whether [`Gateway::stop`] has been called.
    pub fn is_stopping(&self) -> bool {
        *self.shared.stopping.borrow()
    }

    /// Admits, executes and counts a request of any kind.
    ///
    /// # Errors
    ///
    /// [`GatewayError`], which says what the request did to the data.
    pub async fn serve(
        &self,
        request: Request,
        context: Context,
    ) -> Result<Response, GatewayError> {
        let operation = OperationLabel::of(&request);
        let result = match self.admit(&request, &context) {
            Ok(_admitted) => self.execute(request, context).await,
            Err(error) => Err(error),
        };
        let result = result.and_then(|response| self.make_room(response));
        if context.forwarded.is_some() {
            // Counted as a request where its client is.
            self.meters().forwarded();
            return result;
        }
        match &result {
            Ok(response) => {
                let took = context.arrived.elapsed();
                self.meters().served(operation, response, took);
                self.costs().served(response, took);
            }
            Err(error) => self.meters().failed(operation, error.code()),
        }
        result
    }

    fn admit(&self, request: &Request, context: &Context) -> Result<Admitted, GatewayError> {
        if self.is_stopping() {
            return Err(GatewayError::Stopping);
        }
        let offset_ms = self.clock_offset_ms().load(Ordering::Relaxed);
        if offset_ms != 0 && context.forwarded.is_none() {
            return Err(GatewayError::ClockOffset { offset_ms });
        }
        self.admission().admit(request_bytes(request))
    }

    /// Finds room for a large answer until its reader has taken it.
    fn make_room(&self, mut response: Response) -> Result<Response, GatewayError> {
        let bytes = payload_bytes(&response);
        if bytes >= LARGE_ANSWER_BYTES {
            let room = self.admission().answer(bytes, effect_of(&response))?;
            hold(&mut response, room);
        }
        Ok(response)
    }

    /// Serves a request of any kind, without the edge.
    async fn execute(&self, request: Request, context: Context) -> Result<Response, GatewayError> {
        // Boxed each on its own: the future of a request is as large as what is in it, and whoever
        // holds many of them should not hold the largest of all kinds.
        no_fence(&request)?;
        match request {
            Request::Get(get) => Box::pin(self.get(get, context)).await.map(Answer::pack),
            Request::Put(put) => Box::pin(self.put(put, context)).await.map(Answer::pack),
            other => Box::pin(self.execute_larger(other, context)).await,
        }
    }

    async fn execute_larger(
        &self,
        request: Request,
        context: Context,
    ) -> Result<Response, GatewayError> {
        match request {
            Request::Get(_) | Request::Put(_) => {
                Err(GatewayError::internal("gets and puts are served before"))
            }
            Request::Delete(delete) => self.delete(delete, context).await.map(Answer::pack),
            Request::Scan(scan) => self.scan(scan, context).await.map(Answer::pack),
            Request::Batch(batch) => self.batch(batch, context).await.map(Answer::pack),
            Request::CompareAndSet(cas) => {
                self.compare_and_set(cas, context).await.map(Answer::pack)
            }
            Request::Txn(txn) => self.txn(txn, context).await.map(Answer::pack),
            Request::History(history) => self.history(history, context).await.map(Answer::pack),
            Request::Outcome(outcome) => self.outcome(outcome, context).await.map(Answer::pack),
            Request::Update(update) => self.update(update, context).await.map(Answer::pack),
            Request::AwaitConverged(named) => {
                self.await_converged(named, context).await.map(Answer::pack)
            }
            Request::LeaseGrant(grant) => self.lease_grant(grant, context).await.map(Answer::pack),
            Request::LeaseKeepAlive(kept) => {
                self.lease_keep_alive(kept, context).await.map(Answer::pack)
            }
            Request::LeaseRevoke(revoke) => {
                self.lease_revoke(revoke, context).await.map(Answer::pack)
            }
            Request::LeaseShow(show) => self.lease_show(show, context).await.map(Answer::pack),
        }
    }

    pub(crate) fn node(&self) -> &RaftNode {
        &self.shared.node
    }

    pub(crate) fn eventual(&self) -> &EventualNode {
        &self.shared.eventual
    }

    pub(crate) fn node_id(&self) -> NodeId {
        self.shared.node.node_id()
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.shared.admission
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.shared.meters
    }

    pub(crate) fn costs(&self) -> &Costs {
        &self.shared.costs
    }

    pub(crate) fn watches(&self) -> &Watches {
        &self.shared.watches
    }

    pub(crate) fn names(&self) -> &Namer {
        &self.shared.names
    }

    /// What tokens are bound to.
    pub(crate) fn cluster(&self) -> ClusterTag {
        self.shared.cluster
    }

    /// Takes note of who served a range that has no replica here.
    pub(crate) fn served_by(&self, range: RangeId, node: NodeId) {
        if self.last_served(range) == Some(node) {
            return;
        }
        let mut served_by = self.shared.served_by.write();
        if served_by.len() >= SERVED_BY_MAX_RANGES {
            served_by.clear();
        }
        served_by.insert(range, node);
    }

    pub(crate) fn last_served(&self, range: RangeId) -> Option<NodeId> {
        self.shared.served_by.read().get(&range).copied()
    }
}

/// A handle that does not keep its gateway alive.
pub(crate) struct WeakGateway {
    shared: Weak<Shared>,
}

impl WeakGateway {
    /// The gateway, if it is still there.
    pub(crate) fn upgrade(&self) -> Option<Gateway> {
        self.shared.upgrade().map(|shared| Gateway { shared })
    }
}

/// Bytes of keys and values that a request carries.
fn request_bytes(request: &Request) -> usize {
    let of = |operations: &[v1::Operation]| -> usize {
        operations.iter().map(validate::operation_bytes).sum()
    };
    match request {
        Request::Get(get) => get.key.len(),
        Request::Put(put) => put.key.len() + put.value.len(),
        Request::Delete(delete) => delete.key.len(),
        Request::Scan(scan) => scan.prefix.len() + scan.start.len() + scan.end.len(),
        Request::Batch(batch) => of(&batch.operations),
        Request::CompareAndSet(cas) => cas.key.len() + cas.value.len(),
        Request::Txn(txn) => of(&txn.then) + of(&txn.otherwise),
        Request::History(history) => history.key.len(),
        Request::Outcome(outcome) => outcome.handle.len(),
        Request::AwaitConverged(named) => named.key.len() + named.context.len(),
        Request::LeaseKeepAlive(kept) => kept.ids.len() * size_of::<u64>(),
        Request::LeaseGrant(_) | Request::LeaseRevoke(_) | Request::LeaseShow(_) => 0,
        Request::Update(update) => {
            update.key.len() + quorate_proto::changes::bytes_of(update.change.as_ref())
        }
    }
}

/// The keyspace of a request for keys.
///
/// # Errors
///
/// `KEYSPACE_NOT_FOUND`; a field where the keyspace serves other clients than ours.
pub(crate) fn keyspace<'a>(
    catalog: &'a CatalogView,
    name: &str,
) -> Result<&'a KeyspaceView, GatewayError> {
    let keyspace = any_keyspace(catalog, name)?;
    match keyspace.options.api {
        Api::Quorate => Ok(keyspace),
        Api::Etcd => {
            let problem = format!(
                "keyspace `{name}` serves etcd's clients alone: use one of these, such as etcdctl, \
                 at the node's --etcd-listen address; `quorate keyspace create NAME` makes one for ours"
            );
            Err(GatewayError::field("keyspace", problem))
        }
    }
}

/// A keyspace of any kind.
///
/// # Errors
///
/// `KEYSPACE_NOT_FOUND`.
pub(crate) fn any_keyspace<'a>(
    catalog: &'a CatalogView,
    name: &str,
) -> Result<&'a KeyspaceView, GatewayError> {
    if let Some(keyspace) = catalog.keyspace(name) {
        return Ok(keyspace);
    }
    quorate_types::validate_keyspace_name(name)?;
    Err(GatewayError::KeyspaceNotFound {
        name: name.to_owned(),
    })
}

/// The range of a key, and the key as it is stored there. What another gateway sent on must mean the same one: catalogs of two nodes
/// may differ for a moment.
pub(crate) fn range_of<'a>(
    keyspace: &'a KeyspaceView,
    key: &[u8],
    context: &Context,
) -> Result<(&'a RangeView, Bytes), GatewayError> {
    let (range, encoded) = keyspace.route(key);
    match context.forwarded {
        Some(forwarded) if forwarded.range != range.id => Err(GatewayError::RangeMoved {
            range: forwarded.range,
        }),
        Some(_) | None => Ok((range, encoded)),
    }
}

/// Fences are of one key: of other requests they are refused.
fn no_fence(request: &Request) -> Result<(), GatewayError> {
    let consistency = match request {
        Request::Get(get) if get.at_revision != 0 => get.consistency.as_ref(),
        Request::Delete(delete) if delete.prefix => delete.consistency.as_ref(),
        Request::Get(_) | Request::Put(_) | Request::Delete(_) | Request::CompareAndSet(_) => None,
        Request::Scan(scan) => scan.consistency.as_ref(),
        Request::Batch(batch) => batch.consistency.as_ref(),
        Request::Txn(txn) => txn.consistency.as_ref(),
        Request::History(history) => history.consistency.as_ref(),
        Request::Update(update) => update.consistency.as_ref(),
        Request::Outcome(_)
        | Request::AwaitConverged(_)
        | Request::LeaseGrant(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseRevoke(_)
        | Request::LeaseShow(_) => None,
    };
    match consistency {
        Some(consistency) if consistency.fence => Err(GatewayError::field(
            "consistency.fence",
            "fences are for gets, puts, deletes and compare-and-sets of one key as of now",
        )),
        Some(_) | None => Ok(()),
    }
}
