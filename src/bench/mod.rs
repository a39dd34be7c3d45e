//! The load generator: keeps so many requests in flight for so long, and measures each.
//!
//! It knows stores only through [`Target`], so that the same code can measure another one. What
//! is measured begins when a request is due, not when there was time to send it: at a fixed
//! rate, waiting behind a slow answer counts as latency (no coordinated omission).

mod load;
mod quorate;
mod report;
mod target;
mod workload;

use thiserror::Error;

pub use load::{LoadOptions, preload, run};
pub use quorate::QuorateTarget;
pub use report::{Recorder, Report};
pub use target::{Connection, Operation, Target};
pub use workload::{Random, Workload, WorkloadError, key};

/// Why a measurement did not take place.
#[derive(Debug, Error)]
pub enum BenchError {
    /// A connection could not be set up.
    #[error("client {client} cannot connect: {problem}")]
    Connect {
        /// Which one, from 0.
        client: usize,
        /// Why.
        problem: String,
    },
    /// The keys that are to be read could not be written.
    #[error("cannot load the keys: {problem}")]
    Load {
        /// What the first failed put said.
        problem: String,
    },
    /// Not one request was answered.
    #[error("no request succeeded, {errors} failed: {problem}")]
    NothingServed {
        /// How many failed.
        errors: u64,
        /// What most of them said.
        problem: String,
    },
}
