//! A store that is not ours: how its nodes are started, and how it is spoken to.
//!
//! Both are commands of a shell. A node's command runs where the node lives; a client's command is
//! a program that speaks JSON lines (`program`). What they need to know is in their environment.

mod program;

use tokio::process::Command;

use crate::error::LabError;

pub(crate) use program::{Answer, Program};

/// The commands of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignStore {
    /// Starts a node, which serves until it is killed.
    pub node: String,
    /// Starts a client, which makes one call after the other.
    pub client: String,
}

/// What a node's command is told, beside what all of them are.
pub(crate) struct NodeWords {
    pub(crate) node: usize,
    pub(crate) nodes: usize,
    /// Where it serves clients.
    pub(crate) listen: String,
    /// Where it serves other nodes.
    pub(crate) peer_listen: String,
    /// Where it reaches each other node.
    pub(crate) peers: Vec<String>,
    /// Where it may keep what it keeps.
    pub(crate) dir: String,
}

impl NodeWords {
    /// The environment of the node's command.
    pub(crate) fn environment(self) -> [(&'static str, String); 6] {
        [
            ("QUORATE_LAB_NODE", self.node.to_string()),
            ("QUORATE_LAB_NODES", self.nodes.to_string()),
            ("QUORATE_LAB_LISTEN", self.listen),
            ("QUORATE_LAB_PEER_LISTEN", self.peer_listen),
            ("QUORATE_LAB_PEERS", self.peers.join(" ")),
            ("QUORATE_LAB_DIR", self.dir),
        ]
    }
}

/// The arguments of `sh` that run a command as the very process that was started: so it is the
/// command that is killed and paused, not a shell around it.
pub(crate) fn shell(command: &str) -> [String; 2] {
    ["-c".to_owned(), format!("exec {command}")]
}

impl ForeignStore {
    /// A client that calls at one of the nodes, and knows them all.
    pub(crate) fn program(&self, home: &str, endpoints: &[String]) -> Result<Program, LabError> {
        let mut command = Command::new("sh");
        command
            .args(shell(&self.client))
            .env("QUORATE_LAB_HOME", home)
            .env("QUORATE_LAB_ENDPOINTS", endpoints.join(" "));
        Program::start(command, &self.client)
    }
}
