//! Why a comparison ended without a table.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use quorate::bench::BenchError;
use quorate_client::ClientError;
use thiserror::Error;

/// Why a comparison ended without a table.
#[derive(Debug, Error)]
pub enum CompareError {
    /// A program did not start.
    #[error("cannot start {}", program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A store ended by itself.
    #[error("{store} ended while it was needed; its log: {}", log.display())]
    Ended {
        /// Which.
        store: &'static str,
        /// Where it wrote what it had to say; gone with the run's folder unless kept.
        log: PathBuf,
    },
    /// A store did not serve in time.
    #[error("{store} does not serve after {waited:?}")]
    NotReady {
        /// Which.
        store: &'static str,
        /// So long.
        waited: Duration,
    },
    /// A store did not serve in time, and says why.
    #[error("{store} does not serve after {waited:?}: {problem}")]
    Refused {
        /// Which.
        store: &'static str,
        /// So long.
        waited: Duration,
        /// What its client said last.
        problem: String,
    },
    /// All ports that were tried are in use.
    #[error("no two ports are free at all addresses of the nodes")]
    NoPorts,
    /// A store's program is not whole.
    #[error("no {name}*.jar in {}", folder.display())]
    NoJar {
        /// How its name begins.
        name: String,
        /// Where it should be.
        folder: PathBuf,
    },
    /// A file, a port, or a process could not be used.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The ready file is not what it should be.
    #[error("the ready file of `quorate dev` lacks `{field}`")]
    ReadyFile {
        /// What is missing.
        field: &'static str,
    },
    /// Quorate refused a request of the setup.
    #[error("Quorate refused to set up a keyspace")]
    Quorate(#[from] ClientError),
    /// A load could not be run.
    #[error("the load failed: {cell}")]
    Load {
        /// Which.
        cell: String,
        /// Why.
        source: BenchError,
    },
    /// A read of many keys went wrong.
    #[error("{store}: the read of all keys failed")]
    Range {
        /// Whose.
        store: &'static str,
        /// Why.
        source: Box<tonic::Status>,
    },
    /// Stopped from outside.
    #[error("stopped before the end")]
    Stopped,
}

impl CompareError {
    /// For `map_err`: what was tried when `source` came.
    pub fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}
