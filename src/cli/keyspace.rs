//! `quorate keyspace`: create, alter, list, show, drop.

use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_client::{Client, KeyspaceChange};
use quorate_proto::v1;
use quorate_types::{
    Api, ConflictPolicy, KeyspaceOptions, Mode, Partitioning, format_duration, parse_duration,
};
use serde_json::{Value, json};

use super::error::CliError;
use super::exit::Exit;
use super::global::Session;
use super::output::Output;
use super::table::table;

#[derive(Debug, Subcommand)]
pub(super) enum KeyspaceCommand {
    /// Make a keyspace
    Create(CreateArgs),
    /// Change a keyspace's history, expiry and limits
    Alter(AlterArgs),
    /// List all keyspaces
    #[command(after_help = "Example:\n  quorate keyspace list")]
    List,
    /// Show one keyspace's options
    #[command(after_help = "Example:\n  quorate keyspace show default")]
    Show {
        /// Which one
        name: String,
    },
    /// Drop a keyspace with all that is in it
    #[command(after_help = "Example:\n  quorate keyspace drop orders")]
    Drop {
        /// Which one
        name: String,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate keyspace create orders --mode strong --partitioning 'hash(16)' --history 1h")]
pub(super) struct CreateArgs {
    /// 1 to 128 of a-z 0-9 . _ -
    name: String,
    /// strong, mixed or eventual: which levels it serves [default: mixed; strong for etcd's API]
    #[arg(long)]
    mode: Option<Mode>,
    /// quorate, or etcd: which clients it serves
    #[arg(long, default_value_t)]
    api: Api,
    /// siblings, last_write_wins, counter, set or map: what concurrent writes become
    #[arg(long)]
    conflict: Option<ConflictPolicy>,
    /// ordered, or hash(N)
    #[arg(long)]
    partitioning: Option<Partitioning>,
    /// Copies of each key
    #[arg(long, value_name = "N")]
    replication: Option<u8>,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate keyspace alter orders --history 1h --value-max-bytes 4194304")]
pub(super) struct AlterArgs {
    /// Which one
    name: String,
    #[command(flatten)]
    limits: LimitArgs,
}

/// What can be changed later.
#[derive(Args, Debug)]
struct LimitArgs {
    /// How long superseded versions can be read [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    history: Option<Duration>,
    /// Keys go after this time unless their put says otherwise; 0: they stay [default: 0]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Longest key [default: 4096]
    #[arg(long, value_name = "N")]
    key_max_bytes: Option<u32>,
    /// Longest value, up to 16 MiB [default: 1 MiB]
    #[arg(long, value_name = "N")]
    value_max_bytes: Option<u32>,
    /// Most bytes that its keys and values may take; 0: no quota [default: 0]
    #[arg(long = "quota", value_name = "BYTES")]
    quota_bytes: Option<u64>,
}

impl CreateArgs {
    fn options(&self) -> KeyspaceOptions {
        let defaults = KeyspaceOptions::default();
        KeyspaceOptions {
            mode: self.mode.unwrap_or(match self.api {
                Api::Quorate => defaults.mode,
                Api::Etcd => Mode::Strong,
            }),
            api: self.api,
            conflict: self.conflict.unwrap_or(defaults.conflict),
            partitioning: self.partitioning.unwrap_or(defaults.partitioning),
            replication: self.replication.unwrap_or(defaults.replication),
            history: self.limits.history.unwrap_or(defaults.history),
            ttl_default: self.limits.ttl.filter(|ttl| !ttl.is_zero()),
            key_max_bytes: self.limits.key_max_bytes.unwrap_or(defaults.key_max_bytes),
            value_max_bytes: self
                .limits
                .value_max_bytes
                .unwrap_or(defaults.value_max_bytes),
            quota_bytes: self.limits.quota_bytes.filter(|quota| *quota > 0),
            ..defaults
        }
    }
}

impl LimitArgs {
    fn change(&self) -> KeyspaceChange {
        KeyspaceChange {
            history: self.history,
            ttl: self.ttl,
            key_max_bytes: self.key_max_bytes,
            value_max_bytes: self.value_max_bytes,
            quota_bytes: self.quota_bytes,
            schemas: Vec::new(),
            quotas: Vec::new(),
        }
    }
}

pub(super) async fn run(command: KeyspaceCommand, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    match command {
        KeyspaceCommand::Create(args) => {
            let admin = client.admin();
            let made = admin.create_keyspace(&args.name, &args.options()).await?;
            print_one(&mut output, &made, "created")?;
        }
        KeyspaceCommand::Alter(args) => alter(args, &client, &mut output).await?,
        KeyspaceCommand::List => list(&client, &mut output).await?,
        KeyspaceCommand::Show { name } => {
            let Some(found) = client.admin().keyspace(&name).await? else {
                return Err(CliError::refused(
                    Exit::NotFound,
                    format!("no keyspace {name}"),
                    "`quorate keyspace list` shows what is there",
                ));
            };
            print_one(&mut output, &found, "")?;
        }
        KeyspaceCommand::Drop { name } => {
            client.admin().drop_keyspace(&name).await?;
            match output.is_json() {
                true => output.json(&json!({"name": name, "dropped": true}))?,
                false => output.line(format_args!("dropped {name}"))?,
            }
        }
    }
    output.flush()
}

async fn alter(args: AlterArgs, client: &Client, output: &mut Output) -> Result<(), CliError> {
    let change = args.limits.change();
    if change == KeyspaceChange::default() {
        return Err(CliError::usage(
            "nothing to change",
            "what can be changed: --history, --ttl, --key-max-bytes, --value-max-bytes, --quota",
        ));
    }
    let altered = client.admin().alter_keyspace(&args.name, change).await?;
    print_one(output, &altered, "altered")
}

async fn list(client: &Client, output: &mut Output) -> Result<(), CliError> {
    let keyspaces = client.admin().list_keyspaces().await?;
    if output.is_json() {
        let list: Vec<Value> = keyspaces.iter().map(as_json).collect();
        return output.json(&json!({"keyspaces": list}));
    }
    let rows = keyspaces.iter().map(|keyspace| {
        let options = keyspace.options.clone().unwrap_or_default();
        [
            keyspace.name.clone(),
            keyspace.id.to_string(),
            options.mode,
            options.conflict,
            options.partitioning,
            options.replication.to_string(),
            history(options.history_ms),
            keyspace.ranges.len().to_string(),
        ]
    });
    let heads = [
        "name",
        "id",
        "mode",
        "conflict",
        "partitioning",
        "copies",
        "history",
        "ranges",
    ];
    output.line(table(&heads, rows))
}

fn history(millis: Option<u64>) -> String {
    let duration = millis.map_or(KeyspaceOptions::default().history, Duration::from_millis);
    format_duration(duration)
}

fn as_json(keyspace: &v1::Keyspace) -> Value {
    let options = keyspace.options.clone().unwrap_or_default();
    let defaults = KeyspaceOptions::default();
    let history_ms = u64::try_from(defaults.history.as_millis()).unwrap_or(u64::MAX);
    json!({
        "name": keyspace.name,
        "id": keyspace.id,
        "mode": options.mode,
        "conflict": options.conflict,
        "partitioning": options.partitioning,
        "replication": options.replication,
        "api": api_of(&options),
        "history_ms": options.history_ms.unwrap_or(history_ms),
        "ttl_ms": options.ttl_ms.unwrap_or(0),
        "key_max_bytes": options.key_max_bytes.unwrap_or(defaults.key_max_bytes),
        "value_max_bytes": options.value_max_bytes.unwrap_or(defaults.value_max_bytes),
        "quota_bytes": options.quota_bytes.unwrap_or(0),
        "ranges": keyspace.ranges,
    })
}

fn api_of(options: &v1::KeyspaceOptions) -> &str {
    match options.api.as_str() {
        "" => Api::Quorate.as_str(),
        api => api,
    }
}

/// One keyspace, line by line for people; `what` happened to it, if anything.
fn print_one(output: &mut Output, keyspace: &v1::Keyspace, what: &str) -> Result<(), CliError> {
    let value = as_json(keyspace);
    if output.is_json() {
        return output.json(&value);
    }
    if !what.is_empty() {
        return output.line(format_args!("{what} {}", keyspace.name));
    }
    let options = keyspace.options.clone().unwrap_or_default();
    let or_none = |millis: Option<u64>| match millis.unwrap_or(0) {
        0 => "none".to_owned(),
        millis => format_duration(Duration::from_millis(millis)),
    };
    let api = api_of(&options).to_owned();
    let quota = match options.quota_bytes.unwrap_or(0) {
        0 => "none".to_owned(),
        bytes => super::table::bytes(bytes),
    };
    let rows = [
        ("name", keyspace.name.clone()),
        ("id", keyspace.id.to_string()),
        ("mode", options.mode),
        ("conflict", options.conflict),
        ("partitioning", options.partitioning),
        ("api", api),
        ("copies", options.replication.to_string()),
        ("history", history(options.history_ms)),
        ("ttl", or_none(options.ttl_ms)),
        ("longest key", value["key_max_bytes"].to_string()),
        ("longest value", value["value_max_bytes"].to_string()),
        ("quota", quota),
        ("ranges", format!("{:?}", keyspace.ranges)),
    ];
    for (name, text) in rows {
        output.line(format_args!("{name:<14}{text}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyspaces_have_the_fields_that_scripts_read() {
        let keyspace = v1::Keyspace {
            name: "orders".to_owned(),
            id: 3,
            options: Some(v1::KeyspaceOptions {
                mode: "strong".to_owned(),
                conflict: "siblings".to_owned(),
                partitioning: "hash(2)".to_owned(),
                replication: 3,
                history_ms: Some(0),
                ..v1::KeyspaceOptions::default()
            }),
            ranges: vec![4, 5],
        };
        assert_eq!(
            as_json(&keyspace),
            json!({"name":"orders","id":3,"mode":"strong","conflict":"siblings",
                   "partitioning":"hash(2)","replication":3,"api":"quorate","history_ms":0,"ttl_ms":0,
                   "key_max_bytes":4096,"value_max_bytes":1_048_576,"quota_bytes":0,
                   "ranges":[4,5]})
        );
    }
}
