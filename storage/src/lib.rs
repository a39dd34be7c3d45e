//! The node's own storage: the disk seam, the log, the engine.
//!
//! Nothing here knows Raft, keyspaces or the network.

pub mod disk;
pub mod engine;
pub mod log;
