//! `quorate simulate`: seeds, their progress, and what is told of one that fails.
//!
//! Not here: what a seed decides and how it is played, which is `quorate-simulate`; what may be
//! asked for (`arguments`), and how what fails is made smaller (`smaller`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use quorate_simulate::{Options, Outcome, Plan, Running, Spent};
use serde_json::json;

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;

mod arguments;
mod smaller;

pub(super) use arguments::SimulateArgs;
use arguments::Traced;

/// A seed that is not over after so much real time hangs.
const HANGS_AFTER: Duration = Duration::from_secs(180);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// The last lines of a trace that are shown.
const LINES_SHOWN_MAX: usize = 60;

/// A seed that has been played, or hangs.
struct Played {
    seed: u64,
    outcome: Outcome,
}

/// What the threads that play share.
struct Shared {
    next: AtomicU64,
    end: u64,
    options: Options,
    twice: bool,
    run: fn(&Plan, &Running) -> Outcome,
    hangs_after: Duration,
    /// Of each seed that is being played, since when, and its trace so far.
    running: Mutex<BTreeMap<u64, (Instant, Running)>>,
}

fn play_all(shared: &Shared, played: &mpsc::Sender<Played>) {
    loop {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        if seed >= shared.end {
            return;
        }
        let running = Running::new(false);
        let since = (Instant::now(), running.clone());
        shared.running.lock().insert(seed, since);
        let plan = Plan::of(seed, &shared.options);
        let mut outcome = (shared.run)(&plan, &running);
        if shared.twice {
            let again = (shared.run)(&plan, &Running::new(false));
            if again.hash != outcome.hash {
                let what = "a second run of the same seed took another course";
                outcome.problems.push(what.to_owned());
            }
        }
        // Whoever has been given up is not waited for.
        let given_up = shared.running.lock().remove(&seed).is_none();
        if given_up || played.send(Played { seed, outcome }).is_err() {
            return;
        }
    }
}

/// A seed that has been played for too long: it is told as it stands, and its thread left alone.
fn hanging(shared: &Shared) -> Option<Played> {
    let mut running = shared.running.lock();
    let late = running
        .iter()
        .find(|(_, (since, _))| since.elapsed() > shared.hangs_after);
    let seed = *late?.0;
    let (_, run) = running.remove(&seed)?;
    let mut problems = vec![format!("it hangs: not over after {:?}", shared.hangs_after)];
    problems.extend(run.lines().into_iter().rev().take(LINES_SHOWN_MAX));
    let outcome = Outcome {
        problems,
        found: Vec::new(),
        hash: run.trace.hash(),
        spent: Spent::default(),
    };
    Some(Played { seed, outcome })
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    spent: Spent,
    hash: u64,
    failed: Vec<Played>,
}

impl Sum {
    fn add(&mut self, played: Played) {
        let spent = played.outcome.spent;
        self.seeds += 1;
        self.spent.simulated += spent.simulated;
        self.spent.faults += spent.faults;
        self.spent.messages += spent.messages;
        self.spent.calls += spent.calls;
        // In whatever order seeds end.
        let own = played.outcome.hash.wrapping_mul(played.seed | 1);
        self.hash = self.hash.wrapping_add(own);
        if !played.outcome.problems.is_empty() {
            self.failed.push(played);
        }
    }
}

pub(super) async fn run(args: &SimulateArgs, output: Output) -> Result<(), CliError> {
    let seeds = args.seeds.end - args.seeds.start;
    if args.trace.is_some() && seeds > 1 {
        return Err(CliError::usage(
            "--trace is of one seed".to_owned(),
            "such as --seeds 17 --trace",
        ));
    }
    if let Some((number, count)) = args.missing_fault() {
        let seed = args.seeds.start;
        return Err(CliError::usage(
            format!(
                "there is no fault {number}: seed {seed} has {count} in this scenario, from 0 on"
            ),
            format!("`quorate simulate --seeds {seed} --trace` shows them with their numbers"),
        ));
    }
    // It works on threads of its own, and none of it waits for anything else.
    tokio::task::block_in_place(|| simulate(args, output))
}

fn simulate(args: &SimulateArgs, mut output: Output) -> Result<(), CliError> {
    if let Some(which) = args.trace {
        return trace(args, which, output);
    }
    let begun = Instant::now();
    let sum = play(args, &output);
    let took = begun.elapsed();
    let speed = sum.spent.simulated.as_secs_f64() / took.as_secs_f64().max(1e-3);
    for played in &sum.failed {
        smaller::tell(args, played, &output);
    }
    let failed: Vec<u64> = sum.failed.iter().map(|played| played.seed).collect();
    if output.is_json() {
        output.json(&json!({
            "seeds": sum.seeds,
            "failed": failed,
            "hash": format!("{:016x}", sum.hash),
            "simulated_seconds": sum.spent.simulated.as_secs_f64(),
            "seconds": took.as_secs_f64(),
            "faults": sum.spent.faults,
            "messages": sum.spent.messages,
            "calls": sum.spent.calls,
        }))?;
    } else {
        let Spent {
            simulated,
            faults,
            messages,
            calls,
        } = sum.spent;
        output.line(format!(
            "{} seeds in {:.1} s: {} failed; {:.0} s simulated, {speed:.1} a second; \
             {faults} faults, {messages} messages, {calls} calls; hash {:016x}",
            sum.seeds,
            took.as_secs_f64(),
            failed.len(),
            simulated.as_secs_f64(),
            sum.hash
        ))?;
    }
    output.flush()?;
    match failed.is_empty() {
        true => Ok(()),
        false => Err(CliError::Reported(Exit::Failed)),
    }
}

fn play(args: &SimulateArgs, output: &Output) -> Sum {
    let seeds = args.seeds.end - args.seeds.start;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.unwrap_or(processors).max(1);
    let shared = Arc::new(Shared {
        next: AtomicU64::new(args.seeds.start),
        end: args.seeds.end,
        options: args.options(),
        twice: args.twice,
        run: quorate_simulate::run,
        hangs_after: HANGS_AFTER,
        running: Mutex::default(),
    });
    let bar = bar(seeds, output);
    let sum = add_up(&shared, jobs, seeds, |problem, sum| {
        if let Some(problem) = problem {
            bar.suspend(|| output.remark(&problem));
        }
        bar.inc(1);
        bar.set_message(format!(
            "{} failed, {:.0} s simulated, {} faults",
            sum.failed.len(),
            sum.spent.simulated.as_secs_f64(),
            sum.spent.faults
        ));
    });
    bar.finish_and_clear();
    sum
}

/// Plays all seeds on so many threads; `told` hears of each what is wrong with it, and the sum then.
fn add_up(
    shared: &Arc<Shared>,
    jobs: usize,
    seeds: u64,
    told: impl Fn(Option<String>, &Sum),
) -> Sum {
    let (sender, played) = mpsc::channel();
    let start_thread = || {
        let (shared, sender) = (shared.clone(), sender.clone());
        std::thread::spawn(move || play_all(&shared, &sender));
    };
    (0..jobs).for_each(|_| start_thread());
    let mut sum = Sum::default();
    while sum.seeds < seeds {
        let one = match played.recv_timeout(LOOK_INTERVAL) {
            Ok(one) => Some(one),
            Err(RecvTimeoutError::Timeout) => {
                let given_up = hanging(shared);
                // Its thread plays no other seed any more.
                given_up.iter().for_each(|_| start_thread());
                given_up
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if let Some(one) = one {
            let problem = one.outcome.problems.first();
            let problem = problem.map(|problem| format!("seed {}: {problem}", one.seed));
            sum.add(one);
            told(problem, &sum);
        }
    }
    sum.failed.sort_by_key(|played| played.seed);
    sum
}

fn bar(seeds: u64, output: &Output) -> ProgressBar {
    if output.is_json() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(seeds);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {eta} left; {msg}");
    bar.with_style(style.expect("it is a template"))
}

fn trace(args: &SimulateArgs, which: Traced, mut output: Output) -> Result<(), CliError> {
    let running = Running::new(true);
    let plan = Plan::of(args.seeds.start, &args.options());
    let outcome = quorate_simulate::run(&plan, &running);
    let right = outcome.problems.is_empty();
    let problems = outcome.problems.iter();
    let lines = match which {
        Traced::Telling => running.telling(&outcome.found),
        Traced::All => {
            let problems = problems.map(|problem| format!("WRONG: {problem}"));
            running.lines().into_iter().chain(problems).collect()
        }
    };
    for line in lines {
        output.line(line)?;
    }
    output.flush()?;
    match right {
        true => Ok(()),
        false => Err(CliError::Reported(Exit::Failed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(hash: u64) -> Outcome {
        Outcome {
            problems: Vec::new(),
            found: Vec::new(),
            hash,
            spent: Spent::default(),
        }
    }

    #[test]
    fn a_seed_that_hangs_is_told_of_and_the_others_are_played() {
        let shared = Arc::new(Shared {
            next: AtomicU64::new(0),
            end: 5,
            options: Options::default(),
            twice: false,
            run: |plan, _| {
                if plan.seed == 1 {
                    loop {
                        std::thread::park();
                    }
                }
                right(plan.seed)
            },
            hangs_after: Duration::from_millis(300),
            running: Mutex::default(),
        });
        let sum = add_up(&shared, 1, 5, |_, _| ());
        assert_eq!(sum.seeds, 5);
        let failed: Vec<u64> = sum.failed.iter().map(|played| played.seed).collect();
        assert_eq!(failed, [1]);
        assert!(sum.failed[0].outcome.problems[0].starts_with("it hangs"));
    }
}
