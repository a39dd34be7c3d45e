//! The state machine of a range: what each command of its log does.
//!
//! Deterministic: a function of the log prefix alone. No clock, no randomness, no files; it sees
//! the range's keys through [`Store`]. Who stores its metadata, and when, is decided in `apply`.

mod causal;
pub mod etcd;
pub mod expiry;
pub mod leases;
mod operations;
pub mod outcome;
mod quota;
mod store;
pub mod window;

use bytes::Bytes;
use prost::Message;
use quorate_proto::internal::{ClientWindow, Command, RangeMeta, RangeOptions, command};
use quorate_storage::engine::EngineError;
use quorate_types::causal::Committed;
use quorate_types::{ClientId, Revision};

use crate::node::Faults;

pub use self::causal::live_values;
use self::expiry::ExpiryIndex;
use self::leases::Leases;
pub use self::outcome::{Applied, ApplyOutcome, ApplyRefusal, PrefixFull, TxnResult};
pub use self::store::Store;
use self::window::{Remembered, Verdict, WINDOW_RESULTS_DEFAULT, Windows};

/// Name of the machine's own record in the range's metadata.
const META_RECORD: &[u8] = b"m";
/// First byte of the names of stored client windows.
const WINDOW_PREFIX: u8 = b'w';
/// History kept when a range's options were never set, microseconds.
const HISTORY_DEFAULT_MICROSECONDS: u64 = 300_000_000;

/// Everything of a range's committed state that is not a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    last_revision: Revision,
    ceiling: Revision,
    floor: Revision,
    last_change: Revision,
    options: RangeOptions,
    windows: Windows,
    expiry: ExpiryIndex,
    leases: Leases,
    etcd: Option<Box<etcd::Revisions>>,
    usage: quota::Usage,
    causal: Committed,
    faults: Faults,
}

impl Default for Machine {
    fn default() -> Self {
        let options = RangeOptions {
            history: HISTORY_DEFAULT_MICROSECONDS,
            quota: 0,
            window: WINDOW_RESULTS_DEFAULT,
            prefixes: Vec::new(),
        };
        Machine {
            last_revision: Revision::ZERO,
            ceiling: Revision::ZERO,
            floor: Revision::ZERO,
            last_change: Revision::ZERO,
            options,
            windows: Windows::default(),
            expiry: ExpiryIndex::default(),
            leases: Leases::default(),
            etcd: None,
            usage: quota::Usage::default(),
            causal: Committed::default(),
            faults: Faults::default(),
        }
    }
}

/// A stored record of the machine that does not decode.
#[derive(Debug, thiserror::Error)]
#[error("the range's metadata does not decode at {name:?}")]
pub struct CorruptMeta {
    name: Bytes,
}

impl Machine {
    /// Rebuilds the machine from the metadata that [`Machine::take_meta`] gave.
    pub fn restore(
        stored: impl IntoIterator<Item = (Bytes, Bytes)>,
    ) -> Result<Machine, CorruptMeta> {
        let mut machine = Machine::default();
        let mut windows = Vec::new();
        let mut expiries = Vec::new();
        let mut window_floor = Revision::ZERO;
        let mut causal = causal::Restored::default();
        for (name, value) in stored {
            let corrupt = || CorruptMeta { name: name.clone() };
            if name.as_ref() == META_RECORD {
                let meta = RangeMeta::decode(value).map_err(|_| corrupt())?;
                machine.last_revision = Revision(meta.last_revision);
                machine.ceiling = Revision(meta.ceiling);
                machine.floor = Revision(meta.floor);
                machine.last_change = Revision(meta.last_change);
                machine.options = meta.options.unwrap_or(machine.options);
                machine.usage =
                    quota::Usage::restore(meta.stored_bytes, meta.prefixes, &machine.options);
                window_floor = Revision(meta.window_floor);
            } else if name.first() == Some(&WINDOW_PREFIX) {
                windows.push(ClientWindow::decode(value).map_err(|_| corrupt())?);
            } else if let Some(entry) = ExpiryIndex::parse_meta_key(&name) {
                expiries.push(entry);
            } else if machine.leases.restore(&name, &value)?
                || machine.restore_etcd(&name, &value)?
            {
                continue;
            } else {
                causal.take(&name, &value)?;
            }
        }
        machine.windows = Windows::restore(window_floor, windows);
        machine.expiry = ExpiryIndex::restore(expiries);
        machine.leases.restored();
        machine.causal = causal.finish();
        Ok(machine)
    }

    /// For the negative controls of tests.
    pub(crate) fn break_on_purpose(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// The metadata that changed since the last call, to be stored together with the keys as of
    /// the same position. `None` removes a record.
    pub fn take_meta(&mut self) -> Vec<(Bytes, Option<Bytes>)> {
        let meta = RangeMeta {
            last_revision: self.last_revision.0,
            ceiling: self.ceiling.0,
            floor: self.floor.0,
            window_floor: self.windows.floor().0,
            options: Some(self.options.clone()),
            membership: None,
            stored_bytes: self.usage.stored(),
            last_change: self.last_change.0,
            prefixes: self.usage.prefixes().to_vec(),
        };
        let mut records = vec![(
            Bytes::from_static(META_RECORD),
            Some(meta.encode_to_vec().into()),
        )];
        for (client, window) in self.windows.take_dirty() {
            let mut name = vec![WINDOW_PREFIX];
            name.extend_from_slice(&client.0.to_be_bytes());
            records.push((name.into(), window.map(|w| w.encode_to_vec().into())));
        }
        records.extend(causal::take_meta(&mut self.causal));
        for (at, key, present) in self.expiry.take_changes() {
            records.push((ExpiryIndex::meta_key(at, &key), present.then(Bytes::new)));
        }
        records.extend(self.leases.take_meta());
        if let (Some(revisions), false) = (&mut self.etcd, self.faults.forget_revisions) {
            records.extend(revisions.take_meta());
        }
        records
    }

    /// The revision of the last entry.
    pub fn last_revision(&self) -> Revision {
        self.last_revision
    }

    /// No entry after the ones applied so far gets a revision at or below it: what has been
    /// applied is complete up to here (DESIGN, closed timestamps).
    pub fn closed(&self) -> Revision {
        self.last_revision.max(self.ceiling)
    }

    /// Reads below it are refused: versions superseded at or below it are collected.
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// Of the last command that could change a key: nothing is superseded after it.
    pub fn last_change(&self) -> Revision {
        self.last_change
    }

    /// The options that apply since the last `options` command.
    pub fn options(&self) -> &RangeOptions {
        &self.options
    }

    /// Keys whose values expire, soonest first.
    pub fn expiry(&self) -> &ExpiryIndex {
        &self.expiry
    }

    /// Applies one command. Entries without a command (blank, membership) are not passed here.
    ///
    /// Fails only if the store does; the range then stops.
    pub fn apply(
        &mut self,
        command: Command,
        store: &mut dyn Store,
    ) -> Result<Applied, EngineError> {
        let Command {
            client,
            sequence,
            first_tried,
            proposed,
            operation,
        } = command;
        let revision = self.next_revision(Revision(proposed));
        if let Some(command::Operation::CloseRequest(request)) = &operation {
            let client = ClientId(request.client);
            return Ok(self.close_request(revision, client, request.sequence, first_tried));
        }
        let named = client != 0 && !self.faults.forget_names;
        if named {
            match self
                .windows
                .verdict(ClientId(client), sequence, first_tried)
            {
                Verdict::New => {}
                Verdict::Decided(result) => return Ok(Applied::replayed(result)),
                Verdict::BelowWindow => {
                    return Ok(Applied::refused(revision, ApplyRefusal::BelowWindow));
                }
            }
        }
        let applied = match operation {
            Some(operation) => self.operate(revision, operation, store)?,
            None => Applied::nothing(revision),
        };
        if named && applied.is_decision() {
            let remembered = applied.remembered();
            let client = ClientId(client);
            let window = self.options.window;
            self.windows
                .remember(client, sequence, first_tried, remembered, window);
        }
        Ok(applied)
    }

    /// revision = max(proposed, last + 1, ceiling + 1): strictly increasing along the log, and
    /// above every promise, whatever the proposer's clock.
    fn next_revision(&mut self, proposed: Revision) -> Revision {
        let least = self.closed().0 + 1;
        self.last_revision = Revision(proposed.0.max(least));
        self.last_revision
    }

    /// Decides that a write whose outcome is asked for was not applied, if it was not.
    ///
    /// Who does not say when it was first tried gets no verdict once clients were evicted.
    fn close_request(
        &mut self,
        revision: Revision,
        client: ClientId,
        sequence: u64,
        first_tried: u64,
    ) -> Applied {
        match self.windows.verdict(client, sequence, first_tried) {
            Verdict::Decided(result) => Applied::replayed(result),
            Verdict::BelowWindow => Applied::refused(revision, ApplyRefusal::BelowWindow),
            Verdict::New => {
                let closed = Remembered {
                    revision,
                    succeeded: false,
                    closed: true,
                    count: 0,
                };
                let window = self.options.window;
                self.windows
                    .remember(client, sequence, first_tried, closed, window);
                Applied::replayed(closed)
            }
        }
    }

    /// Checks what must always hold.
    pub fn validate(&self) -> Result<(), String> {
        self.windows.validate()?;
        self.leases.validate()?;
        self.etcd.as_ref().map_or(Ok(()), |etcd| etcd.validate())?;
        if self.floor > self.last_revision {
            return Err(format!("floor {} above {}", self.floor, self.last_revision));
        }
        Ok(())
    }
}
