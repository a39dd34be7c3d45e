//! `quorate await`: until all primaries hold what a session or a reader has seen.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use quorate_client::{Client, Receipt};
use serde_json::json;

use super::consistency::{TOKEN_MAX_BYTES, replace};
use super::error::CliError;
use super::global::Session;
use super::input;
use super::output::Output;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate put title draft --level eventual:one --token session
  quorate await --token session
  quorate get title --level eventual:one --context title.seen
  quorate await title --context title.seen --timeout 10s

Returns once all primaries hold it, and, in keyspaces of mode mixed, their logs have decided it. If
the time is up before, the error says who lacks what. With --token the session's new token is
written back: it is shorter then.")]
#[command(group = clap::ArgGroup::new("named").required(true).args(["token", "context"]))]
pub(super) struct AwaitArgs {
    /// The key of the context
    #[arg(requires = "context", conflicts_with = "token")]
    key: Option<OsString>,
    /// All that the session of this token has read and written
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// What was seen of the key
    #[arg(long, value_name = "FILE", requires = "key")]
    context: Option<PathBuf>,
}

/// How far a write is to have come before its command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum AwaitLevel {
    /// All primaries hold it, and in keyspaces of mode mixed the log has decided it
    Committed,
}

pub(super) async fn run(args: AwaitArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let read = |path: &Path| input::read_file(path, TOKEN_MAX_BYTES).map(Bytes::from);
    let receipt = match (&args.token, &args.context, &args.key) {
        (Some(path), _, _) => {
            let receipt = client.await_converged(read(path)?, None).await?;
            replace(path, &receipt.session_token)
                .map_err(|error| CliError::file("write", path, error))?;
            receipt
        }
        (None, Some(path), Some(key)) => {
            let (key, context) = (input::argument(key), read(path)?);
            client.await_key_converged(key, context, None).await?
        }
        (None, _, _) => {
            return Err(CliError::usage(
                "--context needs its key",
                "`quorate await KEY --context FILE`",
            ));
        }
    };
    print(&mut output, &receipt)
}

/// Waits until what a receipt's session has written has come far enough.
pub(super) async fn wait(client: &Client, token: &Bytes) -> Result<Receipt, CliError> {
    Ok(client.await_converged(token.clone(), None).await?)
}

fn print(output: &mut Output, receipt: &Receipt) -> Result<(), CliError> {
    let nodes: Vec<u64> = receipt.replicas.iter().map(|node| node.0).collect();
    if output.is_json() {
        output.json(&json!({ "replicas": nodes }))?;
    } else {
        output.line(format_args!("on nodes {nodes:?}"))?;
    }
    output.flush()
}
