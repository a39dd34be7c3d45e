//! `quorate config`: bundles of keys that change in one step, their history, and the way back.
//!
//! What a step is lies in `quorate_client::config`; how folders and files become keys in
//! `crate::config`.

mod preview;
mod quota;
mod read;
mod schema;
mod step;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, Subcommand};
use quorate_client::Client;
use quorate_client::config::{Config, ConfigError};
use quorate_types::Reason;

use super::error::CliError;
use super::exit::Exit;
use super::global::Session;
use crate::config::{SourceError, read_bundle};

/// What can be done with configuration.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Show what applying a folder or file would change
    Diff(step::DiffArgs),
    /// Make a folder's files, or a document's entries, the keys of a prefix, in one step
    Apply(step::ApplyArgs),
    /// List the steps of a prefix, newest first
    History(read::HistoryArgs),
    /// Go back to an earlier state, by a new step
    Rollback(step::RollbackArgs),
    /// Show the values of a prefix
    Show(read::ShowArgs),
    /// Write the values of a prefix as a folder, or as one document
    Export(read::ExportArgs),
    /// Have values fit JSON Schemas
    #[command(subcommand)]
    Schema(schema::SchemaCommand),
    /// Limit what the keys of a prefix may take
    #[command(subcommand)]
    Quota(quota::QuotaCommand),
}

/// What becomes the keys of a prefix.
#[derive(Args, Debug)]
struct BundleArgs {
    /// A folder of keys: `app` and `app/` are the same
    prefix: OsString,
    /// A folder (one key a file, its path is the key), or a .yaml, .yml, .toml or .json file
    path: PathBuf,
    /// Remove keys of the prefix that are not in the bundle, instead of keeping them
    #[arg(long)]
    prune: bool,
    /// Take a folder's files as they are, also where a .yaml, .toml or .json file is none
    #[arg(long)]
    no_check: bool,
}

impl BundleArgs {
    fn read(&self) -> Result<BTreeMap<Bytes, Bytes>, CliError> {
        read_bundle(&self.path, !self.no_check).map_err(|error| source_error(&error))
    }
}

pub(super) async fn run(command: ConfigCommand, session: Session) -> Result<(), CliError> {
    match command {
        ConfigCommand::Diff(args) => step::diff(args, session).await,
        ConfigCommand::Apply(args) => step::apply(args, session).await,
        ConfigCommand::History(args) => read::history(args, session).await,
        ConfigCommand::Rollback(args) => step::roll_back(args, session).await,
        ConfigCommand::Show(args) => read::show(args, session).await,
        ConfigCommand::Export(args) => read::export(args, session).await,
        ConfigCommand::Schema(command) => schema::run(command, session).await,
        ConfigCommand::Quota(command) => quota::run(command, session).await,
    }
}

fn config(client: &Client, prefix: &OsString) -> Result<Config, CliError> {
    let Some(prefix) = prefix.to_str() else {
        return Err(CliError::usage("the prefix is no UTF-8 text", ""));
    };
    client.config(prefix).map_err(CliError::from)
}

fn source_error(error: &SourceError) -> CliError {
    let exit = match error {
        SourceError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Exit::NotFound
        }
        SourceError::File { .. } => Exit::Failed,
        SourceError::Document { .. }
        | SourceError::Refused { .. }
        | SourceError::TooLarge { .. } => Exit::Usage,
    };
    let message = quorate_types::chain(error);
    CliError::refused(exit, message, error.hint().unwrap_or_default())
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let (exit, hint) = match error {
            ConfigError::Client(error) => return error.into(),
            ConfigError::Key { ref source, .. } => {
                let hint = match source.reason() {
                    Some(Reason::SchemaViolated) => {
                        "`quorate config schema show` shows what is wanted"
                    }
                    Some(Reason::ValueTooLong) => {
                        "`quorate keyspace alter NAME --value-max-bytes N` sets the limit"
                    }
                    _ => "",
                };
                (Exit::from(source), hint)
            }
            ConfigError::Spread { .. } => (
                Exit::Usage,
                "`quorate keyspace create NAME --mode strong` makes one for configuration",
            ),
            ConfigError::Invalid(_) => (Exit::Usage, ""),
            ConfigError::TooLarge { .. } => {
                (Exit::Usage, "apply its parts under prefixes of their own")
            }
            ConfigError::Moved { .. } => (
                Exit::Condition,
                "nothing was changed; look at `quorate config diff`, and apply again",
            ),
            ConfigError::NoStep { .. } => {
                (Exit::NotFound, "`quorate config history PREFIX` lists them")
            }
            ConfigError::Damaged { .. } => (Exit::DataLoss, ""),
        };
        CliError::refused(exit, quorate_types::chain(&error), hint)
    }
}
