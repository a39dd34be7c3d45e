//! Why a run did not take place, or broke off.

use std::io;
use std::path::PathBuf;

use quorate_client::ClientError;
use thiserror::Error;

/// An error of the lab itself. What a store under test does wrong is a verdict, not an error.
#[derive(Debug, Error)]
pub enum LabError {
    /// The plan asks for what cannot be done; nothing was started.
    #[error("{what}")]
    Refused {
        /// What, and why.
        what: String,
        /// What to do instead.
        hint: String,
    },
    /// A program that hosts need failed.
    #[error("`{command}` failed: {problem}")]
    Command {
        /// As it was called.
        command: String,
        /// What it said.
        problem: String,
    },
    /// A file cannot be used.
    #[error("cannot use {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A node's process cannot be started, signalled or waited for.
    #[error("node {node}: {what}")]
    Process {
        /// Which one.
        node: usize,
        /// What failed.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No address is left to listen on.
    #[error("no address to listen on")]
    Listen(#[source] io::Error),
    /// The cluster did not come up.
    #[error("the cluster is not ready after {waited_seconds} s: {problem}")]
    NotReady {
        /// How long was waited.
        waited_seconds: u64,
        /// What was still wrong.
        problem: String,
    },
    /// A node that has lost its data was not replaced.
    #[error(
        "node {node} has lost its data, and is not replaced after {waited_seconds} s: {problem}"
    )]
    NotReplaced {
        /// Which one.
        node: usize,
        /// How long was waited.
        waited_seconds: u64,
        /// What was still wrong.
        problem: String,
    },
    /// Preparing the keyspace failed.
    #[error("cannot prepare the workload")]
    Prepare(#[source] ClientError),
    /// The recorded history cannot be checked.
    #[error("the history cannot be checked: {0}")]
    Check(String),
}

impl LabError {
    /// Refuses a plan.
    pub(crate) fn refused(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused {
            what: what.into(),
            hint: hint.into(),
        }
    }

    /// A file that cannot be used.
    pub(crate) fn file(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File {
            path: path.into(),
            source,
        }
    }

    /// What to do instead, where there is something.
    pub fn hint(&self) -> &str {
        match self {
            Self::Refused { hint, .. } => hint,
            Self::Command { .. }
            | Self::File { .. }
            | Self::Process { .. }
            | Self::Listen(_)
            | Self::NotReady { .. }
            | Self::NotReplaced { .. }
            | Self::Prepare(_)
            | Self::Check(_) => "",
        }
    }
}
