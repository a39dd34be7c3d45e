//! What came of a command: the answer that travels from apply to the proposer.

use bytes::Bytes;
use quorate_storage::engine::Version;
use quorate_types::Revision;

use super::etcd::EtcdOutcome;
use super::window::Remembered;

/// The result of one applied entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Of the entry; of the first attempt's entry where `replayed`.
    pub revision: Revision,
    /// What it did.
    pub outcome: ApplyOutcome,
    /// An earlier attempt of the same request was decided before.
    pub replayed: bool,
}

/// What an entry did.
#[derive(Clone, Debug, PartialEq)]
pub enum ApplyOutcome {
    /// A put, delete, or batch; `deleted` counts keys that existed and are gone.
    Written {
        /// Keys removed.
        deleted: u64,
        /// Of a put that says what its client had seen: the values that it replaced and that one
        /// had not.
        unseen: u64,
    },
    /// A conditional write.
    Compared {
        /// The condition held, and the write was done.
        succeeded: bool,
        /// What was there before, where the condition did not hold.
        current: Option<Version>,
    },
    /// A transaction.
    Transacted {
        /// All compares held.
        succeeded: bool,
        /// Of the operations of the list that ran. Empty where the answer is replayed.
        results: Vec<TxnResult>,
    },
    /// A remembered decision: which kind of write it was is known to the one who asks.
    Remembered {
        /// A condition held, or a key existed.
        succeeded: bool,
        /// The id was closed: not applied, for ever.
        closed: bool,
        /// Keys removed; of a put, values that it replaced unseen.
        deleted: u64,
    },
    /// Keep-alives: for each lease how long it lives from here on, microseconds; 0: there is none.
    Renewed(Vec<u64>),
    /// A change of an etcd keyspace, or its refusal.
    Etcd(Box<EtcdOutcome>),
    /// It was not done.
    Refused(ApplyRefusal),
    /// It changed no key.
    Nothing,
}

/// Why a write was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyRefusal {
    /// Its id is below the window: it may have been applied before.
    BelowWindow,
    /// The range's quota would be exceeded. Its id is closed: it never will be done.
    QuotaExceeded,
    /// A prefix's quota would be exceeded. Its id is closed, as above.
    PrefixFull(Box<PrefixFull>),
    /// It names a lease that is not there. Its id is closed, here and below.
    LeaseNotFound,
    /// As many keys as can be are attached to its lease.
    LeaseFull,
    /// The range keeps as many leases as it can.
    LeasesMany,
}

/// A quota that a write would exceed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixFull {
    /// Of the user's keys.
    pub prefix: Bytes,
    /// There are, and there would be.
    pub keys: (u64, u64),
    /// Keys and values take, and would take.
    pub bytes: (u64, u64),
    /// 0: any number.
    pub max_keys: u64,
    /// 0: any number.
    pub max_bytes: u64,
}

/// The result of one operation of a transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TxnResult {
    /// The key existed (get), or had existed (delete).
    pub found: bool,
    /// For a get.
    pub version: Option<(Bytes, Version)>,
    /// For a write.
    pub revision: Revision,
}

impl Applied {
    /// An entry that did something.
    pub fn new(revision: Revision, outcome: ApplyOutcome) -> Applied {
        Applied {
            revision,
            outcome,
            replayed: false,
        }
    }

    /// An entry without an effect on keys.
    pub fn nothing(revision: Revision) -> Applied {
        Applied::new(revision, ApplyOutcome::Nothing)
    }

    pub(super) fn refused(revision: Revision, refusal: ApplyRefusal) -> Applied {
        Applied::new(revision, ApplyOutcome::Refused(refusal))
    }

    pub(super) fn replayed(result: Remembered) -> Applied {
        let outcome = ApplyOutcome::Remembered {
            succeeded: result.succeeded,
            closed: result.closed,
            deleted: u64::from(result.count),
        };
        Applied {
            revision: result.revision,
            outcome,
            replayed: true,
        }
    }

    /// Whether the window must remember it.
    pub(super) fn is_decision(&self) -> bool {
        !matches!(
            self.outcome,
            ApplyOutcome::Refused(ApplyRefusal::BelowWindow)
        )
    }

    pub(super) fn remembered(&self) -> Remembered {
        let (succeeded, count) = match &self.outcome {
            ApplyOutcome::Written { deleted, unseen } => (true, *deleted.max(unseen)),
            ApplyOutcome::Compared { succeeded, .. } => (*succeeded, 0),
            ApplyOutcome::Transacted { succeeded, .. } => (*succeeded, 0),
            ApplyOutcome::Remembered {
                succeeded, deleted, ..
            } => (*succeeded, *deleted),
            ApplyOutcome::Renewed(_)
            | ApplyOutcome::Etcd(_)
            | ApplyOutcome::Refused(_)
            | ApplyOutcome::Nothing => (false, 0),
        };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Remembered {
            revision: self.revision,
            succeeded,
            closed: matches!(self.outcome, ApplyOutcome::Refused(_)),
            count,
        }
    }
}
