//! Transactions as compact rows: what each did, to which key, in which order.

use super::graph::{Edges, Ground, Kind, Why};
use crate::checker::Misfit;
use crate::hash::QuickMap;
use crate::history::{Operation, Outcome, Process};
use crate::intern::Interner;
use crate::report::Place;
use crate::value::Value;

/// Nothing was read: the transaction's outcome is not known.
pub(super) const UNREAD: u32 = u32::MAX;

/// What one step of a transaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Wrote or appended a value.
    Write(u32),
    /// Read: where the value begins, and how long it is. `UNREAD` if that is not known.
    Read(u32, u32),
}

/// One step of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) key: u32,
    pub(super) act: Act,
}

/// One transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) outcome: Outcome,
    pub(super) process: u32,
    pub(super) invoked: u64,
    pub(super) returned: u64,
    pub(super) place: Place,
    steps: u32,
}

/// All transactions of a history.
#[derive(Default)]
pub(super) struct Store {
    pub(super) rows: Vec<Row>,
    steps: Vec<Step>,
    /// What reads saw, one behind the other.
    pub(super) seen: Vec<u32>,
    pub(super) keys: Interner,
    pub(super) values: Interner,
    processes: QuickMap<Process, u32>,
    /// Per key, the longest list that was read so far: where it begins, and how long it is.
    longest: Vec<(u32, u32)>,
}

impl Store {
    /// Takes an operation apart. `write` is what the model calls a write; lists are read if
    /// `lists`, else single values.
    pub(super) fn add(
        &mut self,
        operation: &Operation,
        write: &str,
        lists: bool,
    ) -> Result<u32, Misfit> {
        let Some(parts) = operation.known().as_list() else {
            let what = format!(
                "a transaction is a list of steps, not `{}`",
                operation.known()
            );
            return Err(Misfit::new(operation, what));
        };
        let number = self.rows.len() as u32;
        for part in parts {
            let step = self.step(operation, part, write, lists)?;
            self.steps.push(step);
        }
        let next = self.processes.len() as u32;
        let process = *self
            .processes
            .entry(operation.process.clone())
            .or_insert(next);
        self.rows.push(Row {
            outcome: operation.outcome,
            process,
            invoked: operation.invoked.position,
            returned: operation.returned(),
            place: Place::of(operation),
            steps: self.steps.len() as u32,
        });
        Ok(number)
    }

    fn step(
        &mut self,
        operation: &Operation,
        part: &Value,
        write: &str,
        lists: bool,
    ) -> Result<Step, Misfit> {
        let wrong = || {
            let what = format!("`{part}` is no step: wanted [r KEY VALUE] or [{write} KEY VALUE]");
            Misfit::new(operation, what)
        };
        let Some([name, key, value]) = part.as_list() else {
            return Err(wrong());
        };
        let name = name.as_text().ok_or_else(wrong)?;
        let key = self.keys.id(key);
        let act = match name {
            "r" | "read" if operation.outcome != Outcome::Ok => Act::Read(UNREAD, 0),
            "r" | "read" => self.read(key, value, lists).ok_or_else(wrong)?,
            _ if name == write || (!lists && name == "write") => Act::Write(self.values.id(value)),
            _ => return Err(wrong()),
        };
        Ok(Step { key, act })
    }

    fn read(&mut self, key: u32, value: &Value, lists: bool) -> Option<Act> {
        if lists {
            let list = if value.is_nil() {
                &[]
            } else {
                value.as_list()?
            };
            return Some(self.read_list(key, list));
        }
        let begin = self.seen.len() as u32;
        let value = self.values.id(value);
        self.seen.push(value);
        Some(Act::Read(begin, 1))
    }

    /// Most lists begin as the longest one so far does: comparing is quicker than looking up, and
    /// what is a part of it is not kept again.
    fn read_list(&mut self, key: u32, list: &[Value]) -> Act {
        let key = key as usize;
        if self.longest.len() <= key {
            self.longest.resize(key + 1, (0, 0));
        }
        let (begin, length) = self.longest[key];
        let known = begin as usize..(begin + length) as usize;
        let same = list.iter().zip(&self.seen[known]);
        let same = same.take_while(|(value, id)| self.values.value(**id) == *value);
        let same = same.count();
        if same == list.len() {
            return Act::Read(begin, same as u32);
        }
        let fresh = self.seen.len() as u32;
        self.seen
            .extend_from_within(begin as usize..begin as usize + same);
        for value in &list[same..] {
            let id = self.values.id(value);
            self.seen.push(id);
        }
        let count = list.len() as u32;
        if count > length {
            self.longest[key] = (fresh, count);
        }
        Act::Read(fresh, count)
    }

    /// The steps of a transaction.
    pub(super) fn steps(&self, number: u32) -> &[Step] {
        let number = number as usize;
        let begin = number
            .checked_sub(1)
            .map_or(0, |before| self.rows[before].steps);
        &self.steps[begin as usize..self.rows[number].steps as usize]
    }

    /// What a read saw.
    pub(super) fn list(&self, begin: u32, length: u32) -> &[u32] {
        &self.seen[begin as usize..(begin + length) as usize]
    }

    /// Whether a transaction certainly took place.
    pub(super) fn is_ok(&self, number: u32) -> bool {
        self.rows[number as usize].outcome == Outcome::Ok
    }

    /// Adds the orders of processes and of time, between transactions that took place.
    pub(super) fn orders(
        &self,
        edges: &mut Edges,
        ground: Ground,
        took_place: &dyn Fn(u32) -> bool,
    ) {
        let numbers = 0..self.rows.len() as u32;
        let mut rows: Vec<u32> = numbers.filter(|number| took_place(*number)).collect();
        rows.sort_unstable_by_key(|number| self.rows[*number as usize].invoked);
        if ground >= Ground::Session {
            self.sessions(edges, &rows);
        }
        if ground >= Ground::Realtime {
            self.realtime(edges, &rows);
        }
    }

    fn sessions(&self, edges: &mut Edges, rows: &[u32]) {
        let mut last: QuickMap<u32, u32> = QuickMap::default();
        for number in rows {
            if let Some(before) = last.insert(self.rows[*number as usize].process, *number) {
                edges.add(before, *number, Kind::on(Why::Order, Ground::Session));
            }
        }
    }

    /// One row of joints along the returns: each return leads to its joint, each joint to the
    /// next, and the last joint before an invocation to what is invoked.
    fn realtime(&self, edges: &mut Edges, rows: &[u32]) {
        let mut returns: Vec<(u64, u32)> = rows
            .iter()
            .map(|number| (self.rows[*number as usize].returned, *number))
            .filter(|(returned, _)| *returned != u64::MAX)
            .collect();
        returns.sort_unstable();
        let link = Kind::of(Why::Link);
        let mut joint: Option<u32> = None;
        let mut returns = returns.into_iter().peekable();
        for number in rows {
            let invoked = self.rows[*number as usize].invoked;
            let mut fresh = None;
            while let Some((_, before)) = returns.next_if(|(returned, _)| *returned < invoked) {
                let next = *fresh.get_or_insert_with(|| edges.joint());
                edges.add(before, next, Kind::on(Why::Order, Ground::Realtime));
            }
            if let Some(fresh) = fresh {
                if let Some(joint) = joint {
                    edges.add(joint, fresh, link);
                }
                joint = Some(fresh);
            }
            if let Some(joint) = joint {
                edges.add(joint, *number, link);
            }
        }
    }

    /// A transaction in words.
    pub(super) fn describe(&self, number: u32, write: &str, lists: bool) -> String {
        const ELEMENTS_SHOWN_MAX: usize = 12;
        let steps = self.steps(number).iter().map(|step| {
            let key = self.keys.value(step.key);
            match step.act {
                Act::Write(value) => format!("{write} {key} {}", self.values.value(value)),
                Act::Read(UNREAD, _) => format!("r {key} ?"),
                Act::Read(begin, length) => {
                    let list = self.list(begin, length).iter();
                    let mut shown: Vec<String> = list
                        .map(|value| self.values.value(*value).to_string())
                        .collect();
                    if shown.len() > ELEMENTS_SHOWN_MAX {
                        let cut = shown.len() - ELEMENTS_SHOWN_MAX;
                        shown.splice(..cut, [format!("…{cut} more")]);
                    }
                    match lists {
                        true => format!("r {key} [{}]", shown.join(" ")),
                        false => format!("r {key} {}", shown.join(" ")),
                    }
                }
            }
        });
        let steps: Vec<String> = steps.collect();
        let place = self.rows[number as usize].place;
        format!("[{}] ({place})", steps.join(", "))
    }
}
