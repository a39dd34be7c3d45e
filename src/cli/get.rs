//! `quorate get`.

use std::ffi::OsString;

use clap::Args;
use quorate_client::{Entry, Got, ReadOptions};
use quorate_types::Revision;

use super::consistency::LevelArgs;
use super::error::CliError;
use super::exit::Exit;
use super::global::Session;
use super::output::Output;
use super::{input, json};
use crate::transfer::shown;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate get greeting
  quorate get logo --raw > logo.png
  quorate get greeting --level stale --output json --receipt
  quorate get greeting --at 1762000000000000")]
pub(super) struct GetArgs {
    /// The key, byte for byte
    key: OsString,
    /// Exactly the value's bytes, no newline after them
    #[arg(long)]
    raw: bool,
    /// As of this revision, not the newest
    #[arg(long, value_name = "REVISION")]
    at: Option<u64>,
    #[command(flatten)]
    level: LevelArgs,
}

pub(super) async fn run(args: GetArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let key = input::argument(&args.key);
    let options = ReadOptions {
        at: args.at.map(Revision),
        ..args.level.read()?
    };
    let got = client.get_with(key.clone(), options).await?;
    args.level.remember(&got.receipt)?;
    let Some(entry) = &got.entry else {
        output.remark_receipt(&got.receipt);
        return Err(not_found(&key, client.keyspace_name(), args.at));
    };
    print(&mut output, entry, &got, args.raw)?;
    output.flush()
}

fn print(output: &mut Output, entry: &Entry, got: &Got, raw: bool) -> Result<(), CliError> {
    if output.is_json() {
        let object = json::got(entry, &got.siblings, &got.receipt.context);
        return output.object(object, &got.receipt);
    }
    let newline: &[u8] = if raw { b"" } else { b"\n" };
    let all = got.siblings.len() + 1;
    for (number, sibling) in std::iter::once(entry).chain(&got.siblings).enumerate() {
        if all > 1 {
            let revision = sibling.revision.0;
            output.line(format_args!(
                "--- value {} of {all}, revision {revision}",
                number + 1
            ))?;
        }
        output.bytes(&sibling.value)?;
        output.bytes(newline)?;
    }
    output.remark_receipt(&got.receipt);
    Ok(())
}

/// No such key, named.
pub(super) fn not_found(key: &[u8], keyspace: &str, at: Option<u64>) -> CliError {
    let when = at.map_or_else(String::new, |revision| format!(" at revision {revision}"));
    CliError::refused(
        Exit::NotFound,
        format!("no key {:?} in keyspace {keyspace}{when}", shown(key)),
        "",
    )
}
