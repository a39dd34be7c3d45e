//! `quorate dev`: a cluster on this machine, one child process a node, with its data in one
//! folder.
//!
//! The parent only starts, watches and stops; all that makes a node is in `crate::server`.
//! Children stop when their standard input ends, so none outlives the parent, however it ends.

mod child;
mod cluster;
mod error;
mod folder;
mod ready;
mod topology;

pub use cluster::{Console, DevOptions, run};
pub use error::DevError;
pub use topology::{DEV_NODES_MAX, NodePlan, Topology};
