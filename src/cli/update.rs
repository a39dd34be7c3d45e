//! `quorate incr`, `set-add`, `set-remove`, `map-put`, `map-remove`: changes of counters, sets
//! and maps, in keyspaces of that conflict policy.
//!
//! What concurrent changes come to is the server's part; how it is shown is in `typed`.

use std::ffi::OsString;

use bytes::Bytes;
use clap::Args;
use quorate_client::{Change, TypedValue};
use serde_json::{Map, json};

use super::context::KeyArgs;
use super::error::CliError;
use super::global::Session;
use super::put::ValueArgs;
use super::{input, json, typed};

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate keyspace create visits --conflict counter --mode eventual
  quorate incr front-page --keyspace visits
  quorate incr front-page -5 --keyspace visits

Prints the sum as the node that took it knows it. An increment is never sent twice: where its
answer is lost, the exit code is 6.")]
pub(super) struct IncrArgs {
    /// The key, byte for byte
    key: OsString,
    /// Added to the counter; below zero: subtracted
    #[arg(value_name = "N", default_value = "1", allow_negative_numbers = true)]
    amount: i64,
    #[command(flatten)]
    plane: KeyArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate keyspace create tags --conflict set --mode eventual
  quorate set-add article-7 red green --keyspace tags

Prints the name of the write. Of an addition and a removal at the same time the addition stays.")]
pub(super) struct SetAddArgs {
    /// The key, byte for byte
    key: OsString,
    /// Added to the set
    #[arg(value_name = "V", required = true)]
    elements: Vec<OsString>,
    #[command(flatten)]
    plane: KeyArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate set-remove article-7 red --keyspace tags

Removes what was seen: an addition that neither --context nor the node knew of stays.")]
pub(super) struct SetRemoveArgs {
    /// The key, byte for byte
    key: OsString,
    /// Removed from the set; one that is not there is no error
    #[arg(value_name = "V", required = true)]
    elements: Vec<OsString>,
    #[command(flatten)]
    plane: KeyArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate keyspace create people --conflict map --mode eventual
  quorate map-put ada email ada@example.org --keyspace people
  quorate map-put ada picture -f ada.png --keyspace people

Other fields stay as they are. Prints the name of the write.")]
pub(super) struct MapPutArgs {
    /// The key, byte for byte
    key: OsString,
    /// The field, byte for byte
    field: OsString,
    #[command(flatten)]
    value: ValueArgs,
    #[command(flatten)]
    plane: KeyArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate map-remove ada picture --keyspace people

Removes what was seen of each field: what was written to it at the same time stays.")]
pub(super) struct MapRemoveArgs {
    /// The key, byte for byte
    key: OsString,
    /// Fields; one that is not there is no error
    #[arg(value_name = "FIELD", required = true)]
    fields: Vec<OsString>,
    #[command(flatten)]
    plane: KeyArgs,
}

/// What people get to see of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// What the key has come to.
    Value,
    /// The write's name.
    Dot,
}

fn all(arguments: &[OsString]) -> Vec<Bytes> {
    let bytes = arguments.iter().map(|argument| input::argument(argument));
    bytes.collect()
}

pub(super) async fn incr(args: IncrArgs, session: Session) -> Result<(), CliError> {
    let change = Change::Increment(args.amount);
    run(args.key, change, args.plane, session, Shown::Value).await
}

pub(super) async fn set_add(args: SetAddArgs, session: Session) -> Result<(), CliError> {
    let change = Change::Add(all(&args.elements));
    run(args.key, change, args.plane, session, Shown::Dot).await
}

pub(super) async fn set_remove(args: SetRemoveArgs, session: Session) -> Result<(), CliError> {
    let change = Change::Remove(all(&args.elements));
    run(args.key, change, args.plane, session, Shown::Dot).await
}

pub(super) async fn map_put(args: MapPutArgs, session: Session) -> Result<(), CliError> {
    let field = (
        input::argument(&args.field),
        Change::Put(args.value.read()?),
    );
    let change = Change::Fields(vec![field]);
    run(args.key, change, args.plane, session, Shown::Dot).await
}

pub(super) async fn map_remove(args: MapRemoveArgs, session: Session) -> Result<(), CliError> {
    let fields = all(&args.fields);
    let change = Change::Fields(fields.into_iter().map(|it| (it, Change::Delete)).collect());
    run(args.key, change, args.plane, session, Shown::Dot).await
}

async fn run(
    key: OsString,
    change: Change,
    plane: KeyArgs,
    session: Session,
    shown: Shown,
) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let key = input::argument(&key);
    let updated = client.update(key.clone(), change, plane.write()?).await?;
    plane.remember(&updated.receipt, &output)?;
    if output.is_json() {
        let mut object = Map::new();
        json::put_bytes(&mut object, "key", &key);
        object.insert("dot".to_owned(), json!(updated.dot));
        if let Some(typed) = &updated.typed {
            typed::put_typed(&mut object, typed);
        }
        output.object(object, &updated.receipt)?;
        return output.flush();
    }
    match &updated.typed {
        Some(value @ TypedValue::Counter(_)) if shown == Shown::Value => {
            output.bytes(&typed::text(value))?;
        }
        Some(TypedValue::Counter(_) | TypedValue::Set(_) | TypedValue::Map(_)) | None => {
            output.line(&updated.dot)?;
        }
    }
    output.remark_receipt(&updated.receipt);
    output.flush()
}
