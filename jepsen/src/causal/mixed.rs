//! Both planes of a key at once: strong operations see one copy, into which eventual writes are
//! taken at some time after they began, each as an operation of its own, or never.
//!
//! The copy holds the live values. A strong `write` puts one value in the place of all; a strong
//! `read` shows all; an `eventual-write` `{value, context}` takes away what its context names and
//! adds its value. Who has seen a value has seen what that had replaced: contexts reach back through
//! the contexts of what they name. `eventual-read`s show values that somebody wrote, none beside one that
//! replaced it; they go through the checker of siblings.

use super::{Siblings, context, key, shown, written};
use crate::budget::Budget;
use crate::checker::{Checker, Misfit};
use crate::hash::{QuickMap, QuickSet};
use crate::history::{Name, Operation, Outcome};
use crate::intern::Interner;
use crate::linear::{Call, Linear, Model, NEVER_RETURNED, State, search};
use crate::report::{Finding, Place, Report};
use crate::value::Value;

/// What is done to the strong copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    /// Shows exactly a set of values.
    Read(State),
    /// Puts one value in the place of all.
    Write(u32),
    /// Takes in an eventual write, by its number.
    Absorb(u32),
}

/// The strong copy: sets of values as numbers.
struct Copy {
    sets: Vec<Vec<u32>>,
    numbers: QuickMap<Vec<u32>, State>,
    /// Per eventual write, its value (none for a delete) and what it replaces.
    eventual: Vec<(Option<u32>, Vec<u32>)>,
    /// Values that some eventual write replaces.
    replaceable: QuickSet<u32>,
}

impl Default for Copy {
    fn default() -> Self {
        Self {
            sets: vec![Vec::new()],
            numbers: std::iter::once((Vec::new(), 0)).collect(),
            eventual: Vec::new(),
            replaceable: QuickSet::default(),
        }
    }
}

impl Copy {
    fn id(&mut self, set: Vec<u32>) -> State {
        if let Some(id) = self.numbers.get(&set) {
            return *id;
        }
        let id = self.sets.len() as State;
        self.sets.push(set.clone());
        self.numbers.insert(set, id);
        id
    }
}

impl Model for Copy {
    type Action = Action;

    fn initial(&self) -> State {
        0
    }

    fn step(&mut self, state: State, action: Action) -> Option<State> {
        match action {
            Action::Read(seen) => (seen == state).then_some(state),
            Action::Write(value) => Some(self.id(vec![value])),
            Action::Absorb(number) => {
                let (value, replaces) = &self.eventual[number as usize];
                let mut set = self.sets[state as usize].clone();
                set.retain(|value| !replaces.contains(value));
                set.extend(value);
                set.sort_unstable();
                set.dedup();
                Some(self.id(set))
            }
        }
    }

    fn observes_only(&self, action: Action) -> bool {
        matches!(action, Action::Read(_))
    }

    fn discards(&self, action: Action) -> bool {
        matches!(action, Action::Write(_))
    }

    /// What a read does not show must have been taken away by an eventual write that could.
    fn leads_to(&self, state: State, action: Action) -> bool {
        let Action::Read(seen) = action else {
            return true;
        };
        let seen = &self.sets[seen as usize];
        let mut gone = self.sets[state as usize].iter();
        gone.all(|value| seen.contains(value) || self.replaceable.contains(value))
    }
}

/// What happened to a key.
#[derive(Default)]
struct Key {
    values: Interner,
    copy: Copy,
    /// Per value, the context that it was written with.
    contexts: QuickMap<u32, Vec<u32>>,
    calls: Vec<Call<Action>>,
    places: Vec<Place>,
}

/// The checker of both planes. Keys are checked apart.
#[derive(Default)]
pub struct Mixed {
    keys: QuickMap<Value, Key>,
    names: Vec<Value>,
    siblings: Siblings,
    operations: u64,
}

impl Checker for Mixed {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        self.operations += 1;
        let name = key(operation)?;
        if !self.keys.contains_key(&name) {
            self.names.push(name.clone());
        }
        self.eventual(operation)?;
        self.keys.entry(name).or_default().operation(operation)
    }

    fn check(mut self: Box<Self>, budget: &mut Budget<'_>) -> Report {
        let mut report = Box::new(std::mem::take(&mut self.siblings)).check(budget);
        report.operations = self.operations;
        // Final reads are not asked for: a strong write may have replaced anything.
        report.remarks.clear();
        for name in &self.names {
            if let Some(key) = self.keys.get_mut(name) {
                report.absorb(&name.to_string(), key.check(budget));
            }
        }
        report
    }
}

impl Mixed {
    /// Tells the checker of siblings what it understands: all writes, and eventual reads.
    fn eventual(&mut self, operation: &Operation) -> Result<(), Misfit> {
        let name = match &*operation.f {
            "eventual-read" => "read",
            "eventual-write" | "write" => "write",
            "eventual-delete" => "delete",
            "read" => return Ok(()),
            _ => {
                let known = "read, write, eventual-read, eventual-write, eventual-delete";
                return Err(Misfit::function(operation, known));
            }
        };
        let mut told = operation.clone();
        told.f = Name::from(name);
        self.siblings.operation(&told)
    }
}

impl Key {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        let ids = |values: &mut Interner, list: &[Value]| {
            let mut ids: Vec<u32> = list.iter().map(|value| values.id(value)).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let (action, returned) = match (&*operation.f, operation.outcome) {
            (_, Outcome::Fail) | ("eventual-read", _) | ("read", Outcome::Unknown) => return Ok(()),
            ("read", Outcome::Ok) => {
                let set = ids(&mut self.values, shown(operation)?);
                (Action::Read(self.copy.id(set)), operation.returned())
            }
            ("write", _) => {
                let (value, context) = written(operation)?;
                let value = self.values.id(&value);
                self.contexts.insert(value, ids(&mut self.values, &context));
                (Action::Write(value), operation.returned())
            }
            ("eventual-write" | "eventual-delete", _) => {
                let (value, context) = match &*operation.f {
                    "eventual-write" => {
                        let (value, context) = written(operation)?;
                        (Some(self.values.id(&value)), context)
                    }
                    _ => (None, context(operation)?),
                };
                let replaces = ids(&mut self.values, &context);
                if let Some(value) = value {
                    self.contexts.insert(value, replaces.clone());
                }
                self.copy.replaceable.extend(&replaces);
                self.copy.eventual.push((value, replaces));
                let number = self.copy.eventual.len() as u32 - 1;
                (Action::Absorb(number), NEVER_RETURNED)
            }
            _ => unreachable!("other functions were refused before"),
        };
        self.calls.push(Call {
            action,
            invoked: operation.invoked.position,
            returned,
            source: self.places.len() as u32,
        });
        self.places.push(Place::of(operation));
        Ok(())
    }

    /// Has each eventual write replace all that its client had seen by what it names: a write
    /// between may never be taken in, or be left out of the search.
    fn reach_back(&mut self) {
        for (_, replaces) in &mut self.copy.eventual {
            let mut reached: QuickSet<u32> = replaces.iter().copied().collect();
            let mut ends = std::mem::take(replaces);
            while let Some(value) = ends.pop() {
                let before = self.contexts.get(&value).into_iter().flatten();
                ends.extend(before.copied().filter(|value| reached.insert(*value)));
            }
            *replaces = reached.into_iter().collect();
            replaces.sort_unstable();
        }
    }

    /// Leaves out eventual writes that no strong read shows any trace of: neither their value,
    /// nor that something which they replace is gone. And strong writes whose end nobody knows, if
    /// nobody has seen their value: neither a strong read nor the writer of an eventual one.
    fn drop_unseen(&mut self) {
        let mut seen: QuickSet<u32> = QuickSet::default();
        for call in &self.calls {
            if let Action::Read(set) = call.action {
                seen.extend(&self.copy.sets[set as usize]);
            }
        }
        let (eventual, replaceable) = (&self.copy.eventual, &self.copy.replaceable);
        self.calls.retain(|call| match call.action {
            Action::Read(_) => true,
            Action::Write(value) => {
                let known = call.returned != NEVER_RETURNED;
                known || seen.contains(&value) || replaceable.contains(&value)
            }
            Action::Absorb(number) => {
                let (value, replaces) = &eventual[number as usize];
                let shown = value.is_none_or(|value| seen.contains(&value));
                shown || replaces.iter().any(|value| seen.contains(value))
            }
        });
    }

    fn check(&mut self, budget: &mut Budget<'_>) -> Report {
        let mut report = Report::valid(0);
        self.reach_back();
        self.drop_unseen();
        match search(&mut self.copy, &self.calls, budget) {
            Linear::Valid => {}
            Linear::Unknown(spent) => report.unknown(spent),
            Linear::Invalid(stuck) => {
                let told = |state: &State| {
                    let values = self.copy.sets[*state as usize].iter();
                    let values = values.map(|id| self.values.value(*id).to_string());
                    format!("[{}]", values.collect::<Vec<_>>().join(" "))
                };
                let call = &self.calls[stuck.call as usize];
                let what = match &call.action {
                    Action::Read(set) => format!("strong read {}", told(set)),
                    Action::Write(_) => "strong write".to_owned(),
                    Action::Absorb(_) => "eventual write".to_owned(),
                };
                let states: Vec<String> = stuck.states.iter().map(told).collect();
                let place = self.places[call.source as usize];
                let summary = format!(
                    "{what} ({place}) fits into no order; with whatever eventual writes taken in, \
                     the values before it were: {}",
                    states.join(", ")
                );
                report.invalid(Finding::new("nonlinearizable", summary));
            }
        }
        report
    }
}
