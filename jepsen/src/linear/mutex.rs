//! A lock that one client holds at a time: `acquire`, `release`.

use super::explain;
use super::{Call, Model, State, search};
use crate::budget::Budget;
use crate::checker::{Checker, Misfit};
use crate::history::{Operation, Outcome};
use crate::report::{Place, Report};

/// What is done to a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Acquire,
    Release,
}

struct Lock;

const FREE: State = 0;
const HELD: State = 1;

impl Model for Lock {
    type Action = Action;

    fn initial(&self) -> State {
        FREE
    }

    fn step(&mut self, state: State, action: Action) -> Option<State> {
        let (wanted, next) = match action {
            Action::Acquire => (FREE, HELD),
            Action::Release => (HELD, FREE),
        };
        (state == wanted).then_some(next)
    }

    fn observes_only(&self, _action: Action) -> bool {
        false
    }
}

/// The checker of one lock.
#[derive(Default)]
pub struct Mutex {
    calls: Vec<Call<Action>>,
    places: Vec<Place>,
    operations: u64,
}

impl Checker for Mutex {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        self.operations += 1;
        let action = match &*operation.f {
            "acquire" => Action::Acquire,
            "release" => Action::Release,
            _ => return Err(Misfit::function(operation, "acquire, release")),
        };
        if operation.outcome == Outcome::Fail {
            return Ok(());
        }
        self.calls.push(Call {
            action,
            invoked: operation.invoked.position,
            returned: operation.returned(),
            source: self.places.len() as u32,
        });
        self.places.push(Place::of(operation));
        Ok(())
    }

    fn check(self: Box<Self>, budget: &mut Budget<'_>) -> Report {
        let mut report = Report::valid(self.operations);
        let told = explain::Told {
            calls: &self.calls,
            places: &self.places,
            describe: &|action| match action {
                Action::Acquire => "acquire".to_owned(),
                Action::Release => "release".to_owned(),
            },
            state: &|state| match state {
                FREE => "free".to_owned(),
                _ => "held".to_owned(),
            },
        };
        told.conclude(search(&mut Lock, &self.calls, budget), &mut report);
        report
    }
}
