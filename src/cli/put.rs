//! `quorate put`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use quorate_client::{WriteOptions, Written};
use quorate_types::limits::VALUE_MAX_BYTES_CAP;
use quorate_types::{LeaseId, parse_duration};
use serde_json::Map;

use super::consistency::SESSION_BEGIN;
use super::context::KeyArgs;
use super::converge::{self, AwaitLevel};
use super::error::CliError;
use super::global::Session;
use super::input;
use super::json;
use super::lock::{self, FenceArgs};
use super::output::Output;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate put greeting hello
  quorate put logo -f logo.png
  date | quorate put now -
  quorate put session open --ttl 30s
  quorate put workers/7 here --lease 00000000000000c7
  quorate put job/state done --lock job=1795357186552325
  quorate put title draft --level eventual:one --context title.seen
  quorate put title draft --level eventual:one --await committed

Prints the revision; at eventual levels the dot, the name of the write.")]
pub(super) struct PutArgs {
    /// The key, byte for byte
    key: OsString,
    #[command(flatten)]
    value: ValueArgs,
    /// The key goes after this time [default: the keyspace's]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// The key goes with this lease [default: with none]
    #[arg(long, value_name = "ID")]
    lease: Option<LeaseId>,
    #[command(flatten)]
    fence: FenceArgs,
    /// End only once the write has come that far
    #[arg(long = "await", value_name = "HOW_FAR")]
    await_level: Option<AwaitLevel>,
    #[command(flatten)]
    plane: KeyArgs,
}

/// Where a value comes from.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct ValueArgs {
    /// The value; `-`: standard input
    #[arg(allow_negative_numbers = true)]
    value: Option<OsString>,
    /// The value is what this file holds
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl ValueArgs {
    /// The value's bytes, at most as many as any keyspace takes.
    pub(super) fn read(&self) -> Result<Bytes, CliError> {
        let path = match (&self.value, &self.file) {
            (_, Some(file)) => file.as_path(),
            (Some(value), None) if value == "-" => Path::new("-"),
            (Some(value), None) => return Ok(input::argument(value)),
            (None, None) => return Ok(Bytes::new()),
        };
        input::read_file_or_stdin(path, VALUE_MAX_BYTES_CAP as u64).map(Bytes::from)
    }
}

pub(super) async fn run(args: PutArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let key = input::argument(&args.key);
    let mut options = WriteOptions {
        ttl: args.ttl,
        lease: args.lease,
        ..args.plane.write()?
    };
    if args.await_level.is_some() && options.token.is_empty() {
        // What is waited for is what a session has written: this write alone.
        options.token = Bytes::from_static(SESSION_BEGIN);
    }
    if let Some(fence) = args.fence.fence() {
        fence_fits(&args)?;
        let fenced = client.put_fenced(fence, key.clone(), args.value.read()?, options);
        let written = lock::done(fence, fenced.await?)?;
        args.plane.remember(&written.receipt, &output)?;
        return print(&mut output, &key, &written);
    }
    let written = client
        .put_with(key.clone(), args.value.read()?, options)
        .await?;
    args.plane.remember(&written.receipt, &output)?;
    if let Some(AwaitLevel::Committed) = args.await_level {
        converge::wait(&client, &written.receipt.session_token).await?;
    }
    print(&mut output, &key, &written)
}

/// What demands a lock is decided by the log alone.
fn fence_fits(args: &PutArgs) -> Result<(), CliError> {
    if args.await_level.is_some() || args.plane.has_context() {
        return Err(CliError::usage(
            "--lock goes with neither --await nor --context: only the log knows of locks",
            "put without them, in a keyspace of mode strong",
        ));
    }
    Ok(())
}

/// What a write says when it is done.
pub(super) fn print(output: &mut Output, key: &[u8], written: &Written) -> Result<(), CliError> {
    if output.is_json() {
        let mut object = Map::new();
        json::put_bytes(&mut object, "key", key);
        json::put_name(&mut object, written.revision, &written.dot);
        output.object(object, &written.receipt)?;
    } else {
        match written.dot.as_str() {
            "" => output.line(written.revision)?,
            dot => output.line(dot)?,
        }
        output.remark_receipt(&written.receipt);
    }
    output.flush()
}
