//! What clients do, and which model the recording is held against.
//!
//! A workload makes one call at a time for whichever caller asks it ([`Workload::step`]), and once
//! all is whole again the last reads ([`Workload::finish`]). Values are unique in a run. Keys are
//! used for a while and then left for new ones, so that each history of a key stays short.

mod append;
mod bank;
mod batch;
mod bounded;
mod counter;
mod expiring;
mod fence;
mod foreign;
mod keys;
mod ladders;
mod lease_lock;
mod lock;
mod mixed;
mod register;
mod sessions;
mod set;
mod siblings;
mod watch;

use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use quorate_client::{Client, ClientError};
use quorate_jepsen::{Model, Options};
use quorate_types::{Ack, ConflictPolicy, Copies, KeyspaceOptions, Ladder, Level, Mode};

use crate::caller::Caller;
use crate::error::LabError;
use crate::plan::PlanOptions;

/// The keyspace that clients work in.
pub(crate) const KEYSPACE: &str = "lab";

/// Kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadKind {
    /// Registers: read, write, compare-and-set.
    Register,
    /// Transactions that append to lists and read them.
    Append,
    /// Batches that read and write several keys of one range.
    Batch,
    /// Transfers between accounts, and reads of all.
    Bank,
    /// Elements added, and reads of all.
    Set,
    /// Increments, and reads of the sum.
    Counter,
    /// Sessions that hop over nodes with their tokens.
    Sessions,
    /// The same without tokens: the control, which is to be found guilty.
    SessionsControl,
    /// Writes, and reads of a bounded age at any node.
    Bounded,
    /// Values that expire, replaced by such that do not.
    Expiring,
    /// Writes and deletes with contexts on the eventual plane.
    Siblings,
    /// Strong and eventual calls on the same keys.
    Mixed,
    /// Eventual writes at a quorum of primaries, then fenced reads elsewhere.
    Fence,
    /// The same without fences: the control, which is to be found guilty.
    FenceControl,
    /// Writes and reads by ladders, whose receipts must be true.
    Ladders,
    /// A lock with leases and fencing tokens around a list.
    Lock,
    /// The same without tokens: the control, which is to be found guilty.
    LockControl,
    /// The client library's lock, on a lease, and its fencing tokens around a list.
    LeaseLock,
    /// The same without tokens: the control, which is to be found guilty.
    LeaseLockControl,
    /// Puts and deletes, and watchers that are told of them.
    Watch,
    /// The same by watchers that forget where they were: the control, which is to be found guilty.
    WatchControl,
}

impl WorkloadKind {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::Register,
        Self::Append,
        Self::Batch,
        Self::Bank,
        Self::Set,
        Self::Counter,
        Self::Sessions,
        Self::SessionsControl,
        Self::Bounded,
        Self::Expiring,
        Self::Siblings,
        Self::Mixed,
        Self::Fence,
        Self::FenceControl,
        Self::Ladders,
        Self::Lock,
        Self::LockControl,
        Self::LeaseLock,
        Self::LeaseLockControl,
        Self::Watch,
        Self::WatchControl,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Append => "append",
            Self::Batch => "batch",
            Self::Bank => "bank",
            Self::Set => "set",
            Self::Counter => "counter",
            Self::Sessions => "sessions",
            Self::SessionsControl => "sessions-control",
            Self::Bounded => "bounded",
            Self::Expiring => "expiring",
            Self::Siblings => "siblings",
            Self::Mixed => "mixed",
            Self::Fence => "fence",
            Self::FenceControl => "fence-control",
            Self::Ladders => "ladders",
            Self::Lock => "lock",
            Self::LockControl => "lock-control",
            Self::LeaseLock => "lease-lock",
            Self::LeaseLockControl => "lease-lock-control",
            Self::Watch => "watch",
            Self::WatchControl => "watch-control",
        }
    }

    /// Whether it breaks the promise by intent, to show that a breach is seen.
    pub const fn is_control(self) -> bool {
        match self {
            Self::SessionsControl
            | Self::FenceControl
            | Self::LockControl
            | Self::LeaseLockControl
            | Self::WatchControl => true,
            Self::Register
            | Self::Append
            | Self::Batch
            | Self::Bank
            | Self::Set
            | Self::Counter
            | Self::Sessions
            | Self::Bounded
            | Self::Expiring
            | Self::Siblings
            | Self::Mixed
            | Self::Fence
            | Self::Ladders
            | Self::Lock
            | Self::LeaseLock
            | Self::Watch => false,
        }
    }

    /// Which levels it can be asked at, in words.
    const fn levels(self) -> &'static str {
        match self {
            Self::Register | Self::Append | Self::Batch | Self::Bank | Self::Expiring => {
                "linearizable"
            }
            Self::Bounded => "bounded:AGE",
            Self::Set | Self::Counter => "linearizable or eventual:W",
            Self::Sessions | Self::SessionsControl => "session, or eventual:W beside it",
            Self::Siblings => "eventual:W",
            Self::Mixed
            | Self::Fence
            | Self::FenceControl
            | Self::Ladders
            | Self::Lock
            | Self::LockControl
            | Self::LeaseLock
            | Self::LeaseLockControl
            | Self::Watch
            | Self::WatchControl => "its own levels only",
        }
    }

    /// The level of its eventual calls where none is asked for, and where losing one is an anomaly.
    pub(crate) const fn own_level(self) -> Option<Level> {
        match self {
            Self::Siblings | Self::Ladders => Some(Level::eventual(Copies::One)),
            Self::Register
            | Self::Append
            | Self::Batch
            | Self::Bank
            | Self::Set
            | Self::Counter
            | Self::Sessions
            | Self::SessionsControl
            | Self::Bounded
            | Self::Expiring
            | Self::Mixed
            | Self::Fence
            | Self::FenceControl
            | Self::Lock
            | Self::LockControl
            | Self::LeaseLock
            | Self::LeaseLockControl
            | Self::Watch
            | Self::WatchControl => None,
        }
    }

    fn knows(self, level: &Level) -> bool {
        match self {
            Self::Register | Self::Append | Self::Batch | Self::Bank | Self::Expiring => {
                *level == Level::Linearizable
            }
            Self::Bounded => matches!(level, Level::Bounded(_)),
            Self::Set | Self::Counter => *level == Level::Linearizable || level.is_eventual(),
            Self::Sessions | Self::SessionsControl => {
                *level == Level::Session || level.is_eventual()
            }
            Self::Siblings => level.is_eventual(),
            Self::Mixed
            | Self::Fence
            | Self::FenceControl
            | Self::Ladders
            | Self::Lock
            | Self::LockControl
            | Self::LeaseLock
            | Self::LeaseLockControl
            | Self::Watch
            | Self::WatchControl => false,
        }
    }

    /// The modes of keyspaces that it can work in, its own first.
    fn modes(self, level: Option<Level>) -> &'static [Mode] {
        let eventual = level.is_some_and(|level| level.is_eventual());
        match self {
            Self::Register
            | Self::Append
            | Self::Batch
            | Self::Bank
            | Self::Bounded
            | Self::Expiring
            | Self::Lock
            | Self::LockControl => &[Mode::Mixed, Mode::Strong],
            // Leases are for keyspaces of this mode.
            Self::LeaseLock | Self::LeaseLockControl => &[Mode::Strong],
            Self::Watch | Self::WatchControl => &[Mode::Strong, Mode::Mixed],
            Self::Set | Self::Counter if eventual => &[Mode::Mixed, Mode::Eventual],
            Self::Set => &[Mode::Mixed, Mode::Strong],
            Self::Sessions | Self::SessionsControl if eventual => &[Mode::Mixed],
            Self::Sessions | Self::SessionsControl => &[Mode::Mixed, Mode::Strong],
            Self::Siblings => &[Mode::Mixed, Mode::Eventual],
            Self::Counter | Self::Mixed | Self::Fence | Self::FenceControl | Self::Ladders => {
                &[Mode::Mixed]
            }
        }
    }

    /// Whether level and mode fit the workload.
    ///
    /// # Errors
    ///
    /// [`LabError::Refused`] says which would.
    pub(crate) fn check(self, options: &PlanOptions) -> Result<(), LabError> {
        let level = level_of(options)?;
        if options.foreign.is_some() {
            return self.check_foreign(options);
        }
        if let Some(level) = level.filter(|level| !self.knows(level)) {
            let what = format!("the workload {} cannot be had at {level}", self.name());
            return Err(LabError::refused(
                what,
                format!("wanted: {}", self.levels()),
            ));
        }
        let modes = self.modes(level);
        if let Some(mode) = options.mode.filter(|mode| !modes.contains(mode)) {
            let what = format!("the workload {} cannot be had in mode {mode}", self.name());
            let modes: Vec<String> = modes.iter().map(Mode::to_string).collect();
            return Err(LabError::refused(
                what,
                format!("wanted: {}", modes.join(", ")),
            ));
        }
        Ok(())
    }

    /// A store that is not ours has registers, and neither levels nor modes.
    fn check_foreign(self, options: &PlanOptions) -> Result<(), LabError> {
        let refused = |what: &str, hint| {
            let what = format!("{what} with a store that is not Quorate");
            Err(LabError::refused(what, hint))
        };
        if self != Self::Register {
            let what = format!("the workload {} cannot be had", self.name());
            return refused(&what, "wanted: register");
        }
        if options.level.is_some() || options.mode.is_some() || options.replication.is_some() {
            return refused("there are no --level, --mode and --replication", "");
        }
        let known = options.nemeses.iter().find(|one| !one.is_for_any_store());
        match known {
            Some(nemesis) => {
                let what = format!("the nemesis {} cannot be had", nemesis.name());
                refused(
                    &what,
                    "it takes what only Quorate tells, or takes as orders",
                )
            }
            None => Ok(()),
        }
    }

    /// The keyspace that it works in.
    pub(crate) fn keyspace(self, options: &PlanOptions) -> Result<KeyspaceOptions, LabError> {
        let level = level_of(options)?;
        let eventual = level.is_some_and(|level| level.is_eventual());
        let nodes = u8::try_from(options.nodes).expect("a run has a few nodes");
        // Nodes outside the primaries are what stand-ins and forwarding take.
        let replication = options.replication.unwrap_or(nodes.min(3));
        let defaults = KeyspaceOptions::default();
        Ok(KeyspaceOptions {
            mode: options.mode.unwrap_or(self.modes(level)[0]),
            conflict: match self {
                Self::Counter => ConflictPolicy::Counter,
                Self::Set if eventual => ConflictPolicy::Set,
                Self::Register
                | Self::Append
                | Self::Batch
                | Self::Bank
                | Self::Set
                | Self::Sessions
                | Self::SessionsControl
                | Self::Bounded
                | Self::Expiring
                | Self::Siblings
                | Self::Mixed
                | Self::Fence
                | Self::FenceControl
                | Self::Ladders
                | Self::Lock
                | Self::LockControl
                | Self::LeaseLock
                | Self::LeaseLockControl
                | Self::Watch
                | Self::WatchControl => ConflictPolicy::Siblings,
            },
            partitioning: match self {
                Self::Append
                | Self::Batch
                | Self::Bank
                | Self::Lock
                | Self::LockControl
                | Self::LeaseLock
                | Self::LeaseLockControl => defaults.partitioning,
                Self::Register
                | Self::Set
                | Self::Counter
                | Self::Sessions
                | Self::SessionsControl
                | Self::Bounded
                | Self::Expiring
                | Self::Siblings
                | Self::Mixed
                | Self::Fence
                | Self::FenceControl
                | Self::Ladders
                | Self::Watch
                | Self::WatchControl => quorate_types::Partitioning::Hash(2),
            },
            replication,
            ..defaults
        })
    }

    /// The work itself.
    pub(crate) fn make(self, options: &PlanOptions) -> Result<Arc<dyn Workload>, LabError> {
        let level = level_of(options)?;
        if let Some(store) = &options.foreign {
            return Ok(Arc::new(foreign::Foreign::new(store.clone())));
        }
        Ok(match self {
            Self::Register => Arc::new(register::Register::default()),
            Self::Append => Arc::new(append::Append::default()),
            Self::Batch => Arc::new(batch::Batch::default()),
            Self::Bank => Arc::new(bank::Bank),
            Self::Set => Arc::new(set::Set::new(level)),
            Self::Counter => Arc::new(counter::Counter::new(level)),
            Self::Sessions => Arc::new(sessions::Sessions::new(level, true)),
            Self::SessionsControl => Arc::new(sessions::Sessions::new(level, false)),
            Self::Bounded => Arc::new(bounded::Bounded::new(level)),
            Self::Expiring => Arc::new(expiring::Expiring::default()),
            Self::Siblings => Arc::new(siblings::Siblings::new(level)),
            Self::Mixed => Arc::new(mixed::Mixed::default()),
            Self::Fence => Arc::new(fence::Fence::new(true)),
            Self::FenceControl => Arc::new(fence::Fence::new(false)),
            Self::Lock => Arc::new(lock::Lock::new(true)),
            Self::LockControl => Arc::new(lock::Lock::new(false)),
            Self::LeaseLock => Arc::new(lease_lock::LeaseLock::new(true)),
            Self::LeaseLockControl => Arc::new(lease_lock::LeaseLock::new(false)),
            Self::Watch => Arc::new(watch::Watch::new(true)),
            Self::WatchControl => Arc::new(watch::Watch::new(false)),
            Self::Ladders => Arc::new(ladders::Ladders::new(self.keyspace(options)?.replication)),
        })
    }
}

impl FromStr for WorkloadKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("known are {}", names.join(", "))
        })
    }
}

/// The one level that was asked for; ladders have no model here.
fn level_of(options: &PlanOptions) -> Result<Option<Level>, LabError> {
    match options.level.as_ref().map(Ladder::rungs) {
        None => Ok(None),
        Some([rung]) => Ok(Some(rung.level)),
        Some(_) => {
            let what = "a ladder is no level that a workload can be held to";
            Err(LabError::refused(what, "name one level"))
        }
    }
}

/// What clients do.
#[async_trait]
pub(crate) trait Workload: Send + Sync {
    /// What is there before the first call.
    async fn prepare(&self, _client: &Client) -> Result<(), ClientError> {
        Ok(())
    }

    /// Whether attempts without an answer are made again: not where that makes a second write.
    fn retries(&self) -> bool {
        true
    }

    /// One call.
    async fn step(&self, caller: &mut Caller);

    /// The last reads of a caller at one node, once all is whole and has come to rest.
    async fn finish(&self, _caller: &mut Caller) {}

    /// What the store said that is not so, where the recording cannot tell.
    fn breaches(&self) -> Vec<String> {
        Vec::new()
    }

    /// What the recording is held against.
    fn model(&self) -> (Model, Options);
}

/// A level for writing, for reading: how writes are counted and kept is nothing to reads.
fn for_reads(level: Level) -> Ladder {
    Ladder::from(match level {
        Level::Eventual { copies, .. } => Level::Eventual {
            copies,
            strict: false,
            ack: Ack::Disk,
        },
        Level::Linearizable | Level::Bounded(_) | Level::Session | Level::Stale => level,
    })
}
