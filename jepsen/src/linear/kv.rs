//! Strings by key with `get`, `put` and `append`, as in the lectures' key-value store: an absent
//! key is the empty string.

use super::explain;
use super::{Call, Linear, Model, State, search};
use crate::budget::{Budget, Spent};
use crate::checker::{Checker, Misfit};
use crate::hash::QuickMap;
use crate::history::{Operation, Outcome};
use crate::report::{Place, Report, Verdict};
use crate::value::Value;

/// What is done to one key's string; strings are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Get(State),
    Put(State),
    Append(State),
}

/// Steps that each key is given at first.
const STEPS_FIRST: u64 = 100_000;
/// How many times as many it is given in each further round.
const STEPS_GROWTH: u64 = 8;
/// The string in the beginning.
const EMPTY: State = 0;

/// Numbers for strings, and what appending makes of two of them.
struct Strings {
    numbers: QuickMap<Box<str>, State>,
    strings: Vec<Box<str>>,
    appended: QuickMap<(State, State), State>,
}

impl Default for Strings {
    fn default() -> Self {
        let mut strings = Self {
            numbers: QuickMap::default(),
            strings: Vec::new(),
            appended: QuickMap::default(),
        };
        let empty = strings.id("");
        debug_assert_eq!(empty, EMPTY, "the empty string is the first");
        strings
    }
}

impl Strings {
    fn id(&mut self, string: &str) -> State {
        if let Some(id) = self.numbers.get(string) {
            return *id;
        }
        let id = self.strings.len() as State;
        self.strings.push(string.into());
        self.numbers.insert(string.into(), id);
        id
    }
}

impl Model for Strings {
    type Action = Action;

    fn initial(&self) -> State {
        EMPTY
    }

    fn step(&mut self, state: State, action: Action) -> Option<State> {
        match action {
            Action::Get(seen) => (seen == state).then_some(state),
            Action::Put(string) => Some(string),
            Action::Append(string) => {
                if let Some(whole) = self.appended.get(&(state, string)) {
                    return Some(*whole);
                }
                let parts = [state, string].map(|id| &*self.strings[id as usize]);
                let whole = self.id(&parts.concat());
                self.appended.insert((state, string), whole);
                Some(whole)
            }
        }
    }

    fn observes_only(&self, action: Action) -> bool {
        matches!(action, Action::Get(_))
    }

    fn discards(&self, action: Action) -> bool {
        matches!(action, Action::Put(_))
    }

    fn leads_to(&self, state: State, action: Action) -> bool {
        match action {
            Action::Put(_) | Action::Append(_) => true,
            Action::Get(seen) => {
                let [seen, state] = [seen, state].map(|id| &*self.strings[id as usize]);
                seen.starts_with(state)
            }
        }
    }
}

/// The checker of all keys.
#[derive(Default)]
pub struct AppendKv {
    strings: Strings,
    keys: Vec<(Value, Vec<Call<Action>>)>,
    numbers: QuickMap<Value, usize>,
    places: Vec<Place>,
    operations: u64,
}

impl AppendKv {
    fn string(&mut self, operation: &Operation, value: &Value) -> Result<State, Misfit> {
        match value {
            Value::Nil => Ok(EMPTY),
            Value::Text(text) => Ok(self.strings.id(text)),
            Value::Bool(_) | Value::Int(_) | Value::Real(_) | Value::List(_) | Value::Map(_) => {
                let what = format!("values are strings, not `{value}`");
                Err(Misfit::new(operation, what))
            }
        }
    }

    fn action(&mut self, operation: &Operation) -> Result<Option<Action>, Misfit> {
        Ok(match &*operation.f {
            "get" if operation.outcome == Outcome::Ok => {
                Some(Action::Get(self.string(operation, &operation.answered)?))
            }
            "get" => None,
            "put" => Some(Action::Put(self.string(operation, operation.known())?)),
            "append" => Some(Action::Append(self.string(operation, operation.known())?)),
            _ => return Err(Misfit::function(operation, "get, put, append")),
        })
    }

    fn key(&mut self, operation: &Operation) -> Result<usize, Misfit> {
        let Some(key) = &operation.key else {
            return Err(Misfit::new(operation, "it has no `key`"));
        };
        if let Some(number) = self.numbers.get(key) {
            return Ok(*number);
        }
        self.numbers.insert(key.clone(), self.keys.len());
        self.keys.push((key.clone(), Vec::new()));
        Ok(self.keys.len() - 1)
    }
}

impl Checker for AppendKv {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        self.operations += 1;
        let key = self.key(operation)?;
        let action = self.action(operation)?;
        let Some(action) = action.filter(|_| operation.outcome != Outcome::Fail) else {
            return Ok(());
        };
        self.keys[key].1.push(Call {
            action,
            invoked: operation.invoked.position,
            returned: operation.returned(),
            source: self.places.len() as u32,
        });
        self.places.push(Place::of(operation));
        Ok(())
    }

    /// The hardest key of an invalid history may take a thousand times as long as the others, and
    /// one invalid key is enough. So all are tried a little, then those left a little more.
    fn check(mut self: Box<Self>, budget: &mut Budget<'_>) -> Report {
        let mut report = Report::valid(self.operations);
        let keys = std::mem::take(&mut self.keys);
        let mut left: Vec<&(Value, Vec<Call<Action>>)> = keys.iter().collect();
        let mut steps = STEPS_FIRST;
        while !left.is_empty() && report.verdict != Verdict::Invalid {
            left.retain(|(key, calls)| {
                budget.grant(steps);
                match search(&mut self.strings, calls, budget) {
                    Linear::Unknown(Spent::Steps) => true,
                    decided => {
                        report.absorb(&key.to_string(), self.told(calls, decided));
                        false
                    }
                }
            });
            steps = steps.saturating_mul(STEPS_GROWTH);
        }
        budget.grant(u64::MAX);
        if !left.is_empty() {
            let count = left.len();
            let remark = format!("{count} further keys were not decided: one invalid is enough");
            report.remarks.push(remark);
        }
        report
    }
}

impl AppendKv {
    fn told(&self, calls: &[Call<Action>], decided: Linear) -> Report {
        let mut part = Report::valid(0);
        let string = |id: State| format!("{:?}", self.strings.strings[id as usize]);
        let told = explain::Told {
            calls,
            places: &self.places,
            describe: &|action| match action {
                Action::Get(seen) => format!("get {}", string(seen)),
                Action::Put(put) => format!("put {}", string(put)),
                Action::Append(end) => format!("append {}", string(end)),
            },
            state: &string,
        };
        told.conclude(decided, &mut part);
        part
    }
}
