//! The assembly of one node: takes its options, runs until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// This node's id.
    pub id: u64,
    /// Its data folder.
    pub dir: PathBuf,
    /// Where it serves gRPC.
    pub listen: SocketAddr,
    /// Where it serves metrics and health over HTTP.
    pub http_listen: SocketAddr,
    /// The other nodes.
    pub peers: Vec<PeerOptions>,
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
    /// Memory that the engine's tables may take, bytes.
    pub engine_memory_max_bytes: u64,
    /// Bytes of requests that may be in work at once.
    pub in_flight_max_bytes: u64,
}

/// Why a node did not start, or stopped.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The node's parts are not joined yet.
    #[error("this build has no node assembly")]
    NotAssembled,
}

/// Runs one node until SIGTERM, SIGINT, or the end of a watched standard input.
///
/// # Errors
///
/// [`ServerError`] where the node cannot start or cannot go on.
pub async fn run(_options: ServerOptions) -> Result<(), ServerError> {
    Err(ServerError::NotAssembled)
}
