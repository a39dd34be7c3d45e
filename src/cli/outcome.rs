//! `quorate outcome`: what became of a write whose answer was lost.

use clap::Args;
use quorate_client::OutcomeState;
use quorate_types::RequestHandle;
use serde_json::{Map, json};

use super::error::CliError;
use super::exit::Exit;
use super::global::Session;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate outcome r7-00c0ffee00000001-42

A write that was not applied will never be, once this has said so.")]
pub(super) struct OutcomeArgs {
    /// As printed with the error
    #[arg(value_name = "REQUEST_ID")]
    handle: RequestHandle,
}

pub(super) async fn run(args: OutcomeArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let outcome = client.outcome(args.handle).await?;
    let (state, text) = match outcome.state {
        OutcomeState::Applied { revision, .. } => {
            ("applied", format!("applied at revision {revision}"))
        }
        OutcomeState::NotApplied => ("not_applied", "not applied".to_owned()),
        OutcomeState::TooOld => ("too_old", "too old to tell".to_owned()),
    };
    if output.is_json() {
        let mut object = Map::new();
        object.insert("request_id".to_owned(), json!(args.handle.to_string()));
        object.insert("state".to_owned(), json!(state));
        if let OutcomeState::Applied {
            revision,
            succeeded,
        } = outcome.state
        {
            object.insert("revision".to_owned(), json!(revision.0));
            object.insert("succeeded".to_owned(), json!(succeeded));
        }
        output.object(object, &outcome.receipt)?;
    } else {
        output.line(text)?;
        output.remark_receipt(&outcome.receipt);
    }
    output.flush()?;
    match outcome.state {
        OutcomeState::Applied { .. } | OutcomeState::NotApplied => Ok(()),
        OutcomeState::TooOld => Err(CliError::Reported(Exit::Unknown)),
    }
}
