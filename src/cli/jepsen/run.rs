//! `quorate jepsen run`: arguments, and what is said of a run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use quorate_lab::{ForeignStore, HostsKind, LabError, Nemesis, Plan, PlanOptions, WorkloadKind};
use quorate_types::{Ladder, Mode, chain, parse_duration};

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::cli::signal::StopSignals;

use super::matrix;

const TIME_DEFAULT: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate jepsen run --workload register --nemesis kill --time 15s
  quorate jepsen run --workload mixed --nemesis halves,kill-leader --seed 7
  quorate jepsen run --matrix quick
  quorate jepsen run --workload set --level eventual:quorum --nemesis bridge --hosts proxy
  quorate jepsen run --node './store serve' --client './store speak' --nemesis halves,kill

Workloads: register, append, batch, bank, set, counter, sessions, bounded, expiring, siblings,
mixed, fence, ladders, lock; and sessions-control, fence-control and lock-control, which break the
promise by intent and must be found out.
Nemeses: none, halves, minority, majority-ring, bridge, one-way, isolate-leader, flapping, kill,
kill-leader, kill-majority, kill-all, pause, pause-leader, pause-all, rolling-restart,
transfer-leader, clock-skew, clock-strobe; of disks: power-cut, power-cut-all, disk-slow, disk-full,
fsync-error, bit-flip; of links: delay, slow-link, loss, reset.
Hosts: netns (Linux, root, with `ip` and `nft`: the kernel drops packets), or proxy (anywhere:
relays that stall). Both cut pairs of nodes, both ways or one way, limit bandwidth, and reset
connections. Only proxy delays; only netns loses packets. What the hosts cannot do is refused
before anything starts.

Exit codes: 0 the promise held and all came back, 1 it did not, 2 the run does not tell.")]
pub(in crate::cli) struct RunArgs {
    /// What clients do
    #[arg(long, value_name = "WORKLOAD", default_value = "register")]
    workload: WorkloadKind,
    /// Many runs, each of another workload, nemesis, level and mode: quick, nightly, or a file
    #[arg(long, value_name = "FILE|quick|nightly")]
    #[arg(conflicts_with_all = ["workload", "nemesis", "level", "mode"])]
    matrix: Option<String>,
    /// What is done to the nodes, several at once with commas; or none
    #[arg(long, value_name = "NEMESIS[,…]", default_value = "none")]
    nemesis: String,
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 5)]
    nodes: usize,
    /// How long clients work [default: 60s, or what the matrix says]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    time: Option<Duration>,
    /// Which choices are made; the same ones for the same seed, races aside
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The level of calls [default: the workload's own]
    #[arg(long, value_name = "LEVEL")]
    level: Option<Ladder>,
    /// The mode of the keyspace [default: mixed]
    #[arg(long, value_name = "MODE")]
    mode: Option<Mode>,
    /// Where nodes live: netns or proxy [default: netns where it can be had]
    #[arg(long, value_name = "HOSTS")]
    hosts: Option<HostsKind>,
    /// Folder of history, results, report and logs [default: quorate-jepsen/WORKLOAD-SEED]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How many clients work at once
    #[arg(long, value_name = "N", default_value_t = 10)]
    clients: usize,
    /// Calls a second, all clients together
    #[arg(long, value_name = "N", default_value_t = 200.0)]
    rate: f64,
    /// Primaries of each range [default: 3]
    #[arg(long, value_name = "N")]
    replication: Option<u8>,
    /// A run in which a smaller share of calls was answered does not count
    #[arg(long, value_name = "PERCENT", default_value_t = 25)]
    served_min: u8,
    /// Another store: the command of a node, run by a shell where the node lives
    #[arg(
        long,
        value_name = "COMMAND",
        requires = "client",
        conflicts_with = "matrix"
    )]
    node: Option<String>,
    /// Another store: the command of a client, which speaks JSON lines
    #[arg(long, value_name = "COMMAND", requires = "node")]
    client: Option<String>,
    /// Keep the nodes' data also where all went well
    #[arg(long)]
    keep_data: bool,
    /// Send eventual writes again whose answer is lost. Only a coordinator that still knows them
    /// makes one write of both: so with as many primaries as nodes, and nodes that are not killed
    #[arg(long)]
    retries: bool,
    /// Entries that nodes keep of each range's log: whoever was away for more gets a snapshot
    #[arg(long, value_name = "N")]
    kept_entries: Option<u64>,
    /// Have the nodes make a mistake on purpose
    #[cfg(feature = "planted-faults")]
    #[arg(long, value_name = "NAME", hide = true, value_parser = plant)]
    plant: Option<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// The name of a mistake that can be made.
#[cfg(feature = "planted-faults")]
fn plant(name: &str) -> Result<String, String> {
    crate::planted::named(name).map(|_| name.to_owned())
}

/// What the nodes are told beside what all are.
fn node_arguments(args: &RunArgs) -> Vec<String> {
    let kept = args
        .kept_entries
        .map(|kept| format!("--kept-entries={kept}"));
    #[cfg(feature = "planted-faults")]
    let kept = kept
        .into_iter()
        .chain(args.plant.as_ref().map(|name| format!("--plant={name}")));
    kept.into_iter().collect()
}

/// Names with commas between them; `none` for none.
fn nemeses(text: &str) -> Result<Vec<Nemesis>, CliError> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let parse = |name: &str| {
        name.parse()
            .map_err(|known: String| CliError::usage(format!("no nemesis `{name}`"), known))
    };
    text.split(',').map(parse).collect()
}

pub(super) async fn run(args: RunArgs, mut output: Output) -> Result<(), CliError> {
    let mut signals = StopSignals::listen()?;
    if let Some(name) = &args.matrix {
        let (matrix, time) = (matrix::read(name)?, args.time);
        return matrix::run(matrix, time, options(args)?, &mut signals, output).await;
    }
    let plan = Plan::new(options(args)?).await.map_err(told)?;
    let results = quorate_lab::run(plan, signals.next()).await.map_err(told)?;
    if output.is_json() {
        output.json(&results.to_json())?;
    } else {
        output.line(results.to_text().trim_end())?;
        output.line(format!(
            "report: {}",
            results.dir().join("report.html").display()
        ))?;
    }
    output.flush()?;
    matrix::end(results.outcome())
}

fn options(args: RunArgs) -> Result<PlanOptions, CliError> {
    let program = std::env::current_exe();
    let program =
        program.map_err(|error| CliError::file("find", Path::new("this program"), error))?;
    let node_arguments = node_arguments(&args);
    let dir = args.dir.unwrap_or_else(|| {
        let name = match &args.matrix {
            Some(_) => "matrix",
            None => args.workload.name(),
        };
        PathBuf::from("quorate-jepsen").join(format!("{name}-{}", args.seed))
    });
    let dir = std::path::absolute(&dir).map_err(|error| CliError::file("use", &dir, error))?;
    Ok(PlanOptions {
        workload: args.workload,
        nemeses: nemeses(&args.nemesis)?,
        nodes: args.nodes,
        time: args.time.unwrap_or(TIME_DEFAULT),
        seed: args.seed,
        level: args.level,
        hosts: args.hosts,
        dir,
        program,
        clients: args.clients,
        rate_per_second: args.rate,
        mode: args.mode,
        replication: args.replication,
        served_min_percent: args.served_min,
        foreign: args
            .node
            .zip(args.client)
            .map(|(node, client)| ForeignStore { node, client }),
        keep_data: args.keep_data,
        retries: args.retries,
        node_arguments,
    })
}

/// An error of the lab: the run does not tell.
pub(super) fn told(error: LabError) -> CliError {
    let hint = error.hint().to_owned();
    CliError::refused(Exit::Usage, chain(&error), hint)
}
