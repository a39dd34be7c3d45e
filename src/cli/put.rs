//! `quorate put`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use quorate_client::{Receipt, WriteOptions};
use quorate_types::limits::VALUE_MAX_BYTES_CAP;
use quorate_types::parse_duration;
use serde_json::{Map, json};

use super::consistency::LevelArgs;
use super::error::CliError;
use super::global::Session;
use super::input;
use super::json;
use super::output::Output;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate put greeting hello
  quorate put logo -f logo.png
  date | quorate put now -
  quorate put lease taken --ttl 30s")]
pub(super) struct PutArgs {
    /// The key, byte for byte
    key: OsString,
    #[command(flatten)]
    value: ValueArgs,
    /// The key goes after this time [default: the keyspace's]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
    #[command(flatten)]
    level: LevelArgs,
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
    let options = WriteOptions {
        ttl: args.ttl,
        ..args.level.write()?
    };
    let written = client
        .put_with(key.clone(), args.value.read()?, options)
        .await?;
    args.level.remember(&written.receipt)?;
    print(&mut output, &key, written.revision.0, &written.receipt)
}

/// What a write says when it is done.
pub(super) fn print(
    output: &mut Output,
    key: &[u8],
    revision: u64,
    receipt: &Receipt,
) -> Result<(), CliError> {
    if output.is_json() {
        let mut object = Map::new();
        json::put_bytes(&mut object, "key", key);
        object.insert("revision".to_owned(), json!(revision));
        output.object(object, receipt)?;
    } else {
        output.line(revision)?;
        output.remark_receipt(receipt);
    }
    output.flush()
}
