//! Configuration as bundles: many keys under a prefix that change in one atomic step, with a
//! history of steps that can be gone back to.
//!
//! The keys are plain keys: whoever reads them needs to know nothing of steps. What is kept beside
//! them lies under [`RESERVED`], in the same keyspace and so in the same range: the steps of each
//! prefix, and the contents that they name by their hash. Contents are stored before a step, for
//! they change nothing that anybody reads; the step itself is one transaction, which compares all
//! that the plan was made from and writes all that differs, the record of the step included. So a
//! step is there as a whole or not at all, whenever its client or a leader is killed. What lies
//! further back than is kept goes in the same transaction.
//!
//! Not here: reading folders and files, and what a plan looks like (the command line).

mod error;
mod forget;
mod layers;
mod layout;
mod merge;
mod plan;
mod step;
mod store;

pub use error::ConfigError;
pub use layers::{Explained, LayeredValue, explain_layers, split_layers};
pub use layout::{ConfigPrefix, RESERVED};
pub use merge::{Conflict, Merged, merge_values};
pub use plan::{Change, Plan};
pub use step::{StepInfo, StepKind};
pub use store::{Config, ConfigState, Stepped};

use quorate_types::limits::{MESSAGE_MAX_BYTES, TXN_OPERATIONS_MAX};

/// Most keys of one bundle, kept and removed ones included: one transaction compares them all, the
/// head of the steps, and has room for the step.
pub const CONFIG_KEYS_MAX: usize = TXN_OPERATIONS_MAX - 16;

/// Steps that are kept, unless somebody says how many.
pub const CONFIG_HISTORY_USUAL: u64 = 1000;

/// Fewest steps that are kept: the last one, and the one before.
pub const CONFIG_HISTORY_MIN: u64 = 2;

/// Most bytes of keys and values that one step may write.
pub const CONFIG_STEP_MAX_BYTES: usize = MESSAGE_MAX_BYTES - (4 << 20);

/// Most bytes of keys and values under a prefix that are read for a plan.
pub const CONFIG_READ_MAX_BYTES: usize = 256 << 20;
