//! `quorate scan`.

use std::ffi::OsString;
use std::pin::pin;

use clap::Args;
use futures::TryStreamExt;
use quorate_client::{ReadOptions, ScanOptions, ScanPage};
use quorate_types::Revision;

use super::consistency::LevelArgs;
use super::error::CliError;
use super::global::Session;
use super::output::Output;
use super::{input, json};

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate scan config/ --limit 10
  quorate scan --keys-only
  quorate scan config/ --at 1762000000000000 --output json")]
pub(super) struct ScanArgs {
    /// Keys that start with this; none: all
    prefix: Option<OsString>,
    /// From this key on
    #[arg(long, value_name = "KEY", conflicts_with = "prefix")]
    start: Option<OsString>,
    /// Up to this key, without it
    #[arg(long, value_name = "KEY", conflicts_with = "prefix")]
    end: Option<OsString>,
    /// At most so many keys
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Leave the values away
    #[arg(long)]
    keys_only: bool,
    /// The last key first
    #[arg(long)]
    reverse: bool,
    /// As of this revision, not the newest
    #[arg(long, value_name = "REVISION")]
    at: Option<u64>,
    #[command(flatten)]
    level: LevelArgs,
}

pub(super) async fn run(args: ScanArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let bytes = |text: &Option<OsString>| text.as_deref().map(input::argument).unwrap_or_default();
    let mut left = args.limit.unwrap_or(u64::MAX);
    let options = ScanOptions {
        prefix: bytes(&args.prefix),
        start: bytes(&args.start),
        end: bytes(&args.end),
        reverse: args.reverse,
        keys_only: args.keys_only,
        // 0 asks for a full page; past 32 bits the pages end first.
        limit: args.limit.and_then(|n| n.try_into().ok()).unwrap_or(0),
        read: ReadOptions {
            at: args.at.map(Revision),
            ..args.level.read()?
        },
        ..ScanOptions::default()
    };
    let mut pages = pin!(client.scan_pages(options));
    while left > 0
        && let Some(mut page) = pages.try_next().await?
    {
        args.level.remember(&page.receipt)?;
        page.entries.truncate(left.try_into().unwrap_or(usize::MAX));
        left -= page.entries.len() as u64;
        print(&mut output, &page, args.keys_only)?;
        if output.is_terminal() {
            output.flush()?;
        }
    }
    output.flush()
}

fn print(output: &mut Output, page: &ScanPage, keys_only: bool) -> Result<(), CliError> {
    for entry in &page.entries {
        if output.is_json() {
            output.object(json::entry(entry, keys_only), &page.receipt)?;
            continue;
        }
        output.bytes(&entry.key)?;
        if !keys_only {
            output.bytes(b"\t")?;
            output.bytes(&entry.value)?;
        }
        if entry.siblings > 0 {
            let beside = format!("\t(+{} concurrent, see `get`)", entry.siblings);
            output.bytes(beside.as_bytes())?;
        }
        output.bytes(b"\n")?;
    }
    if !output.is_json() {
        output.remark_receipt(&page.receipt);
    }
    Ok(())
}
