//! Operations and conditions of transactions and batches, as callers say them.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1;
use quorate_types::{FieldError, LeaseId, Revision};

/// One operation of a batch or transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writes a key.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The key goes after this time; none: the keyspace's default.
        ttl: Option<Duration>,
        /// Transactions: the key goes with this lease; none: it goes with no lease.
        lease: Option<LeaseId>,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Reads a key.
    Get {
        /// The key.
        key: Bytes,
    },
}

impl Operation {
    /// A put that stays as long as the keyspace says.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put {
            key: key.into(),
            value: value.into(),
            ttl: None,
            lease: None,
        }
    }

    /// A delete.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// A get.
    pub fn get(key: impl Into<Bytes>) -> Self {
        Self::Get { key: key.into() }
    }

    pub(crate) fn into_wire(self) -> Result<v1::Operation, FieldError> {
        use v1::operation as wire;
        let operation = match self {
            Self::Put {
                key,
                value,
                ttl,
                lease,
            } => wire::Operation::Put(wire::Put {
                key,
                value,
                ttl_ms: ttl_millis(ttl)?,
                lease: lease.map_or(0, |id| id.0),
            }),
            Self::Delete { key } => wire::Operation::Delete(wire::Delete { key }),
            Self::Get { key } => wire::Operation::Get(wire::Get { key }),
        };
        Ok(v1::Operation {
            operation: Some(operation),
        })
    }
}

/// On the wire 0 means "the keyspace's default".
pub(crate) fn ttl_millis(ttl: Option<Duration>) -> Result<u64, FieldError> {
    let Some(ttl) = ttl else {
        return Ok(0);
    };
    u64::try_from(ttl.as_millis())
        .ok()
        .filter(|millis| *millis > 0)
        .ok_or_else(|| FieldError::new("ttl_ms", format!("{ttl:?}; allowed: 1ms and more")))
}

pub(crate) fn operations_into_wire(
    operations: Vec<Operation>,
) -> Result<Vec<v1::Operation>, FieldError> {
    operations.into_iter().map(Operation::into_wire).collect()
}

/// The state that a key must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Exactly this revision.
    Revision(Revision),
    /// Exactly this value.
    Value(Bytes),
    /// No such key.
    Absent,
    /// Any value.
    Present,
}

impl Expect {
    pub(crate) fn into_wire(self) -> v1::Expect {
        use v1::expect::State;
        v1::Expect {
            state: Some(match self {
                Self::Revision(revision) => State::Revision(revision.0),
                Self::Value(value) => State::Value(value),
                Self::Absent => State::Absent(true),
                Self::Present => State::Present(true),
            }),
        }
    }
}

/// A condition on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: Bytes,
    /// The state that it must have.
    pub expect: Expect,
}

/// Compare, then one of two lists of operations, atomically, within one range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold for `then`; else `otherwise`.
    pub compare: Vec<Compare>,
    /// If all compares hold.
    pub then: Vec<Operation>,
    /// If one does not.
    pub otherwise: Vec<Operation>,
}

impl Txn {
    /// Adds a condition.
    #[must_use]
    pub fn compare(mut self, key: impl Into<Bytes>, expect: Expect) -> Self {
        self.compare.push(Compare {
            key: key.into(),
            expect,
        });
        self
    }

    /// Adds an operation for when all conditions hold.
    #[must_use]
    pub fn then(mut self, operation: Operation) -> Self {
        self.then.push(operation);
        self
    }

    /// Adds an operation for when a condition does not hold.
    #[must_use]
    pub fn otherwise(mut self, operation: Operation) -> Self {
        self.otherwise.push(operation);
        self
    }
}
