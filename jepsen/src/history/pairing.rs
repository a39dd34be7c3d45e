//! From events to operations, and what a history cannot be.

use std::collections::BTreeMap;
use std::vec::IntoIter;

use super::error::{Problem, ReadError};
use super::{Event, Kind, Moment, Operation, Outcome, Process};
use crate::hash::QuickMap;
use crate::value::Value;

/// How far an event's time may lie before that of an earlier line. Recorders take the time first
/// and the place in the file after, so neighbours change places; whole seconds are another thing.
pub const TIME_DISORDER_MAX_NANOSECONDS: i64 = 1_000_000_000;

/// Operations that the history ends before.
pub(super) type Open = IntoIter<Operation>;

/// Joins invocations with completions, one event after the other.
#[derive(Debug, Default)]
pub struct Pairing {
    position: u64,
    index: Option<i64>,
    latest: Option<(i64, u64)>,
    processes: QuickMap<Process, Standing>,
}

/// What a process is at.
#[derive(Debug)]
enum Standing {
    Open(Box<Event>, u64),
    Done {
        invoked: u64,
        completed: u64,
        time: Option<i64>,
    },
}

impl Pairing {
    /// Takes the next event; gives the operation that it completes.
    ///
    /// # Errors
    ///
    /// The event cannot follow those before it.
    pub fn event(&mut self, event: Event) -> Result<Option<Operation>, ReadError> {
        self.ordered(&event)?;
        let position = self.position;
        self.position += 1;
        if matches!(event.process, Process::Other(_)) {
            return Ok(None);
        }
        match event.kind {
            Kind::Invoke => self.invoke(event, position).map(|()| None),
            Kind::Ok | Kind::Fail | Kind::Info => self.complete(event, position).map(Some),
        }
    }

    /// What is still open at the history's end, in the order of invocation: outcome unknown.
    pub fn finish(self) -> Open {
        let mut open = BTreeMap::new();
        for standing in self.processes.into_values() {
            if let Standing::Open(event, position) = standing {
                open.insert(position, operation(*event, position, None));
            }
        }
        open.into_values().collect::<Vec<_>>().into_iter()
    }

    /// Indexes rise; times do so but for small disorder.
    fn ordered(&mut self, event: &Event) -> Result<(), ReadError> {
        if let (Some(before), Some(index)) = (self.index, event.index)
            && index <= before
        {
            let problem = Problem::IndexBackwards { index, before };
            return Err(ReadError::new(event.line, problem));
        }
        self.index = event.index.or(self.index);
        let Some(time) = event.time_nanoseconds else {
            return Ok(());
        };
        match self.latest {
            Some((before, line)) if time < before.saturating_sub(TIME_DISORDER_MAX_NANOSECONDS) => {
                return Err(backwards(event.line, time, before, line));
            }
            Some((before, _)) if time <= before => {}
            _ => self.latest = Some((time, event.line)),
        }
        Ok(())
    }

    fn invoke(&mut self, event: Event, position: u64) -> Result<(), ReadError> {
        match self.processes.get(&event.process) {
            Some(Standing::Open(open, _)) => {
                let problem = Problem::StillOpen {
                    process: event.process.to_string(),
                    f: event.f.to_string(),
                    invoked: open.line,
                };
                return Err(ReadError::new(event.line, problem));
            }
            Some(Standing::Done {
                completed, time, ..
            }) => not_before(&event, *time, *completed)?,
            None => {}
        }
        let process = event.process.clone();
        self.processes
            .insert(process, Standing::Open(Box::new(event), position));
        Ok(())
    }

    fn complete(&mut self, event: Event, position: u64) -> Result<Operation, ReadError> {
        let standing = self.processes.remove(&event.process);
        let (invocation, invoked_at) = match standing {
            Some(Standing::Open(invocation, position)) => (invocation, position),
            Some(Standing::Done {
                invoked, completed, ..
            }) => {
                let problem = Problem::CompletedTwice {
                    process: event.process.to_string(),
                    f: event.f.to_string(),
                    invoked,
                    completed,
                };
                return Err(ReadError::new(event.line, problem));
            }
            None => {
                let problem = Problem::NotInvoked {
                    process: event.process.to_string(),
                    f: event.f.to_string(),
                };
                return Err(ReadError::new(event.line, problem));
            }
        };
        same_operation(&invocation, &event)?;
        not_before(&event, invocation.time_nanoseconds, invocation.line)?;
        let done = Standing::Done {
            invoked: invocation.line,
            completed: event.line,
            time: event.time_nanoseconds.or(invocation.time_nanoseconds),
        };
        self.processes.insert(event.process.clone(), done);
        Ok(operation(*invocation, invoked_at, Some((event, position))))
    }
}

fn backwards(line: u64, time: i64, before: i64, before_line: u64) -> ReadError {
    let problem = Problem::TimeBackwards {
        time,
        before,
        line: before_line,
    };
    ReadError::new(line, problem)
}

/// One process sees one clock, so its own events do not go back at all.
fn not_before(event: &Event, before: Option<i64>, line: u64) -> Result<(), ReadError> {
    match (event.time_nanoseconds, before) {
        (Some(time), Some(before)) if time < before => {
            Err(backwards(event.line, time, before, line))
        }
        _ => Ok(()),
    }
}

fn same_operation(invocation: &Event, completion: &Event) -> Result<(), ReadError> {
    let (asked, f) = (&invocation.f, &completion.f);
    if asked == f || asked.is_empty() || f.is_empty() {
        return Ok(());
    }
    let problem = Problem::OtherOperation {
        process: completion.process.to_string(),
        f: f.to_string(),
        asked: asked.to_string(),
        invoked: invocation.line,
    };
    Err(ReadError::new(completion.line, problem))
}

fn operation(invocation: Event, position: u64, completion: Option<(Event, u64)>) -> Operation {
    let invoked = Moment {
        position,
        line: invocation.line,
        time_nanoseconds: invocation.time_nanoseconds,
    };
    let (outcome, completed, answered, key) = match completion {
        None => (Outcome::Unknown, None, Value::Nil, None),
        Some((event, position)) => {
            let outcome = match event.kind {
                Kind::Ok => Outcome::Ok,
                Kind::Fail => Outcome::Fail,
                Kind::Info | Kind::Invoke => Outcome::Unknown,
            };
            let moment = Moment {
                position,
                line: event.line,
                time_nanoseconds: event.time_nanoseconds,
            };
            (outcome, Some(moment), event.value, event.key)
        }
    };
    Operation {
        process: invocation.process,
        f: invocation.f,
        key: invocation.key.or(key),
        asked: invocation.value,
        answered,
        invoked,
        completed,
        outcome,
    }
}
