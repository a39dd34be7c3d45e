//! `quorate node replace`: a new node in the place of a lost one.

use clap::{Args, Subcommand};
use serde_json::json;

use super::error::CliError;
use super::global::Session;

#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// Put a new node in the place of one that lost its data, range by range
    Replace(ReplaceArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate server --id 4 --dir node-4 --listen 127.0.0.1:7470 --join --peer 1=127.0.0.1:7450
  quorate node replace 3

The new node must be running. If it breaks off, the same command takes it up again.")]
pub(super) struct ReplaceArgs {
    /// The node that is lost
    id: u64,
    /// The node that takes its place [default: the one without ranges]
    #[arg(long, value_name = "ID")]
    with: Option<u64>,
}

pub(super) async fn run(command: NodeCommand, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let NodeCommand::Replace(args) = command;
    let with = args.with.unwrap_or(0);
    let tell = !output.is_json();
    let last = client
        .admin()
        .replace_node(args.id, with, |step| {
            if tell {
                output.remark(&format!(
                    "{}/{} ranges: {}",
                    step.ranges_done, step.ranges_total, step.step
                ));
            }
        })
        .await?
        .unwrap_or_default();
    match output.is_json() {
        true => output.json(&json!({
            "node": args.id,
            "with": last.with,
            "ranges_done": last.ranges_done,
            "ranges_total": last.ranges_total,
        }))?,
        false => output.line(format_args!(
            "node {} is replaced by node {}, {} range(s)",
            args.id, last.with, last.ranges_done
        ))?,
    }
    output.flush()
}
