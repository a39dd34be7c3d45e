//! What must be so at every moment, looked at while a run goes on: the rules of each state by
//! itself, and what replicas must agree on.
//!
//! Not here: what only comes to be once all is whole (`ending`).

use std::collections::BTreeMap;

use quorate_raft::Group;
use quorate_types::RangeId;

use crate::world::{Shared, World};

/// Entries of a log that are looked at behind its last one.
const TAIL_ENTRIES: u64 = 64;
const TAIL_BYTES: u64 = 1 << 20;

/// A place, or a term, in a range's history.
type Place = (RangeId, u64);

/// What has been seen so far, of any replica at any time.
#[derive(Default)]
pub(crate) struct Inspector {
    /// Of each entry that was applied last somewhere: the hash of the state.
    states: BTreeMap<Place, [u8; 16]>,
    /// Of each term: who leads in it.
    leaders: BTreeMap<Place, usize>,
    /// Of each entry by its place and term: what it says, and the term of the one before.
    entries: BTreeMap<(Place, u64), (u32, Option<u64>)>,
}

impl Inspector {
    /// Looks at every replica once. What is wrong, if anything is.
    pub(crate) fn look(&mut self, world: &Shared) -> Result<(), String> {
        for (range, primaries) in world.ranges() {
            for at in primaries {
                let Some(group) = world.group(at, range) else {
                    continue;
                };
                let wrong = |what: String| format!("range {}, node {}: {what}", range.0, at + 1);
                group.validate().map_err(wrong)?;
                self.state(range, &group).map_err(wrong)?;
                self.leader(range, at, &group).map_err(wrong)?;
                self.log(world, at, range).map_err(wrong)?;
                eventual(world, at, range).map_err(wrong)?;
            }
        }
        Ok(())
    }

    /// Whoever has applied the same entry has the same state.
    fn state(&mut self, range: RangeId, group: &Group) -> Result<(), String> {
        // A table whose disk fails says nothing.
        let Ok((position, hash)) = group.table().hash() else {
            return Ok(());
        };
        let index = position.index;
        match *self.states.entry((range, index)).or_insert(hash) {
            known if known == hash => Ok(()),
            _ => Err(format!(
                "another state at entry {index} than was seen before"
            )),
        }
    }

    /// One leader a term.
    fn leader(&mut self, range: RangeId, at: usize, group: &Group) -> Result<(), String> {
        let Some(term) = group.leads_in() else {
            return Ok(());
        };
        match *self.leaders.entry((range, term)).or_insert(at) {
            known if known == at => Ok(()),
            other => Err(format!("leads in term {term}, as node {} does", other + 1)),
        }
    }

    /// Entries of one place and term are the same, and so is all before them.
    fn log(&mut self, world: &World, at: usize, range: RangeId) -> Result<(), String> {
        let Some(process) = world.process(at) else {
            return Ok(());
        };
        let log = process.raft.log().group(range.0);
        let Some((last, first)) = log.last().zip(log.first_index()) else {
            return Ok(());
        };
        let from = first.max(last.index.saturating_sub(TAIL_ENTRIES));
        // What cannot be read is the disk's.
        let Ok(entries) = log.read(from..last.index + 1, TAIL_BYTES) else {
            return Ok(());
        };
        let mut before = None;
        for entry in entries {
            let sum = crc32fast::hash(&entry.payload);
            let key = ((range, entry.index), entry.term);
            let (known, known_before) = self.entries.entry(key).or_insert((sum, before));
            *known_before = known_before.or(before);
            let (index, term) = (entry.index, entry.term);
            if *known != sum {
                return Err(format!("entry {index} of term {term} says something else"));
            }
            if before.is_some() && *known_before != before {
                return Err(format!("entry {index} of term {term} follows another one"));
            }
            before = Some(entry.term);
        }
        Ok(())
    }
}

/// The rules of a replica of the eventual plane. Beside a log rows may say nothing, and others
/// follow from both.
fn eventual(world: &World, at: usize, range: RangeId) -> Result<(), String> {
    let Some(process) = world.process(at) else {
        return Ok(());
    };
    let is_alone = process.raft.group(range).is_none();
    match is_alone && process.eventual.has(range) && !world.is_struck(at) {
        true => process.eventual.validate(range),
        false => Ok(()),
    }
}
