//! `quorate history`.

use std::ffi::OsString;

use clap::Args;
use quorate_types::Timestamp;

use super::consistency::LevelArgs;
use super::error::CliError;
use super::global::Session;
use super::{get, input, json};

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate history greeting
  quorate history greeting --limit 5 --output json")]
pub(super) struct HistoryArgs {
    /// The key, byte for byte
    key: OsString,
    /// At most so many versions
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
    limit: u32,
    #[command(flatten)]
    level: LevelArgs,
}

pub(super) async fn run(args: HistoryArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let key = input::argument(&args.key);
    let history = client
        .history_with(key.clone(), args.limit, args.level.read()?)
        .await?;
    args.level.remember(&history.receipt)?;
    if history.entries.is_empty() {
        return Err(get::not_found(&key, client.keyspace_name(), None));
    }
    for version in &history.entries {
        if output.is_json() {
            output.object(json::version(version), &history.receipt)?;
            continue;
        }
        let revision = version.entry.revision.0;
        let when = Timestamp(revision).to_rfc3339();
        output.bytes(format!("{revision}\t{when}\t").as_bytes())?;
        match version.deleted {
            true => output.bytes(b"(deleted)")?,
            false => output.bytes(&version.entry.value)?,
        }
        output.bytes(b"\n")?;
    }
    if !output.is_json() {
        if history.floor.0 > 0 {
            let floor = history.floor.0;
            output.remark(&format!(
                "versions superseded up to revision {floor} are collected"
            ));
        }
        output.remark_receipt(&history.receipt);
    }
    output.flush()
}
