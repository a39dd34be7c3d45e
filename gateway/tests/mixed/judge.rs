//! The judgement at the end, when all is whole: overlays empty, replicas are equal, both planes
//! show the same, and the log's history is one in which every change has its cause.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_types::Revision;
use quorate_types::causal::{Actor, Dot, log_dot};
use tokio::time::Instant;

use crate::asking::{Level, ONE};
use crate::ledger::{Fate, Ledger, Write};
use crate::world::{Shared, World};

/// Simulated time within which overlays are empty.
pub const EMPTY_WITHIN: Duration = Duration::from_secs(10);
/// And within which all is equal.
pub const EQUAL_WITHIN: Duration = Duration::from_secs(30);

/// A version of a key: its revision, and the live values.
type Version = (u64, BTreeSet<Dot>);

impl World {
    /// The rows beside the log of all primaries that run; `None`: one does not answer yet.
    pub fn overlay_rows(&self) -> Option<Vec<(usize, u64)>> {
        let (range, primaries) = self.range();
        let running = primaries
            .into_iter()
            .filter_map(|at| Some((at, self.process(at)?)));
        running
            .map(|(at, process)| {
                let report = process.eventual.report(range).ok()?;
                // Until the tree is built, rows are not counted.
                report.hash.map(|_| (at, report.overlay_rows))
            })
            .collect()
    }

    fn is_empty(&self) -> bool {
        let rows = self.overlay_rows();
        rows.is_some_and(|rows| rows.iter().all(|(_, rows)| *rows == 0))
    }

    fn hints(&self) -> u64 {
        let running = self.all().filter_map(|at| self.process(at));
        running.map(|process| process.eventual.hints().0).sum()
    }

    /// Waits until all primaries have applied what one of them has now. A snapshot whose chunk was
    /// lost in a cut is sent again ten seconds later: that is no matter of overlays.
    pub async fn await_logs(&self, within: Duration) {
        let applied = |at: usize| self.group(at).map_or(0, |group| group.applied().index);
        let deadline = Instant::now() + within;
        self.leader().await;
        let last = self.primaries().into_iter().map(applied).max().unwrap();
        while self.primaries().into_iter().any(|at| applied(at) < last) {
            if Instant::now() > deadline {
                return self.accuse(format!("a log is behind after {within:?}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until all hints are home, and then until no row is left beside the log.
    pub async fn await_empty(&self, within: Duration) {
        let began = Instant::now();
        let mut before = (0, None);
        while self.hints() > 0 || !self.is_empty() {
            let now = (self.hints(), self.overlay_rows());
            if now != before {
                self.note(|| format!("{} hints, rows {:?}", now.0, now.1));
                before = now;
            }
            if began.elapsed() > EQUAL_WITHIN {
                let (hints, rows) = (self.hints(), self.overlay_rows());
                return self.accuse(format!("{hints} hints and rows {rows:?} are left for good"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let took = began.elapsed();
        if took > within {
            self.accuse(format!("rows were left for {took:?}"));
        }
    }

    /// What is not equal on the primaries.
    fn difference(&self) -> Option<String> {
        let mut states = Vec::new();
        for at in self.primaries() {
            let Some(group) = self.group(at) else {
                return Some(format!("node {at} has no replica"));
            };
            match group.table().hash() {
                Ok((position, hash)) => states.push((position.index, hash)),
                Err(error) => return Some(format!("node {at}: {error}")),
            }
        }
        let same = states.iter().all(|state| *state == states[0]);
        (!same).then(|| format!("committed states differ: {states:?}"))
    }

    async fn await_equal(&self, within: Duration) {
        let began = Instant::now();
        while let Some(difference) = self.difference() {
            if began.elapsed() > within {
                return self.accuse(format!("after {within:?}: {difference}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What a key shows on both planes, everywhere the same.
    async fn agreed(&self, key: &str) -> Option<BTreeSet<Dot>> {
        let mut agreed: Option<BTreeSet<Dot>> = None;
        let primaries = self.primaries();
        let everywhere = self.all().map(|at| (at, Level::Linearizable));
        let stale = primaries.iter().map(|at| (*at, Level::Stale));
        let eventual = primaries.iter().map(|at| (*at, ONE));
        for (at, level) in everywhere.chain(stale).chain(eventual) {
            let shown = match self.read(at, key, level).await {
                crate::asking::Asked::Done(shown) => shown,
                other => {
                    self.accuse(format!(
                        "{key} cannot be read at {at}, {level:?}: {other:?}"
                    ));
                    continue;
                }
            };
            if level != Level::Linearizable && shown.node != at {
                self.accuse(format!("{level:?} at {at} was served by {}", shown.node));
            }
            let decided = level == Level::Linearizable || level == Level::Stale;
            let problem = self.ledger.lock().judge_read(key, &shown, decided);
            if let Some(problem) = problem {
                self.accuse(format!("at the end, {level:?} at {at}: {problem}"));
            }
            let dots: BTreeSet<Dot> = shown.values.into_keys().collect();
            match &agreed {
                None => agreed = Some(dots),
                Some(agreed) if *agreed != dots => self.accuse(format!(
                    "at the end {key} shows {agreed:?}, and {level:?} at {at} {dots:?}"
                )),
                Some(_) => {}
            }
        }
        agreed
    }

    /// All committed versions of a key, oldest first.
    pub async fn history(&self, key: &str) -> Vec<Version> {
        let at = self.leader().await;
        let revisions = self.revisions(at, key).await.unwrap();
        let mut versions = Vec::new();
        for revision in revisions {
            let within = Duration::from_secs(2);
            let read = self.read_within(at, key, Level::Linearizable, revision, within);
            let shown = read.await.unwrap();
            if let Some(problem) = self.ledger.lock().judge_read(key, &shown, true) {
                self.accuse(format!("in history: {problem}"));
            }
            versions.push((revision, shown.values.into_keys().collect()));
        }
        versions
    }
}

/// Waits until overlays are empty and logs are equal.
pub async fn await_whole(world: &Shared) {
    world.await_logs(EQUAL_WITHIN).await;
    world.await_empty(EMPTY_WITHIN).await;
    world.await_equal(EQUAL_WITHIN).await;
}

/// Waits for wholeness, and judges all keys.
pub async fn judge(world: &Shared, keys: &[String]) {
    await_whole(world).await;
    for key in keys {
        let Some(live) = world.agreed(key).await else {
            continue;
        };
        let history = world.history(key).await;
        let all_values = world.settings.conflict.is_none();
        let problems = {
            let ledger = world.ledger.lock();
            let mut trial = Trial {
                ledger: &ledger,
                key,
                history: &history,
                live: &live,
                all_values,
                swept: BTreeSet::new(),
                problems: Vec::new(),
            };
            trial.run();
            trial.problems
        };
        for problem in problems {
            world.accuse(format!("{key}: {problem}"));
        }
    }
}

/// One key before the judge.
struct Trial<'a> {
    ledger: &'a Ledger,
    key: &'a str,
    history: &'a [Version],
    live: &'a BTreeSet<Dot>,
    /// Whether reads show all live values.
    all_values: bool,
    /// What strong writes replaced because it was committed.
    swept: BTreeSet<Dot>,
    problems: Vec<String>,
}

impl Trial<'_> {
    fn run(&mut self) {
        let none = (0, BTreeSet::new());
        let before = std::iter::once(&none).chain(self.history);
        let mut ever = BTreeSet::new();
        for (before, after) in before.zip(self.history) {
            self.judge_change(before, after, &ever);
            ever.extend(&after.1);
        }
        self.judge_strong();
        self.judge_versions();
        self.judge_real_time();
        self.judge_end();
    }

    fn writes(&self) -> impl Iterator<Item = &Write> {
        self.ledger.writes.iter().filter(|w| w.key == self.key)
    }

    /// Whether a write that may have taken effect had seen this one.
    fn may_be_replaced(&self, dot: Dot) -> bool {
        self.swept.contains(&dot)
            || self.may_be_swept(dot)
            || self
                .writes()
                .any(|write| write.fate != Fate::Nothing && write.replaces.contains(&dot))
    }

    /// Whether a strong write may have replaced it unseen, where history shows one of several
    /// values alone.
    fn may_be_swept(&self, dot: Dot) -> bool {
        let began = self.ledger.write_of(dot).map(|write| write.began);
        let sweeps = |write: &Write| {
            let later = write.ended.is_none_or(|ended| Some(ended) >= began);
            write.strong && write.fate != Fate::Nothing && later
        };
        !self.all_values && self.writes().any(sweeps)
    }

    /// Whether a write that took effect for certain had seen this one.
    fn is_replaced(&self, dot: Dot) -> Option<&Write> {
        self.writes().find(|write| {
            (write.fate == Fate::Acknowledged || write.decided) && write.replaces.contains(&dot)
        })
    }

    /// One step of the log's history: what is gone has a cause, what is new is new.
    fn judge_change(&mut self, before: &Version, after: &Version, ever: &BTreeSet<Dot>) {
        let revision = after.0;
        let own = log_dot(Revision(revision));
        let is_put = after.1.contains(&own);
        let may_delete = |write: &Write| {
            let here = write.revision == revision || write.fate == Fate::Unknown;
            write.strong && write.value.is_none() && here
        };
        let is_delete = after.1.is_empty() && self.writes().any(may_delete);
        if is_put && after.1.len() > 1 {
            self.problems
                .push(format!("the strong write at {revision} left {:?}", after.1));
        }
        for dot in after.1.difference(&before.1) {
            if ever.contains(dot) && self.all_values {
                self.problems
                    .push(format!("{dot} came back into the log at {revision}"));
            }
            if dot.actor == Actor::LOG && *dot != own && self.all_values {
                self.problems
                    .push(format!("{dot} is new to the log at {revision}"));
            }
        }
        let gone: Vec<Dot> = before.1.difference(&after.1).copied().collect();
        if is_put || is_delete {
            self.swept.extend(&gone);
        } else if self.all_values {
            for dot in gone {
                if !self.may_be_replaced(dot) {
                    self.problems
                        .push(format!("{dot} left the log at {revision} without a cause"));
                }
            }
        }
    }

    fn version(&self, revision: u64) -> Option<usize> {
        self.history.iter().position(|(at, _)| *at == revision)
    }

    /// Strong writes are where they say, on what they had to be.
    fn judge_strong(&mut self) {
        let mut problems = Vec::new();
        let acknowledged = |write: &&Write| write.strong && write.fate == Fate::Acknowledged;
        for write in self.writes().filter(acknowledged) {
            let revision = write.revision;
            let Some(place) = self.version(revision) else {
                // A delete of what is not there changes nothing.
                if write.value.is_some() || write.expected.is_some() {
                    problems.push(format!("{write:?} is not in the log"));
                }
                continue;
            };
            let left = match write.value {
                Some(_) => BTreeSet::from([log_dot(Revision(revision))]),
                None => BTreeSet::new(),
            };
            if self.history[place].1 != left {
                problems.push(format!("{write:?} left {:?}", self.history[place].1));
            }
            let before = place.checked_sub(1).map(|place| &self.history[place]);
            let held = match (write.expected, before) {
                (None, _) | (Some(0), None) => true,
                (Some(0), Some((_, live))) => live.is_empty(),
                (Some(expected), Some((revision, _))) => expected == *revision,
                (Some(_), None) => false,
            };
            if !held {
                problems.push(format!("{write:?} was on {before:?}"));
            }
        }
        self.problems.append(&mut problems);
    }

    /// What reads showed of versions is what history says.
    fn judge_versions(&mut self) {
        for ((key, revision), dots) in &self.ledger.versions {
            if key != self.key {
                continue;
            }
            let place = self.version(*revision);
            if place.is_none_or(|place| self.history[place].1 != *dots) {
                let problem = format!("a read showed {dots:?} at {revision}, which never was");
                self.problems.push(problem);
            }
        }
    }

    /// An operation that began after another had ended is no earlier in the log.
    fn judge_real_time(&mut self) {
        let ours = |point: &&crate::ledger::Point| point.key == self.key;
        let points: Vec<_> = self.ledger.points.iter().filter(ours).collect();
        for later in &points {
            let earlier = points.iter().filter(|point| point.ended < later.began);
            let floor = earlier
                .filter_map(|point| point.revision)
                .max()
                .unwrap_or(0);
            let right = match later.revision {
                Some(revision) => revision >= floor,
                None => self.was_absent_after(floor),
            };
            if !right {
                let problem = format!("{later:?} comes after revision {floor} was known");
                self.problems.push(problem);
            }
        }
    }

    /// Whether there was no such key at some time after that revision.
    fn was_absent_after(&self, floor: u64) -> bool {
        let next = |place: usize| self.history.get(place).map_or(u64::MAX, |(at, _)| *at);
        let absent = |place: usize| self.history[place].1.is_empty() && next(place + 1) > floor;
        next(0) > floor || (0..self.history.len()).any(absent)
    }

    fn judge_end(&mut self) {
        let mut problems = Vec::new();
        let mut kept = BTreeSet::new();
        for (dot, number) in &self.ledger.promised {
            let write = &self.ledger.writes[*number];
            if write.key == self.key && !self.may_be_replaced(*dot) {
                kept.insert(*dot);
            }
        }
        let lost: Vec<_> = match self.all_values {
            true => kept.difference(self.live).collect(),
            // One value is shown of all that are live.
            false if self.live.is_empty() => kept.iter().collect(),
            false => Vec::new(),
        };
        for dot in lost {
            let write = self.ledger.write_of(*dot);
            problems.push(format!("{dot} is lost, which nobody replaced: {write:?}"));
        }
        for dot in self.live {
            if let Some(by) = self.is_replaced(*dot) {
                problems.push(format!(
                    "{dot} is there again, which was replaced by {by:?}"
                ));
            }
        }
        let last = self.history.last().map(|(_, live)| live.clone());
        if last.unwrap_or_default() != *self.live {
            problems.push(format!("history does not end with {:?}", self.live));
        }
        self.problems.append(&mut problems);
    }
}
