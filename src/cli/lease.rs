//! `quorate lease`: grant, keep-alive, revoke, show.

use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_client::{Client, Granted, LeaseLost};
use quorate_types::{LeaseId, Revision, format_duration, parse_duration};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::error::CliError;
use super::exit::Exit;
use super::global::Session;
use super::json::put_bytes;
use super::output::Output;
use super::signal::StopSignals;
use crate::transfer::shown;

#[derive(Debug, Subcommand)]
pub(super) enum LeaseCommand {
    /// Make a lease, and print its id
    Grant(GrantArgs),
    /// Keep leases alive until this command is stopped
    KeepAlive(KeepAliveArgs),
    /// End a lease and delete its keys
    Revoke(RevokeArgs),
    /// Show what is left of a lease
    Show(ShowArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate keyspace create jobs --mode strong; export QUORATE_KEYSPACE=jobs
  quorate lease grant 30
  quorate put workers/7 here --lease $(quorate lease grant --ttl 30s)
  quorate lease grant --ttl 30s --id 7

Keys that are put with a lease are deleted once it is revoked, or once nobody has kept it alive for
its time: never earlier, whatever happens to leaders and clocks. A put of such a key without a lease
detaches it. Only in keyspaces of mode strong or mixed; in mixed ones it is a put at level
linearizable that takes a lease, and what others have written beside it at an eventual level stays.")]
pub(super) struct GrantArgs {
    /// How long it lives after each keep-alive, in seconds
    #[arg(
        value_name = "SECONDS",
        conflicts_with = "ttl",
        required_unless_present = "ttl"
    )]
    seconds: Option<u64>,
    /// The same with a unit: 1s to 30d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// 1 to 16 hexadecimal digits [default: one that is free]
    #[arg(long, value_name = "ID")]
    id: Option<LeaseId>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate lease keep-alive 00000000000000c7
  quorate lease keep-alive --once 00000000000000c7

Ends with 3 once the lease is over. Ctrl-C ends this command, and leaves the lease to its time.")]
pub(super) struct KeepAliveArgs {
    /// As `quorate lease grant` printed it
    id: LeaseId,
    /// Give it its whole time again, and end
    #[arg(long)]
    once: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate lease revoke 00000000000000c7

Prints how many keys went with it; keys in other ranges than the lease's follow within a second or
two.")]
pub(super) struct RevokeArgs {
    /// As `quorate lease grant` printed it
    id: LeaseId,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate lease show 00000000000000c7
  quorate lease show --keys 00000000000000c7")]
pub(super) struct ShowArgs {
    /// As `quorate lease grant` printed it
    id: LeaseId,
    /// List the attached keys as well
    #[arg(long)]
    keys: bool,
}

pub(super) async fn run(command: LeaseCommand, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    match command {
        LeaseCommand::Grant(args) => grant(&args, &client, &mut output).await?,
        LeaseCommand::KeepAlive(args) if args.once => {
            let ttl = renew(&client, args.id).await?;
            print_kept(&mut output, args.id, ttl)?;
        }
        LeaseCommand::KeepAlive(args) => keep_alive(&args, &client, &mut output).await?,
        LeaseCommand::Revoke(args) => revoke(&args, &client, &mut output).await?,
        LeaseCommand::Show(args) => show(&args, &client, &mut output).await?,
    }
    output.flush()
}

async fn grant(args: &GrantArgs, client: &Client, output: &mut Output) -> Result<(), CliError> {
    let seconds = args.seconds.map(Duration::from_secs);
    let ttl = args.ttl.or(seconds).unwrap_or_default();
    let granted = client.grant_lease(ttl, args.id).await?;
    if output.is_json() {
        let mut object = named(granted.id);
        object.insert("ttl_ms".to_owned(), millis(granted.ttl));
        object.insert("revision".to_owned(), json!(granted.revision.0));
        return output.object(object, &granted.receipt);
    }
    output.line(granted.id)?;
    output.remark_receipt(&granted.receipt);
    Ok(())
}

async fn renew(client: &Client, id: LeaseId) -> Result<Duration, CliError> {
    let kept = client.renew_leases(&[id], None).await?;
    kept.first().copied().flatten().ok_or_else(|| over(id))
}

fn over(id: LeaseId) -> CliError {
    CliError::refused(
        Exit::NotFound,
        format!("no lease {id}: it was not granted, is revoked, or nobody kept it alive in time"),
        "`quorate lease grant` makes one; its keys are gone",
    )
}

fn print_kept(output: &mut Output, id: LeaseId, ttl: Duration) -> Result<(), CliError> {
    if output.is_json() {
        let mut object = named(id);
        object.insert("ttl_ms".to_owned(), millis(ttl));
        return output.json(&Value::Object(object));
    }
    output.line(format_duration(ttl))
}

async fn keep_alive(
    args: &KeepAliveArgs,
    client: &Client,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut stop = StopSignals::listen()?;
    let asked = Instant::now();
    let ttl = renew(client, args.id).await?;
    print_kept(output, args.id, ttl)?;
    output.flush()?;
    let shown = client.lease(args.id, false).await?;
    let granted = Granted {
        id: args.id,
        ttl,
        revision: Revision::ZERO,
        lives_until: asked + ttl,
        receipt: shown.receipt,
    };
    let mut keeper = client.keep_lease(&granted);
    tokio::select! {
        why = keeper.lost() => Err(lost(args.id, why)),
        () = stop.next() => Ok(()),
    }
}

/// A keeper's end as the command's.
pub(super) fn lost(id: LeaseId, why: LeaseLost) -> CliError {
    match why {
        LeaseLost::Over => over(id),
        LeaseLost::Silence(error) => CliError::from(error),
    }
}

async fn revoke(args: &RevokeArgs, client: &Client, output: &mut Output) -> Result<(), CliError> {
    let revoked = client.revoke_lease(args.id).await?;
    if output.is_json() {
        let mut object = named(args.id);
        object.insert("deleted".to_owned(), json!(revoked.deleted));
        return output.object(object, &revoked.receipt);
    }
    output.line(revoked.deleted)?;
    output.remark_receipt(&revoked.receipt);
    Ok(())
}

async fn show(args: &ShowArgs, client: &Client, output: &mut Output) -> Result<(), CliError> {
    let lease = client.lease(args.id, args.keys).await?;
    if output.is_json() {
        let mut object = named(lease.id);
        object.insert("ttl_ms".to_owned(), millis(lease.ttl));
        object.insert("remaining_ms".to_owned(), millis(lease.remaining));
        object.insert("granted".to_owned(), json!(lease.granted.0));
        if args.keys {
            let key = |key| {
                let mut object = Map::new();
                put_bytes(&mut object, "key", key);
                Value::Object(object)
            };
            let keys = lease.keys.iter().map(|one| key(one)).collect();
            object.insert("keys".to_owned(), Value::Array(keys));
        }
        return output.object(object, &lease.receipt);
    }
    let (left, ttl) = (lease.remaining, format_duration(lease.ttl));
    let left = format_duration(Duration::from_millis(
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
    ));
    output.line(format!("{left} of {ttl}"))?;
    for key in &lease.keys {
        output.line(shown(key))?;
    }
    output.remark_receipt(&lease.receipt);
    Ok(())
}

fn named(id: LeaseId) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("id".to_owned(), json!(id.to_string()));
    object
}

fn millis(duration: Duration) -> Value {
    json!(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
