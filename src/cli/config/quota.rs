//! `quorate config quota`: what the keys of a prefix may take.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_client::{Client, KeyspaceChange};
use quorate_proto::v1::PrefixUse;
use quorate_types::PrefixQuota;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::global::Session;
use super::super::output::Output;
use super::super::table::table;
use super::schema::prefix_of;

/// A range's leader takes a quota up within moments; later ones are waited for no longer.
const IN_FORCE_MAX: Duration = Duration::from_secs(5);
const IN_FORCE_POLL: Duration = Duration::from_millis(20);

/// What can be done with quotas.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum QuotaCommand {
    /// Limit the keys of a prefix, in number and bytes
    Set(SetArgs),
    /// Show what the keys of prefixes with quotas take, and may take
    Show(ShowArgs),
    /// Let the keys of a prefix take what they want
    Drop(DropArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate config quota set app --max-keys 1000 --max-bytes 1048576

What a strong write would make of the prefix is counted at its place in the log, so two writers at
the limit cannot both pass. A write that would grow past it is refused (exit code 1); one that does
not grow passes, and so does every delete. What is not named has no limit from then on. Keys and
values count with their bytes; old versions do not. Writes at eventual levels are counted once the
log has them, and never refused. In ordered keyspaces of mode strong and mixed. While nodes are
upgraded, set none: one that does not know quotas of prefixes yet would decide otherwise.")]
pub(in crate::cli) struct SetArgs {
    /// A folder of keys
    prefix: OsString,
    /// Most keys
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_keys: Option<u64>,
    /// Most bytes of keys and values
    #[arg(
        long,
        value_name = "BYTES",
        required_unless_present = "max_keys",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    max_bytes: Option<u64>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate config quota show
  quorate config quota show app")]
pub(in crate::cli) struct ShowArgs {
    /// A folder of keys; none: all quotas of the keyspace
    prefix: Option<OsString>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate config quota drop app")]
pub(in crate::cli) struct DropArgs {
    /// A folder of keys
    prefix: OsString,
}

pub(super) async fn run(command: QuotaCommand, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    match command {
        QuotaCommand::Set(args) => set(args, &client, &mut output).await?,
        QuotaCommand::Show(args) => show(args, &client, &mut output).await?,
        QuotaCommand::Drop(args) => remove(args, &client, &mut output).await?,
    }
    output.flush()
}

/// As the leaders of the keyspace's ranges count.
async fn uses(client: &Client) -> Result<Vec<PrefixUse>, CliError> {
    let ranges = client.admin().ranges(client.keyspace_name(), false).await?;
    Ok(ranges.into_iter().flat_map(|range| range.quotas).collect())
}

async fn change(client: &Client, prefix: &str, quota: PrefixQuota) -> Result<(), CliError> {
    let change = KeyspaceChange {
        quotas: vec![(prefix.to_owned(), quota)],
        ..KeyspaceChange::default()
    };
    let admin = client.admin();
    admin.alter_keyspace(client.keyspace_name(), change).await?;
    Ok(())
}

/// Waits until a quota is counted, or is no more; what its keys take, once it is counted.
async fn in_force(
    client: &Client,
    prefix: &str,
    quota: Option<PrefixQuota>,
) -> Result<Option<PrefixUse>, CliError> {
    let deadline = Instant::now() + IN_FORCE_MAX;
    loop {
        let uses = uses(client).await?;
        let found = uses.into_iter().find(|one| one.prefix == prefix);
        let limits = found.as_ref().map(|one| PrefixQuota {
            max_keys: one.max_keys,
            max_bytes: one.max_bytes,
        });
        if limits == quota {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        sleep(IN_FORCE_POLL).await;
    }
}

async fn set(args: SetArgs, client: &Client, output: &mut Output) -> Result<(), CliError> {
    let prefix = prefix_of(&args.prefix)?;
    let quota = PrefixQuota {
        max_keys: args.max_keys.unwrap_or(0),
        max_bytes: args.max_bytes.unwrap_or(0),
    };
    change(client, &prefix, quota).await?;
    match in_force(client, &prefix, Some(quota)).await? {
        Some(one) => print(output, &[one]),
        None => {
            output.remark("it is kept, and not in force yet: its range has no leader that counts");
            Ok(())
        }
    }
}

async fn show(args: ShowArgs, client: &Client, output: &mut Output) -> Result<(), CliError> {
    let wanted = args.prefix.as_ref().map(prefix_of).transpose()?;
    let mut uses = uses(client).await?;
    uses.retain(|one| wanted.as_ref().is_none_or(|wanted| one.prefix == *wanted));
    match (&wanted, uses.is_empty()) {
        (Some(wanted), true) => Err(no_quota(wanted)),
        _ => print(output, &uses),
    }
}

fn print(output: &mut Output, uses: &[PrefixUse]) -> Result<(), CliError> {
    if output.is_json() {
        return uses.iter().try_for_each(|one| output.json(&as_json(one)));
    }
    let of = |now: u64, limit: u64| match limit {
        0 => now.to_string(),
        limit => format!("{now} of {limit}"),
    };
    let rows = uses.iter().map(|one| {
        [
            String::from_utf8_lossy(&one.prefix).into_owned(),
            of(one.keys, one.max_keys),
            of(one.bytes, one.max_bytes),
        ]
    });
    output.line(table(&["prefix", "keys", "bytes"], rows))
}

fn as_json(one: &PrefixUse) -> Value {
    json!({
        "prefix": String::from_utf8_lossy(&one.prefix),
        "keys": one.keys,
        "bytes": one.bytes,
        "max_keys": one.max_keys,
        "max_bytes": one.max_bytes,
    })
}

fn no_quota(prefix: &str) -> CliError {
    CliError::refused(
        Exit::NotFound,
        format!("no quota of {prefix:?}"),
        "`quorate config quota show` shows all",
    )
}

async fn remove(args: DropArgs, client: &Client, output: &mut Output) -> Result<(), CliError> {
    let prefix = prefix_of(&args.prefix)?;
    if !uses(client).await?.iter().any(|one| one.prefix == prefix) {
        return Err(no_quota(&prefix));
    }
    change(client, &prefix, PrefixQuota::default()).await?;
    in_force(client, &prefix, None).await?;
    match output.is_json() {
        true => output.json(&json!({"prefix": prefix})),
        false => output.line(format_args!("keys under {prefix:?} take what they want")),
    }
}
