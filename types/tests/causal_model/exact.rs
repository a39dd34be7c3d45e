//! The rules in their plainest form: explicit sets of dots, no intervals, nothing lazy.
//! What the real store is compared with. Not here: schedules and checks.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::Dot;
use quorate_types::causal::Dots;

pub type DotSet = BTreeSet<Dot>;
pub type Live = BTreeMap<Dot, u64>;

/// All dots of an interval set, one by one.
pub fn explicit(dots: &Dots) -> DotSet {
    let mut all = DotSet::new();
    for (actor, counters) in dots.actors() {
        for (first, last) in counters.ranges() {
            all.extend((first..=last).map(|counter| Dot::new(actor, counter)));
        }
    }
    all
}

/// A write as the plain rules take it.
#[derive(Clone)]
pub struct ExactDelta {
    pub dot: Dot,
    pub context: DotSet,
    pub value: Option<u64>,
}

/// What the plain rules send for a key.
pub type ExactState = (Live, DotSet);

/// A causal replica of a range of a few keys, known by number.
#[derive(Clone)]
pub struct Exact {
    pub clock: DotSet,
    base: BTreeMap<quorate_types::Actor, u64>,
    pub live: Vec<Live>,
    pub beyond: Vec<DotSet>,
}

impl Exact {
    pub fn new(keys: usize) -> Self {
        Self {
            clock: DotSet::new(),
            base: BTreeMap::new(),
            live: vec![Live::new(); keys],
            beyond: vec![DotSet::new(); keys],
        }
    }

    fn covers(&self, dot: Dot) -> bool {
        dot.counter <= self.base.get(&dot.actor).copied().unwrap_or(0)
    }

    fn knows(&self, key: usize, dot: Dot) -> bool {
        self.covers(dot) || self.beyond[key].contains(&dot)
    }

    pub fn context(&self, key: usize) -> DotSet {
        let mut context = self.beyond[key].clone();
        for (actor, top) in &self.base {
            context.extend((1..=*top).map(|counter| Dot::new(*actor, counter)));
        }
        context
    }

    fn settle(&mut self) {
        // In the order of the set an actor's dots come lowest first.
        for dot in &self.clock {
            let top = self.base.entry(dot.actor).or_insert(0);
            if dot.counter == *top + 1 {
                *top = dot.counter;
            }
        }
        let mut beyond = std::mem::take(&mut self.beyond);
        for dots in &mut beyond {
            dots.retain(|dot| !self.covers(*dot));
        }
        self.beyond = beyond;
    }

    pub fn accept(&mut self, key: usize, delta: &ExactDelta) {
        let known = self.knows(key, delta.dot);
        self.live[key].retain(|dot, _| !delta.context.contains(dot));
        if let Some(value) = delta.value
            && !known
        {
            self.live[key].insert(delta.dot, value);
        }
        self.clock.insert(delta.dot);
        self.beyond[key].extend(&delta.context);
        self.beyond[key].insert(delta.dot);
        self.settle();
    }

    pub fn state(&self, key: usize) -> ExactState {
        (self.live[key].clone(), self.context(key))
    }

    pub fn join(&mut self, key: usize, (live, context): &ExactState) {
        let fresh: Live = live
            .iter()
            .filter(|(dot, _)| !self.knows(key, **dot))
            .map(|(dot, value)| (*dot, *value))
            .collect();
        self.live[key].retain(|dot, _| live.contains_key(dot) || !context.contains(dot));
        self.clock.extend(fresh.keys());
        self.live[key].extend(fresh);
        self.beyond[key].extend(context);
        self.settle();
    }

    pub fn image(&self) -> (Vec<ExactState>, DotSet) {
        let states = (0..self.live.len()).map(|key| self.state(key)).collect();
        (states, self.clock.clone())
    }

    pub fn join_range(&mut self, (states, clock): &(Vec<ExactState>, DotSet)) {
        for (key, state) in states.iter().enumerate() {
            self.join(key, state);
        }
        self.merge_clock(clock);
    }

    pub fn merge_clock(&mut self, clock: &DotSet) {
        self.clock.extend(clock);
        self.settle();
    }
}
