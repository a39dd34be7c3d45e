//! Playing a plan: one thread of its own, one paused clock, one course.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use quorate_raft::seed_thread;
use tokio::time::Instant;

use crate::alone::{apart, heard_panics, seeded_runtime};
use crate::ending::await_whole;
use crate::faults::befall;
use crate::history::{Found, Tape};
use crate::plan::Plan;
use crate::thorough::Inspector;
use crate::trace::Trace;
use crate::work::Workers;
use crate::world::{Shared, World};

/// Beside what clients work: starting, healing, judging. Whoever takes longer hangs.
const BESIDE_MAX: Duration = Duration::from_secs(240);
/// Tasks of processes that have ended are gone after this.
const ENDED_MAX: Duration = Duration::from_secs(60);
const THOROUGH_PAUSE: Duration = Duration::from_millis(25);

/// What was spent on a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Simulated time.
    pub simulated: Duration,
    /// Faults that befell nodes.
    pub faults: u64,
    /// Messages that were sent.
    pub messages: u64,
    /// Calls that took effect.
    pub calls: u64,
}

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What is wrong; empty: nothing.
    pub problems: Vec<String>,
    /// The same, with what is known of each.
    pub found: Vec<Found>,
    /// Over all messages, faults, calls, answers, and what was written to disks: the same for the
    /// same plan.
    pub hash: u64,
    /// What it took.
    pub spent: Spent,
}

/// A run that can be looked at from another thread while it goes on: one that hangs never ends.
#[derive(Clone, Debug)]
pub struct Running {
    /// What has happened so far.
    pub trace: Trace,
}

impl Running {
    /// A run that has not begun; `told`: its trace has lines.
    pub fn new(told: bool) -> Running {
        Running {
            trace: Trace::new(told),
        }
    }

    /// The lines of its trace, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.trace.lines()
    }

    /// Those that concern what was found, see [`Trace::telling`].
    pub fn telling(&self, found: &[Found]) -> Vec<String> {
        self.trace.telling(found)
    }
}

/// Plays a plan to its end, on a thread of its own.
///
/// # Panics
///
/// Where the system has no thread left, or refuses a runtime.
pub fn run(plan: &Plan, running: &Running) -> Outcome {
    let (own, to_tell) = (plan.clone(), running.clone());
    let mut outcome = apart(move || run_here(&own, &to_tell)).unwrap_or_else(|| {
        // A server ends with that, and its disk is known to be damaged; the run says no more.
        let found = match plan.damages() {
            true => Vec::new(),
            false => vec![Found::other("the process is aborted".to_owned())],
        };
        cut_short(&running.trace, found)
    });
    let texts = outcome.found.iter().map(|found| found.text.clone());
    outcome.problems = texts.collect();
    outcome
}

fn cut_short(trace: &Trace, found: Vec<Found>) -> Outcome {
    Outcome {
        problems: Vec::new(),
        found,
        hash: trace.hash(),
        spent: Spent {
            messages: trace.messages(),
            ..Spent::default()
        },
    }
}

fn run_here(plan: &Plan, running: &Running) -> Outcome {
    let runtime = seeded_runtime(plan.course);
    let trace = running.trace.clone();
    let whole = || runtime.block_on(played(plan.clone(), trace.clone()));
    let mut outcome = catch_unwind(AssertUnwindSafe(whole)).unwrap_or_else(|_| {
        let what = "the run itself panicked".to_owned();
        cut_short(&trace, vec![Found::other(what)])
    });
    seed_thread(None);
    outcome
        .found
        .extend(heard_panics().into_iter().map(Found::other));
    outcome
}

async fn played(plan: Plan, trace: Trace) -> Outcome {
    let begun = Instant::now();
    let longest = plan.time + BESIDE_MAX;
    let world = match World::start(plan, trace.clone()).await {
        Ok(world) => world,
        Err(problem) => {
            return cut_short(&trace, vec![Found::other(problem)]);
        }
    };
    let mut calls = 0;
    let mut found = match tokio::time::timeout(longest, course(&world)).await {
        Ok(tapes) => {
            calls = tapes.iter().map(Tape::ok).sum();
            tapes.iter().flat_map(Tape::judge).collect()
        }
        Err(_) => vec![Found::other(format!(
            "it hangs: not over after {longest:?}"
        ))],
    };
    trace.take(&world.disks_digest());
    let spent = Spent {
        simulated: begun.elapsed(),
        faults: world.faults(),
        messages: trace.messages(),
        calls,
    };
    found.extend(world.violations().into_iter().map(Found::other));
    world.end_all();
    found.extend(left_over(world).await.map(Found::other));
    Outcome {
        problems: Vec::new(),
        found,
        hash: trace.hash(),
        spent,
    }
}

/// Clients and faults, then the healing, then the last reads.
async fn course(world: &Shared) -> Vec<Tape> {
    let plan = &world.plan;
    let reaper = tokio::spawn(world.clone().reap());
    let inspector = plan.thorough.then(|| tokio::spawn(inspect(world.clone())));
    let faults = plan.faults.iter();
    let faults = faults.map(|fault| tokio::spawn(befall(world.clone(), *fault)));
    let faults: Vec<_> = faults.collect();
    let mut workers = start_work(world);
    tokio::time::sleep(plan.time).await;
    faults.iter().for_each(tokio::task::JoinHandle::abort);
    for worker in &mut workers {
        worker.0.stop().await;
    }
    world.make_whole().await;
    await_whole(world).await;
    // What failed just before shows a moment later.
    reaper.abort();
    if let Some(inspector) = inspector {
        inspector.abort();
    }
    for (worker, _) in &workers {
        worker.finish(FINAL_CLIENTS).await;
    }
    workers.into_iter().map(|(_, tape)| tape).collect()
}

/// The first of the clients that make the last reads.
pub(crate) const FINAL_CLIENTS: u64 = 1 << 32;

fn start_work(world: &Shared) -> Vec<(Workers, Tape)> {
    let plan = &world.plan;
    let kinds = plan.work.len();
    let share = |at: usize| (plan.clients + kinds - 1 - at) / kinds;
    let mut first = 0;
    let mut workers = Vec::new();
    for (at, work) in plan.work.iter().enumerate() {
        let (tape, count) = (Tape::new(*work, world.trace.clone()), share(at) as u64);
        workers.push((Workers::start(world, tape.clone(), first, count), tape));
        first += count;
    }
    workers
}

/// Looks at all replicas until one breaks a rule.
async fn inspect(world: Shared) {
    let mut inspector = Inspector::default();
    loop {
        tokio::time::sleep(THOROUGH_PAUSE).await;
        if let Err(problem) = inspector.look(&world) {
            return world.accuse(problem);
        }
    }
}

/// Whether anything goes on after all processes have ended.
async fn left_over(world: Shared) -> Option<String> {
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    drop(world);
    let deadline = Instant::now() + ENDED_MAX;
    while alive() > 0 {
        if Instant::now() >= deadline {
            return Some(format!("{} tasks go on after the end", alive()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}
