//! Why a step was not made, or the configuration not read.

use quorate_types::FieldError;
use thiserror::Error;

use crate::error::ClientError;

/// Why configuration could not be read or changed. But for [`ConfigError::Client`], nothing was.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The cluster, or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A prefix that names no folder of keys, or a key that cannot be in one.
    #[error(transparent)]
    Invalid(#[from] FieldError),
    /// The cluster refused what one key was to be.
    #[error("{key}")]
    Key {
        /// Which one.
        key: String,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// The keyspace's keys lie in several ranges, so no step can be atomic.
    #[error("keyspace `{keyspace}` is {partitioning}: its keys do not change in one step")]
    Spread {
        /// Its name.
        keyspace: String,
        /// How its keys are laid out.
        partitioning: String,
    },
    /// More than one step can hold.
    #[error("{what}: {found} are above the limit of {limit} for one step")]
    TooLarge {
        /// Keys, or bytes.
        what: &'static str,
        /// So many.
        found: usize,
        /// What would have been taken.
        limit: usize,
    },
    /// Something was written since the plan was made.
    #[error("changed since the plan was made: {}", moved.join(", "))]
    Moved {
        /// Keys that are not as they were, as far as they are known.
        moved: Vec<String>,
    },
    /// No such step.
    #[error("no step {number} of {prefix:?}; {there}")]
    NoStep {
        /// What was asked for.
        number: u64,
        /// Of which prefix.
        prefix: String,
        /// What is there.
        there: String,
    },
    /// What a step names is not there, or not what it was.
    #[error("the record of {what} is damaged: {problem}")]
    Damaged {
        /// Of which step or content.
        what: String,
        /// In which way.
        problem: String,
    },
}
