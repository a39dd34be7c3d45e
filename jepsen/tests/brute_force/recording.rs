//! Random schedules: who invokes and completes when, and where in between the effect lies.

use quorate_jepsen::history::{Event, Kind, Name, Operation, Outcome, Pairing, Process};
use quorate_jepsen::value::Value;

use crate::dice::Dice;

/// One operation of a schedule.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Who.
    pub process: i64,
    /// Position of the invocation.
    pub invoked: u64,
    /// Position of the completion; none if it never came.
    pub completed: Option<u64>,
    /// When it takes effect, if it does: a point between those positions.
    pub effect: u64,
    /// How it ended.
    pub outcome: Outcome,
}

impl Slot {
    /// Where the effect lies at the latest.
    pub fn returned(&self) -> u64 {
        match (self.outcome, self.completed) {
            (Outcome::Ok, Some(position)) => position,
            _ => u64::MAX,
        }
    }
}

/// A schedule of so many operations of up to three clients.
pub fn schedule(dice: &mut Dice, count: usize) -> Vec<Slot> {
    let mut slots: Vec<Slot> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let (mut position, mut next_process) = (0, 3);
    let mut free: Vec<i64> = vec![0, 1, 2];
    while slots.len() < count || !open.is_empty() {
        let may_invoke = slots.len() < count && !free.is_empty();
        if may_invoke && (open.is_empty() || dice.percent(55)) {
            let process = free.swap_remove(dice.index(&free));
            open.push(slots.len());
            slots.push(Slot {
                process,
                invoked: position,
                completed: None,
                effect: 0,
                outcome: Outcome::Unknown,
            });
        } else {
            let slot = &mut slots[open.swap_remove(dice.index(&open))];
            slot.outcome = match dice.roll(100) {
                0..8 => Outcome::Fail,
                8..22 => Outcome::Unknown,
                _ => Outcome::Ok,
            };
            // A client that does not know goes on as another one, or never hears at all.
            match slot.outcome {
                Outcome::Unknown => {
                    free.push(next_process);
                    next_process += 1;
                    slot.completed = dice.percent(60).then_some(position);
                    slot.effect = slot.invoked + dice.roll(12);
                }
                Outcome::Ok | Outcome::Fail => {
                    free.push(slot.process);
                    slot.completed = Some(position);
                    slot.effect = slot.invoked + dice.roll(position - slot.invoked);
                }
            }
        }
        position += 1;
    }
    slots
}

/// The operations of a schedule: per slot a function, what it asks and what it answers.
pub fn operations(slots: &[Slot], what: &[(&str, Value, Value)]) -> Vec<Operation> {
    let mut events = Vec::new();
    for (slot, (f, asked, answered)) in slots.iter().zip(what) {
        events.push((slot.invoked, slot, *f, Kind::Invoke, asked.clone()));
        if let Some(position) = slot.completed {
            let (kind, value) = match slot.outcome {
                Outcome::Ok => (Kind::Ok, answered.clone()),
                Outcome::Fail => (Kind::Fail, asked.clone()),
                Outcome::Unknown => (Kind::Info, asked.clone()),
            };
            events.push((position, slot, *f, kind, value));
        }
    }
    events.sort_by_key(|(position, ..)| *position);
    let mut pairing = Pairing::default();
    let mut operations = Vec::new();
    for (line, (_, slot, f, kind, value)) in events.into_iter().enumerate() {
        let event = Event {
            line: line as u64 + 1,
            index: Some(line as i64),
            time_nanoseconds: None,
            process: Process::Client(slot.process),
            kind,
            f: Name::from(f),
            key: None,
            value,
        };
        operations.extend(pairing.event(event).expect("schedules are histories"));
    }
    operations.extend(pairing.finish());
    operations
}
