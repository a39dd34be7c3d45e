//! What is known of all writes: what each client had seen when it wrote, what it was promised, and
//! where in real time the log's operations lie. Reads are judged as they come.
//!
//! Not here: the judgement at the end (`judge`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_types::causal::{Actor, Delta, Dot, Dots, Intervals};
use tokio::time::Instant;

use crate::asking::Shown;

/// What a client knows of its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It may have taken effect, and may still.
    Unknown,
    Acknowledged,
    /// It has no effect.
    Nothing,
}

/// One write, whatever names it was given.
#[derive(Clone, Debug)]
pub struct Write {
    pub key: String,
    /// Unique; none for a delete.
    pub value: Option<Bytes>,
    /// What its client had been shown: it replaces that on every plane.
    pub replaces: BTreeSet<Dot>,
    /// That, and what those replace.
    past: BTreeSet<Dot>,
    /// A strong put or delete replaces all that is committed as well.
    pub strong: bool,
    pub fate: Fate,
    pub began: Instant,
    /// When its client was told what became of it.
    pub ended: Option<Instant>,
    /// A read of the log has shown it. What eventual reads alone showed may be lost with the
    /// memory of its coordinator.
    pub decided: bool,
    /// Of a strong write that was acknowledged.
    pub revision: u64,
    /// Of a compare-and-set: what had to be there; 0: nothing.
    pub expected: Option<u64>,
}

/// An operation of the log with its place in real time.
#[derive(Clone, Debug)]
pub struct Point {
    pub key: String,
    pub began: Instant,
    pub ended: Instant,
    /// What it showed or made; `None`: that there is no such key.
    pub revision: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Ledger {
    /// What happened, where `QUORATE_TRACE` asks for it.
    pub trace: Vec<String>,
    pub writes: Vec<Write>,
    by_value: BTreeMap<Bytes, usize>,
    by_dot: BTreeMap<Dot, usize>,
    /// Names of values that clients were told to be stored.
    pub promised: BTreeMap<Dot, usize>,
    pub points: Vec<Point>,
    /// What reads of the log showed of each version.
    pub versions: BTreeMap<(String, u64), BTreeSet<Dot>>,
}

/// Whether what happens is to be noted.
fn is_traced() -> bool {
    crate::run::number_from("QUORATE_TRACE").is_some()
}

/// Dots on one line.
pub fn brief(dots: &Dots) -> String {
    let part = |(actor, counters): (Actor, &Intervals)| {
        let ranges: Vec<String> = counters.ranges().map(|(a, b)| format!("{a}-{b}")).collect();
        format!("{actor}:{}", ranges.join(","))
    };
    dots.actors().map(part).collect::<Vec<_>>().join(" ")
}

impl Ledger {
    /// Notes what happened, for those who look for a cause.
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if is_traced() {
            self.trace.push(what());
        }
    }

    /// A coordinator has named a write.
    pub fn named(&mut self, deltas: &[Bytes]) {
        for delta in deltas {
            let delta = Delta::decode(delta).unwrap();
            self.note(|| {
                format!(
                    "{} is named, {:?}, past {}",
                    delta.dot,
                    delta.value,
                    brief(&delta.context)
                )
            });
            let value = delta.value.as_ref();
            if let Some(write) = value.and_then(|value| self.by_value.get(value)) {
                self.by_dot.insert(delta.dot, *write);
            }
        }
    }

    /// A client is about to write.
    pub fn begin(
        &mut self,
        key: &str,
        value: Option<&str>,
        replaces: BTreeSet<Dot>,
        strong: bool,
        expected: Option<u64>,
    ) -> usize {
        let number = self.writes.len();
        let mut past = replaces.clone();
        for dot in &replaces {
            if let Some(write) = self.by_dot.get(dot) {
                past.extend(&self.writes[*write].past);
            }
        }
        let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        if let Some(value) = &value {
            self.by_value.insert(value.clone(), number);
        }
        self.writes.push(Write {
            key: key.to_owned(),
            value,
            replaces,
            past,
            strong,
            fate: Fate::Unknown,
            began: Instant::now(),
            ended: None,
            decided: false,
            revision: 0,
            expected,
        });
        number
    }

    /// A client was told that its write is stored, under this name.
    pub fn acknowledged(&mut self, number: usize, dot: Dot, revision: u64) {
        let write = &mut self.writes[number];
        write.fate = Fate::Acknowledged;
        write.ended = Some(Instant::now());
        write.revision = revision;
        if write.value.is_some() {
            self.by_dot.insert(dot, number);
            self.promised.insert(dot, number);
        }
    }

    /// A client was told that its write has no effect.
    pub fn undone(&mut self, number: usize) {
        self.writes[number].fate = Fate::Nothing;
    }

    pub fn point(&mut self, key: &str, began: Instant, revision: Option<u64>) {
        self.points.push(Point {
            key: key.to_owned(),
            began,
            ended: Instant::now(),
            revision,
        });
    }

    /// Names of a key's writes that are known by now.
    pub fn names_of<'a>(&'a self, key: &'a str) -> impl Iterator<Item = Dot> + 'a {
        let ours = move |(_, number): &(&Dot, &usize)| self.writes[**number].key == key;
        self.by_dot.iter().filter(ours).map(|(dot, _)| *dot)
    }

    /// The write of a name.
    pub fn write_of(&self, dot: Dot) -> Option<&Write> {
        self.by_dot.get(&dot).map(|number| &self.writes[*number])
    }

    /// What a read claims to have seen and does not show, though nobody can have replaced it: the
    /// next write with that context would kill it.
    pub fn judge_context(&self, key: &str, shown: &Shown, context: &Dots) -> Option<String> {
        let hidden = |dot: &Dot| context.contains(*dot) && !shown.values.contains_key(dot);
        let hidden = self.promised.iter().find(|(dot, number)| {
            let written = &self.writes[**number];
            let may_replace = |write: &Write| {
                let sweeps = write.strong && write.ended.is_none_or(|at| at >= written.began);
                write.fate != Fate::Nothing && (sweeps || write.replaces.contains(dot))
            };
            let ours = written.key == key && hidden(dot);
            ours && !self.writes.iter().any(|w| w.key == key && may_replace(w))
        });
        let (dot, _) = hidden?;
        Some(format!("{key}: {dot} is said to be seen, and is not shown"))
    }

    /// What is wrong with what a read showed, if anything.
    pub fn judge_read(&mut self, key: &str, shown: &Shown, decided: bool) -> Option<String> {
        for (dot, value) in &shown.values {
            let Some(number) = self.by_value.get(value).copied() else {
                return Some(format!("{key} shows {value:?}, which nobody wrote"));
            };
            if *self.by_dot.entry(*dot).or_insert(number) != number {
                return Some(format!("{key} shows {value:?} under the name of another"));
            }
            let write = &mut self.writes[number];
            write.decided |= decided;
            if write.key != key {
                return Some(format!("{key} shows {value:?}, which is another key's"));
            }
            if write.fate == Fate::Nothing {
                return Some(format!("{key} shows {value:?}, which was refused"));
            }
        }
        let dots: BTreeSet<Dot> = shown.values.keys().copied().collect();
        for dot in &dots {
            let past = &self.write_of(*dot)?.past;
            if let Some(replaced) = dots.iter().find(|other| past.contains(other)) {
                return Some(format!(
                    "{key} shows {replaced} beside {dot}, which had replaced it"
                ));
            }
        }
        if decided && shown.revision != 0 {
            let version = (key.to_owned(), shown.revision);
            let before = self.versions.entry(version).or_insert_with(|| dots.clone());
            if *before != dots {
                let revision = shown.revision;
                return Some(format!(
                    "{key} at {revision} shows {before:?}, and {dots:?}"
                ));
            }
        }
        None
    }
}
