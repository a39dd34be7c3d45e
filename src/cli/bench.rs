//! `quorate bench`: arguments and results; the load itself is in `crate::bench`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use quorate_client::ClientOptions;
use quorate_types::limits::{SCAN_ROWS_MAX, VALUE_MAX_BYTES_CAP};
use quorate_types::{Ladder, parse_duration};
use serde_json::{Value, json};

use super::error::CliError;
use super::output::Output;
use super::transfer::Spinner;
use crate::bench::{self, LoadOptions, QuorateTarget, Report, Workload};

/// Most clients, each with its own connection.
const CLIENTS_MAX: u64 = 10_000;
/// Most requests in flight of one client: what one pipeline takes.
const DEPTH_MAX: u64 = quorate_client::limits::PIPELINE_IN_FLIGHT_MAX as u64;
/// Most different keys; their numbers keep one length.
const KEYS_MAX: u64 = 1_000_000_000_000;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate bench --workload put --clients 64 --duration 10s
  quorate bench --workload get --clients 4 --depth 64 --level stale --output json
  quorate bench --workload mixed:0.9 --clients 8 --rate 5000")]
pub(super) struct BenchArgs {
    /// put, get, scan, or mixed:SHARE_OF_GETS
    #[arg(long)]
    workload: Workload,
    /// Clients, each with connections of its own
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=CLIENTS_MAX))]
    clients: u64,
    /// Requests that each client has in flight on its stream; 1: unary calls
    #[arg(long, value_name = "D", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=DEPTH_MAX))]
    depth: u64,
    /// Size of values
    #[arg(long, value_name = "N", default_value = "256", value_parser = clap::value_parser!(u64).range(0..=VALUE_MAX_BYTES_CAP as u64))]
    value_bytes: u64,
    /// Different keys, drawn evenly
    #[arg(long, value_name = "K", default_value = "10000", value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    keys: u64,
    /// Rows of each scan
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=SCAN_ROWS_MAX as i64))]
    scan_rows: u32,
    /// How long is measured
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_length)]
    duration: Duration,
    /// How long the load runs before it counts
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    warmup: Duration,
    /// Consistency of reads, and of writes where they have it [default: the keyspace's]
    #[arg(long, value_name = "LEVEL")]
    level: Option<Ladder>,
    /// Each request sees first what a majority took in eventually (not scans)
    #[arg(long)]
    fence: bool,
    /// Requests a second over all clients, due at fixed times [default: as fast as answered]
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Write all keys first: auto does so for loads that read
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    load: Load,
    /// The same seed draws the same keys and values
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
}

/// When keys are written before the load begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Load {
    Auto,
    Always,
    Never,
}

fn parse_length(text: &str) -> Result<Duration, String> {
    let length = parse_duration(text).map_err(|error| error.to_string())?;
    if length.is_zero() {
        return Err("a measurement takes some time, as in 10s".to_owned());
    }
    Ok(length)
}

fn parse_rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate: &f64| rate.is_finite() && *rate >= 0.001)
        .ok_or_else(|| "wanted: requests a second, at least 0.001".to_owned())
}

impl BenchArgs {
    fn options(&self) -> LoadOptions {
        LoadOptions {
            workload: self.workload,
            clients: self.clients as usize,
            depth: self.depth as usize,
            value_bytes: self.value_bytes as usize,
            keys: self.keys,
            scan_rows: self.scan_rows,
            duration: self.duration,
            warmup: self.warmup,
            rate: self.rate,
            seed: self.seed,
        }
    }

    fn target(&self, client: ClientOptions) -> Result<QuorateTarget, CliError> {
        let rungs = || self.level.iter().flat_map(|ladder| ladder.rungs());
        let reads = rungs().try_for_each(|rung| rung.level.read().map(|_| ()));
        let writes = rungs().try_for_each(|rung| rung.level.write().map(|_| ()));
        if self.workload.reads() {
            reads.map_err(|error| CliError::usage(error.to_string(), ""))?;
        } else {
            writes.map_err(|error| CliError::usage(error.to_string(), ""))?;
        }
        Ok(QuorateTarget {
            client,
            read: self.level.clone().filter(|_| reads.is_ok()),
            write: self.level.clone().filter(|_| writes.is_ok()),
            fence: self.fence,
        })
    }
}

pub(super) async fn run(
    args: BenchArgs,
    client: ClientOptions,
    mut output: Output,
) -> Result<(), CliError> {
    let options = args.options();
    let target = args.target(client)?;
    let load = match args.load {
        Load::Auto => args.workload.reads(),
        Load::Always => true,
        Load::Never => false,
    };
    if load {
        let progress = Spinner::show("keys loaded");
        bench::preload(&target, &options, |keys| progress.advance(keys)).await?;
    }
    let report = bench::run(&target, &options).await?;
    for (message, times) in &report.messages {
        output.remark(&format!("{times} failed: {message}"));
    }
    match output.is_json() {
        true => output.json(&as_json(&args, &report))?,
        false => output.line(as_text(&report))?,
    }
    output.flush()
}

fn as_json(args: &BenchArgs, report: &Report) -> Value {
    let mut value = report.json();
    for (name, setting) in [
        ("workload", json!(args.workload.to_string())),
        ("level", json!(args.level.as_ref().map(ToString::to_string))),
        ("clients", json!(args.clients)),
        ("depth", json!(args.depth)),
        ("value_bytes", json!(args.value_bytes)),
        ("keys", json!(args.keys)),
        ("rate", json!(args.rate)),
    ] {
        value[name] = setting;
    }
    value
}

fn as_text(report: &Report) -> String {
    format!(
        "{} requests in {:.1} s, {} failed\n\
         {:.0} requests/s\n\
         latency: p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
        report.ops,
        report.elapsed.as_secs_f64(),
        report.errors,
        report.ops_per_second,
        millis(report.p50_us),
        millis(report.p90_us),
        millis(report.p99_us),
        millis(report.p999_us),
        millis(report.max_us),
    )
}

fn millis(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1000.0)
}
