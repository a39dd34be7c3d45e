//! Registers by key, with transactions of reads and writes; each value is written once.
//!
//! Values do not tell their order, so it is inferred: nil comes first; what a transaction writes
//! follows what it read; and where the consistency that was asked for orders sessions or time,
//! versions follow each other as the transactions that touch them do. For histories of up to
//! [`EXACT_MAX_TRANSACTIONS`] the orders left open are then tried.

use super::components::components;
use super::cycles::{Cycles, cycles};
use super::graph::{Allowed, Edges, Graph, Ground, Kind, Why};
use super::lattice;
use super::order::{EXACT_MAX_TRANSACTIONS, Exact, exists};
use super::register_order::{Touch, touched_in_order};
use super::store::{Act, Store, UNREAD};
use super::verdict::{self, Words};
use crate::budget::{Budget, Spent};
use crate::checker::{Checker, Misfit};
use crate::hash::QuickMap;
use crate::history::{Operation, Outcome};
use crate::report::{Finding, Report};
use crate::value::Value;

const WORDS: Words = Words {
    write: "w",
    lists: false,
};

/// Nobody.
const NONE: u32 = u32::MAX;

/// The checker of registers.
pub struct RwRegister {
    asked: &'static str,
    closed: bool,
    store: Store,
    versions: Vec<Version>,
    numbers: QuickMap<(u32, u32), u32>,
}

/// One value of one key.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) key: u32,
    value: u32,
    /// Who wrote it; nobody for nil, and for what the history does not tell.
    pub(super) writer: u32,
    /// Its writer writes nothing more to the key.
    last: bool,
    /// Who read it from others.
    pub(super) readers: Vec<u32>,
}

impl RwRegister {
    /// Checks for a consistency (see [`super::parse_consistency`]). If `closed`, nobody else
    /// writes to the keys: what nobody wrote must not be read.
    pub fn new(asked: &'static str, closed: bool) -> Self {
        Self {
            asked,
            closed,
            store: Store::default(),
            versions: Vec::new(),
            numbers: QuickMap::default(),
        }
    }

    fn version(&mut self, key: u32, value: u32) -> u32 {
        let next = self.versions.len() as u32;
        let number = *self.numbers.entry((key, value)).or_insert(next);
        if number == next {
            self.versions.push(Version {
                key,
                value,
                writer: NONE,
                last: false,
                readers: Vec::new(),
            });
        }
        number
    }

    fn is_nil(&self, version: u32) -> bool {
        let version = &self.versions[version as usize];
        version.writer == NONE && self.store.values.value(version.value).is_nil()
    }

    fn told(&self, number: u32) -> String {
        self.store.describe(number, WORDS.write, WORDS.lists)
    }

    fn run(&mut self, report: &mut Report, budget: &mut Budget<'_>) -> Result<Cycles, Spent> {
        let mut touches = Vec::new();
        let mut garbage = 0;
        for number in 0..self.store.rows.len() as u32 {
            self.transaction(number, &mut touches, &mut garbage, report);
        }
        budget.look()?;
        self.lost_updates(&touches, report);
        self.say_garbage(garbage, report);
        let ground = lattice::ground(self.asked);
        let took_place: Vec<bool> = self.took_place();
        touches.retain(|touch| took_place[touch.transaction as usize]);
        let order = self.version_order(&touches, ground);
        self.cyclic(&order, ground, report);
        let mut edges = Edges::new(self.store.rows.len() as u32);
        self.edges(&order, &took_place, &mut edges);
        self.store
            .orders(&mut edges, ground, &|number| took_place[number as usize]);
        budget.look()?;
        let graph = edges.into_graph();
        let cycles = cycles(&graph, ground, budget)?;
        if cycles.found.is_empty() && report.findings.is_empty() {
            self.exact(&graph, &took_place, report, budget)?;
        }
        Ok(cycles)
    }

    /// Who certainly took place: what answered, and what somebody saw.
    fn took_place(&self) -> Vec<bool> {
        let rows = 0..self.store.rows.len() as u32;
        let mut took_place: Vec<bool> = rows.map(|number| self.store.is_ok(number)).collect();
        for version in &self.versions {
            if version.writer != NONE && !version.readers.is_empty() {
                let outcome = self.store.rows[version.writer as usize].outcome;
                took_place[version.writer as usize] |= outcome == Outcome::Unknown;
            }
        }
        took_place
    }

    /// Goes through a transaction: its own contradictions, and what it touches.
    fn transaction(
        &mut self,
        number: u32,
        touches: &mut Vec<Touch>,
        garbage: &mut u64,
        report: &mut Report,
    ) {
        let steps = self.store.steps(number).to_vec();
        let begin = touches.len();
        for step in steps {
            let at = touches[begin..]
                .iter()
                .position(|touch| touch.key == step.key);
            let at = at.map_or_else(
                || {
                    touches.push(Touch::new(&self.store, number, step.key));
                    touches.len() - 1
                },
                |at| begin + at,
            );
            let touch = &mut touches[at];
            match step.act {
                Act::Read(UNREAD, _) => {}
                Act::Write(value) => {
                    touch.wrote = Some(self.numbers[&(step.key, value)]);
                }
                Act::Read(begin, _) => {
                    let version = self.version(step.key, self.store.seen[begin as usize]);
                    let expected = touch.wrote.or(touch.read);
                    if expected.is_none() {
                        touch.read = Some(version);
                        self.external(number, version, garbage, report);
                    } else if expected != Some(version) {
                        let key = self.store.keys.value(step.key);
                        let summary = format!(
                            "a transaction's read of key {key} does not fit what it read or wrote before"
                        );
                        let steps = vec![self.told(number)];
                        report.mention(Finding::new("internal", summary).steps(steps));
                    }
                }
            }
        }
    }

    /// A read of what somebody else wrote.
    fn external(&mut self, number: u32, version: u32, garbage: &mut u64, report: &mut Report) {
        self.versions[version as usize].readers.push(number);
        let Version {
            key,
            value,
            writer,
            last,
            ..
        } = self.versions[version as usize];
        if writer == NONE {
            *garbage += u64::from(!self.is_nil(version));
            return;
        }
        let failed = self.store.rows[writer as usize].outcome == Outcome::Fail;
        let (anomaly, what) = match (failed, writer == number) {
            (true, _) => ("G1a", "whose transaction failed"),
            (false, true) => ("future-read", "which it writes only later"),
            (false, false) if !last => ("G1b", "which its transaction then replaced"),
            (false, false) => return,
        };
        let (key, value) = (self.store.keys.value(key), self.store.values.value(value));
        let summary = format!("a read of key {key} shows {value}, {what}");
        let steps = vec![self.told(writer), self.told(number)];
        report.mention(Finding::new(anomaly, summary).steps(steps));
    }

    /// Transactions that both built on one version.
    fn lost_updates(&self, touches: &[Touch], report: &mut Report) {
        let mut updates: QuickMap<u32, u32> = QuickMap::default();
        for touch in touches {
            let (Some(read), Some(_)) = (touch.read, touch.wrote) else {
                continue;
            };
            let first = *updates.entry(read).or_insert(touch.transaction);
            let known = self.versions[read as usize].writer != NONE || self.is_nil(read);
            if first != touch.transaction && known {
                let key = self.store.keys.value(touch.key);
                let summary = format!(
                    "two transactions read the same version of key {key}, and both wrote it"
                );
                let steps = vec![self.told(first), self.told(touch.transaction)];
                report.mention(Finding::new("lost-update", summary).steps(steps));
            }
        }
    }

    fn say_garbage(&self, count: u64, report: &mut Report) {
        match (count, self.closed) {
            (0, _) => {}
            (_, true) => {
                let summary = format!("{count} reads show what nobody wrote");
                report.mention(Finding::new("garbage-read", summary));
            }
            (_, false) => report.remarks.push(format!(
                "{count} reads show what no transaction of the history wrote"
            )),
        }
    }

    /// Which version came before which, but for nil, which came before all.
    fn version_order(&mut self, touches: &[Touch], ground: Ground) -> Vec<(u32, u32, Ground)> {
        let mut order = Vec::new();
        for touch in touches {
            if let (Some(read), Some(wrote)) = (touch.read, touch.wrote) {
                order.push((read, wrote, Ground::Values));
            }
        }
        touched_in_order(touches, ground, &mut order);
        // Others may write what the history does not tell any number of times; nil is no news.
        let told = |version: u32| self.versions[version as usize].writer != NONE;
        order.retain(|(before, after, _)| before != after && told(*before) && told(*after));
        order.sort_unstable();
        order.dedup_by_key(|(before, after, _)| (*before, *after));
        order
    }

    fn cyclic(&self, order: &[(u32, u32, Ground)], ground: Ground, report: &mut Report) {
        let mut edges = Edges::new(self.versions.len() as u32);
        for (before, after, ground) in order {
            edges.add(*before, *after, Kind::on(Why::WriteWrite, *ground));
        }
        let graph = edges.into_graph();
        for ground in Ground::ALL.into_iter().filter(|at| *at <= ground) {
            let allowed = Allowed {
                why: Why::WriteWrite,
                ground,
            };
            for circle in components(&graph, allowed, None) {
                let key = self.versions[circle[0] as usize].key;
                let values = circle
                    .iter()
                    .map(|version| self.versions[*version as usize].value);
                let values = values.map(|value| self.store.values.value(value).to_string());
                let values = values.collect::<Vec<_>>().join(", ");
                let suffix = match ground {
                    Ground::Values => "",
                    Ground::Session => "-process",
                    Ground::Realtime => "-realtime",
                };
                let key = self.store.keys.value(key);
                let summary =
                    format!("versions of key {key} each had to precede the others: {values}");
                report.mention(Finding::new(format!("cyclic-versions{suffix}"), summary));
            }
            if !report.findings.is_empty() {
                return;
            }
        }
    }

    fn edges(&self, order: &[(u32, u32, Ground)], took_place: &[bool], edges: &mut Edges) {
        for version in self
            .versions
            .iter()
            .filter(|version| version.writer != NONE)
        {
            for reader in &version.readers {
                edges.add(version.writer, *reader, Kind::of(Why::WriteRead));
            }
        }
        for (before, after, ground) in order {
            let (before, after) = (
                &self.versions[*before as usize],
                &self.versions[*after as usize],
            );
            if !took_place[after.writer as usize] {
                continue;
            }
            edges.add(
                before.writer,
                after.writer,
                Kind::on(Why::WriteWrite, *ground),
            );
            for reader in &before.readers {
                edges.add(*reader, after.writer, Kind::on(Why::ReadWrite, *ground));
            }
        }
        let mut writers: QuickMap<u32, Vec<u32>> = QuickMap::default();
        for version in self.versions.iter().filter(|version| version.last) {
            if took_place[version.writer as usize] {
                writers.entry(version.key).or_default().push(version.writer);
            }
        }
        for (number, version) in self.versions.iter().enumerate() {
            let Some(writers) = writers.get_mut(&version.key) else {
                continue;
            };
            if self.is_nil(number as u32) {
                writers.sort_unstable();
                edges.add_all(&version.readers, writers, Kind::of(Why::ReadWrite));
            }
        }
    }

    /// Tries the orders that are left open, where that is feasible and asked for.
    fn exact(
        &self,
        graph: &Graph,
        took_place: &[bool],
        report: &mut Report,
        budget: &mut Budget<'_>,
    ) -> Result<(), Spent> {
        if !lattice::includes(self.asked, "serializable") {
            return Ok(());
        }
        let remark = format!(
            "the order of writes is inferred; what it leaves open was not tried, since that is \
             done for up to {EXACT_MAX_TRANSACTIONS} transactions"
        );
        if self.store.rows.len() > EXACT_MAX_TRANSACTIONS {
            report.remarks.push(remark);
            return Ok(());
        }
        let last = |version: &&Version| version.last && took_place[version.writer as usize];
        let versions: Vec<&Version> = self.versions.iter().filter(last).collect();
        let ground = lattice::ground(self.asked);
        match exists(graph, self.store.rows.len(), &versions, ground, budget)? {
            Exact::Some => {}
            Exact::TooMany => report.remarks.push(remark),
            Exact::None => {
                let suffix = match ground {
                    Ground::Values => "",
                    Ground::Session => "-process",
                    Ground::Realtime => "-realtime",
                };
                let summary = "whatever order the writes of each key are given, the \
                               transactions have no order";
                report.mention(Finding::new(format!("no-serial-order{suffix}"), summary));
            }
        }
        Ok(())
    }
}

impl Checker for RwRegister {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        let number = self.store.add(operation, WORDS.write, WORDS.lists)?;
        let steps = self.store.steps(number).to_vec();
        for (at, step) in steps.iter().enumerate() {
            let Act::Write(value) = step.act else {
                continue;
            };
            if self.store.values.value(value) == &Value::Nil {
                return Err(Misfit::new(
                    operation,
                    "nil is written: it means nothing yet",
                ));
            }
            let version = self.version(step.key, value);
            let version = &mut self.versions[version as usize];
            if version.writer != NONE {
                let (key, value) = (
                    self.store.keys.value(step.key),
                    self.store.values.value(value),
                );
                let what = format!("{value} is written to key {key} twice: values are unique");
                return Err(Misfit::new(operation, what));
            }
            version.writer = number;
            version.last = !steps[at + 1..]
                .iter()
                .any(|later| later.key == step.key && matches!(later.act, Act::Write(_)));
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
