//! What a range's log has decided of its keys, for the plane beside it: one key's causal state and
//! how much of it is on this disk.

use bytes::Bytes;
use quorate_storage::engine::{EngineError, ScanRequest, Version};
use quorate_types::Revision;
use quorate_types::causal::{Dots, KeyState};

use crate::group::Group;

/// One key as the log has decided it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// Its live values, and all dots that the log knows of it.
    pub state: KeyState,
    /// As of this entry, or a later one.
    pub index: u64,
}

impl Group {
    /// What the log has decided of a key, as far as this replica has applied it.
    ///
    /// # Errors
    /// [`EngineError`] where what is stored cannot be read.
    pub fn decided(&self, key: &[u8]) -> Result<Decided, EngineError> {
        // With the machine held nothing is applied: value and clock are of one moment.
        let machine = self.shared.machine.lock();
        let table = &self.shared.table;
        let state = machine.key_state(key, table.get(key)?)?;
        let index = table.applied().map_or(0, |position| position.index);
        Ok(Decided { state, index })
    }

    /// A key's version as of now, and all dots that the log knows of the key.
    ///
    /// # Errors
    /// [`EngineError`] where what is stored cannot be read.
    pub fn version_and_seen(&self, key: &[u8]) -> Result<(Option<Version>, Dots), EngineError> {
        let machine = self.shared.machine.lock();
        let version = self.shared.table.get(key)?;
        let seen = machine.causal().seen(machine.last_revision(), key);
        Ok((version, seen))
    }

    /// Which of these dots the log has not taken in yet, as far as this replica has applied it: of
    /// one key, or else of any key of the range.
    pub fn undecided(&self, key: Option<&[u8]>, dots: &Dots) -> Dots {
        if dots.is_empty() {
            return Dots::new();
        }
        let machine = self.shared.machine.lock();
        let (causal, at) = (machine.causal(), machine.last_revision());
        let unknown = dots.without(causal.clock(at).dots());
        match key {
            Some(key) if !unknown.is_empty() => unknown.without(&causal.seen(at, key)),
            Some(_) | None => unknown,
        }
    }

    /// A page of the keys that the log's state shows as of now, in the order of the scan; what it
    /// knew of every key before that; and where to go on.
    ///
    /// # Errors
    /// [`EngineError`] where what is stored cannot be read.
    pub fn decided_keys(
        &self,
        request: &ScanRequest,
    ) -> Result<(Vec<Bytes>, Dots, Option<Bytes>), EngineError> {
        let base = {
            let machine = self.shared.machine.lock();
            machine.causal().base(machine.last_revision())
        };
        let page = self.shared.table.scan(request)?;
        let keys = page.rows.into_iter().map(|(key, _)| key);
        Ok((keys.collect(), base, page.resume))
    }

    /// All dots that the log has taken in, closed starts among them, and the last entry applied
    /// here then.
    pub fn taken_in(&self) -> (Dots, u64) {
        let machine = self.shared.machine.lock();
        let applied = self.shared.table.applied();
        let index = applied.map_or(0, |position| position.index);
        let clock = machine.causal().clock(machine.last_revision());
        (clock.dots().clone(), index)
    }

    /// The revision of the last entry that is part of what this replica says to be decided.
    pub fn last_decided(&self) -> Revision {
        self.shared.machine.lock().last_revision()
    }

    /// The last entry that this replica has applied, and the last whose effects are on its disk.
    pub fn applied_and_durable(&self) -> (u64, u64) {
        let table = &self.shared.table;
        let durable = table.durable().map_or(0, |position| position.index);
        let applied = table.applied().map_or(0, |position| position.index);
        (applied.max(durable), durable)
    }

    /// Brings what is applied to the disk, soon.
    pub async fn flush(&self) {
        let frozen = self
            .raft
            .with_state_machine(|machine| Box::pin(async move { machine.freeze() }));
        if let Err(error) = frozen.await {
            tracing::debug!(range = %self.range, %error, "not flushed");
        }
    }
}
