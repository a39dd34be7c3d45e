//! `quorate delete`.

use std::ffi::OsString;

use clap::Args;
use quorate_client::{Client, Fence, WriteOptions};
use quorate_types::Revision;
use serde_json::{Map, json};

use super::context::KeyArgs;
use super::error::CliError;
use super::global::Session;
use super::lock::{self, FenceArgs};
use super::output::Output;
use super::{input, json};

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate delete greeting
  quorate delete greeting --revision 1762000000000000
  quorate delete job/state --lock job=1795357186552325
  quorate delete --prefix config/
  quorate delete title --level eventual:quorum --context title.seen")]
pub(super) struct DeleteArgs {
    /// Keys, byte for byte; one that is not there is no error
    #[arg(required_unless_present = "prefix")]
    keys: Vec<OsString>,
    /// All keys that start with this, in steps
    #[arg(long, value_name = "PREFIX", conflicts_with = "keys")]
    prefix: Option<OsString>,
    /// Only if the key has this revision
    #[arg(long, value_name = "REVISION", conflicts_with = "prefix")]
    revision: Option<u64>,
    #[command(flatten)]
    fence: FenceArgs,
    #[command(flatten)]
    plane: KeyArgs,
}

pub(super) async fn run(args: DeleteArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    if args.revision.is_some() && args.keys.len() > 1 {
        return Err(CliError::usage(
            format!("--revision goes with one key, not with {}", args.keys.len()),
            "delete them one by one, or by `quorate txn`",
        ));
    }
    if args.plane.has_context() && (args.keys.len() > 1 || args.prefix.is_some()) {
        return Err(CliError::usage(
            "--context goes with one key: it is that key's",
            "delete them one by one",
        ));
    }
    if let Some(fence) = args.fence.fence() {
        delete_fenced(&args, fence, &client, &mut output).await?;
        return output.flush();
    }
    match &args.prefix {
        Some(prefix) => delete_prefix(&args, prefix.clone(), &client, &mut output).await?,
        None => delete_keys(&args, &client, &mut output).await?,
    }
    output.flush()
}

/// Deletes a key while a lock has not moved on.
async fn delete_fenced(
    args: &DeleteArgs,
    fence: &Fence,
    client: &Client,
    output: &mut Output,
) -> Result<(), CliError> {
    let ([key], None, false) = (&args.keys[..], args.revision, args.plane.has_context()) else {
        return Err(CliError::usage(
            "--lock goes with one key, and with neither --revision, --prefix nor --context",
            "`quorate txn` compares several keys",
        ));
    };
    let key = input::argument(key);
    let fenced = client.delete_fenced(fence, key.clone(), args.plane.write()?);
    let done = lock::done(fence, fenced.await?)?;
    args.plane.remember(&done.receipt, output)?;
    super::put::print(output, &key, &done)
}

async fn delete_keys(
    args: &DeleteArgs,
    client: &Client,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut total = 0;
    for key in &args.keys {
        let key = input::argument(key);
        let options = WriteOptions {
            if_revision: args.revision.map(Revision),
            ..args.plane.write()?
        };
        let deleted = client.delete_with(key.clone(), options).await?;
        args.plane.remember(&deleted.receipt, output)?;
        total += deleted.deleted;
        if output.is_json() {
            let mut object = Map::new();
            json::put_bytes(&mut object, "key", &key);
            object.insert("deleted".to_owned(), json!(deleted.deleted));
            json::put_name(&mut object, deleted.revision, &deleted.dot);
            output.object(object, &deleted.receipt)?;
        } else {
            if !deleted.dot.is_empty() {
                output.line(&deleted.dot)?;
            }
            output.remark_receipt(&deleted.receipt);
        }
    }
    if output.is_json() {
        return Ok(());
    }
    output.line(format_args!("deleted {total}"))
}

async fn delete_prefix(
    args: &DeleteArgs,
    prefix: OsString,
    client: &Client,
    output: &mut Output,
) -> Result<(), CliError> {
    let prefix = input::argument(&prefix);
    let mut steps = client.delete_prefix(prefix.clone(), args.plane.write()?);
    let progress = super::transfer::Spinner::show("deleted");
    while let Some(step) = steps.step().await? {
        args.plane.remember(&step.receipt, output)?;
        progress.set(steps.deleted());
    }
    drop(progress);
    if !output.is_json() {
        return output.line(format_args!("deleted {}", steps.deleted()));
    }
    let mut object = Map::new();
    json::put_bytes(&mut object, "prefix", &prefix);
    object.insert("deleted".to_owned(), json!(steps.deleted()));
    output.json(&object.into())
}
