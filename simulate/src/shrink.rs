//! Making a plan that fails smaller: fewer faults, nodes, clients and keys, less work and time, plain
//! settings, as long as something of the same kind is wrong (delta debugging: Zeller and Hildebrandt,
//! IEEE TSE 2002, for the faults; one by one for the rest).
//!
//! A smaller plan takes another course, in which what went wrong need not come to pass. So each is
//! tried with several courses, the smaller it is the more, and the one that fails is kept with it.
//! A small plan is played ten times as fast as a large one, so very small ones are tried first: three
//! nodes, one key, and of the faults one or two.
//!
//! Not here: playing a plan, and how long that may take.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::faults::Planned;
use crate::plan::Plan;
use crate::settings::{SETTINGS, Settings};
use crate::work::Work;

/// Clients work at least so long.
const TIME_MIN: Duration = Duration::from_millis(100);
/// A fault lasts at least so long.
const LASTS_MIN: Duration = Duration::from_millis(50);
/// Pauses of clients that are tried, longest first: fewer calls are easier to follow.
const PAUSES_MILLIS: [u64; 4] = [1_000, 400, 150, 60];
/// Courses of one plan that are tried.
const COURSES: (u64, u64) = (2, 32);
/// Courses of each plan that is tried first.
const COURSES_FIRST: u64 = 6;
/// Clients of such a plan, their longest pause, and how long they work at the most.
const CLIENTS_FIRST: usize = 4;
const PAUSE_FIRST: Duration = Duration::from_millis(60);
const TIME_FIRST_MAX: Duration = Duration::from_secs(4);
/// When a fault befalls it, and how long it lasts at the most.
const FAULT_FIRST_AT: Duration = Duration::from_millis(300);
const FAULT_FIRST_MAX: Duration = Duration::from_millis(2_500);
/// Seconds of clients (so many clients for so many seconds) that are played for one plan.
const CLIENT_SECONDS_MAX: u64 = 40;

/// A kind of problems: what is said of one without its details.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(String);

impl Class {
    /// The kind of a problem. What a checker found is known by the checker and the anomaly, anything
    /// else by its words without the numbers.
    pub fn of(problem: &str) -> Class {
        let checked = Work::ALL.iter().find_map(|work| {
            let rest = problem.strip_prefix(work.name())?.strip_prefix(": ")?;
            let anomaly = rest.split([' ', ':']).next()?;
            Some(format!("{}: {anomaly}", work.name()))
        });
        let words = || problem.chars().filter(|letter| !letter.is_ascii_digit());
        Class(checked.unwrap_or_else(|| words().collect()))
    }
}

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Runs.
    pub runs_max: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest plan found that fails.
    pub plan: Plan,
    /// Runs that it took.
    pub runs: u64,
}

/// Makes a plan smaller that failed with these problems. `play` says what was wrong with one, or
/// nothing once no more is to be played; what is found to fail is told to `better`.
pub fn shrink(
    plan: &Plan,
    problems: &[String],
    budget: Budget,
    play: impl FnMut(&Plan) -> Option<Vec<String>>,
    better: impl FnMut(&Plan, u64),
) -> Shrunk {
    let mut search = Search {
        best: plan.clone(),
        classes: problems.iter().map(|problem| Class::of(problem)).collect(),
        runs: 0,
        runs_max: budget.runs_max,
        is_over: false,
        play,
        better,
    };
    search.very_small();
    loop {
        let before = search.best.clone();
        search.all_passes();
        if search.best == before || search.is_over() {
            return Shrunk {
                plan: search.best,
                runs: search.runs,
            };
        }
    }
}

struct Search<P, B> {
    best: Plan,
    classes: BTreeSet<Class>,
    runs: u64,
    runs_max: u64,
    is_over: bool,
    play: P,
    better: B,
}

/// How many courses of a plan are tried.
fn courses(plan: &Plan) -> u64 {
    let client_millis = (plan.time.as_millis() as u64 + 500) * plan.clients as u64;
    (CLIENT_SECONDS_MAX * 1_000 / client_millis.max(1)).clamp(COURSES.0, COURSES.1)
}

impl<P, B> Search<P, B>
where
    P: FnMut(&Plan) -> Option<Vec<String>>,
    B: FnMut(&Plan, u64),
{
    fn is_over(&self) -> bool {
        self.is_over || self.runs >= self.runs_max
    }

    /// Whether a plan fails as the first one did, in one of its courses; it is the best one then.
    fn attempt(&mut self, candidate: Plan) -> bool {
        let courses = courses(&candidate);
        candidate != self.best && self.attempt_courses(candidate, courses)
    }

    fn attempt_courses(&mut self, candidate: Plan, courses: u64) -> bool {
        let old = candidate.course;
        let others = (1..).filter(|course| *course != old);
        let tried = std::iter::once(old).chain(others);
        for course in tried.take(courses as usize) {
            if self.is_over() {
                return false;
            }
            let plan = Plan {
                course,
                ..candidate.clone()
            };
            let Some(problems) = (self.play)(&plan) else {
                self.is_over = true;
                return false;
            };
            self.runs += 1;
            let same = |problem: &String| self.classes.contains(&Class::of(problem));
            if problems.iter().any(same) {
                (self.better)(&plan, self.runs);
                self.best = plan;
                return true;
            }
        }
        false
    }

    /// Tries a change of the best plan.
    fn change(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut candidate = self.best.clone();
        change(&mut candidate);
        self.attempt(candidate)
    }

    fn all_passes(&mut self) {
        self.less_work();
        self.fewer_faults();
        self.fewer_nodes();
        self.fewer_clients();
        self.less_time();
        self.plain_settings();
        self.shorter_faults();
    }

    /// Tries very small plans: with no fault, with one, with two.
    fn very_small(&mut self) {
        let mut sets: Vec<Vec<Planned>> = vec![Vec::new()];
        let kinds = longest_of_each_kind(&self.best.faults);
        sets.extend(kinds.iter().map(|one| vec![*one]));
        for (at, one) in kinds.iter().enumerate() {
            sets.extend(kinds[..at].iter().map(|other| vec![*other, *one]));
        }
        let named = |work: &Work| {
            let mut classes = self.classes.iter();
            classes.any(|class| class.0.starts_with(&format!("{}: ", work.name())))
        };
        let some: Vec<Work> = self.best.work.iter().copied().filter(named).collect();
        let work = if some.is_empty() {
            self.best.work.clone()
        } else {
            some
        };
        sets.retain(|faults| faults.len() < self.best.faults.len() || self.best.faults.is_empty());
        // Only where there are more nodes than replicas do some stand in for others.
        let nodes = [3, 4].into_iter().filter(|nodes| *nodes <= self.best.nodes);
        for nodes in nodes.collect::<Vec<_>>() {
            for (faults, work) in sets
                .iter()
                .flat_map(|set| work.iter().map(move |one| (set, one)))
            {
                let candidate = Plan {
                    nodes,
                    ..very_small(&self.best, *work, faults)
                };
                if self.attempt_courses(candidate, COURSES_FIRST) {
                    return;
                }
            }
        }
    }

    fn less_work(&mut self) {
        for work in self.best.work.clone() {
            if self.best.work.len() > 1 && self.change(|plan| plan.work = vec![work]) {
                return;
            }
        }
    }

    /// Takes pieces of the faults away, large ones first.
    fn fewer_faults(&mut self) {
        let mut piece = self.best.faults.len();
        while piece > 0 {
            let mut from = 0;
            while from < self.best.faults.len() {
                let to = (from + piece).min(self.best.faults.len());
                let taken = self.change(|plan| drop(plan.faults.drain(from..to)));
                from += if taken { 0 } else { piece };
            }
            piece /= 2;
        }
    }

    fn fewer_nodes(&mut self) {
        let fewer = |nodes: usize| {
            move |plan: &mut Plan| {
                plan.nodes = nodes;
                plan.settings.replication = plan.settings.replication.min(nodes as u32);
            }
        };
        if self.best.nodes > 4 && self.change(fewer(3)) {
            return;
        }
        while self.best.nodes > 3 && self.change(fewer(self.best.nodes - 1)) {}
    }

    fn fewer_clients(&mut self) {
        while self.best.clients > 1 && self.change(|plan| plan.clients /= 2) {}
        while self.best.clients > 1 && self.change(|plan| plan.clients -= 1) {}
    }

    /// The end is left away, or all comes sooner.
    fn less_time(&mut self) {
        while self.best.time / 2 >= TIME_MIN && self.change(|plan| cut_off(plan, plan.time / 2)) {}
        while self.best.time / 2 >= TIME_MIN && self.change(sooner) {}
        while self.best.time * 3 / 4 >= TIME_MIN
            && self.change(|plan| cut_off(plan, plan.time * 3 / 4))
        {}
    }

    fn plain_settings(&mut self) {
        let all_plain = |plan: &mut Plan| {
            let pause_max = plan.settings.pause_max;
            let plain = |settings, setting| Settings::with_plain(&settings, setting);
            plan.settings = SETTINGS.iter().fold(plan.settings.clone(), plain);
            plan.settings.pause_max = pause_max;
        };
        if !self.change(all_plain) {
            for setting in SETTINGS.iter().filter(|one| one.name != "pause-millis") {
                self.change(|plan| plan.settings = plan.settings.with_plain(setting));
            }
        }
        for pause in PAUSES_MILLIS.map(Duration::from_millis) {
            let longer = pause > self.best.settings.pause_max;
            if longer && self.change(|plan| plan.settings.pause_max = pause) {
                return;
            }
        }
    }

    fn shorter_faults(&mut self) {
        for at in 0..self.best.faults.len() {
            while self.best.faults[at].lasts / 2 >= LASTS_MIN
                && self
                    .change(|plan| plan.faults[at].lasts = whole_millis(plan.faults[at].lasts / 2))
            {
            }
        }
    }
}

fn longest_of_each_kind(faults: &[Planned]) -> Vec<Planned> {
    let mut kinds: Vec<Planned> = Vec::new();
    for fault in faults {
        let kind = std::mem::discriminant(&fault.fault);
        let mut known = kinds.iter_mut();
        match known.find(|one| std::mem::discriminant(&one.fault) == kind) {
            Some(one) if one.lasts < fault.lasts => *one = *fault,
            Some(_) => {}
            None => kinds.push(*fault),
        }
    }
    kinds
}

fn very_small(plan: &Plan, work: Work, faults: &[Planned]) -> Plan {
    let plain = |settings, setting| Settings::with_plain(&settings, setting);
    let mut faults = faults.to_vec();
    let mut at = FAULT_FIRST_AT;
    for fault in &mut faults {
        fault.at = at;
        fault.lasts = whole_millis(fault.lasts.min(FAULT_FIRST_MAX));
        at += FAULT_FIRST_AT;
    }
    let last = faults.iter().map(|fault| fault.at + fault.lasts).max();
    let time = last.unwrap_or_default() + 2 * FAULT_FIRST_AT;
    Plan {
        nodes: 3,
        clients: plan.clients.min(CLIENTS_FIRST),
        time: time.min(plan.time).min(TIME_FIRST_MAX),
        work: vec![work],
        faults,
        settings: Settings {
            pause_max: plan.settings.pause_max.min(PAUSE_FIRST),
            ..SETTINGS.iter().fold(plan.settings.clone(), plain)
        },
        ..plan.clone()
    }
}

/// Times are said on the command line in whole milliseconds.
fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(time.as_millis() as u64)
}

fn cut_off(plan: &mut Plan, time: Duration) {
    let time = whole_millis(time);
    plan.time = time;
    plan.faults.retain(|fault| fault.at < time);
}

/// All in half the time.
fn sooner(plan: &mut Plan) {
    plan.time = whole_millis(plan.time / 2);
    for fault in &mut plan.faults {
        fault.at = whole_millis(fault.at / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Options;

    const MANY: Budget = Budget { runs_max: 10_000 };

    fn large() -> Plan {
        let plan = (0..).map(|seed| Plan::of(seed, &Options::default()));
        let mut large = plan.filter(|plan| {
            let kinds = plan.work.len();
            plan.faults.len() > 10 && plan.nodes > 4 && plan.clients > 8 && kinds > 1
        });
        large.next().unwrap()
    }

    fn told(wrong: bool) -> Option<Vec<String>> {
        let problem = "mixed: lost 3: 17 is gone".to_owned();
        Some(wrong.then_some(problem).into_iter().collect())
    }

    #[test]
    fn a_plan_shrinks_to_what_matters() {
        let plan = large();
        let (one, other) = (plan.faults[3].fault, plan.faults[7].fault);
        let fails = |plan: &Plan| {
            let is_there = |fault| plan.faults.iter().any(|planned| planned.fault == fault);
            told(is_there(one) && is_there(other))
        };
        let problems = fails(&plan).unwrap();
        let small = shrink(&plan, &problems, MANY, fails, |_, _| ()).plan;
        let left: Vec<_> = small.faults.iter().map(|planned| planned.fault).collect();
        assert_eq!(left, [one, other]);
        assert_eq!((small.nodes, small.clients, small.work.len()), (3, 1, 1));
        assert_eq!(small.settings.keys, 1);
        assert!(small.time < Duration::from_millis(500), "{:?}", small.time);
    }

    #[test]
    fn a_smaller_plan_fails_in_whichever_course() {
        let plan = large();
        // Whatever is smaller fails in one course of ten, and the seed's is none of them.
        let fails = |tried: &Plan| told(*tried == plan || tried.course % 10 == 2);
        let problems = fails(&plan).unwrap();
        let small = shrink(&plan, &problems, MANY, fails, |_, _| ()).plan;
        assert_eq!((small.course, small.nodes, small.clients), (2, 3, 1));
        assert!(small.faults.is_empty());
    }

    #[test]
    fn what_fails_otherwise_is_not_smaller() {
        let plan = large();
        let problems = told(true).unwrap();
        let other = |_: &Plan| Some(vec!["siblings: lost 3: 17 is gone".to_owned()]);
        let small = shrink(&plan, &problems, MANY, other, |_, _| ()).plan;
        assert_eq!(small, plan);
    }

    #[test]
    fn problems_are_of_a_kind_whatever_their_numbers() {
        let class = Class::of;
        assert_eq!(class("mixed: lost 3: of 4"), class("mixed: lost 12: of 7"));
        assert_ne!(class("mixed: lost 3: of 4"), class("mixed: stale 3: of 4"));
        assert_ne!(
            class("mixed: lost 3: of 4"),
            class("siblings: lost 3: of 4")
        );
        assert_eq!(
            class("node 3 keeps 2 hints"),
            class("node 12 keeps 1 hints")
        );
    }

    #[test]
    fn no_more_is_tried_than_is_granted() {
        let (plan, mut tried) = (large(), 0);
        let count = |_: &Plan| {
            tried += 1;
            told(true)
        };
        let budget = Budget { runs_max: 5 };
        let runs = shrink(&plan, &told(true).unwrap(), budget, count, |_, _| ()).runs;
        assert_eq!((runs, tried), (5, 5));
    }

    #[test]
    fn nothing_is_tried_once_time_is_up() {
        let (plan, mut tried) = (large(), 0);
        let stop = |_: &Plan| {
            tried += 1;
            None
        };
        let small = shrink(&plan, &told(true).unwrap(), MANY, stop, |_, _| ()).plan;
        assert_eq!((small, tried), (plan, 1));
    }
}
