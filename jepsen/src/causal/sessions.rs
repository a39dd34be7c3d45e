//! The four session guarantees, per process and key, by the versions that the store tells.
//!
//! Reads and writes answer `{value, version}`; versions of a key are whole numbers that rise as
//! its writes are ordered (a revision); an absent key has none, which is 0. (Terry et al.,
//! "Session Guarantees for Weakly Consistent Replicated Data", 1994.)

use std::collections::BTreeMap;

use super::key;
use crate::budget::Budget;
use crate::checker::{Checker, Misfit};
use crate::hash::QuickMap;
use crate::history::{Operation, Outcome};
use crate::intern::Interner;
use crate::report::{Finding, Place, Report};

/// The checker of sessions. A process is a session.
#[derive(Default)]
pub struct Sessions {
    keys: Interner,
    /// Per process, what it did, by position of the invocation.
    sessions: BTreeMap<crate::history::Process, BTreeMap<u64, Act>>,
    operations: u64,
}

#[derive(Clone, Copy)]
struct Act {
    key: u32,
    is_read: bool,
    version: i64,
    place: Place,
}

/// The highest versions that a session knows of a key.
#[derive(Clone, Copy, Default)]
struct Known {
    read: Option<(i64, Place)>,
    written: Option<(i64, Place)>,
}

impl Checker for Sessions {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        self.operations += 1;
        let is_read = match &*operation.f {
            "read" => true,
            "write" => false,
            _ => return Err(Misfit::function(operation, "read, write")),
        };
        let key = self.keys.id(&key(operation)?);
        if operation.outcome != Outcome::Ok {
            return Ok(());
        }
        let answered = &operation.answered;
        let version = match answered.field("version") {
            Some(version) => version.as_int(),
            None => (is_read && answered.is_nil()).then_some(0),
        };
        let version = version.ok_or_else(|| {
            let what = format!("wanted an answer {{value, version}}, found `{answered}`");
            Misfit::new(operation, what)
        })?;
        let act = Act {
            key,
            is_read,
            version,
            place: Place::of(operation),
        };
        let session = self.sessions.entry(operation.process.clone()).or_default();
        session.insert(operation.invoked.position, act);
        Ok(())
    }

    fn check(self: Box<Self>, _budget: &mut Budget<'_>) -> Report {
        let mut report = Report::valid(self.operations);
        for session in self.sessions.values() {
            let mut known: QuickMap<u32, Known> = QuickMap::default();
            for act in session.values() {
                self.act(known.entry(act.key).or_default(), act, &mut report);
            }
        }
        report
    }
}

impl Sessions {
    fn act(&self, known: &mut Known, act: &Act, report: &mut Report) {
        let rules = match act.is_read {
            true => [
                ("read-your-writes", known.written),
                ("monotonic-reads", known.read),
            ],
            false => [
                ("monotonic-writes", known.written),
                ("writes-follow-reads", known.read),
            ],
        };
        for (name, before) in rules {
            let Some((version, place)) = before else {
                continue;
            };
            // A write makes a version of its own, so it must be past what was known.
            let broken = act.version < version || (!act.is_read && act.version == version);
            if broken {
                let key = self.keys.value(act.key);
                let what = if act.is_read { "read" } else { "write" };
                let summary = format!(
                    "a {what} of key {key} ({}) is at version {}, but its session knew version \
                     {version} ({place})",
                    act.place, act.version
                );
                report.invalid(Finding::new(name, summary));
            }
        }
        let known = if act.is_read {
            &mut known.read
        } else {
            &mut known.written
        };
        if known.is_none_or(|(version, _)| version < act.version) {
            *known = Some((act.version, act.place));
        }
    }
}
