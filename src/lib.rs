//! The one binary of Quorate as a library: its command line, the assembly of a node, the local
//! development cluster, import and export, and the load generator.
//!
//! What the commands talk to lives in other crates: `quorate-client` speaks to a cluster,
//! `quorate-gateway`, `quorate-raft` and `quorate-storage` make up a node.

pub mod bench;
pub mod cli;
pub mod config;
pub mod dev;
pub mod planted;
pub mod server;
pub mod transfer;
