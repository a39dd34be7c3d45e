//! A register with read, write and compare-and-set. A read of nil saw the initial value: nothing
//! had been written yet.

use super::explain;
use super::{Call, Model, State, Unique, search, unique};
use crate::budget::Budget;
use crate::checker::{Checker, Misfit};
use crate::hash::QuickSet;
use crate::history::{Operation, Outcome};
use crate::intern::Interner;
use crate::report::{Place, Report};
use crate::value::Value;

/// What is done to a register; values are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Saw a value.
    Read(State),
    /// Put a value.
    Write(State),
    /// Saw the first, and put the second in its place.
    Cas(State, State),
}

/// The register itself.
struct Register;

/// The number of nil, the initial value.
const INITIAL: State = 0;

impl Model for Register {
    type Action = Action;

    fn initial(&self) -> State {
        INITIAL
    }

    fn step(&mut self, state: State, action: Action) -> Option<State> {
        match action {
            Action::Read(seen) => (seen == state).then_some(state),
            Action::Write(value) => Some(value),
            Action::Cas(seen, value) => (seen == state).then_some(value),
        }
    }

    fn observes_only(&self, action: Action) -> bool {
        match action {
            Action::Read(_) => true,
            Action::Write(_) => false,
            Action::Cas(seen, value) => seen == value,
        }
    }
}

/// The checker of one register.
pub struct CasRegister {
    values: Interner,
    calls: Vec<Call<Action>>,
    places: Vec<Place>,
    operations: u64,
}

impl Default for CasRegister {
    fn default() -> Self {
        let mut values = Interner::default();
        let initial = values.id(&Value::Nil);
        debug_assert_eq!(initial, INITIAL, "nil is the first value");
        Self {
            values,
            calls: Vec::new(),
            places: Vec::new(),
            operations: 0,
        }
    }
}

impl CasRegister {
    /// What an operation did; none if it says nothing.
    fn action(&mut self, operation: &Operation) -> Result<Option<Action>, Misfit> {
        let known = operation.known();
        Ok(match &*operation.f {
            "read" if operation.outcome == Outcome::Ok => {
                Some(Action::Read(self.values.id(&operation.answered)))
            }
            "read" => None,
            "write" => Some(Action::Write(self.values.id(known))),
            "cas" => {
                let Some([seen, value]) = operation.asked.as_list() else {
                    let what = format!("`cas` takes [OLD NEW], not `{}`", operation.asked);
                    return Err(Misfit::new(operation, what));
                };
                let (seen, value) = (self.values.id(seen), self.values.id(value));
                Some(Action::Cas(seen, value))
            }
            _ => return Err(Misfit::function(operation, "read, write, cas")),
        })
    }

    fn describe(&self, action: Action) -> String {
        let value = |state| self.values.value(state);
        match action {
            Action::Read(seen) => format!("read {}", value(seen)),
            Action::Write(written) => format!("write {}", value(written)),
            Action::Cas(seen, written) => format!("cas {} → {}", value(seen), value(written)),
        }
    }

    /// Leaves out lost calls that put what nobody ever saw: they may as well not have happened.
    fn drop_unseen(&mut self) {
        let mut wanted: QuickSet<State> = QuickSet::default();
        for call in &self.calls {
            match call.action {
                Action::Read(seen) | Action::Cas(seen, _) => wanted.insert(seen),
                Action::Write(_) => false,
            };
        }
        self.calls.retain(|call| {
            let put = match call.action {
                Action::Read(_) => return true,
                Action::Write(value) | Action::Cas(_, value) => value,
            };
            call.returned != super::NEVER_RETURNED || wanted.contains(&put)
        });
    }
}

impl Checker for CasRegister {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        self.operations += 1;
        let action = self.action(operation)?;
        let Some(action) = action.filter(|_| operation.outcome != Outcome::Fail) else {
            return Ok(());
        };
        let call = Call {
            action,
            invoked: operation.invoked.position,
            returned: operation.returned(),
            source: self.places.len() as u32,
        };
        self.calls.push(call);
        self.places.push(Place::of(operation));
        Ok(())
    }

    fn check(mut self: Box<Self>, budget: &mut Budget<'_>) -> Report {
        let mut report = Report::valid(self.operations);
        self.drop_unseen();
        let calls = std::mem::take(&mut self.calls);
        let told = explain::Told {
            calls: &calls,
            places: &self.places,
            describe: &|action| self.describe(action),
            state: &|state| match state {
                INITIAL => "nil (nothing written)".to_owned(),
                written => self.values.value(written).to_string(),
            },
        };
        match unique(&calls, INITIAL) {
            Unique::NotApplicable => {
                told.conclude(search(&mut Register, &calls, budget), &mut report)
            }
            Unique::Valid => {}
            wrong => report.invalid(told.clash(&wrong)),
        }
        report
    }
}
