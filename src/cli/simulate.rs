//! `quorate simulate`: seeds, their progress, and what is told of one that fails.
//!
//! Not here: what a seed decides and how it is played, which is `quorate-simulate`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use quorate_simulate::{Family, Options, Outcome, Plan, Running, Spent, Work};
use quorate_types::parse_duration;
use serde_json::json;

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;

/// A seed that is not over after so much real time hangs.
const HANGS_AFTER: Duration = Duration::from_secs(180);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Smaller plans that are tried for a seed that fails.
const SHRINKS_MAX: usize = 120;
/// The last lines of a trace that are shown.
const LINES_SHOWN_MAX: usize = 60;
const NODES: std::ops::RangeInclusive<usize> = 3..=7;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  quorate simulate --seeds 0..1000
  quorate simulate --seeds 0..200 --scenario crashes --work mixed
  quorate simulate --seeds 17 --trace

Scenarios: all (of which each seed takes some), calm, network, crashes, disks, clocks.
Work: registers (a strong keyspace), mixed (both planes on the same keys), siblings (an eventual
keyspace), transactions, sessions, watches, locks; some of them, as the seed has it.

The same seed plays the same course: what fails is made smaller, and the command that replays it is
printed. docs/SIMULATION.md tells how to chase a seed.

Exit codes: 0 nothing was found, 1 something was, 2 wrong usage.")]
pub(super) struct SimulateArgs {
    /// Which seeds: A..B without B, or one
    #[arg(long, value_name = "A..B", default_value = "0..100", value_parser = seeds)]
    seeds: Range<u64>,
    /// What befalls nodes
    #[arg(long, value_name = "NAME", default_value = "all", value_parser = Family::named)]
    scenario: Family,
    /// Only this work
    #[arg(long, value_name = "WORK", value_parser = Work::named)]
    work: Option<Work>,
    /// How many nodes, 3 to 7 [default: the seed's]
    #[arg(long, value_name = "N", value_parser = nodes)]
    nodes: Option<usize>,
    /// How many clients [default: the seed's]
    #[arg(long, value_name = "N")]
    clients: Option<usize>,
    /// How long clients work, of simulated time [default: 8s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    time: Option<Duration>,
    /// Only these faults of the seed's, by their numbers; `none` for none
    #[arg(long, value_name = "N[,…]", value_parser = numbers)]
    faults: Option<Numbers>,
    /// Compare replicas all the time, not only at the end
    #[arg(long)]
    thorough: bool,
    /// Play each seed twice, and hold the two courses against each other
    #[arg(long)]
    twice: bool,
    /// Print what happened, line by line; of one seed
    #[arg(long)]
    trace: bool,
    /// Do not make what fails smaller
    #[arg(long)]
    no_shrink: bool,
    /// How many seeds are played at once [default: one for each processor]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Have the nodes make a mistake on purpose
    #[cfg(feature = "planted-faults")]
    #[arg(long, value_name = "NAME", hide = true, value_parser = plant)]
    plant: Option<String>,
}

#[derive(Clone, Debug)]
struct Numbers(Vec<usize>);

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| {
        let parsed: Result<u64, _> = text.parse();
        parsed.map_err(|_| format!("`{text}` is no number; such as 0..300, or 17"))
    };
    let range = match text.split_once("..") {
        Some((first, end)) => number(first)?..number(end)?,
        None => number(text)?..number(text)?.saturating_add(1),
    };
    match range.is_empty() {
        true => Err("there is no seed in it; such as 0..300, or 17".to_owned()),
        false => Ok(range),
    }
}

fn nodes(text: &str) -> Result<usize, String> {
    let parsed = text.parse().ok().filter(|nodes| NODES.contains(nodes));
    parsed.ok_or_else(|| "wanted: a number from 3 to 7".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

fn numbers(text: &str) -> Result<Numbers, String> {
    if text == "none" {
        return Ok(Numbers(Vec::new()));
    }
    let numbers: Result<_, _> = text.split(',').map(str::parse).collect();
    let numbers = numbers.map_err(|_| "wanted: numbers with commas, such as 3,7; or none");
    Ok(Numbers(numbers?))
}

#[cfg(feature = "planted-faults")]
fn plant(name: &str) -> Result<String, String> {
    crate::planted::named(name).map(|_| name.to_owned())
}

impl SimulateArgs {
    fn options(&self) -> Options {
        let options = Options {
            family: self.scenario,
            nodes: self.nodes,
            clients: self.clients,
            time: self.time,
            work: self.work,
            only: self.faults.clone().map(|numbers| numbers.0),
            thorough: self.thorough,
            ..Options::default()
        };
        #[cfg(feature = "planted-faults")]
        if let Some(name) = &self.plant {
            let planted = crate::planted::named(name).unwrap_or_default();
            let mistakes = quorate_simulate::Mistakes {
                raft: planted.raft,
                eventual: planted.eventual,
                gateway: planted.gateway,
                lying_syncs: !planted.acknowledged_early.is_zero(),
                lying_sync: planted.lying_sync,
            };
            return Options {
                mistakes,
                ..options
            };
        }
        options
    }

    /// The command that plays a plan of these arguments again.
    fn command(&self, plan: &Plan) -> String {
        let whole = Plan::of(plan.seed, &self.options());
        let mut words = vec![format!("quorate simulate --seeds {}", plan.seed)];
        if self.scenario != Family::All {
            words.push(format!("--scenario {}", self.scenario.name()));
        }
        if plan.nodes != whole.nodes || self.nodes.is_some() {
            words.push(format!("--nodes {}", plan.nodes));
        }
        if plan.clients != whole.clients || self.clients.is_some() {
            words.push(format!("--clients {}", plan.clients));
        }
        if plan.time != whole.time || self.time.is_some() {
            words.push(format!("--time {}ms", plan.time.as_millis()));
        }
        if let [work] = plan.work[..] {
            words.push(format!("--work {}", work.name()));
        }
        if plan.faults.len() != whole.faults.len() || self.faults.is_some() {
            let numbers = plan.faults.iter().map(|fault| fault.number.to_string());
            let numbers: Vec<String> = numbers.collect();
            let none = numbers.is_empty().then(|| "none".to_owned());
            words.push(format!("--faults {}", none.unwrap_or(numbers.join(","))));
        }
        words.extend(self.thorough.then(|| "--thorough".to_owned()));
        #[cfg(feature = "planted-faults")]
        words.extend(self.plant.iter().map(|name| format!("--plant {name}")));
        words.join(" ")
    }
}

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
        let mut outcome = quorate_simulate::run(&plan, &running);
        if shared.twice {
            let again = quorate_simulate::run(&plan, &Running::new(false));
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
        .find(|(_, (since, _))| since.elapsed() > HANGS_AFTER);
    let seed = *late?.0;
    let (_, run) = running.remove(&seed)?;
    let mut problems = vec![format!("it hangs: not over after {HANGS_AFTER:?}")];
    problems.extend(run.lines().into_iter().rev().take(LINES_SHOWN_MAX));
    let outcome = Outcome {
        problems,
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
    if args.trace && seeds > 1 {
        return Err(CliError::usage(
            "--trace is of one seed".to_owned(),
            "such as --seeds 17 --trace",
        ));
    }
    // It works on threads of its own, and none of it waits for anything else.
    tokio::task::block_in_place(|| simulate(args, output))
}

fn simulate(args: &SimulateArgs, mut output: Output) -> Result<(), CliError> {
    if args.trace {
        return trace(args, output);
    }
    let begun = Instant::now();
    let sum = play(args, &output);
    let took = begun.elapsed();
    let speed = sum.spent.simulated.as_secs_f64() / took.as_secs_f64().max(1e-3);
    for played in &sum.failed {
        tell(args, played, &mut output)?;
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
        running: Mutex::default(),
    });
    let (sender, played) = mpsc::channel();
    for _ in 0..jobs {
        let (shared, sender) = (shared.clone(), sender.clone());
        std::thread::spawn(move || play_all(&shared, &sender));
    }
    drop(sender);
    let bar = bar(seeds, output);
    let mut sum = Sum::default();
    while sum.seeds < seeds {
        let one = match played.recv_timeout(LOOK_INTERVAL) {
            Ok(one) => Some(one),
            Err(RecvTimeoutError::Timeout) => hanging(&shared),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if let Some(one) = one {
            if let Some(problem) = one.outcome.problems.first() {
                bar.suspend(|| output.remark(&format!("seed {}: {problem}", one.seed)));
            }
            sum.add(one);
            bar.inc(1);
            bar.set_message(format!(
                "{} failed, {:.0} s simulated, {} faults",
                sum.failed.len(),
                sum.spent.simulated.as_secs_f64(),
                sum.spent.faults
            ));
        }
    }
    bar.finish_and_clear();
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

fn trace(args: &SimulateArgs, mut output: Output) -> Result<(), CliError> {
    let running = Running::new(true);
    let plan = Plan::of(args.seeds.start, &args.options());
    let outcome = quorate_simulate::run(&plan, &running);
    for line in running.lines() {
        output.line(line)?;
    }
    let right = outcome.problems.is_empty();
    for problem in &outcome.problems {
        output.line(format!("WRONG: {problem}"))?;
    }
    output.flush()?;
    match right {
        true => Ok(()),
        false => Err(CliError::Reported(Exit::Failed)),
    }
}

/// Tells of a seed that failed: what was wrong, and the smallest run found that still is.
fn tell(args: &SimulateArgs, played: &Played, output: &mut Output) -> Result<(), CliError> {
    let plan = Plan::of(played.seed, &args.options());
    output.remark(&format!("seed {} failed:", played.seed));
    for problem in &played.outcome.problems {
        output.remark(&format!("  {problem}"));
    }
    output.remark(&format!("replay: {}", args.command(&plan)));
    let hangs = played.outcome.spent == Spent::default();
    if args.no_shrink || hangs {
        return Ok(());
    }
    let small = quorate_simulate::shrink(&plan, SHRINKS_MAX, |plan| {
        let outcome = quorate_simulate::run(plan, &Running::new(false));
        !outcome.problems.is_empty()
    });
    output.remark(&format!("smaller: {} --trace", args.command(&small)));
    let running = Running::new(true);
    quorate_simulate::run(&small, &running);
    let lines = running.lines();
    for line in &lines[lines.len().saturating_sub(LINES_SHOWN_MAX)..] {
        output.remark(&format!("  {line}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_one_or_a_range() {
        assert_eq!(seeds("3..5"), Ok(3..5));
        assert_eq!(seeds("17"), Ok(17..18));
        assert!(seeds("5..5").is_err());
        assert!(seeds("x..5").unwrap_err().contains("0..300"));
    }

    #[test]
    fn faults_are_numbers_or_none() {
        assert_eq!(numbers("3,7").unwrap().0, [3, 7]);
        assert!(numbers("none").unwrap().0.is_empty());
        assert!(numbers("3,x").is_err());
    }
}
