//! Lists by key, with transactions of reads and appends.
//!
//! All that is committed and was read has a place in its key's order. What was appended and never
//! read came after everything that was. So the graph is complete: if it has no cycle, a serial
//! order exists.

use super::cycles::{Cycles, cycles};
use super::graph::{Edges, Kind, Why};
use super::lattice;
use super::list_versions::{Append, Appends, NONE, Versions};
use super::store::{Act, Store, UNREAD};
use super::verdict::{self, Words};
use crate::budget::{Budget, Spent};
use crate::checker::{Checker, Misfit};
use crate::hash::QuickMap;
use crate::history::{Operation, Outcome};
use crate::report::{Finding, Report};

const WORDS: Words = Words {
    write: "append",
    lists: true,
};

/// The checker of lists.
pub struct ListAppend {
    asked: &'static str,
    closed: bool,
    store: Store,
    appends: Appends,
}

impl ListAppend {
    /// Checks for a consistency (see [`super::parse_consistency`]). If `closed`, nobody else
    /// writes to the keys: what nobody appended must not be read.
    pub fn new(asked: &'static str, closed: bool) -> Self {
        Self {
            asked,
            closed,
            store: Store::default(),
            appends: Appends::default(),
        }
    }

    fn run(&mut self, report: &mut Report, budget: &mut Budget<'_>) -> Result<Cycles, Spent> {
        let mut versions = Versions::infer(&self.store, &mut self.appends, report);
        budget.look()?;
        let mut reads = Reads::default();
        let mut edges = Edges::new(self.store.rows.len() as u32);
        for number in 0..self.store.rows.len() as u32 {
            if self.store.is_ok(number) {
                let mut walk = Walk {
                    store: &self.store,
                    appends: &self.appends,
                    versions: &mut versions,
                    reads: &mut reads,
                    edges: &mut edges,
                    report,
                };
                walk.transaction(number);
            }
        }
        budget.look()?;
        versions.write_edges(&mut edges);
        self.unobserved(&versions, &mut reads, &mut edges);
        let ground = lattice::ground(self.asked);
        let took_place = |number: u32| versions.took_place(&self.store, number);
        self.store.orders(&mut edges, ground, &took_place);
        self.garbage(&versions, report);
        budget.look()?;
        cycles(&edges.into_graph(), ground, budget)
    }

    /// What was appended and never read follows the last append that was, and all who read that.
    fn unobserved(&self, versions: &Versions, reads: &mut Reads, edges: &mut Edges) {
        let mut unread: QuickMap<u32, Vec<u32>> = QuickMap::default();
        for number in 0..self.store.rows.len() as u32 {
            if !versions.took_place(&self.store, number) {
                continue;
            }
            for step in self.store.steps(number) {
                if let Act::Write(element) = step.act
                    && self.appends[&(step.key, element)].position == NONE
                {
                    let writers = unread.entry(step.key).or_default();
                    if writers.last() != Some(&number) {
                        writers.push(number);
                    }
                }
            }
        }
        for (key, writers) in &unread {
            let read = versions.writers(*key).iter().rev();
            let last = read.copied().find(|writer| *writer != NONE);
            let last: Vec<u32> = last.into_iter().collect();
            edges.add_all(&last, writers, Kind::of(Why::WriteWrite));
            if let Some(readers) = reads.of_everything.get_mut(key) {
                readers.dedup();
                edges.add_all(readers, writers, Kind::of(Why::ReadWrite));
            }
        }
    }

    fn garbage(&self, versions: &Versions, report: &mut Report) {
        let count = versions.garbage;
        match (count, self.closed) {
            (0, _) => {}
            (_, true) => {
                let summary = format!("{count} elements were read that nobody appended");
                report.mention(Finding::new("garbage-read", summary));
            }
            (_, false) => report.remarks.push(format!(
                "{count} elements were read that no transaction of the history appended"
            )),
        }
    }
}

impl Checker for ListAppend {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        let number = self.store.add(operation, WORDS.write, WORDS.lists)?;
        let steps = self.store.steps(number);
        for (at, step) in steps.iter().enumerate() {
            let Act::Write(element) = step.act else {
                continue;
            };
            let more = |later: &super::store::Step| {
                later.key == step.key && matches!(later.act, Act::Write(_))
            };
            let append = Append {
                transaction: number,
                last: !steps[at + 1..].iter().any(more),
                position: NONE,
            };
            if self.appends.insert((step.key, element), append).is_some() {
                let (key, value) = (
                    self.store.keys.value(step.key),
                    self.store.values.value(element),
                );
                let what = format!("{value} is appended to key {key} twice: elements are unique");
                return Err(Misfit::new(operation, what));
            }
        }
        Ok(())
    }

    fn check(mut self: Box<Self>, budget: &mut Budget<'_>) -> Report {
        let mut report = Report::valid(self.store.rows.len() as u64);
        match self.run(&mut report, budget) {
            Ok(cycles) => {
                verdict::tell(&cycles, &self.store, &WORDS, &mut report);
                verdict::decide(&mut report, self.asked, cycles.partial);
            }
            Err(spent) => {
                verdict::decide(&mut report, self.asked, false);
                report.unknown(spent);
            }
        }
        report
    }
}

/// What was gathered of all reads.
#[derive(Default)]
struct Reads {
    /// Per key, the transactions that read all that anybody ever read of it.
    of_everything: QuickMap<u32, Vec<u32>>,
    /// Who read a version, by key and length, and then wrote the key.
    updates: QuickMap<(u32, u32), u32>,
}

/// What a transaction knows of a key so far.
struct Known {
    key: u32,
    /// The first read's list: where, and how long.
    read: Option<(u32, u32)>,
    /// The length of the version that it read from others.
    version: Option<u32>,
    appended: Vec<u32>,
}

/// One pass over a committed transaction.
struct Walk<'a> {
    store: &'a Store,
    appends: &'a Appends,
    versions: &'a mut Versions,
    reads: &'a mut Reads,
    edges: &'a mut Edges,
    report: &'a mut Report,
}

impl Walk<'_> {
    fn transaction(&mut self, number: u32) {
        let mut known: Vec<Known> = Vec::new();
        for step in self.store.steps(number) {
            let at = known.iter().position(|known| known.key == step.key);
            let at = at.unwrap_or_else(|| {
                known.push(Known {
                    key: step.key,
                    read: None,
                    version: None,
                    appended: Vec::new(),
                });
                known.len() - 1
            });
            match step.act {
                Act::Write(element) => {
                    known[at].appended.push(element);
                    if let (Some(version), 1) = (known[at].version, known[at].appended.len()) {
                        self.update(number, step.key, version);
                    }
                }
                Act::Read(UNREAD, _) => {}
                Act::Read(begin, length) => self.read(number, &mut known[at], begin, length),
            }
        }
    }

    fn told(&self, number: u32) -> String {
        self.store.describe(number, WORDS.write, WORDS.lists)
    }

    /// Two transactions that both built on one version.
    fn update(&mut self, number: u32, key: u32, version: u32) {
        let first = *self.reads.updates.entry((key, version)).or_insert(number);
        if first != number {
            let key = self.store.keys.value(key);
            let summary = format!(
                "two transactions read the same version of key {key}, and both appended to it"
            );
            let steps = vec![self.told(first), self.told(number)];
            self.report
                .mention(Finding::new("lost-update", summary).steps(steps));
        }
    }

    fn read(&mut self, number: u32, known: &mut Known, begin: u32, length: u32) {
        let list = self.store.list(begin, length);
        let fits = match known.read {
            Some((begin, length)) => {
                let before = self.store.list(begin, length);
                list.len() == before.len() + known.appended.len()
                    && list.starts_with(before)
                    && list.ends_with(&known.appended)
            }
            None => list.ends_with(&known.appended),
        };
        if !fits {
            self.internal(number, known, list);
        }
        if fits && known.read.is_some() {
            return;
        }
        let own = if fits { known.appended.len() as u32 } else { 0 };
        if fits {
            // Further appends of its own are counted from here.
            known.read = Some((begin, length));
            known.appended.clear();
        }
        let order = self.versions.order(self.store, known.key);
        if !order.starts_with(list) {
            self.incompatible(number, known.key, list);
            return;
        }
        if own == 0 {
            known.version = Some(length);
        }
        self.version(number, known.key, length - own);
    }

    /// Adds what follows from a read of a key's first elements.
    fn version(&mut self, number: u32, key: u32, length: u32) {
        let writers = self.versions.writers(key);
        let (before, after) = writers.split_at(length as usize);
        if let Some(writer) = before.iter().rev().find(|writer| **writer != NONE) {
            self.edges.add(*writer, number, Kind::of(Why::WriteRead));
        }
        match after.iter().find(|writer| **writer != NONE) {
            Some(writer) => self.edges.add(number, *writer, Kind::of(Why::ReadWrite)),
            None => self
                .reads
                .of_everything
                .entry(key)
                .or_default()
                .push(number),
        }
        let last = length
            .checked_sub(1)
            .map(|at| self.versions.order(self.store, key)[at as usize]);
        let append = last.and_then(|element| self.appends.get(&(key, element)));
        let Some(append) = append else {
            return;
        };
        let own = append.transaction == number;
        let failed = self.store.rows[append.transaction as usize].outcome == Outcome::Fail;
        let key = self.store.keys.value(key);
        let (anomaly, what) = match (own, failed, append.last) {
            (true, ..) => ("future-read", "what it appends only later"),
            (false, false, false) => ("G1b", "another transaction half done"),
            (false, true, _) | (false, false, true) => return,
        };
        let summary = format!("a transaction's read of key {key} shows {what}");
        let mut steps = vec![self.told(append.transaction), self.told(number)];
        steps.dedup();
        let finding = Finding::new(anomaly, summary).steps(steps);
        self.report.mention(finding);
    }

    fn internal(&mut self, number: u32, known: &Known, list: &[u32]) {
        let key = self.store.keys.value(known.key);
        let list: Vec<String> = list
            .iter()
            .map(|id| self.store.values.value(*id).to_string())
            .collect();
        let summary = format!(
            "a transaction's read of key {key}, [{}], does not fit what it read and appended before",
            list.join(" ")
        );
        let steps = vec![self.told(number)];
        self.report
            .mention(Finding::new("internal", summary).steps(steps));
    }

    fn incompatible(&mut self, number: u32, key: u32, list: &[u32]) {
        self.versions.see(self.store, self.appends, key, list);
        let longest = self.versions.order(self.store, key).iter();
        let longest: Vec<String> = longest
            .map(|id| self.store.values.value(*id).to_string())
            .collect();
        let key = self.store.keys.value(key);
        let summary = format!("two reads of key {key} cannot both come from one order of appends");
        let steps = vec![
            self.told(number),
            format!("another read: [{}]", longest.join(" ")),
        ];
        self.report
            .mention(Finding::new("incompatible-order", summary).steps(steps));
    }
}
