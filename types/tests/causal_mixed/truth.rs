//! What was really written, and what of it was replaced: against this every primary is held.
//! Not here: how anything came to a primary.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::causal::{Dots, KeyState};
use quorate_types::{Actor, Dot, Revision, Timestamp};

use crate::course::Kind;
use crate::exact::DotSet;
use crate::primary::Primary;
use crate::table::KEYS;

pub struct Write {
    pub key: usize,
    /// All that it replaces, directly or not.
    pub past: DotSet,
    pub value: Option<u64>,
    /// Of a counter: the increments that its amount is the sum of, by their steps.
    pub counted: BTreeSet<u64>,
    /// From when on it is hidden.
    pub expiry: Option<Timestamp>,
}

#[derive(Default)]
pub struct Truth {
    pub writes: BTreeMap<Dot, Write>,
    /// What any write replaces, and what expired by an entry.
    gone: DotSet,
    /// The amounts of increments, by their steps.
    pub increments: BTreeMap<u64, u64>,
    pub kind: Kind,
}

impl Truth {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            ..Self::default()
        }
    }

    pub fn add(&mut self, dot: Dot, write: Write) {
        self.gone.extend(&write.past);
        self.writes.insert(dot, write);
    }

    /// All that these dots of the key replace, themselves included.
    pub fn past(&self, key: usize, dots: &Dots) -> DotSet {
        let seen = self.of(key).filter(|(dot, _)| dots.contains(**dot));
        seen.flat_map(|(dot, write)| write.past.iter().copied().chain([*dot]))
            .collect()
    }

    /// An entry of that revision took these out of the log's state because their time was over.
    pub fn expired(&mut self, at: Revision, dots: &DotSet) -> Result<(), String> {
        for dot in dots {
            let expiry = self.writes.get(dot).and_then(|write| write.expiry);
            if expiry.is_none_or(|expiry| expiry.0 > at.0) {
                return Err(format!("{dot} expired before its time"));
            }
            self.gone.insert(*dot);
        }
        Ok(())
    }

    /// Whether a write replaced it, or it expired.
    pub fn is_gone(&self, dot: Dot) -> bool {
        self.gone.contains(&dot)
    }

    fn of(&self, key: usize) -> impl Iterator<Item = (&Dot, &Write)> {
        let writes = self.writes.iter();
        writes.filter(move |(_, write)| write.key == key)
    }

    /// What a read of a key may show: no value beside one that had replaced it, and none gone
    /// that nothing replaced.
    pub fn check(&self, key: usize, state: &KeyState) -> Result<(), String> {
        let live: DotSet = state.live().map(|(dot, _)| *dot).collect();
        for (dot, value) in state.live() {
            let write = self.writes.get(dot);
            let write = write.ok_or_else(|| format!("{dot} was never written"))?;
            if write.key != key || write.value != Some(self.kind.value_of(&value.payload)) {
                return Err(format!("{dot} is of another key, or value"));
            }
            if let Some(replaced) = write.past.intersection(&live).next() {
                return Err(format!(
                    "{replaced} is shown beside {dot}, which replaced it"
                ));
            }
        }
        self.check_counted(state)?;
        self.check_dead(key, state)
    }

    /// Each increment is counted once, with its amount.
    fn check_counted(&self, state: &KeyState) -> Result<(), String> {
        if self.kind != Kind::Counters {
            return Ok(());
        }
        let mut all = BTreeSet::new();
        for (dot, value) in state.live() {
            let counted = &self.writes[dot].counted;
            if let Some(twice) = counted.intersection(&all).next() {
                return Err(format!("the increment of step {twice} counts twice"));
            }
            all.extend(counted);
            let sum: u64 = counted.iter().map(|step| self.increments[step]).sum();
            if sum != self.kind.value_of(&value.payload) {
                return Err(format!("{dot} has another sum"));
            }
        }
        Ok(())
    }

    /// What is known and not live was replaced.
    fn check_dead(&self, key: usize, state: &KeyState) -> Result<(), String> {
        let live: DotSet = state.live().map(|(dot, _)| *dot).collect();
        let lost = self.of(key).find(|(dot, write)| {
            let dead = state.context().contains(**dot) && !live.contains(*dot);
            dead && write.value.is_some() && !self.gone.contains(*dot)
        });
        lost.map_or(Ok(()), |(dot, _)| {
            Err(format!(
                "{dot} of key {key} is dead, and nothing replaced it"
            ))
        })
    }

    /// Whether the overlay's clock claims only what its rows, or the log's state on this disk,
    /// know: else a late copy would be taken for a new write, or a value for a dead one.
    pub fn check_claims(&self, node: &Primary) -> Result<(), String> {
        for (key, row) in &node.rows {
            self.check_dead(*key, &row.state(&node.clock))?;
        }
        let states: Vec<KeyState> = (0..KEYS).map(|key| node.durable().state(key)).collect();
        for (dot, write) in &self.writes {
            let row = node.rows.get(&write.key);
            let known = row.is_some_and(|row| row.knows(&node.clock, *dot))
                || states[write.key].context().contains(*dot);
            if node.clock.contains(*dot) && !known && dot.actor != Actor::LOG {
                return Err(format!("{dot} could come back"));
            }
        }
        Ok(())
    }

    /// What all primaries show once all was delivered.
    pub fn check_end(&self, key: usize, state: &KeyState) -> Result<(), String> {
        self.check(key, state)?;
        if self.kind == Kind::Counters {
            return self.check_all_counted(key, state);
        }
        let live: DotSet = state.live().map(|(dot, _)| *dot).collect();
        let mut values: Vec<u64> = state
            .live()
            .map(|(_, value)| self.kind.value_of(&value.payload))
            .collect();
        for (dot, write) in self.of(key) {
            let Some(value) = write.value else { continue };
            match (live.contains(dot), self.gone.contains(dot)) {
                (true, true) => return Err(format!("came back: {dot}")),
                (false, false) => return Err(format!("lost: {dot}")),
                (false, true) if values.contains(&value) => {
                    return Err(format!("the value of {dot} came back under another name"));
                }
                (false, true) | (true, false) => {}
            }
        }
        let shown = values.len();
        values.sort_unstable();
        values.dedup();
        match values.len() == shown {
            true => Ok(()),
            false => Err("a value stands beside itself".to_owned()),
        }
    }

    /// Each increment is in the sum, but for those that a delete had seen.
    fn check_all_counted(&self, key: usize, state: &KeyState) -> Result<(), String> {
        let counted = |dot: &Dot| self.writes[dot].counted.iter().copied();
        let live: DotSet = state.live().map(|(dot, _)| *dot).collect();
        let deletes = self.of(key).filter(|(_, write)| write.value.is_none());
        let deleted: BTreeSet<u64> = deletes
            .flat_map(|(_, write)| write.past.iter().flat_map(counted))
            .collect();
        let in_sum: BTreeSet<u64> = live.iter().flat_map(counted).collect();
        for (dot, write) in self.of(key) {
            if live.contains(dot) && self.gone.contains(dot) {
                return Err(format!("came back: {dot}"));
            }
            let lost = |step: &&u64| !in_sum.contains(*step) && !deleted.contains(*step);
            if let Some(step) = write.counted.iter().find(lost) {
                return Err(format!("lost: the increment of step {step}"));
            }
        }
        Ok(())
    }
}
