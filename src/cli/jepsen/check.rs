//! `quorate jepsen check`: holds a recorded history against a model.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use quorate_jepsen::history::operations;
use quorate_jepsen::picture::html;
use quorate_jepsen::{Budget, CheckError, Model, Options, Report, Verdict, check};
use quorate_types::{chain, parse_duration};
use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::output::Output;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate jepsen check --model cas-register history.edn
  quorate jepsen check --model list-append --consistency serializable history.jsonl
  quorate jepsen check --model cas-register --independent --output json history.json
  quorate jepsen check --model mutex --report report.html history.edn

Exit codes: 0 valid, 1 invalid, 2 not known, or the file is no history of the model.")]
pub(in crate::cli) struct CheckArgs {
    /// What the history is held against: cas-register, append-kv, mutex, list-append,
    /// rw-register, set, set-full, counter, bank, long-fork, sessions, causal, mixed
    #[arg(long, value_name = "MODEL")]
    model: Model,
    /// Check each key by itself: values are [KEY VALUE], or events have a `key`
    #[arg(long)]
    independent: bool,
    /// What transactions promise [default: strict-serializable]; or `linearizable` for sets that
    /// must not show stale reads
    #[arg(long, value_name = "CONSISTENCY")]
    consistency: Option<String>,
    /// Nobody else writes: reads of what the history does not write are wrong
    #[arg(long)]
    closed: bool,
    /// Accounts of a bank may go below zero
    #[arg(long)]
    negative_balances: bool,
    /// Keys that each read of the long-fork model takes
    #[arg(long, value_name = "N", default_value_t = Options::default().group_size_keys)]
    group_size: usize,
    /// How long to search before the answer is: not known
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_deadline)]
    deadline: Duration,
    /// How much memory to search in before the answer is: not known
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    memory_mib: usize,
    /// Write a page with pictures of what is wrong
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// The recorded history: .edn, .json, .jsonl, or a log of Jepsen's console
    file: PathBuf,
}

fn parse_deadline(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

pub(super) fn run(args: &CheckArgs, output: Output) -> Result<(), CliError> {
    let report = checked(args)?;
    if let Some(path) = &args.report {
        let page = html(&report, args.model.name());
        fs::write(path, page).map_err(|error| CliError::file("write", path, error))?;
    }
    tell(args, &report, output)?;
    match report.verdict {
        Verdict::Valid => Ok(()),
        Verdict::Invalid => Err(CliError::Reported(Exit::Failed)),
        Verdict::Unknown => Err(CliError::Reported(Exit::Usage)),
    }
}

fn checked(args: &CheckArgs) -> Result<Report, CliError> {
    let options = Options {
        independent: args.independent,
        consistency: args.consistency.clone(),
        closed: args.closed,
        negative_balances: args.negative_balances,
        group_size_keys: args.group_size,
    };
    let path = args.file.display();
    let unreadable = |what: String| CliError::refused(Exit::Usage, format!("{path}: {what}"), "");
    let file = File::open(&args.file).map_err(|error| unreadable(error.to_string()))?;
    let begin = Instant::now();
    let expired = || begin.elapsed() > args.deadline;
    let mut budget = Budget::new(&expired, args.memory_mib.saturating_mul(1 << 20));
    let operations = operations(BufReader::new(file), &args.file);
    check(operations, args.model, &options, &mut budget).map_err(|error| match &error {
        CheckError::Option(what) => CliError::usage(what.clone(), ""),
        CheckError::Read(_) | CheckError::Misfit(_) | CheckError::TooLong => {
            unreadable(chain(&error))
        }
    })
}

fn tell(args: &CheckArgs, report: &Report, mut output: Output) -> Result<(), CliError> {
    if output.is_json() {
        let mut json = report.to_json(args.model.name());
        json["file"] = json!(args.file.display().to_string());
        output.json(&json)?;
    } else {
        output.line(report.to_text(args.model.name()).trim_end())?;
    }
    output.flush()
}
