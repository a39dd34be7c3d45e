//! The scripted servers: one shared map behind all of them, faults in the order of requests.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use quorate_client::{Client, ClientOptions, Code, Request, Response};
use quorate_proto::v1;
use quorate_proto::v1::admin_server::{Admin, AdminServer};
use quorate_proto::v1::kv_server::{Kv, KvServer};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

/// The range of every key, and the node that leads it.
pub const RANGE: u64 = 7;
pub const LEADER: u64 = 2;

/// The causal context of every key.
pub const CONTEXT: &[u8] = b"seen";

fn eventual_one() -> v1::Rung {
    v1::Rung {
        level: v1::Level::Eventual.into(),
        copies: v1::Copies::One.into(),
        ..v1::Rung::default()
    }
}

fn is_eventual(consistency: Option<&v1::Consistency>) -> bool {
    let mut rungs = consistency.iter().flat_map(|it| &it.rungs);
    rungs.any(|rung| rung.level() == v1::Level::Eventual)
}

/// What happens to one request.
/// What a lease is given by each keep-alive.
pub const LEASE_TTL_MILLISECONDS: u64 = 900;

#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing bad.
    None,
    /// The connection breaks before the request is served.
    LoseRequest,
    /// The request is served, then the connection breaks.
    LoseAnswer,
    /// Served, but no answer ever comes.
    HangAfter,
    /// An error instead of being served: reason, effect.
    Refuse(&'static str, &'static str),
    /// A batch of which this one operation is refused: index, reason, effect.
    RefuseOne(usize, &'static str, &'static str),
    /// Served late.
    Delay(Duration),
}

/// A request as a server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub server: usize,
    pub request: Request,
}

impl Seen {
    /// Client and sequence of a put, which it must have.
    pub fn name(&self) -> v1::RequestId {
        match &self.request {
            Request::Put(put) => put.request_id.expect("a put with a name"),
            other => panic!("not a put: {other:?}"),
        }
    }
}

#[derive(Default)]
struct State {
    values: BTreeMap<Bytes, v1::KeyValue>,
    /// The exactly-once window.
    results: HashMap<(u64, u64), u64>,
    applied: HashMap<Bytes, u32>,
    faults: VecDeque<Fault>,
    seen: Vec<Seen>,
    admin_calls: Vec<&'static str>,
    admin_faults: VecDeque<Fault>,
    revision: u64,
    /// No lease is left.
    leases_over: bool,
}

impl State {
    /// One operation of a batch. Repeating a put of the same value does not count.
    fn operate(&mut self, operation: v1::Operation) -> v1::OperationResult {
        use v1::operation::Operation;
        match operation.operation {
            Some(Operation::Put(put)) => {
                let known = self
                    .values
                    .get(&put.key)
                    .is_some_and(|entry| entry.value == put.value);
                if !known {
                    self.revision += 1;
                    *self.applied.entry(put.key.clone()).or_default() += 1;
                    let entry = v1::KeyValue {
                        key: put.key.clone(),
                        value: put.value,
                        revision: self.revision,
                        ..v1::KeyValue::default()
                    };
                    self.values.insert(put.key, entry);
                }
                v1::OperationResult {
                    revision: self.revision,
                    ..Default::default()
                }
            }
            Some(Operation::Get(get)) => {
                let entry = self.values.get(&get.key).cloned();
                v1::OperationResult {
                    found: entry.is_some(),
                    entry,
                    ..Default::default()
                }
            }
            Some(Operation::Delete(_)) | None => v1::OperationResult::default(),
        }
    }
}

/// What all servers share.
#[derive(Default)]
pub struct World {
    state: Mutex<State>,
    hung: [AtomicBool; 8],
    in_flight: AtomicUsize,
    in_flight_most: AtomicUsize,
}

pub struct Cluster {
    pub world: Arc<World>,
    pub addresses: Vec<SocketAddr>,
    /// Each server has threads of its own, so that it can be killed with all it does.
    runtimes: Vec<Option<Runtime>>,
}

impl Cluster {
    pub fn start(servers: usize) -> Self {
        let world = Arc::new(World::default());
        let mut cluster = Self {
            world: Arc::clone(&world),
            addresses: Vec::new(),
            runtimes: Vec::new(),
        };
        for index in 0..servers {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            cluster.addresses.push(listener.local_addr().unwrap());
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            runtime.spawn(serve(listener, index, Arc::clone(&world)));
            cluster.runtimes.push(Some(runtime));
        }
        cluster
    }

    pub fn client(&self) -> Client {
        self.client_with(|_| {})
    }

    pub fn client_with(&self, change: impl FnOnce(&mut ClientOptions)) -> Client {
        let mut options = ClientOptions {
            endpoints: self.addresses.iter().map(SocketAddr::to_string).collect(),
            ..ClientOptions::default()
        };
        change(&mut options);
        Client::connect(options).unwrap()
    }

    /// As `kill -9`: connections break, the port refuses.
    pub fn kill(&mut self, server: usize) {
        if let Some(runtime) = self.runtimes[server].take() {
            runtime.shutdown_background();
            let deadline = Instant::now() + Duration::from_secs(10);
            while std::net::TcpStream::connect(self.addresses[server]).is_ok() {
                assert!(Instant::now() < deadline, "a killed server still listens");
            }
        }
    }

    /// As a stopped process: connections stay, nothing is answered.
    pub fn hang(&self, server: usize) {
        self.world.hung[server].store(true, Ordering::SeqCst);
    }

    pub fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.world.state.lock().faults.extend(faults);
    }

    pub fn admin_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.world.state.lock().admin_faults.extend(faults);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.world.state.lock().seen.clone()
    }

    pub fn admin_calls(&self) -> Vec<&'static str> {
        self.world.state.lock().admin_calls.clone()
    }

    /// Ends all leases.
    pub fn end_leases(&self) {
        self.world.state.lock().leases_over = true;
    }

    /// How often writes of this key took effect.
    pub fn applied(&self, key: &str) -> u32 {
        let state = self.world.state.lock();
        state.applied.get(key.as_bytes()).copied().unwrap_or(0)
    }

    pub fn in_flight_most(&self) -> usize {
        self.world.in_flight_most.load(Ordering::SeqCst)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for runtime in self.runtimes.drain(..).flatten() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: std::net::TcpListener, index: usize, world: Arc<World>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let server = Server { index, world };
    tonic::transport::Server::builder()
        .add_service(KvServer::new(server.clone()))
        .add_service(AdminServer::new(server))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await
        .unwrap();
}

#[derive(Clone)]
struct Server {
    index: usize,
    world: Arc<World>,
}

impl World {
    fn receipt(&self, revision: u64, replayed: bool, token: &Bytes) -> Option<v1::Receipt> {
        let mut session_token = token.to_vec();
        if !token.is_empty() {
            session_token.push(b'+');
        }
        Some(v1::Receipt {
            node: LEADER,
            role: v1::Role::Leader.into(),
            revision,
            replayed,
            range: RANGE,
            session_token: session_token.into(),
            ..v1::Receipt::default()
        })
    }

    /// As of a node that leads nothing.
    fn eventual_receipt() -> Option<v1::Receipt> {
        Some(v1::Receipt {
            level: Some(eventual_one()),
            node: 1,
            role: v1::Role::Primary.into(),
            range: RANGE,
            context: Bytes::from_static(CONTEXT),
            ..v1::Receipt::default()
        })
    }

    /// The eventual plane: nobody knows names, so what is sent twice is applied twice.
    fn apply_eventually(&self, request: &Request) -> Option<Response> {
        let mut state = self.state.lock();
        let receipt = Self::eventual_receipt();
        Some(match request {
            Request::Update(update) => {
                let applied = state.applied.entry(update.key.clone()).or_default();
                *applied += 1;
                let sum = i64::from(*applied);
                Response::Update(v1::UpdateResponse {
                    typed: Some(v1::TypedValue {
                        value: Some(v1::typed_value::Value::Counter(sum)),
                    }),
                    receipt,
                    dot: "1.1.1".to_owned(),
                })
            }
            Request::Put(put) if is_eventual(put.consistency.as_ref()) => {
                *state.applied.entry(put.key.clone()).or_default() += 1;
                Response::Put(v1::PutResponse {
                    receipt,
                    dot: "1.1.2".to_owned(),
                    ..v1::PutResponse::default()
                })
            }
            Request::Get(get) if is_eventual(get.consistency.as_ref()) => {
                let value = |value: &'static str| v1::KeyValue {
                    key: get.key.clone(),
                    value: value.into(),
                    ..v1::KeyValue::default()
                };
                Response::Get(v1::GetResponse {
                    found: true,
                    entry: Some(value("one")),
                    siblings: vec![value("two")],
                    receipt,
                    partial: true,
                    ..v1::GetResponse::default()
                })
            }
            _ => return None,
        })
    }

    fn apply(&self, request: Request) -> Response {
        if let Some(response) = self.apply_eventually(&request) {
            return response;
        }
        let mut state = self.state.lock();
        match request {
            Request::Get(get) => {
                let entry = state.values.get(&get.key).cloned();
                let token = get.consistency.unwrap_or_default().session_token;
                Response::Get(v1::GetResponse {
                    found: entry.is_some(),
                    entry,
                    receipt: self.receipt(state.revision, false, &token),
                    ..v1::GetResponse::default()
                })
            }
            Request::Put(put) => {
                let token = put.consistency.unwrap_or_default().session_token;
                let name = put.request_id.map(|name| (name.client, name.sequence));
                if let Some(revision) = name.and_then(|name| state.results.get(&name).copied()) {
                    let receipt = self.receipt(revision, true, &token);
                    return Response::Put(v1::PutResponse {
                        revision,
                        receipt,
                        ..v1::PutResponse::default()
                    });
                }
                state.revision += 1;
                let revision = state.revision;
                *state.applied.entry(put.key.clone()).or_default() += 1;
                if let Some(name) = name {
                    state.results.insert(name, revision);
                }
                let entry = v1::KeyValue {
                    key: put.key.clone(),
                    value: put.value,
                    revision,
                    ..v1::KeyValue::default()
                };
                state.values.insert(put.key, entry);
                let receipt = self.receipt(revision, false, &token);
                Response::Put(v1::PutResponse {
                    revision,
                    receipt,
                    ..v1::PutResponse::default()
                })
            }
            Request::Delete(delete) if delete.prefix => {
                let matching = state
                    .values
                    .keys()
                    .filter(|key| key.starts_with(&delete.key));
                let lot: Vec<Bytes> = matching.take(2).cloned().collect();
                for key in &lot {
                    state.values.remove(key);
                }
                let more = state.values.keys().any(|key| key.starts_with(&delete.key));
                Response::Delete(v1::DeleteResponse {
                    deleted: lot.len() as u64,
                    next_page_token: if more {
                        Bytes::from_static(b"more")
                    } else {
                        Bytes::new()
                    },
                    receipt: self.receipt(state.revision, false, &Bytes::new()),
                    ..v1::DeleteResponse::default()
                })
            }
            Request::Scan(scan) => {
                let mut rest = state.values.values().filter(|entry| {
                    entry.key.starts_with(&scan.prefix) && entry.key > scan.page_token
                });
                let entries: Vec<_> = rest.by_ref().take(2).cloned().collect();
                let more = rest.next().is_some();
                let last = entries.last().map(|entry| entry.key.clone());
                Response::Scan(v1::ScanResponse {
                    next_page_token: last.filter(|_| more).unwrap_or_default(),
                    entries,
                    at_revision: state.revision,
                    receipt: self.receipt(state.revision, false, &Bytes::new()),
                })
            }
            Request::Batch(batch) => Response::Batch(v1::BatchResponse {
                results: batch
                    .operations
                    .into_iter()
                    .map(|operation| state.operate(operation))
                    .collect(),
                receipt: self.receipt(state.revision, false, &Bytes::new()),
            }),
            // Of a key that must be absent.
            Request::CompareAndSet(set) => {
                let is_absent = !state.values.contains_key(&set.key);
                if is_absent {
                    state.revision += 1;
                    let entry = v1::KeyValue {
                        key: set.key.clone(),
                        value: set.value,
                        revision: state.revision,
                        ..v1::KeyValue::default()
                    };
                    state.values.insert(set.key, entry);
                }
                Response::CompareAndSet(v1::CompareAndSetResponse {
                    succeeded: is_absent,
                    revision: state.revision,
                    receipt: self.receipt(state.revision, false, &Bytes::new()),
                    ..v1::CompareAndSetResponse::default()
                })
            }
            Request::LeaseGrant(grant) => Response::LeaseGrant(v1::LeaseGrantResponse {
                id: 7,
                ttl_ms: grant.ttl_ms,
                ..v1::LeaseGrantResponse::default()
            }),
            Request::LeaseKeepAlive(keep) => {
                let ttl_ms = if state.leases_over {
                    0
                } else {
                    LEASE_TTL_MILLISECONDS
                };
                let kept = |id| v1::LeaseKept { id, ttl_ms };
                Response::LeaseKeepAlive(v1::LeaseKeepAliveResponse {
                    kept: keep.ids.into_iter().map(kept).collect(),
                    receipt: None,
                })
            }
            other => panic!("the scripted servers do not serve {other:?}"),
        }
    }

    fn apply_but(&self, request: Request, index: usize, error: v1::Error) -> Response {
        let Request::Batch(mut batch) = request else {
            panic!("not a batch: {request:?}");
        };
        batch.operations[index].operation = None;
        let mut response = self.apply(Request::Batch(batch));
        if let Response::Batch(batch) = &mut response {
            batch.results[index].error = Some(error);
        }
        response
    }
}

/// How a request ended at a server.
enum End {
    Answer(Box<Response>),
    Error(v1::Error),
    Broken,
}

impl Server {
    async fn handle(&self, request: Request) -> End {
        let _place = Place::take(&self.world);
        if self.world.hung[self.index].load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let fault = {
            let mut state = self.world.state.lock();
            state.seen.push(Seen {
                server: self.index,
                request: request.clone(),
            });
            state.faults.pop_front().unwrap_or(Fault::None)
        };
        match fault {
            Fault::None => End::Answer(Box::new(self.world.apply(request))),
            Fault::LoseRequest => End::Broken,
            Fault::LoseAnswer => {
                self.world.apply(request);
                End::Broken
            }
            Fault::HangAfter => {
                self.world.apply(request);
                std::future::pending().await
            }
            Fault::Refuse(reason, effect) => End::Error(refusal(reason, effect)),
            Fault::RefuseOne(index, reason, effect) => {
                let error = refusal(reason, effect);
                End::Answer(Box::new(self.world.apply_but(request, index, error)))
            }
            Fault::Delay(time) => {
                tokio::time::sleep(time).await;
                End::Answer(Box::new(self.world.apply(request)))
            }
        }
    }

    async fn unary(&self, request: Request) -> Result<Response, Status> {
        match self.handle(request).await {
            End::Answer(response) => Ok(*response),
            End::Error(error) => Err(status(error)),
            End::Broken => Err(Status::unavailable("the connection was reset")),
        }
    }

    async fn admin(&self, call: &'static str) -> Result<(), Status> {
        if self.world.hung[self.index].load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let fault = {
            let mut state = self.world.state.lock();
            state.admin_calls.push(call);
            state.admin_faults.pop_front().unwrap_or(Fault::None)
        };
        match fault {
            Fault::None => Ok(()),
            Fault::Refuse(reason, effect) => Err(status(refusal(reason, effect))),
            _ => Err(Status::unavailable("the connection was reset")),
        }
    }
}

/// Counts who is being served.
struct Place<'a>(&'a World);

impl<'a> Place<'a> {
    fn take(world: &'a World) -> Self {
        let now = world.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        world.in_flight_most.fetch_max(now, Ordering::SeqCst);
        Self(world)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

fn refusal(reason: &str, effect: &str) -> v1::Error {
    v1::Error {
        code: Code::Unavailable as u32,
        message: format!("scripted: {reason}"),
        reason: reason.to_owned(),
        effect: effect.to_owned(),
        ..v1::Error::default()
    }
}

fn status(error: v1::Error) -> Status {
    let mut metadata = error.metadata;
    metadata.insert("effect".to_owned(), error.effect);
    let mut details = ErrorDetails::new();
    let metadata: HashMap<_, _> = metadata.into_iter().collect();
    details.set_error_info(error.reason, "quorate", metadata);
    let code = Code::from(i32::try_from(error.code).unwrap());
    Status::with_error_details(code, error.message, details)
}

macro_rules! unary {
    ($($method:ident($request:ident) -> $response:ident as $variant:ident;)*) => {
        #[tonic::async_trait]
        impl Kv for Server {
            $(async fn $method(
                &self,
                request: tonic::Request<v1::$request>,
            ) -> Result<tonic::Response<v1::$response>, Status> {
                match self.unary(Request::$variant(request.into_inner())).await? {
                    Response::$variant(response) => Ok(tonic::Response::new(response)),
                    other => panic!("{other:?}"),
                }
            })*

            type PipelineStream =
                Pin<Box<dyn Stream<Item = Result<v1::PipelineResponse, Status>> + Send>>;

            async fn pipeline(
                &self,
                request: tonic::Request<tonic::Streaming<v1::PipelineRequest>>,
            ) -> Result<tonic::Response<Self::PipelineStream>, Status> {
                Ok(tonic::Response::new(Box::pin(self.clone().stream(request.into_inner()))))
            }
        }
    };
}

unary! {
    get(GetRequest) -> GetResponse as Get;
    put(PutRequest) -> PutResponse as Put;
    delete(DeleteRequest) -> DeleteResponse as Delete;
    update(UpdateRequest) -> UpdateResponse as Update;
    scan(ScanRequest) -> ScanResponse as Scan;
    batch(BatchRequest) -> BatchResponse as Batch;
    compare_and_set(CompareAndSetRequest) -> CompareAndSetResponse as CompareAndSet;
    txn(TxnRequest) -> TxnResponse as Txn;
    history(HistoryRequest) -> HistoryResponse as History;
    outcome(OutcomeRequest) -> OutcomeResponse as Outcome;
    await_converged(AwaitConvergedRequest) -> AwaitConvergedResponse as AwaitConverged;
}

impl Server {
    /// Serves all requests at once; each answer as it is ready.
    fn stream(
        self,
        requests: tonic::Streaming<v1::PipelineRequest>,
    ) -> impl Stream<Item = Result<v1::PipelineResponse, Status>> + Send {
        requests
            .map(move |request| {
                let server = self.clone();
                async move {
                    let request = request?;
                    let response = match server.handle(request.request.unwrap()).await {
                        End::Answer(response) => *response,
                        End::Error(error) => Response::Error(error),
                        End::Broken => return Err(Status::unavailable("the stream broke")),
                    };
                    Ok(v1::PipelineResponse {
                        id: request.id,
                        response: Some(response),
                    })
                }
            })
            .buffer_unordered(100_000)
    }
}

#[tonic::async_trait]
impl Admin for Server {
    async fn create_keyspace(
        &self,
        request: tonic::Request<v1::CreateKeyspaceRequest>,
    ) -> Result<tonic::Response<v1::CreateKeyspaceResponse>, Status> {
        self.admin("create").await?;
        let request = request.into_inner();
        Ok(tonic::Response::new(v1::CreateKeyspaceResponse {
            keyspace: Some(v1::Keyspace {
                name: request.name,
                id: 9,
                options: request.options,
                ranges: vec![RANGE],
            }),
        }))
    }

    async fn alter_keyspace(
        &self,
        _: tonic::Request<v1::AlterKeyspaceRequest>,
    ) -> Result<tonic::Response<v1::AlterKeyspaceResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn drop_keyspace(
        &self,
        _: tonic::Request<v1::DropKeyspaceRequest>,
    ) -> Result<tonic::Response<v1::DropKeyspaceResponse>, Status> {
        self.admin("drop").await?;
        Ok(tonic::Response::new(v1::DropKeyspaceResponse {}))
    }

    async fn list_keyspaces(
        &self,
        _: tonic::Request<v1::ListKeyspacesRequest>,
    ) -> Result<tonic::Response<v1::ListKeyspacesResponse>, Status> {
        self.admin("list").await?;
        Ok(tonic::Response::new(v1::ListKeyspacesResponse {
            keyspaces: vec![v1::Keyspace {
                name: "default".to_owned(),
                id: 1,
                options: Some(v1::KeyspaceOptions {
                    partitioning: "ordered".to_owned(),
                    ..v1::KeyspaceOptions::default()
                }),
                ranges: vec![RANGE],
            }],
        }))
    }

    async fn status(
        &self,
        _: tonic::Request<v1::StatusRequest>,
    ) -> Result<tonic::Response<v1::StatusResponse>, Status> {
        self.admin("status").await?;
        Ok(tonic::Response::new(v1::StatusResponse {
            answered_by: self.index as u64 + 1,
            ..v1::StatusResponse::default()
        }))
    }

    async fn ranges(
        &self,
        _: tonic::Request<v1::RangesRequest>,
    ) -> Result<tonic::Response<v1::RangesResponse>, Status> {
        self.admin("ranges").await?;
        Ok(tonic::Response::new(v1::RangesResponse::default()))
    }

    async fn ring(
        &self,
        _: tonic::Request<v1::RingRequest>,
    ) -> Result<tonic::Response<v1::RingResponse>, Status> {
        self.admin("ring").await?;
        Ok(tonic::Response::new(v1::RingResponse::default()))
    }

    async fn explain(
        &self,
        _: tonic::Request<v1::ExplainRequest>,
    ) -> Result<tonic::Response<v1::ExplainResponse>, Status> {
        self.admin("explain").await?;
        Ok(tonic::Response::new(v1::ExplainResponse::default()))
    }

    async fn hand_over(
        &self,
        _: tonic::Request<v1::HandOverRequest>,
    ) -> Result<tonic::Response<v1::HandOverResponse>, Status> {
        self.admin("hand over").await?;
        Ok(tonic::Response::new(v1::HandOverResponse::default()))
    }

    type RepairStream = Pin<Box<dyn Stream<Item = Result<v1::RepairProgress, Status>> + Send>>;

    async fn repair(
        &self,
        _: tonic::Request<v1::RepairRequest>,
    ) -> Result<tonic::Response<Self::RepairStream>, Status> {
        self.admin("repair").await?;
        let step = v1::RepairProgress {
            ranges_total: 1,
            ranges_done: 1,
            ..v1::RepairProgress::default()
        };
        let steps = futures::stream::iter([Ok(step)]);
        Ok(tonic::Response::new(Box::pin(steps)))
    }

    type ReplaceNodeStream =
        Pin<Box<dyn Stream<Item = Result<v1::ReplaceNodeProgress, Status>> + Send>>;

    async fn replace_node(
        &self,
        _: tonic::Request<v1::ReplaceNodeRequest>,
    ) -> Result<tonic::Response<Self::ReplaceNodeStream>, Status> {
        self.admin("replace").await?;
        let steps = [1, 2].map(|done| {
            Ok(v1::ReplaceNodeProgress {
                with: 4,
                ranges_total: 2,
                ranges_done: done,
                step: "moving".to_owned(),
            })
        });
        Ok(tonic::Response::new(Box::pin(futures::stream::iter(steps))))
    }
}
