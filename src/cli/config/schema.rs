//! `quorate config schema`: what values of a prefix must be.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use quorate_client::config::ConfigPrefix;
use quorate_client::{Client, KeyspaceChange};
use quorate_types::limits::SCHEMA_MAX_BYTES;
use serde_json::{Value, json};

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::global::Session;
use super::super::input;

/// What can be done with schemas.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SchemaCommand {
    /// Have every write under a prefix fit a JSON Schema
    Set(SetArgs),
    /// Show the schema of a prefix, or of all
    Show(ShowArgs),
    /// Take values under a prefix as they are
    Drop(DropArgs),
}

#[derive(Args, Debug)]
#[command(after_help = r#"Example:
  quorate config schema set app/services service.json
with service.json:
  {"type": "object", "required": ["port"],
   "properties": {"port": {"type": "integer", "minimum": 1, "maximum": 65535}}}

From then on every put, compare-and-set, transaction and batch whose value does not fit is refused,
with the path in the value and the reason; what is there already stays. A value is taken as JSON, or
else as a text: 5432 is a number, web a text; that of a key which ends in .yaml or .yml must be a
document of YAML. A key must fit the schemas of all its prefixes. A node
learns of a change within moments, not in the same instant. A schema that names another one by an
address is refused: nothing is fetched."#)]
pub(in crate::cli) struct SetArgs {
    /// A folder of keys
    prefix: OsString,
    /// A JSON Schema; `-`: standard input
    file: PathBuf,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate config schema show
  quorate config schema show app/services")]
pub(in crate::cli) struct ShowArgs {
    /// A folder of keys; none: all schemas of the keyspace
    prefix: Option<OsString>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate config schema drop app/services")]
pub(in crate::cli) struct DropArgs {
    /// A folder of keys
    prefix: OsString,
}

pub(super) async fn run(command: SchemaCommand, session: Session) -> Result<(), CliError> {
    match command {
        SchemaCommand::Set(args) => set(args, session).await,
        SchemaCommand::Show(args) => show(args, session).await,
        SchemaCommand::Drop(args) => remove(args, session).await,
    }
}

pub(super) fn prefix_of(text: &OsString) -> Result<String, CliError> {
    let text = text.to_str();
    let text = text.ok_or_else(|| CliError::usage("the prefix is no UTF-8 text", ""))?;
    let prefix = ConfigPrefix::new(text).map_err(|error| CliError::usage(error.to_string(), ""))?;
    Ok(prefix.as_str().to_owned())
}

async fn schemas(client: &Client) -> Result<Vec<(String, String)>, CliError> {
    let name = client.keyspace_name();
    let keyspace = client.admin().keyspace(name).await?;
    let keyspace = keyspace.ok_or_else(|| {
        let hint = "`quorate keyspace list` shows all";
        CliError::refused(Exit::NotFound, format!("no keyspace `{name}`"), hint)
    })?;
    let schemas = keyspace.options.unwrap_or_default().schemas.into_iter();
    Ok(schemas.map(|it| (it.prefix, it.schema)).collect())
}

async fn change(client: &Client, prefix: String, schema: String) -> Result<(), CliError> {
    let change = KeyspaceChange {
        schemas: vec![(prefix, schema)],
        ..KeyspaceChange::default()
    };
    let admin = client.admin();
    admin.alter_keyspace(client.keyspace_name(), change).await?;
    Ok(())
}

async fn set(args: SetArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let prefix = prefix_of(&args.prefix)?;
    let text = input::read_file_or_stdin(&args.file, SCHEMA_MAX_BYTES as u64)?;
    let name = args.file.display();
    // Said here with line and column; whether it is a schema the cluster says.
    let schema: Value = serde_json::from_slice(&text)
        .map_err(|error| CliError::usage(format!("{name} is no JSON: {error}"), ""))?;
    change(&client, prefix.clone(), schema.to_string()).await?;
    if output.is_json() {
        output.json(&json!({"prefix": prefix, "schema": schema}))?;
    } else {
        output.line(format_args!(
            "values under {prefix:?} fit {name} from now on"
        ))?;
    }
    output.flush()
}

async fn show(args: ShowArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let wanted = args.prefix.as_ref().map(prefix_of).transpose()?;
    let mut schemas = schemas(&client).await?;
    schemas.retain(|(prefix, _)| wanted.as_ref().is_none_or(|wanted| wanted == prefix));
    if let (Some(wanted), true) = (&wanted, schemas.is_empty()) {
        return Err(no_schema(wanted));
    }
    for (prefix, schema) in schemas {
        let schema: Value = serde_json::from_str(&schema).unwrap_or(Value::String(schema));
        if output.is_json() {
            output.json(&json!({"prefix": prefix, "schema": schema}))?;
        } else {
            output.line(format_args!("{prefix:?}:\n{schema:#}"))?;
        }
    }
    output.flush()
}

fn no_schema(prefix: &str) -> CliError {
    CliError::refused(
        Exit::NotFound,
        format!("no schema of {prefix:?}"),
        "`quorate config schema show` shows all",
    )
}

async fn remove(args: DropArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let prefix = prefix_of(&args.prefix)?;
    let there = schemas(&client).await?;
    if !there.iter().any(|(known, _)| *known == prefix) {
        return Err(no_schema(&prefix));
    }
    change(&client, prefix.clone(), String::new()).await?;
    if output.is_json() {
        output.json(&json!({"prefix": prefix}))?;
    } else {
        output.line(format_args!(
            "values under {prefix:?} are taken as they are"
        ))?;
    }
    output.flush()
}
