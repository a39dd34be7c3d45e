//! `quorate get`.

use std::ffi::OsString;

use clap::Args;
use quorate_client::{Entry, Got, ReadOptions};
use quorate_types::Revision;

use super::context::KeyArgs;
use super::error::CliError;
use super::exit::Exit;
use super::global::Session;
use super::output::Output;
use super::{input, json, typed};
use crate::transfer::shown;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate get greeting
  quorate get logo --raw > logo.png
  quorate get greeting --level stale --output json --receipt
  quorate get greeting --at 1762000000000000
  quorate get title --level eventual:one --context title.seen

Several concurrent values are all shown, each under a header line; `quorate resolve` puts one in
their place. A counter is shown as a number, a set one element a line, a map as a tree.")]
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
    plane: KeyArgs,
}

pub(super) async fn run(args: GetArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let key = input::argument(&args.key);
    let options = ReadOptions {
        at: args.at.map(Revision),
        ..args.plane.read()?
    };
    let got = client.get_with(key.clone(), options).await?;
    args.plane.remember(&got.receipt, &output)?;
    let Some(entry) = &got.entry else {
        output.remark_receipt(&got.receipt);
        return Err(not_found(&key, client.keyspace_name(), args.at));
    };
    print(&mut output, entry, &got, args.raw)?;
    output.flush()
}

/// What was found, with all siblings.
pub(super) fn print(
    output: &mut Output,
    entry: &Entry,
    got: &Got,
    raw: bool,
) -> Result<(), CliError> {
    if output.is_json() {
        let object = json::got(entry, got);
        return output.object(object, &got.receipt);
    }
    if got.partial {
        output.remark("partial: no primary was asked, there may be more than is shown");
    }
    if let Some(typed) = &got.typed {
        let text = typed::text(typed);
        let end = text.len() - usize::from(raw && !text.is_empty());
        output.bytes(&text[..end])?;
        output.remark_receipt(&got.receipt);
        return Ok(());
    }
    let newline: &[u8] = if raw { b"" } else { b"\n" };
    let all = got.siblings.len() + 1;
    for (number, sibling) in std::iter::once(entry).chain(&got.siblings).enumerate() {
        if all > 1 {
            let name = match sibling.dot.as_str() {
                "" => format!("revision {}", sibling.revision),
                dot => format!("dot {dot}"),
            };
            output.line(format_args!("--- value {} of {all}, {name}", number + 1))?;
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
