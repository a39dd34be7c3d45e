//! Why a local cluster did not start, or ended by itself.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use super::topology::DEV_NODES_MAX;

/// Why `quorate dev` ended without being told to. No node is left running.
#[derive(Debug, Error)]
pub enum DevError {
    /// Too few or too many nodes.
    #[error("{nodes} nodes: a local cluster has 1 to {DEV_NODES_MAX}")]
    NodeCount {
        /// What was asked for.
        nodes: u16,
    },
    /// The nodes' ports would pass 65535.
    #[error("{nodes} nodes from port {port} on need ports past 65535")]
    PortsPastEnd {
        /// The first port.
        port: u16,
        /// How many nodes.
        nodes: u16,
    },
    /// Somebody else listens there.
    #[error("cannot listen on {address}")]
    PortInUse {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another `quorate dev` works in the folder.
    #[error("{} is in use by another `quorate dev`", dir.display())]
    FolderInUse {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder belongs to a cluster of another size.
    #[error("{} holds a cluster of {held} node(s), not of {wanted}", dir.display())]
    OtherNodeCount {
        /// The folder.
        dir: PathBuf,
        /// Nodes of the cluster in it.
        held: u16,
        /// What was asked for.
        wanted: u16,
    },
    /// The folder's description cannot be read.
    #[error("{} is not what `quorate dev` writes: {problem}", path.display())]
    BadDescription {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file or folder of this machine.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A node's process could not be started.
    #[error("cannot start node {id}")]
    Start {
        /// The node.
        id: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Too few nodes are left for a majority, before the cluster was ready.
    #[error("node(s) {} stopped before the cluster was ready", list(nodes))]
    NotReady {
        /// Nodes that stopped.
        nodes: Vec<u64>,
    },
    /// Every node stopped by itself.
    #[error("all nodes have stopped")]
    AllStopped,
}

fn list(nodes: &[u64]) -> String {
    let names: Vec<String> = nodes.iter().map(u64::to_string).collect();
    names.join(", ")
}

impl DevError {
    pub(super) fn file(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File {
            doing,
            path: path.into(),
            source,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::PortInUse { .. } | Self::PortsPastEnd { .. } => {
                "`--port N` begins at another port, `--port 0` takes any that are free".to_owned()
            }
            Self::FolderInUse { .. } => {
                "stop the other one, or give this one a folder with --dir".to_owned()
            }
            Self::OtherNodeCount { held, .. } => {
                format!("`--nodes {held}` starts the cluster that is there; `--dir` begins another")
            }
            Self::NotReady { .. } | Self::AllStopped => {
                "each node's server.log in its folder says why".to_owned()
            }
            Self::BadDescription { .. } => "`--dir` names another folder".to_owned(),
            Self::NodeCount { .. } | Self::File { .. } | Self::Start { .. } => return None,
        })
    }
}
