//! The search for an order: Wing and Gong's, with Lowe's two improvements.
//!
//! Calls are placed just in time: what is left undecided at a return are the calls open then, so
//! a configuration is (next return, which open calls are placed, state), and one that failed is
//! remembered. (Wing and Gong, "Testing and Verifying Concurrent Objects", 1993; Lowe, "Testing
//! for Linearizability", 2017.) Calls that only observe are placed at once.
//!
//! Calls that never returned would double the configurations each. But equal ones are
//! interchangeable, so a configuration only counts how many of each kind it has used; and one
//! that used fewer of each, all else equal, can do whatever the other can.

use super::bits::Bits;
use super::{Call, Linear, Model, NEVER_RETURNED, State, Stuck};
use crate::budget::{Budget, Spent};
use crate::hash::QuickMap;

/// States that a failure names.
const STATES_SHOWN_MAX: usize = 8;
/// Returns that are looked ahead for a call that tells what the state must lead to.
const AHEAD_MAX_RETURNS: usize = 64;
/// Open calls that the widest search tells apart.
const OPEN_CALLS_MAX: u32 = 1024;

/// Looks for an order of one object's calls.
pub fn search<M: Model>(
    model: &mut M,
    calls: &[Call<M::Action>],
    budget: &mut Budget<'_>,
) -> Linear {
    let plan = Plan::new(model, calls);
    let found = match plan.slots {
        0..=64 => Search::<M, 1>::new(model, &plan).run(budget),
        65..=256 => Search::<M, 4>::new(model, &plan).run(budget),
        257..=OPEN_CALLS_MAX => Search::<M, 16>::new(model, &plan).run(budget),
        _ => Err(Spent::OpenOperations),
    };
    found.unwrap_or_else(Linear::Unknown)
}

/// The calls as the search goes through them: return after return.
struct Plan<'a, A> {
    calls: &'a [Call<A>],
    /// The calls in the order of their returns.
    returns: Vec<u32>,
    /// Per return, where its open calls begin in `open`.
    open_from: Vec<usize>,
    /// The calls open just before each return, itself included.
    open: Vec<u32>,
    /// Per call, its slot; unused for calls that never return.
    slot: Vec<u32>,
    /// How many slots are in use at most.
    slots: u32,
    /// The kinds of calls that never return: what they do, and the returns (as indexes) that each
    /// of them may come before, rising.
    lost: Vec<(A, Vec<u32>)>,
    /// Per call, the number of its return.
    return_of: Vec<u32>,
    /// Per return, the next one at which a call that discards the state, and began after this
    /// return, is open.
    discard_from: Vec<u32>,
    /// Per return, a later call that observes what no call discards before; else `NO_CALL`.
    ahead: Vec<u32>,
}

const NO_CALL: u32 = u32::MAX;

impl<'a, A: Copy + Eq + std::hash::Hash> Plan<'a, A> {
    fn new<M: Model<Action = A>>(model: &M, calls: &'a [Call<A>]) -> Self {
        let mut events: Vec<(u64, u32, bool)> = Vec::with_capacity(calls.len() * 2);
        for (number, call) in calls.iter().enumerate() {
            if call.returned == NEVER_RETURNED && model.observes_only(call.action) {
                continue;
            }
            events.push((call.invoked, number as u32, false));
            if call.returned != NEVER_RETURNED {
                events.push((call.returned, number as u32, true));
            }
        }
        events.sort_unstable();
        let mut plan = Self {
            calls,
            returns: Vec::with_capacity(events.len() / 2),
            open_from: Vec::with_capacity(events.len() / 2),
            open: Vec::new(),
            slot: vec![0; calls.len()],
            slots: 0,
            lost: Vec::new(),
            return_of: vec![NO_CALL; calls.len()],
            discard_from: Vec::new(),
            ahead: Vec::new(),
        };
        plan.lay_out(&events);
        plan.look_ahead(model);
        plan
    }

    fn look_ahead<M: Model<Action = A>>(&mut self, model: &M) {
        let returns = self.returns.len();
        let lost = self.lost.iter();
        let lost = lost.filter(|(action, _)| model.discards(*action));
        let lost_from = lost.filter_map(|(_, from)| from.first()).min().copied();
        let lost_from = lost_from.unwrap_or(NO_CALL);
        // Rising positions of invocations that discard, each with the first return it is open at.
        let mut from: Vec<(u64, u32)> = Vec::new();
        for step in 0..returns as u32 {
            for number in self.open_at(step) {
                let call = &self.calls[*number as usize];
                let known = from
                    .last()
                    .is_some_and(|(invoked, _)| *invoked >= call.invoked);
                if !known && model.discards(call.action) {
                    from.push((call.invoked, step));
                }
            }
        }
        let next = (0..returns as u32).map(|step| {
            let now = self.calls[self.returns[step as usize] as usize].returned;
            let later = from.partition_point(|(invoked, _)| *invoked < now);
            let later = from.get(later).map_or(NO_CALL, |(_, step)| *step);
            later.min(lost_from.max(step))
        });
        self.discard_from = next.collect();
        let ahead = (0..returns).map(|step| {
            let now = self.calls[self.returns[step] as usize].returned;
            let until = self.discard_from[step] as usize;
            let range = step + 1..until.min(returns).min(step + AHEAD_MAX_RETURNS);
            let mut later = self.returns.get(range).unwrap_or(&[]).iter().copied();
            let observes = |number: &u32| {
                let call = &self.calls[*number as usize];
                call.invoked > now && model.observes_only(call.action)
            };
            later.find(observes).unwrap_or(NO_CALL)
        });
        self.ahead = ahead.collect();
    }

    fn lay_out(&mut self, events: &[(u64, u32, bool)]) {
        let mut open: Vec<u32> = Vec::new();
        let mut free: Vec<u32> = Vec::new();
        let mut kinds: QuickMap<A, usize> = QuickMap::default();
        for (_, number, is_return) in events {
            let call = &self.calls[*number as usize];
            if *is_return {
                self.return_of[*number as usize] = self.returns.len() as u32;
                self.returns.push(*number);
                self.open_from.push(self.open.len());
                self.open.extend_from_slice(&open);
                free.push(self.slot[*number as usize]);
                open.retain(|other| other != number);
            } else if call.returned == NEVER_RETURNED {
                let next = self.lost.len();
                let kind = *kinds.entry(call.action).or_insert(next);
                if kind == next {
                    self.lost.push((call.action, Vec::new()));
                }
                self.lost[kind].1.push(self.returns.len() as u32);
            } else {
                self.slot[*number as usize] = free.pop().unwrap_or(self.slots);
                self.slots = self.slots.max(self.slot[*number as usize] + 1);
                open.push(*number);
            }
        }
        self.open_from.push(self.open.len());
    }

    fn open_at(&self, step: u32) -> &[u32] {
        let step = step as usize;
        &self.open[self.open_from[step]..self.open_from[step + 1]]
    }

    /// How many lost calls of a kind have been invoked before a return.
    fn available(&self, kind: usize, step: u32) -> u32 {
        self.lost[kind].1.partition_point(|from| *from <= step) as u32
    }
}

/// How many of each kind of lost call are used: pairs of kind and count, by kind.
type Used = Vec<(u32, u32)>;

/// Whether `fewer` uses no more of anything than `more`.
fn within(fewer: &Used, more: &Used) -> bool {
    fewer.iter().all(|(kind, count)| {
        let found = more.binary_search_by_key(kind, |(kind, _)| *kind);
        found.is_ok_and(|at| more[at].1 >= *count)
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Configuration<const WORDS: usize> {
    step: u32,
    state: State,
    placed: Bits<WORDS>,
}

/// A configuration on the way, with the next candidate to try from it.
struct Frame<const WORDS: usize> {
    configuration: Configuration<WORDS>,
    used: u32,
    candidate: u32,
}

struct Search<'a, M: Model, const WORDS: usize> {
    model: &'a mut M,
    plan: &'a Plan<'a, M::Action>,
    /// All sets of used lost calls that came up; 0 is the empty one.
    used: Vec<Used>,
    used_ids: QuickMap<Used, u32>,
    /// Where the search has been, with what was used: the first, and in `more` any others.
    visited: QuickMap<Configuration<WORDS>, u32>,
    more: QuickMap<Configuration<WORDS>, Vec<u32>>,
    stack: Vec<Frame<WORDS>>,
    furthest: u32,
    states: Vec<State>,
}

impl<'a, M: Model, const WORDS: usize> Search<'a, M, WORDS> {
    fn new(model: &'a mut M, plan: &'a Plan<'a, M::Action>) -> Self {
        Self {
            model,
            plan,
            used: vec![Used::new()],
            used_ids: std::iter::once((Used::new(), 0)).collect(),
            visited: QuickMap::default(),
            more: QuickMap::default(),
            stack: Vec::new(),
            furthest: 0,
            states: Vec::new(),
        }
    }

    fn run(&mut self, budget: &mut Budget<'_>) -> Result<Linear, Spent> {
        let start = Configuration {
            step: 0,
            state: self.model.initial(),
            placed: Bits::EMPTY,
        };
        if self.enter(start, 0) {
            return Ok(Linear::Valid);
        }
        while let Some(frame) = self.stack.last_mut() {
            let (configuration, used, candidate) =
                (frame.configuration, frame.used, frame.candidate);
            frame.candidate += 1;
            budget.step(self.memory_bytes())?;
            match self.tried(configuration, used, candidate) {
                Tried::No => {}
                Tried::NoMore => {
                    self.stack.pop();
                }
                Tried::To(next, used) => {
                    if self.enter(next, used) {
                        return Ok(Linear::Valid);
                    }
                }
            }
        }
        Ok(Linear::Invalid(self.stuck()))
    }

    /// Roughly what the tables hold.
    fn memory_bytes(&self) -> usize {
        let entry = size_of::<Configuration<WORDS>>() + 8;
        (self.visited.capacity() + self.more.capacity() * 4) * entry
            + self.stack.capacity() * size_of::<Frame<WORDS>>()
            + self.used.len() * 64
            + self.plan.open.len() * 4
    }

    /// The candidates of a configuration: the call that returns next, the other open calls, and
    /// one of each kind of lost call.
    fn tried(
        &mut self,
        configuration: Configuration<WORDS>,
        used: u32,
        candidate: u32,
    ) -> Tried<WORDS> {
        let plan = self.plan;
        let open = plan.open_at(configuration.step);
        let target = plan.returns[configuration.step as usize];
        match candidate as usize {
            0 => self.place(configuration, target, used),
            at if at <= open.len() => match open[at - 1] {
                call if call == target => Tried::No,
                call => self.place(configuration, call, used),
            },
            at if at <= open.len() + plan.lost.len() => {
                self.place_lost(configuration, at - 1 - open.len(), used)
            }
            _ => Tried::NoMore,
        }
    }

    fn place(
        &mut self,
        mut configuration: Configuration<WORDS>,
        call: u32,
        used: u32,
    ) -> Tried<WORDS> {
        let slot = self.plan.slot[call as usize];
        let action = self.plan.calls[call as usize].action;
        // What only observes was placed on entering, where it could be.
        if configuration.placed.contains(slot) || self.model.observes_only(action) {
            return Tried::No;
        }
        let Some(state) = self.model.step(configuration.state, action) else {
            return Tried::No;
        };
        configuration.state = state;
        configuration.placed.insert(slot);
        Tried::To(configuration, used)
    }

    fn place_lost(
        &mut self,
        mut configuration: Configuration<WORDS>,
        kind: usize,
        used: u32,
    ) -> Tried<WORDS> {
        let (action, _) = self.plan.lost[kind];
        let Some(state) = self.model.step(configuration.state, action) else {
            return Tried::No;
        };
        let mut counts = self.used[used as usize].clone();
        let at = counts.binary_search_by_key(&(kind as u32), |(kind, _)| *kind);
        let at = at.unwrap_or_else(|at| {
            counts.insert(at, (kind as u32, 0));
            at
        });
        counts[at].1 += 1;
        let exhausted = counts[at].1 > self.plan.available(kind, configuration.step);
        if exhausted || state == configuration.state {
            return Tried::No;
        }
        configuration.state = state;
        Tried::To(configuration, self.used_id(counts))
    }

    fn used_id(&mut self, counts: Used) -> u32 {
        if let Some(id) = self.used_ids.get(&counts) {
            return *id;
        }
        let id = self.used.len() as u32;
        self.used.push(counts.clone());
        self.used_ids.insert(counts, id);
        id
    }

    /// Goes on to a configuration, unless it is known; true at the end of the history.
    fn enter(&mut self, mut configuration: Configuration<WORDS>, used: u32) -> bool {
        if !self.settle(&mut configuration) {
            return true;
        }
        if self.is_hopeless(&configuration) || !self.visit(configuration, used) {
            return false;
        }
        if configuration.step > self.furthest {
            self.furthest = configuration.step;
            self.states.clear();
        }
        if configuration.step == self.furthest
            && self.states.len() < STATES_SHOWN_MAX
            && !self.states.contains(&configuration.state)
        {
            self.states.push(configuration.state);
        }
        self.stack.push(Frame {
            configuration,
            used,
            candidate: 0,
        });
        false
    }

    /// Places what only observes, and passes the returns of what is placed; false if none is left.
    fn settle(&mut self, configuration: &mut Configuration<WORDS>) -> bool {
        while let Some(target) = self.plan.returns.get(configuration.step as usize) {
            for call in self.plan.open_at(configuration.step) {
                let action = self.plan.calls[*call as usize].action;
                if self.model.observes_only(action)
                    && self.model.step(configuration.state, action).is_some()
                {
                    configuration.placed.insert(self.plan.slot[*call as usize]);
                }
            }
            let slot = self.plan.slot[*target as usize];
            if !configuration.placed.contains(slot) {
                return true;
            }
            configuration.placed.remove(slot);
            configuration.step += 1;
        }
        false
    }

    /// Whether a call that must still be placed can not be, whatever else is.
    fn is_hopeless(&self, configuration: &Configuration<WORDS>) -> bool {
        let plan = self.plan;
        let until = plan.discard_from[configuration.step as usize];
        if until == configuration.step {
            return false;
        }
        let mut open = plan.open_at(configuration.step).iter().filter(|call| {
            let placed = configuration.placed.contains(plan.slot[**call as usize]);
            !placed
        });
        let discards = |call: &u32| self.model.discards(plan.calls[*call as usize].action);
        if open.clone().any(discards) {
            return false;
        }
        let cannot = |call: u32| {
            let action = plan.calls[call as usize].action;
            self.model.observes_only(action) && !self.model.leads_to(configuration.state, action)
        };
        let ahead = plan.ahead[configuration.step as usize];
        if ahead != NO_CALL && cannot(ahead) {
            return true;
        }
        open.any(|call| plan.return_of[*call as usize] < until && cannot(*call))
    }

    /// Remembers a configuration; false if one that can do as much was here before.
    fn visit(&mut self, configuration: Configuration<WORDS>, used: u32) -> bool {
        let Some(first) = self.visited.get(&configuration) else {
            self.visited.insert(configuration, used);
            return true;
        };
        let now = &self.used[used as usize];
        if *first == used || within(&self.used[*first as usize], now) {
            return false;
        }
        let others = self.more.entry(configuration).or_default();
        if others
            .iter()
            .any(|other| within(&self.used[*other as usize], now))
        {
            return false;
        }
        others.retain(|other| !within(now, &self.used[*other as usize]));
        others.push(used);
        true
    }

    fn stuck(&self) -> Stuck {
        Stuck {
            call: self.plan.returns[self.furthest as usize],
            states: self.states.clone(),
            open: self.plan.open_at(self.furthest).to_vec(),
        }
    }
}

/// What came of a candidate.
enum Tried<const WORDS: usize> {
    /// Nothing: it is not possible here.
    No,
    /// There are no further candidates.
    NoMore,
    /// It leads there.
    To(Configuration<WORDS>, u32),
}
