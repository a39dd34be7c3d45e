//! What clients write: eventual writes and increments, ladders, strong writes. Each is noted in
//! the truth when it is named.
//!
//! Not here: what becomes of them (see `world`).

use std::collections::BTreeSet;

use quorate_types::causal::{
    Delta, Dots, KeyState, Limits, Part, Planned, Seen as PlanSeen, Update, log_dot, plan,
};
use quorate_types::{Actor, ConflictPolicy, Dot, Revision};

use super::{CLIENTS, Hint, PRIMARIES, STAND_INS, W, World};
use crate::course::{Kind, Mistake};
use crate::exact::ExactDelta;
use crate::primary::explicit_among;
use crate::table::{Entry, Message, Put, Seen};
use crate::truth::Write;

/// Largest amount of one increment.
const AMOUNT_MAX: usize = 3;

impl World {
    /// An eventual write at W holders, or a ladder: a strong attempt, and its eventual rung.
    pub fn write(&mut self, key: usize) {
        let mut holders: Vec<usize> = (0..PRIMARIES + STAND_INS).collect();
        self.random.shuffle(&mut holders);
        holders.truncate(W);
        if self.course.kind == Kind::Counters {
            return self.increment(key, &holders);
        }
        let client = self.random.below(CLIENTS);
        let seen = match self.random.unit() {
            at if at < 0.5 => self.sessions[client][key].clone(),
            at if at < 0.75 && holders[0] < PRIMARIES => self.nodes[holders[0]].seen(key),
            _ => Seen::default(),
        };
        let dot = self.next_dot(holders[0]);
        let value = (self.random.unit() >= 0.25).then_some(self.step);
        let message = self.message(key, dot, value, &seen);
        if self.random.unit() < 0.2 {
            self.attempt(&message, &seen, holders[0]);
        }
        self.spread(&holders, &message);
        if self.course.has(Mistake::NewDot) && self.random.unit() < 0.2 {
            let dot = self.next_dot(holders[1]);
            let again = self.message(key, dot, value, &seen);
            self.spread(&holders[1..], &again);
        }
    }

    /// An increment: its coordinator folds its own amounts, as far as it holds them.
    fn increment(&mut self, key: usize, holders: &[usize]) {
        let amount = 1 + self.random.below(AMOUNT_MAX) as u64;
        self.truth.increments.insert(self.step, amount);
        let message = self.folded(key, holders[0], amount);
        if self.random.unit() < 0.2 {
            let due = self.due();
            let mut attempt = message.clone();
            if self.course.has(Mistake::TwoDots) {
                attempt = self.folded(key, holders[0], amount);
            }
            self.proposals.push((due, Entry::Delta(attempt)));
        }
        self.spread(holders, &message);
        if self.course.has(Mistake::NewDot) && self.random.unit() < 0.2 {
            let again = self.folded(key, holders[1], amount);
            self.spread(&holders[1..], &again);
        }
    }

    fn folded(&mut self, key: usize, at: usize, amount: u64) -> Message {
        let (actor, view) = match at {
            at if at < PRIMARIES => (self.nodes[at].actor(), self.nodes[at].view(key)),
            _ => (self.actor(at), KeyState::default()),
        };
        let planned = self.planned(&view, actor, amount);
        let value = planned.value.as_ref().expect("an amount");
        let value = self.course.kind.value_of(value);
        let mut counted: BTreeSet<u64> = [self.step].into();
        for (dot, _) in view.live() {
            // Where the context is left out, what was folded is folded all the same.
            let folds = dot.actor == actor || self.course.has(Mistake::FoldOthers);
            if folds {
                counted.extend(&self.truth.writes[dot].counted);
            }
        }
        // Of what its context holds beside that, it is not the write that replaced it.
        let replaced = view.live().map(|(dot, _)| *dot);
        let replaced: Dots = replaced
            .filter(|dot| planned.context.contains(*dot))
            .collect();
        let past = self.truth.past(key, &replaced);
        let dot = self.next_dot(at);
        let seen = Seen {
            exact: explicit_among(&planned.context, &self.names),
            real: planned.context,
        };
        let write = Write {
            key,
            past,
            value: Some(value),
            counted,
            expiry: None,
        };
        self.truth.add(dot, write);
        self.message_of(key, dot, Some(value), &seen)
    }

    /// What a coordinator plans, or what it would with a mistake.
    fn planned(&self, view: &KeyState, actor: Actor, amount: u64) -> Planned {
        let amount = i64::try_from(amount).expect("a small amount");
        let seen = (PlanSeen::Coordinator, actor, None);
        let (policy, limits) = (ConflictPolicy::Counter, Limits::default());
        let mut planned = plan(policy, &limits, view, seen, &Update::Increment(amount))
            .expect("it is within limits")
            .remove(0);
        let folded = view.live().map(|(dot, _)| *dot);
        let folded: Dots = folded
            .filter(|dot| planned.context.contains(*dot))
            .collect();
        if self.course.has(Mistake::FoldOthers) {
            let kind = self.course.kind;
            let all = view.live().map(|(_, value)| kind.value_of(&value.payload));
            let sum = amount + i64::try_from(all.sum::<u64>()).expect("small amounts");
            planned.context = view.context().clone();
            planned.value = Some(Part::Amount(sum).encode());
        } else if self.course.has(Mistake::FoldUnsaid) {
            planned.context = Dots::new();
        } else if self.course.has(Mistake::FoldForgets) {
            planned.context = folded;
        }
        planned
    }

    /// The actor of a primary, or of a stand-in behind them.
    fn actor(&self, at: usize) -> Actor {
        match at {
            at if at < PRIMARIES => self.nodes[at].actor(),
            at => {
                let stand_in = &self.stand_ins[at - PRIMARIES];
                Actor {
                    disk: stand_in.identity,
                    start: stand_in.start,
                }
            }
        }
    }

    fn next_dot(&mut self, at: usize) -> Dot {
        let unused = self.course.closes && self.random.unit() < 0.1;
        let count = if unused { 2 } else { 1 };
        let mut dot = log_dot(Revision::ZERO);
        for _ in 0..count {
            dot = match at {
                at if at < PRIMARIES => self.nodes[at].next_dot(),
                at => {
                    let stand_in = &mut self.stand_ins[at - PRIMARIES];
                    stand_in.counter += 1;
                    let counter = stand_in.counter;
                    Dot::new(self.actor(at), counter)
                }
            };
        }
        self.names.insert(dot.actor, dot.counter);
        dot
    }

    fn message(&mut self, key: usize, dot: Dot, value: Option<u64>, seen: &Seen) -> Message {
        let write = Write {
            key,
            past: self.truth.past(key, &seen.real),
            value,
            counted: BTreeSet::new(),
            expiry: value.and_then(|value| self.course.kind.expiry_of(value)),
        };
        self.truth.add(dot, write);
        self.message_of(key, dot, value, seen)
    }

    fn message_of(&self, key: usize, dot: Dot, value: Option<u64>, seen: &Seen) -> Message {
        let mut exact = seen.exact.clone();
        if value.is_none() {
            exact.insert(dot);
        }
        let kind = self.course.kind;
        let delta = Delta {
            dot,
            context: self.as_written(&seen.real),
            value: value.map(|value| kind.payload(value)),
            timestamp: kind.timestamp_of(value.unwrap_or(self.step)),
            expiry: value.and_then(|value| kind.expiry_of(value)),
        };
        Message {
            key,
            exact: ExactDelta {
                dot,
                context: exact,
                value,
            },
            real: delta,
        }
    }

    /// The strong attempt of a ladder comes soon, late or never.
    fn attempt(&mut self, message: &Message, seen: &Seen, at: usize) {
        let due = self.due();
        let entry = if self.course.has(Mistake::BlindLadder) {
            self.requests += 1;
            Entry::Put(Put {
                key: message.key,
                value: message.exact.value,
                seen: seen.clone(),
                request: self.requests,
            })
        } else if self.course.has(Mistake::TwoDots) {
            let dot = self.next_dot(at);
            Entry::Delta(self.message(message.key, dot, message.exact.value, seen))
        } else {
            Entry::Delta(message.clone())
        };
        self.proposals.push((due, entry));
    }

    /// The length from which on the log takes an attempt.
    fn due(&mut self) -> usize {
        match self.random.unit() {
            at if at < 0.4 => self.log.len(),
            _ => self.log.len() + self.random.below(40),
        }
    }

    fn spread(&mut self, holders: &[usize], message: &Message) {
        for at in holders {
            match *at {
                at if at < PRIMARIES => self.nodes[at].accept(message),
                _ => self.hints.push(Hint {
                    message: message.clone(),
                    held_by: BTreeSet::new(),
                }),
            }
        }
        for at in (0..PRIMARIES).filter(|at| !holders.contains(at)) {
            if self.random.unit() < self.reach {
                self.network
                    .push((self.nodes[at].identity, message.clone()));
            }
        }
    }

    /// A strong write. Its entry carries what its client has seen on either plane; now and
    /// then it is sent again, after its answer was lost. Of a counter it is a delete.
    pub fn strong_put(&mut self, key: usize) -> Result<(), String> {
        let is_delete = match self.course.kind {
            Kind::Counters => true,
            Kind::Values | Kind::Timed => self.random.unit() < 0.2,
        };
        if self.course.kind == Kind::Counters && self.random.unit() < 0.7 {
            // Else little would ever be folded.
            return Ok(());
        }
        let client = self.random.below(CLIENTS);
        let seen = match self.random.unit() {
            at if at < 0.7 => self.sessions[client][key].clone(),
            _ => Seen::default(),
        };
        self.requests += 1;
        let entry = Entry::Put(Put {
            key,
            value: (!is_delete).then_some(self.step),
            seen,
            request: self.requests,
        });
        if self.random.unit() < 0.3 {
            let due = self.log.len() + 1 + self.random.below(20);
            self.proposals.push((due, entry.clone()));
        }
        self.decide(entry)
    }
}
