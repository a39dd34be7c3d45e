//! What is known of all writes: their names, what each had seen, and what clients were promised.
//! The judge of reads and of the end; the same rules as the randomized model's.
//!
//! Not here: the cluster (`world`), and who writes what (`clients`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_types::causal::{Delta, Dot, KeyState};

/// One write that was named.
#[derive(Clone, Debug)]
struct Written {
    key: Bytes,
    value: Option<Bytes>,
    /// All that it replaces, and what those had replaced.
    past: BTreeSet<Dot>,
}

/// What a client was promised of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Who had it.
    pub holders: usize,
    /// On disk.
    pub durable: bool,
}

/// All writes so far.
#[derive(Debug, Default)]
pub struct Oracle {
    written: BTreeMap<Dot, Written>,
    of_key: BTreeMap<Bytes, BTreeSet<Dot>>,
    promised: BTreeMap<Dot, Promise>,
    /// What is wrong with the writes themselves.
    pub problems: Vec<String>,
}

impl Oracle {
    /// A coordinator has named a write.
    pub fn named(&mut self, key: &Bytes, deltas: &[Bytes]) {
        for delta in deltas {
            let delta = Delta::decode(delta).unwrap();
            let mut past = BTreeSet::new();
            let known = self.of_key.entry(key.clone()).or_default();
            for dot in known.iter().filter(|dot| delta.context.contains(**dot)) {
                past.insert(*dot);
                past.extend(&self.written[dot].past);
            }
            known.insert(delta.dot);
            if delta.value.is_none() {
                past.insert(delta.dot);
            }
            let written = Written {
                key: key.clone(),
                value: delta.value,
                past,
            };
            if self.written.insert(delta.dot, written).is_some() {
                self.problems
                    .push(format!("the name {} was given twice", delta.dot));
            }
        }
    }

    /// A client was told that a write is stored.
    pub fn promise(&mut self, dot: Dot, promise: Promise) {
        let best = self.promised.entry(dot).or_insert(promise);
        best.holders = best.holders.max(promise.holders);
        best.durable |= promise.durable;
    }

    /// Names of all writes.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.written.keys().copied()
    }

    fn past_of(&self, dot: Dot) -> Option<&BTreeSet<Dot>> {
        self.written.get(&dot).map(|written| &written.past)
    }

    /// What is wrong with a read, if anything.
    pub fn judge_read(&self, key: &Bytes, state: &KeyState) -> Option<String> {
        for (dot, value) in state.live() {
            let Some(written) = self.written.get(dot) else {
                return Some(format!("{key:?} shows {dot}, which nobody wrote"));
            };
            if written.key != *key || written.value.as_ref() != Some(&value.payload) {
                return Some(format!("{key:?} shows another value under {dot}"));
            }
            let beside = |(other, _): &&(Dot, _)| {
                self.past_of(*other).is_some_and(|past| past.contains(dot))
            };
            if let Some((other, _)) = state.live().find(beside) {
                return Some(format!(
                    "{key:?} shows {dot} beside {other}, which had replaced it"
                ));
            }
        }
        None
    }

    /// What is wrong with a key at the end, when all is delivered. `must_be_kept` says whether a
    /// promise has to hold after what the disks went through.
    pub fn judge_end(
        &self,
        key: &Bytes,
        state: &KeyState,
        must_be_kept: impl Fn(Promise) -> bool,
    ) -> Option<String> {
        if let Some(problem) = self.judge_read(key, state) {
            return Some(problem);
        }
        let live: BTreeSet<Dot> = state.live().map(|(dot, _)| *dot).collect();
        let of_key = self.written.iter().filter(|(_, w)| w.key == *key);
        // What was named and is known to nobody was lost before it could replace anything.
        let survivors = of_key
            .clone()
            .filter(|(dot, _)| state.context().contains(**dot));
        // A context names all writes of a closed start, those too that were lost before: whether
        // such a one replaced anything is certain only where it is there, or had to be kept.
        let is_kept = |dot: &Dot| self.promised.get(dot).copied().is_some_and(&must_be_kept);
        let is_certain =
            |dot: &Dot| !state.context().is_closed(dot.actor) || live.contains(dot) || is_kept(dot);
        let mut gone = BTreeSet::new();
        let mut replaced_by = BTreeMap::new();
        for (dot, written) in survivors {
            for past in &written.past {
                gone.insert(*past);
                if is_certain(dot) {
                    replaced_by.insert(*past, *dot);
                }
            }
        }
        for (dot, written) in of_key {
            if live.contains(dot)
                && let Some(by) = replaced_by.get(dot)
            {
                return Some(format!("{key:?}: {dot} came back, which {by} had replaced"));
            }
            let kept = self.promised.get(dot).copied().filter(|p| must_be_kept(*p));
            let is_there = live.contains(dot) || gone.contains(dot);
            if let Some(promise) = kept
                && !is_there
            {
                let value = &written.value;
                return Some(format!("{key:?}: {dot} ({value:?}) is lost: {promise:?}"));
            }
        }
        None
    }
}
