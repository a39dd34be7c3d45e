//! `quorate repair`: replicas of the eventual plane are compared now, and mended.

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::error::CliError;
use super::exit::Exit;
use super::global::Session;
use super::table::bytes;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate repair
  quorate repair carts --output json

Replicas are compared by themselves all the time; this does it now, range by range, and says what
differed.")]
pub(super) struct RepairArgs {
    /// Only this keyspace [default: all with an eventual plane]
    keyspace: Option<String>,
}

pub(super) async fn run(args: RepairArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let bar = match output.is_terminal() && !output.is_json() {
        true => ProgressBar::new(0),
        false => ProgressBar::hidden(),
    };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} ranges, {msg}") {
        bar.set_style(style);
    }
    let (mut ranges, mut keys, mut moved) = (0, 0, 0);
    let mut problems = Vec::new();
    let keyspace = args.keyspace.unwrap_or_default();
    client
        .admin()
        .repair(&keyspace, |step| {
            ranges = step.ranges_done;
            keys += step.keys;
            moved += step.bytes;
            if !step.problem.is_empty() {
                problems.push(format!("range {}: {}", step.range, step.problem));
            }
            bar.set_length(u64::from(step.ranges_total));
            bar.set_position(u64::from(step.ranges_done));
            bar.set_message(format!("{keys} keys differed"));
        })
        .await?;
    bar.finish_and_clear();
    if output.is_json() {
        output.json(&json!({
            "ranges": ranges,
            "keys": keys,
            "bytes": moved,
            "problems": problems,
        }))?;
    } else {
        output.line(format_args!(
            "{ranges} range(s) compared, {keys} key(s) differed and were exchanged, {} moved",
            bytes(moved)
        ))?;
    }
    output.flush()?;
    if problems.is_empty() {
        return Ok(());
    }
    Err(CliError::refused(
        Exit::Unavailable,
        problems.join("; "),
        "`quorate status` shows which nodes answer; repeat it when they do",
    ))
}
