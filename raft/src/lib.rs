//! Many Raft groups on one node: groups and their state machine, the catalog and placement, the
//! peer transport. The only crate that names openraft.
//!
//! Start at [`RaftNode`] (a node's groups), [`Group`] (one replica: propose and read),
//! [`machine`] (what a command does) and [`catalog`] (what lives where).

mod appends;
mod apply;
pub mod catalog;
mod consensus;
mod controller;
mod decided;
mod failed;
mod feed;
mod group;
mod hybrid;
mod inbound;
mod leases;
mod liveness;
mod log_store;
pub mod machine;
mod network;
mod node;
pub mod peer;
mod read_index;
mod renewals;
mod replace;
mod runtime;
pub mod seam;
mod snapshot;
mod status;
mod stop;
mod transfer;
mod upkeep;

pub use apply::AppliedAt;
pub use catalog::{CatalogError, CatalogView, KeyspaceView, NodeView, RangeView};
pub use controller::UpdateError;
pub use decided::Decided;
pub use failed::GroupFailed;
pub use feed::{Event, Follower, Found, Place, Wanted};
pub use group::{Group, ProposeError, Proposed, ReadError, ReadPoint};
pub use inbound::{EventualAnswer, EventualHandler, ForwardHandler};
pub use liveness::{PHI_MAX_BOUNDS, PHI_MAX_DEFAULT, PeerLiveness};
#[doc(hidden)]
pub use node::Faults;
pub use node::{RaftNode, RaftNodeOptions, Seams, StartError};
pub use peer::CallError;
pub use replace::{ReplaceError, ReplaceStep};
pub use runtime::seed_thread;

/// The openraft-facing types, for openraft's own conformance suite alone.
#[doc(hidden)]
pub mod testing {
    pub use crate::apply::RangeMachine;
    pub use crate::consensus::Consensus;
    pub use crate::log_store::LogStore;
}
