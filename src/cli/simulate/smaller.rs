//! What is told of a seed that failed: what was wrong, and the smallest run found in which the same
//! kind of thing is.
//!
//! Not here: how a plan is made smaller, which is `quorate-simulate`.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use quorate_simulate::{Budget, Plan, Running, Spent};

use super::{HANGS_AFTER, Played, SimulateArgs};
use crate::cli::output::Output;

/// Runs that are tried for a seed that fails.
const RUNS_MAX: u64 = 4_000;
const TICK: Duration = Duration::from_millis(200);

/// Tells of a seed that failed.
pub(super) fn tell(args: &SimulateArgs, played: &Played, output: &Output) {
    let plan = Plan::of(played.seed, &args.options());
    let problems = &played.outcome.problems;
    output.remark(&format!("seed {} failed:", played.seed));
    for problem in problems {
        output.remark(&format!("  {problem}"));
    }
    output.remark(&format!("replay: {}", args.command(&plan)));
    let hangs = played.outcome.spent == Spent::default();
    if args.no_shrink || hangs {
        return;
    }
    let small = smallest(args, &plan, problems, output);
    output.remark(&format!(
        "smaller: {} --trace=telling",
        args.command(&small)
    ));
    let running = Running::new(true);
    let outcome = quorate_simulate::run(&small, &running);
    for line in running.telling(&outcome.found) {
        output.remark(&format!("  {line}"));
    }
}

fn smallest(args: &SimulateArgs, plan: &Plan, problems: &[String], output: &Output) -> Plan {
    let begun = Instant::now();
    let deadline = begun + args.shrink_time;
    let bar = match output.is_json() {
        true => ProgressBar::hidden(),
        false => ProgressBar::new_spinner(),
    };
    bar.enable_steady_tick(TICK);
    bar.set_message("making it smaller");
    let budget = Budget { runs_max: RUNS_MAX };
    let play = |plan: &Plan| play(plan, deadline);
    let better = |plan: &Plan, runs: u64| {
        bar.set_message(format!(
            "making it smaller: {} after {runs} runs",
            size(plan)
        ));
    };
    let shrunk = quorate_simulate::shrink(plan, problems, budget, play, better);
    bar.finish_and_clear();
    output.remark(&format!(
        "made smaller in {} runs and {:.0} s: {} -> {}",
        shrunk.runs,
        begun.elapsed().as_secs_f64(),
        size(plan),
        size(&shrunk.plan)
    ));
    shrunk.plan
}

fn size(plan: &Plan) -> String {
    format!(
        "{} faults, {} nodes, {} clients, {} ms",
        plan.faults.len(),
        plan.nodes,
        plan.clients,
        plan.time.as_millis()
    )
}

/// What is wrong with a plan, on a thread that is left alone if it hangs; nothing once time is up.
fn play(plan: &Plan, deadline: Instant) -> Option<Vec<String>> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return None;
    }
    let (sender, played) = mpsc::channel();
    let plan = plan.clone();
    std::thread::spawn(move || {
        let outcome = quorate_simulate::run(&plan, &Running::new(false));
        // Whoever asked may have gone on.
        let _ = sender.send(outcome.problems);
    });
    played.recv_timeout(left.min(HANGS_AFTER)).ok()
}
