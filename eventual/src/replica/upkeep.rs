//! What a replica does from time to time: values expire, records settle, log and table forget.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_storage::engine::Change;
use quorate_types::Timestamp;
use quorate_types::causal::{Clock, expire};

use super::{META_CLOCK, META_FILLED, PURGE_ENTRIES, Replica, State};
use crate::error::EventualError;
use crate::step::Step;

impl Replica {
    /// Values whose time is over are dead from now on, here and wherever these records are joined.
    pub(super) fn expire(
        &self,
        state: &mut State,
        deadline: Timestamp,
        keys: &[Bytes],
        index: u64,
        changes: &mut Vec<Change>,
    ) -> Result<bool, EventualError> {
        let keys: BTreeSet<&Bytes> = keys.iter().collect();
        // All are read before the first one changes.
        let records = keys.into_iter().map(|key| Ok((key, self.row(key)?)));
        let records = records.collect::<Result<Vec<_>, EventualError>>()?;
        for (key, before) in records {
            let after = expire(&state.clock, &before.record, deadline);
            self.put_record(state, key, &before, after.as_ref(), index, changes);
        }
        Ok(!changes.is_empty())
    }

    /// Removes some of the values that expired at or before `deadline`: the clock of this node,
    /// which is known to be within bounds, less what it may be wrong. Returns whether there was
    /// any.
    pub(crate) fn expire_some(&self, deadline: Timestamp) -> Result<bool, EventualError> {
        let keys = self.expired(deadline)?;
        if keys.is_empty() {
            return Ok(false);
        }
        let mut state = self.state.lock();
        let index = state.index;
        metrics::counter!("quorate_keys_expired_total").increment(keys.len() as u64);
        drop(self.commit(&mut state, &Step::Expire { deadline, keys })?);
        Ok(state.index > index)
    }

    /// Trims some of what is due. Returns whether there was any.
    pub(crate) fn settle_some(&self) -> Result<bool, EventualError> {
        let mut state = self.state.lock();
        let index = state.index;
        if !state.unsettled.due(&state.clock, 1).is_empty() {
            let clock = Clock::default().encode();
            drop(self.commit(&mut state, &Step::Merge { clock })?);
        }
        Ok(state.index > index)
    }

    /// Lets log and table forget what they may.
    pub(crate) fn tend(&self) -> Result<(), EventualError> {
        let state = self.state.lock();
        if self.table.wants_flush() {
            let filled = Bytes::copy_from_slice(&[u8::from(state.filled)]);
            self.table.freeze(vec![
                (Bytes::from_static(META_CLOCK), Some(state.clock.encode())),
                (Bytes::from_static(META_FILLED), Some(filled)),
            ]);
        }
        let durable = self.table.durable().map_or(0, |position| position.index);
        if durable >= state.purged + PURGE_ENTRIES
            && let Some(id) = self.log.log_id(durable)
        {
            let mut state = state;
            state.purged = durable;
            self.log.purge(id, Box::new(|_| {}));
        }
        Ok(())
    }
}
