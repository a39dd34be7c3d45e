//! `quorate cas`: write a key if it is as expected.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use quorate_client::{CasOutcome, Entry, Expect, Receipt, WriteOptions, Written};
use quorate_types::{LeaseId, Revision, parse_duration};
use serde_json::{Map, Value, json};

use super::consistency::LevelArgs;
use super::error::CliError;
use super::exit::Exit;
use super::global::Session;
use super::output::Output;
use super::put::ValueArgs;
use super::{input, json, put};
use crate::transfer::shown;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate cas leader me --absent
  quorate cas leader you --revision 1762000000000000
  quorate cas leader you --expect me")]
pub(super) struct CasArgs {
    /// The key, byte for byte
    key: OsString,
    #[command(flatten)]
    value: ValueArgs,
    #[command(flatten)]
    expected: ExpectArgs,
    /// The key goes after this time [default: the keyspace's]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// The key goes with this lease [default: with none]
    #[arg(long, value_name = "ID")]
    lease: Option<LeaseId>,
    /// Compare after the log has taken in every eventual write that a majority of the key's
    /// primaries had acknowledged (keyspaces of mode mixed)
    #[arg(long)]
    fence: bool,
    #[command(flatten)]
    level: LevelArgs,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct ExpectArgs {
    /// Write if the key has this revision
    #[arg(long, value_name = "REVISION")]
    revision: Option<u64>,
    /// Write if there is no such key
    #[arg(long)]
    absent: bool,
    /// Write if the key has this value
    #[arg(long, value_name = "VALUE")]
    expect: Option<OsString>,
}

impl ExpectArgs {
    fn state(&self) -> Expect {
        match (self.revision, &self.expect) {
            (Some(revision), _) => Expect::Revision(Revision(revision)),
            (None, Some(value)) => Expect::Value(input::argument(value)),
            (None, None) => Expect::Absent,
        }
    }
}

pub(super) async fn run(args: CasArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let key = input::argument(&args.key);
    let options = WriteOptions {
        ttl: args.ttl,
        lease: args.lease,
        fence: args.fence,
        ..args.level.write()?
    };
    let outcome = client
        .compare_and_set(
            key.clone(),
            args.expected.state(),
            args.value.read()?,
            options,
        )
        .await?;
    match outcome {
        CasOutcome::Done(written) => {
            args.level.remember(&written.receipt)?;
            print_done(&mut output, &key, &written)
        }
        CasOutcome::Refused { current, receipt } => {
            args.level.remember(&receipt)?;
            print_refused(&mut output, &key, current.as_ref(), &receipt)?;
            Err(refused(&key, current.as_ref()))
        }
    }
}

fn print_done(output: &mut Output, key: &[u8], written: &Written) -> Result<(), CliError> {
    if !output.is_json() {
        return put::print(output, key, written);
    }
    let mut object = Map::new();
    json::put_bytes(&mut object, "key", key);
    object.insert("succeeded".to_owned(), json!(true));
    object.insert("revision".to_owned(), json!(written.revision.0));
    output.object(object, &written.receipt)?;
    output.flush()
}

fn print_refused(
    output: &mut Output,
    key: &[u8],
    current: Option<&Entry>,
    receipt: &Receipt,
) -> Result<(), CliError> {
    if !output.is_json() {
        output.remark_receipt(receipt);
        return Ok(());
    }
    let mut object = Map::new();
    json::put_bytes(&mut object, "key", key);
    object.insert("succeeded".to_owned(), json!(false));
    let there = current.map_or(Value::Null, |entry| json::entry(entry, false).into());
    object.insert("current".to_owned(), there);
    output.object(object, receipt)?;
    output.flush()
}

fn refused(key: &[u8], current: Option<&Entry>) -> CliError {
    let key = shown(key);
    let there = match current {
        Some(entry) => format!("it has revision {}", entry.revision.0),
        None => "there is no such key".to_owned(),
    };
    CliError::refused(
        Exit::Condition,
        format!("key {key:?} is not as expected: {there}"),
        "read the key again, and decide with what is there now",
    )
}
