//! How nodes reach each other: the transport seam, and calls with answers on top of it.
//!
//! A transport moves envelopes and knows nothing of Raft. It never blocks: a peer that is slow or
//! gone costs its own queue alone, and the sender learns of it at once.

mod calls;
mod grpc;
mod simulated;

use std::fmt::Debug;
use std::sync::{Arc, Weak};

use quorate_proto::internal::Envelope;
use quorate_types::NodeId;

pub use calls::{CallError, Calls};
pub use grpc::{GrpcTransport, PeerService, TransportOptions};
pub use simulated::{Link, Passage, Quality, SimulatedNetwork};

/// Which of the two connections of a pair of nodes a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Small and urgent: appends, votes, beats, reads.
    Consensus,
    /// Large and patient: snapshots, large requests of clients and their answers.
    Bulk,
}

/// What clients ask and are answered takes the bulk connection from this size on: a beat must not
/// wait behind it.
const BULK_BYTES_MIN: usize = 64 << 10;

impl Class {
    /// Of what a client asks, or is answered, by way of another node.
    pub(crate) fn by_size(message: &impl prost::Message) -> Class {
        match message.encoded_len() < BULK_BYTES_MIN {
            true => Class::Consensus,
            false => Class::Bulk,
        }
    }
}

/// Why a message was not handed to the network. It has not been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No address of that node is known.
    #[error("the node is not known")]
    Unknown,
    /// There is no connection at the moment.
    #[error("the node is not connected")]
    NotConnected,
    /// The peer does not keep up: its queue is full.
    #[error("the queue to the node is full")]
    Full,
}

/// The seam to the network between nodes. Envelopes to one peer in one class arrive in the order
/// of sending, or not at all; after a loss everything up to the next connection is lost.
pub trait PeerTransport: Send + Sync + Debug {
    /// Gives the transport who receives, and lets it start.
    fn start(&self, handler: Weak<dyn PeerHandler>);
    /// Tells where a peer listens, `HOST:PORT`. Telling it again changes it.
    fn set_peer(&self, id: NodeId, address: &str);
    /// Queues a message. Never blocks.
    fn send(&self, to: NodeId, class: Class, envelope: Envelope) -> Result<(), SendError>;
    /// Whether there is a connection now.
    fn connected(&self, to: NodeId) -> bool;
}

/// Who receives what peers sent. Neither function may block.
pub trait PeerHandler: Send + Sync {
    /// Messages of one peer, in order.
    fn receive(&self, from: NodeId, envelopes: Vec<Envelope>);
    /// The connection to a peer broke: what was sent and not answered may be lost.
    fn lost(&self, peer: NodeId, class: Class);
}

/// A shared transport.
pub type SharedTransport = Arc<dyn PeerTransport>;
