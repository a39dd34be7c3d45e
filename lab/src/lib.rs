//! The lab: a cluster of real server processes, faults that really happen, clients whose calls are
//! recorded, and a verdict on the recording.
//!
//! [`run`] is one cell: a [`Plan`] from the first process to the report. What clients do is a
//! workload, what is done to the nodes a nemesis, where the nodes live [`hosts`]. Judging histories
//! is not done here but in `quorate-jepsen`, which knows nothing of all this.

mod caller;
mod cluster;
pub mod compare;
mod disk;
mod error;
mod foreign;
pub mod hosts;
mod judge;
pub mod matrix;
pub mod nemesis;
mod node;
mod page;
mod plan;
mod random;
mod record;
mod recovery;
mod results;
mod run;
pub mod workload;

pub use error::LabError;
pub use foreign::ForeignStore;
pub use hosts::HostsKind;
pub use matrix::{Cell, Matrix};
pub use nemesis::Nemesis;
pub use plan::{Plan, PlanOptions};
pub use results::{Outcome, Results};
pub use run::run;
pub use workload::WorkloadKind;
