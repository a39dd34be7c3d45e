//! The real transport: one gRPC call per peer and class, dialled by the sender, carrying frames
//! of many envelopes. What a node sends goes out on the calls that it dialled; what it receives
//! comes in on those that its peers dialled.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures::Stream;
use parking_lot::RwLock;
use prost::Message;
use quorate_proto::internal::peer_client::PeerClient;
use quorate_proto::internal::peer_server::Peer;
use quorate_proto::internal::{Envelope, Frame};
use quorate_types::NodeId;
use quorate_types::limits::MESSAGE_MAX_BYTES;
use tokio::sync::{mpsc, watch};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use super::{Class, PeerHandler, PeerTransport, SendError};

/// Messages that may wait for one peer and class.
const QUEUE_MESSAGES_MAX: usize = 16_384;
/// Envelopes in one frame.
const FRAME_ENVELOPES_MAX: usize = 256;
/// A frame is closed once it has so many bytes.
const FRAME_BYTES_TARGET: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(20);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(400);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(1000);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_millis(2000);
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

const HEADER_FROM: &str = "quorate-from";
const HEADER_TO: &str = "quorate-to";
const HEADER_CLUSTER: &str = "quorate-cluster";
const HEADER_CLASS: &str = "quorate-class";

/// Who this node is towards its peers.
#[derive(Clone, Debug)]
pub struct TransportOptions {
    /// This node.
    pub node: NodeId,
    /// The cluster's name; nodes of another one are refused.
    pub cluster: String,
    /// Peers that are dialled elsewhere than where they say they are: at a relay on the way.
    pub detours: BTreeMap<NodeId, String>,
}

#[derive(Debug, Default)]
struct Lane {
    sender: RwLock<Option<mpsc::Sender<Envelope>>>,
}

#[derive(Debug)]
struct PeerLanes {
    address: String,
    consensus: Arc<Lane>,
    bulk: Arc<Lane>,
    tasks: Vec<tokio::task::AbortHandle>,
}

impl Drop for PeerLanes {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Peers over gRPC.
pub struct GrpcTransport {
    options: TransportOptions,
    handler: OnceLock<Weak<dyn PeerHandler>>,
    peers: RwLock<HashMap<NodeId, PeerLanes>>,
}

impl std::fmt::Debug for GrpcTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrpcTransport")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl GrpcTransport {
    /// A transport without peers. Needs a tokio runtime once it has been started.
    pub fn new(options: TransportOptions) -> Arc<GrpcTransport> {
        Arc::new(GrpcTransport {
            options,
            handler: OnceLock::new(),
            peers: RwLock::default(),
        })
    }

    fn dial(&self, id: NodeId, address: &str, handler: &Weak<dyn PeerHandler>) -> PeerLanes {
        let mut lanes = PeerLanes {
            address: address.to_string(),
            consensus: Arc::default(),
            bulk: Arc::default(),
            tasks: Vec::new(),
        };
        for (class, lane) in [
            (Class::Consensus, &lanes.consensus),
            (Class::Bulk, &lanes.bulk),
        ] {
            let dialler = Dialler {
                options: self.options.clone(),
                to: id,
                address: address.to_string(),
                class,
                lane: lane.clone(),
                handler: handler.clone(),
            };
            lanes.tasks.push(tokio::spawn(dialler.run()).abort_handle());
        }
        lanes
    }
}

impl PeerTransport for GrpcTransport {
    fn start(&self, handler: Weak<dyn PeerHandler>) {
        // A second start keeps the first handler.
        let _ = self.handler.set(handler);
    }

    fn set_peer(&self, id: NodeId, address: &str) {
        let Some(handler) = self.handler.get() else {
            return;
        };
        let address = self
            .options
            .detours
            .get(&id)
            .map_or(address, String::as_str);
        let mut peers = self.peers.write();
        if id == self.options.node || peers.get(&id).is_some_and(|p| p.address == address) {
            return;
        }
        let lanes = self.dial(id, address, handler);
        peers.insert(id, lanes);
    }

    fn send(&self, to: NodeId, class: Class, envelope: Envelope) -> Result<(), SendError> {
        let peers = self.peers.read();
        let lanes = peers.get(&to).ok_or(SendError::Unknown)?;
        let lane = match class {
            Class::Consensus => &lanes.consensus,
            Class::Bulk => &lanes.bulk,
        };
        let sender = lane.sender.read();
        let sender = sender.as_ref().ok_or(SendError::NotConnected)?;
        sender.try_send(envelope).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::NotConnected,
        })
    }

    fn connected(&self, to: NodeId) -> bool {
        let peers = self.peers.read();
        peers
            .get(&to)
            .is_some_and(|lanes| lanes.consensus.sender.read().is_some())
    }
}

/// Keeps one call to one peer alive.
struct Dialler {
    options: TransportOptions,
    to: NodeId,
    address: String,
    class: Class,
    lane: Arc<Lane>,
    handler: Weak<dyn PeerHandler>,
}

impl Dialler {
    async fn run(self) {
        let mut pause = RECONNECT_PAUSE_MIN;
        loop {
            match self.exchange().await {
                Ok(()) => pause = RECONNECT_PAUSE_MIN,
                Err(problem) => {
                    tracing::debug!(to = %self.to, class = ?self.class, problem, "not connected");
                    pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
                }
            }
            let Some(handler) = self.handler.upgrade() else {
                return;
            };
            handler.lost(self.to, self.class);
            drop(handler);
            tokio::time::sleep(pause).await;
        }
    }

    /// One connection, from dialling to its end.
    async fn exchange(&self) -> Result<(), String> {
        let channel = self.connect().await?;
        let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let mut client = PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES);
        let request = self.request(frames(receiver))?;
        let calling = tokio::time::timeout(CONNECT_TIMEOUT, client.exchange(request));
        let response = match calling.await {
            Ok(Ok(response)) => response,
            Ok(Err(status)) => return Err(status.message().to_string()),
            Err(_) => return Err("no answer to the dialling".to_string()),
        };
        *self.lane.sender.write() = Some(sender);
        tracing::debug!(to = %self.to, class = ?self.class, "connected");
        // The peer sends nothing on this call; its end is the connection's end.
        let mut answers = response.into_inner();
        while let Ok(Some(_)) = answers.message().await {}
        *self.lane.sender.write() = None;
        Ok(())
    }

    async fn connect(&self) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))
            .map_err(|error| error.to_string())?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        endpoint.connect().await.map_err(|error| error.to_string())
    }

    fn request<S>(&self, frames: S) -> Result<Request<S>, String> {
        let mut request = Request::new(frames);
        let class = match self.class {
            Class::Consensus => "consensus",
            Class::Bulk => "bulk",
        };
        let headers = [
            (HEADER_FROM, self.options.node.0.to_string()),
            (HEADER_TO, self.to.0.to_string()),
            (HEADER_CLUSTER, self.options.cluster.clone()),
            (HEADER_CLASS, class.to_string()),
        ];
        for (name, value) in headers {
            let value = value
                .parse()
                .map_err(|_| format!("{name} cannot be a header"))?;
            request.metadata_mut().insert(name, value);
        }
        Ok(request)
    }
}

/// Packs waiting envelopes into frames.
fn frames(receiver: mpsc::Receiver<Envelope>) -> impl Stream<Item = Frame> {
    futures::stream::unfold(receiver, |mut receiver| async move {
        let first = receiver.recv().await?;
        let mut bytes = first.encoded_len();
        let mut envelopes = vec![first];
        while envelopes.len() < FRAME_ENVELOPES_MAX && bytes < FRAME_BYTES_TARGET {
            let Ok(next) = receiver.try_recv() else { break };
            bytes += next.encoded_len();
            envelopes.push(next);
        }
        Some((Frame { envelopes }, receiver))
    })
}

/// The receiving side: takes the calls that peers dial.
pub struct PeerService {
    options: TransportOptions,
    handler: Weak<dyn PeerHandler>,
    stopped: watch::Receiver<bool>,
}

impl PeerService {
    /// A service that hands what it receives to `handler`, and ends its calls once `stopped` is
    /// true: they would keep their connections open for ever.
    pub fn new(
        options: TransportOptions,
        handler: Weak<dyn PeerHandler>,
        stopped: watch::Receiver<bool>,
    ) -> PeerService {
        PeerService {
            options,
            handler,
            stopped,
        }
    }

    /// Who dials, if it may.
    fn dialler<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let header = |name: &str| {
            request
                .metadata()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
        };
        if header(HEADER_CLUSTER) != self.options.cluster {
            return Err(Status::permission_denied(format!(
                "this node is of cluster {:?}, the dialler of {:?}",
                self.options.cluster,
                header(HEADER_CLUSTER)
            )));
        }
        if header(HEADER_TO) != self.options.node.0.to_string() {
            return Err(Status::not_found(format!(
                "this is node {}",
                self.options.node
            )));
        }
        let from = header(HEADER_FROM).parse().map(NodeId);
        from.map_err(|_| Status::invalid_argument(format!("no {HEADER_FROM} header")))
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let from = self.dialler(&request)?;
        let handler = self.handler.clone();
        let mut frames = request.into_inner();
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        tokio::spawn(async move {
            let _ended = ended;
            while let Ok(Some(frame)) = frames.message().await {
                let Some(handler) = handler.upgrade() else {
                    return;
                };
                handler.receive(from, frame.envelopes);
            }
        });
        // Says nothing, and ends when the dialler's side does, or this node stops.
        let ends = (end, self.stopped.clone());
        let silence = futures::stream::unfold(ends, |(end, mut stopped)| async move {
            tokio::select! {
                _ = end => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
            None
        });
        Ok(Response::new(Box::pin(silence)))
    }
}
