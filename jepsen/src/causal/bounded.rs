//! Reads of a bounded age: each shows at least what had been acknowledged so long before it began.
//!
//! The versions of a key are whole numbers that rise as its writes are ordered; an absent key has
//! none, which is 0. A read asks `{bound_ms}` and answers `{value, version}`. Times are the
//! recording's, so a history without them has no verdict but "not known".

use super::key;
use crate::budget::Budget;
use crate::checker::{Checker, Misfit};
use crate::hash::QuickMap;
use crate::history::{Operation, Outcome};
use crate::intern::Interner;
use crate::report::{Finding, Place, Report};

const NANOSECONDS_PER_MILLISECOND: i64 = 1_000_000;

/// The checker of ages.
#[derive(Default)]
pub struct Bounded {
    keys: Interner,
    /// By key, when which version was acknowledged.
    written: QuickMap<u32, Vec<(i64, i64)>>,
    reads: Vec<Read>,
    operations: u64,
    timeless: u64,
}

struct Read {
    key: u32,
    version: i64,
    /// What had been acknowledged by then must be seen, nanoseconds.
    since: i64,
    bound_ms: i64,
    place: Place,
}

fn whole(operation: &Operation, of: &crate::value::Value, name: &str) -> Result<i64, Misfit> {
    let found = of.field(name).and_then(|value| value.as_int());
    found.ok_or_else(|| Misfit::new(operation, format!("wanted a number `{name}` in `{of}`")))
}

impl Checker for Bounded {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        self.operations += 1;
        let key = self.keys.id(&key(operation)?);
        let is_read = match &*operation.f {
            "read" => true,
            "write" => false,
            _ => return Err(Misfit::function(operation, "read, write")),
        };
        if operation.outcome != Outcome::Ok {
            return Ok(());
        }
        let version = whole(operation, &operation.answered, "version")?;
        let moment = match is_read {
            true => Some(operation.invoked),
            false => operation.completed,
        };
        let Some(time) = moment.and_then(|moment| moment.time_nanoseconds) else {
            self.timeless += 1;
            return Ok(());
        };
        if !is_read {
            self.written.entry(key).or_default().push((time, version));
            return Ok(());
        }
        let bound_ms = whole(operation, &operation.asked, "bound_ms")?;
        self.reads.push(Read {
            key,
            version,
            since: time - bound_ms * NANOSECONDS_PER_MILLISECOND,
            bound_ms,
            place: Place::of(operation),
        });
        Ok(())
    }

    fn check(mut self: Box<Self>, _budget: &mut Budget<'_>) -> Report {
        let mut report = Report::valid(self.operations);
        if self.timeless > 0 {
            return report.not_known("some operations have no time");
        }
        for written in self.written.values_mut() {
            written.sort_unstable();
            let mut highest = i64::MIN;
            for (_, version) in written {
                highest = highest.max(*version);
                *version = highest;
            }
        }
        for read in &self.reads {
            let Some(written) = self.written.get(&read.key) else {
                continue;
            };
            let before = written.partition_point(|(at, _)| *at < read.since);
            let Some((at, version)) = before.checked_sub(1).map(|last| written[last]) else {
                continue;
            };
            if read.version < version {
                let key = self.keys.value(read.key);
                let ago = read.bound_ms + (read.since - at) / NANOSECONDS_PER_MILLISECOND;
                let summary = format!(
                    "a read of key {key} ({}) is at version {}, but version {version} was \
                     acknowledged {ago} ms before it, at least; at most {} ms were asked for",
                    read.place, read.version, read.bound_ms
                );
                report.invalid(Finding::new("past-its-bound", summary));
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::history::operations;
    use crate::{Model, Options, Verdict, check};

    fn verdict(read_at_ms: u64, version: i64) -> Verdict {
        let line = |ms: u64, kind: &str, f: &str, value: &str| {
            let time = ms * 1_000_000;
            format!(
                r#"{{"process":{},"time":{time},"type":"{kind}","f":"{f}","key":1,"value":{value}}}"#,
                u8::from(f == "read")
            )
        };
        let lines = [
            line(0, "invoke", "write", "1"),
            line(10, "ok", "write", r#"{"value":1,"version":1}"#),
            line(20, "invoke", "write", "2"),
            line(30, "ok", "write", r#"{"value":2,"version":2}"#),
            line(read_at_ms, "invoke", "read", r#"{"bound_ms":500}"#),
            line(
                read_at_ms + 1,
                "ok",
                "read",
                &format!(r#"{{"value":{version},"version":{version}}}"#),
            ),
        ];
        let text = lines.join("\n") + "\n";
        let read = operations(text.as_bytes(), Path::new("history.jsonl"));
        let mut budget = crate::Budget::new(&|| false, 1 << 20);
        let report = check(read, Model::Bounded, &Options::default(), &mut budget);
        report.expect("a history").verdict
    }

    #[test]
    fn what_is_older_than_the_bound_must_be_seen() {
        assert_eq!(verdict(529, 1), Verdict::Valid);
        assert_eq!(verdict(529, 0), Verdict::Invalid);
        assert_eq!(verdict(531, 1), Verdict::Invalid);
        assert_eq!(verdict(531, 2), Verdict::Valid);
        assert_eq!(verdict(509, 0), Verdict::Valid);
    }
}
