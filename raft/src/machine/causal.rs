//! Writes of the eventual plane in a range's log: absorbed ones, and the strong attempts of
//! ladders. What they come to is decided by `quorate_types::causal::Committed`; here it is
//! brought together with the range's table.

use bytes::Bytes;
use quorate_proto::internal::{Absorb, Tentative};
use quorate_storage::engine::{EngineError, Version};
use quorate_types::Revision;
use quorate_types::causal::{Actor, Clock, Committed, Delta, Dot, Dots, KeyState, Stored, Value};

use super::{ApplyOutcome, CorruptMeta, Machine, Store};

/// Name of the clock in the range's metadata.
const META_CLOCK: &[u8] = b"c";
/// First byte of the names of what is known of a key beyond the clock's base.
const BEYOND_PREFIX: u8 = b'b';

/// The causal part of the metadata, on its way into a machine.
#[derive(Default)]
pub(super) struct Restored {
    clock: Clock,
    beyond: Vec<(Bytes, Dots)>,
}

impl Restored {
    /// Takes a record of the metadata, if it is one of these.
    pub(super) fn take(&mut self, name: &Bytes, value: &Bytes) -> Result<(), CorruptMeta> {
        let corrupt = |_| CorruptMeta { name: name.clone() };
        if name.as_ref() == META_CLOCK {
            self.clock = Clock::decode(value).map_err(corrupt)?;
        } else if name.first() == Some(&BEYOND_PREFIX) {
            let dots = Dots::from_bytes(value).map_err(corrupt)?;
            self.beyond.push((name.slice(1..), dots));
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Committed {
        Committed::restore(self.clock, self.beyond)
    }
}

/// What changed since the last call, as records of the metadata.
pub(super) fn take_meta(causal: &mut Committed) -> Vec<(Bytes, Option<Bytes>)> {
    let (clock, keys) = causal.take_changes();
    let clock = clock.map(|clock| (Bytes::from_static(META_CLOCK), Some(clock.encode())));
    let keys = keys.into_iter().map(|(key, dots)| {
        let name = [&[BEYOND_PREFIX], &key[..]].concat();
        (name.into(), dots)
    });
    clock.into_iter().chain(keys).collect()
}

/// The live values of a stored version, with their names.
///
/// # Errors
///
/// [`EngineError`] where they do not decode.
pub fn live_values(key: &[u8], version: Option<Version>) -> Result<Vec<(Dot, Value)>, EngineError> {
    let Some(version) = version else {
        return Ok(Vec::new());
    };
    let stored = Stored {
        value: version.value,
        expiry: version.expiry,
        causal: version.causal,
    };
    let live = stored.unpack(Revision(version.revision));
    live.map_err(|_| EngineError::corrupt(key, "names of live values"))
}

/// Where among live values the log's own write is: there is one at most, since it replaces all
/// that is committed, and of a key with a lease it is the put that named the lease.
fn strong_write(live: &[(Dot, Value)]) -> Option<usize> {
    live.iter().position(|(dot, _)| dot.actor == Actor::LOG)
}

impl Machine {
    /// What the log knows of writes beside the values in the table.
    pub fn causal(&self) -> &Committed {
        &self.causal
    }

    /// For a negative control of tests.
    pub(crate) fn forget_causal(&mut self) {
        self.causal = Committed::default();
    }

    /// What the log has decided of a key, given its version in the table as of now.
    ///
    /// # Errors
    ///
    /// [`EngineError`] where the version does not decode.
    pub fn key_state(&self, key: &[u8], version: Option<Version>) -> Result<KeyState, EngineError> {
        let live = live_values(key, version)?;
        Ok(self.causal.state(self.last_revision, key, live))
    }

    /// A strong write replaced what its client had seen as well.
    pub(super) fn replaced(&mut self, revision: Revision, key: &Bytes, seen: &Bytes) {
        if seen.is_empty() {
            return;
        }
        // A gateway has decoded it before; what does not decode tells nothing, on any replica.
        if let Ok(seen) = Dots::from_bytes(seen) {
            self.causal.replaced(revision, key, &seen);
        }
    }

    pub(super) fn absorb(
        &mut self,
        revision: Revision,
        absorb: Absorb,
        store: &mut dyn Store,
    ) -> Result<ApplyOutcome, EngineError> {
        let mut whole = true;
        for item in absorb.items {
            let Ok(view) = KeyState::decode(&item.state) else {
                whole = false;
                continue;
            };
            let live = live_values(&item.key, store.get(&item.key)?)?;
            if let Some(live) = self.causal.join(revision, &item.key, live, &view) {
                self.show(revision, item.key, &live, store)?;
            }
        }
        if let (true, Ok(base)) = (whole, Dots::from_bytes(&absorb.base)) {
            self.causal.merge(revision, &base);
        }
        Ok(ApplyOutcome::Written {
            deleted: 0,
            unseen: 0,
        })
    }

    pub(super) fn tentative(
        &mut self,
        revision: Revision,
        tentative: Tentative,
        store: &mut dyn Store,
    ) -> Result<ApplyOutcome, EngineError> {
        let deltas = tentative.deltas.iter().map(Delta::decode);
        let Ok(deltas) = deltas.collect::<Result<Vec<_>, _>>() else {
            return Ok(ApplyOutcome::Nothing);
        };
        let key = tentative.key;
        let mut live = live_values(&key, store.get(&key)?)?;
        if self.faults.tentative_as_put {
            live.clear();
        }
        let mut changed = false;
        for delta in &deltas {
            if let Some(now) = self.causal.accept(revision, &key, live.clone(), delta) {
                (live, changed) = (now, true);
            }
        }
        if changed {
            self.show(revision, key, &live, store)?;
        }
        Ok(ApplyOutcome::Written {
            deleted: 0,
            unseen: 0,
        })
    }

    /// Brings a key's live values into the table.
    pub(super) fn show(
        &mut self,
        revision: Revision,
        key: Bytes,
        live: &[(Dot, Value)],
        store: &mut dyn Store,
    ) -> Result<(), EngineError> {
        // A lease holds the strong write that named it, and no value beside that one.
        if strong_write(live).is_none() {
            self.leases.detach(&key);
        }
        let Some(stored) = Stored::pack(live, revision) else {
            // Followers of the range are told of deletes that take effect alone.
            self.remove(revision, key, store)?;
            return Ok(());
        };
        for at in live.iter().filter_map(|(_, value)| value.expiry) {
            self.expiry.insert(at.0, key.clone());
        }
        let version = Version {
            revision: revision.0,
            expiry: stored.expiry,
            value: stored.value,
            causal: stored.causal,
        };
        store.put(key, version);
        Ok(())
    }

    /// Removes what a lease holds of a key, the strong write that named it: what was written beside
    /// that one on the eventual plane stays. Returns whether the key is gone; `false` too where it
    /// was not there.
    pub(super) fn remove_held(
        &mut self,
        revision: Revision,
        key: Bytes,
        store: &mut dyn Store,
    ) -> Result<bool, EngineError> {
        let mut live = match store.get(&key)? {
            Some(version) if version.causal.is_some() => live_values(&key, Some(version))?,
            // Plain: it is what the lease holds, and alone.
            Some(_) | None => return self.remove(revision, key, store),
        };
        if let (Some(held), false) = (strong_write(&live), self.faults.end_siblings) {
            live.remove(held);
        } else {
            live.clear();
        }
        let is_gone = live.is_empty();
        self.show(revision, key, &live, store)?;
        Ok(is_gone)
    }

    /// Kills the values of a version that expire at exactly `at`. Returns whether all are gone;
    /// `None`: it has none.
    pub(super) fn expire_values(
        &mut self,
        (revision, at): (Revision, u64),
        key: Bytes,
        version: Version,
        store: &mut dyn Store,
    ) -> Result<Option<bool>, EngineError> {
        let mut live = live_values(&key, Some(version))?;
        let before = live.len();
        live.retain(|(_, value)| value.expiry.is_none_or(|expiry| expiry.0 != at));
        if live.len() == before {
            return Ok(None);
        }
        self.show(revision, key, &live, store)?;
        Ok(Some(live.is_empty()))
    }
}
