//! `quorate jepsen compare`: arguments, progress, and the table.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quorate_lab::HostsKind;
use quorate_lab::compare::{
    CompareOptions, ComparePlan, Comparison, CutShape, HEADS, LEGEND, LeaderSide, Stage,
    TargetKind, compare,
};
use quorate_types::parse_duration;

use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::signal::StopSignals;
use crate::cli::table::table;

use super::matrix::end;
use super::run::told;

const DRAW_PAUSE: Duration = Duration::from_millis(200);

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate jepsen compare
  quorate jepsen compare --leader majority --cut-time 30s --seed 7
  quorate jepsen compare --hosts proxy --before 3s --cut-time 5s --after 5s --rate 150
  quorate jepsen compare --target etcd --etcd-binary FILE --dir etcd
  quorate jepsen compare --beside etcd/results.json      # both in one report

Five nodes are cut in two: three go on hearing each other, and so do two. On both sides the same clients
make the same calls, one stream for each level of reads and writes: linearizable, bounded, session, stale,
eventual (one, quorum, all; sloppy and strict), and ladders. What you get to see, for each level and side:
how many calls were served before, during and after the cut, how fast, how long none was, how old what was
read was against what had been acknowledged anywhere, and in the end, whether any acknowledged write is
lost, what came to conflicts, and what it took to bring both sides together again.

By default the keys have three replicas, of which the smaller side has one, the leader: the others must
elect one first. It also has a node without a replica, which can stand in for one (not where a level says
strict). --leader majority leaves the leader with the larger side, --cut leader takes it away alone.

etcd is put through the same cut for what it has: linearizable puts and gets, and serializable gets.
It takes --hosts netns, and its program: named, in ETCD, or in PATH.

The folder holds report.html (look at this one), results.json, samples.jsonl (each call) and the nodes' logs.

Hosts: netns (Linux, root, with `ip` and `nft`: the kernel drops packets), or proxy (anywhere:
relays that stall).

Exit codes: 0 no promise was broken and all came back, 1 not so, 2 the run does not tell.")]
pub(in crate::cli) struct CompareArgs {
    /// The store: quorate or etcd
    #[arg(long, value_name = "STORE", default_value = "quorate")]
    target: TargetKind,
    /// etcd's program [default: the first in PATH]
    #[arg(long, value_name = "FILE", env = "ETCD")]
    etcd_binary: Option<PathBuf>,
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 5)]
    nodes: usize,
    /// Replicas of the keys [default: 3; etcd has one on each node]
    #[arg(long, value_name = "N")]
    replication: Option<u8>,
    /// How nodes are cut in two: halves, or leader (it alone)
    #[arg(long, value_name = "CUT", default_value = "halves")]
    cut: CutShape,
    /// On which side the leader is then: minority or majority
    #[arg(long, value_name = "SIDE", default_value = "minority")]
    leader: LeaderSide,
    /// How long all is whole before
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    before: Duration,
    /// How long it is cut
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    cut_time: Duration,
    /// How long calls go on after it was healed
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    after: Duration,
    /// Calls a second, all levels and both sides together
    #[arg(long, value_name = "N", default_value_t = 300.0)]
    rate: f64,
    /// How long a call may take; it has one attempt
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    call_timeout: Duration,
    /// Which choices are made; the same ones for the same seed, races aside
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where nodes live: netns or proxy [default: netns where it can be had]
    #[arg(long, value_name = "HOSTS")]
    hosts: Option<HostsKind>,
    /// Folder of report, results, samples and logs [default: quorate-jepsen/compare-STORE-SEED]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Keep the nodes' data also where all went well
    #[arg(long)]
    keep_data: bool,
    /// Show earlier comparisons beside this one in the report
    #[arg(long, value_name = "RESULTS.json[,…]", value_delimiter = ',')]
    beside: Vec<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

pub(super) async fn run(args: CompareArgs, mut output: Output) -> Result<(), CliError> {
    let mut signals = StopSignals::listen()?;
    let options = options(args)?;
    let report = options.dir.join("report.html");
    let plan = ComparePlan::new(options).await.map_err(told)?;
    let comparison = watched(plan, &mut signals).await?;
    if output.is_json() {
        output.json(&comparison.to_json())?;
    } else {
        output.line(table(&HEADS, comparison.table()))?;
        output.line("")?;
        output.line(LEGEND)?;
        output.line("")?;
        output.line(comparison.summary())?;
        output.line(format!("report: {}", report.display()))?;
    }
    output.flush()?;
    end(comparison.outcome())
}

fn options(args: CompareArgs) -> Result<CompareOptions, CliError> {
    let program = std::env::current_exe();
    let program =
        program.map_err(|error| CliError::file("find", Path::new("this program"), error))?;
    let dir = args.dir.unwrap_or_else(|| {
        let name = format!("compare-{}-{}", args.target.name(), args.seed);
        PathBuf::from("quorate-jepsen").join(name)
    });
    let dir = std::path::absolute(&dir).map_err(|error| CliError::file("use", &dir, error))?;
    Ok(CompareOptions {
        target: args.target,
        etcd_binary: args.etcd_binary,
        nodes: args.nodes,
        replication: args.replication,
        cut: args.cut,
        leader: args.leader,
        before: args.before,
        cut_time: args.cut_time,
        after: args.after,
        rate_per_second: args.rate,
        timeout: args.call_timeout,
        seed: args.seed,
        hosts: args.hosts,
        dir,
        program,
        keep_data: args.keep_data,
        beside: args.beside,
    })
}

/// Runs it with a bar on a terminal that says what is going on.
async fn watched(plan: ComparePlan, signals: &mut StopSignals) -> Result<Comparison, CliError> {
    let load = plan.load_time();
    let bar = bar(load);
    let begun = std::cell::Cell::new(None);
    let tell = |stage: Stage| {
        bar.set_message(words(stage));
        if stage == Stage::Before {
            begun.set(Some(Instant::now()));
        }
    };
    let mut running = std::pin::pin!(compare(plan, tell, signals.next()));
    let mut drawn = tokio::time::interval(DRAW_PAUSE);
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended,
            _ = drawn.tick() => {
                let passed = begun.get().map_or(Duration::ZERO, |begun: Instant| begun.elapsed());
                bar.set_position(passed.min(load).as_millis() as u64);
            }
        }
    };
    bar.finish_and_clear();
    ended.map_err(told)
}

fn bar(load: Duration) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {bar:40} {elapsed} {msg}");
    let target = ProgressDrawTarget::stderr();
    let bar = ProgressBar::with_draw_target(Some(load.as_millis() as u64), target);
    bar.enable_steady_tick(DRAW_PAUSE);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn words(stage: Stage) -> &'static str {
    match stage {
        Stage::Starting => "nodes start",
        Stage::Before => "all is whole",
        Stage::Cut => "cut apart",
        Stage::After => "healed",
        Stage::Recovering => "nodes come to rest",
        Stage::Reading => "all keys are read",
    }
}
