//! What commands share that read configuration at their start: a prefix, a ladder, and a copy for
//! when nothing answers.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use quorate_client::Client;
use quorate_client::cached::{Cached, CachedError, CachedLadder, CachedOptions, CachedState};
use quorate_types::chain;

use super::error::CliError;
use super::exit::Exit;
use super::input;
use super::output::Output;

/// With a copy on disk: servers are given that long, and the copy may be that old.
const LADDER_WITH_COPY: &str = "linearizable@2s > cached:24h";
const LADDER: &str = "linearizable";

#[derive(Args, Debug)]
pub(super) struct CachedArgs {
    /// Keep a last-known-good copy in this folder, and take it when no server answers
    #[arg(long, value_name = "DIR", env = "QUORATE_CACHE")]
    cache: Option<PathBuf>,
    /// Levels in order of preference; the last may be `cached:AGE`, the copy if it is no older
    /// [default: linearizable, with --cache linearizable@2s > cached:24h]
    #[arg(long, value_name = "LEVELS")]
    level: Option<CachedLadder>,
}

impl CachedArgs {
    pub(super) fn ladder(&self) -> Result<CachedLadder, CliError> {
        if let Some(ladder) = &self.level {
            return Ok(ladder.clone());
        }
        let text = if self.cache.is_some() {
            LADDER_WITH_COPY
        } else {
            LADDER
        };
        text.parse()
            .map_err(|error| CliError::usage(chain(&error), ""))
    }

    pub(super) async fn open(
        &self,
        client: &Client,
        prefix: &OsString,
    ) -> Result<Cached, CliError> {
        let options = CachedOptions {
            prefix: input::argument(prefix),
            folder: self.cache.clone(),
        };
        client.cached(options).await.map_err(cached_error)
    }
}

/// Reads, and says where from if that is not what was hoped for.
pub(super) async fn read(
    cached: &Cached,
    ladder: &CachedLadder,
    output: &Output,
) -> Result<CachedState, CliError> {
    let state = cached.read(ladder).await.map_err(cached_error)?;
    if let (Some(age), false) = (state.receipt.cached_age, output.receipt) {
        let seconds = age.as_secs_f64();
        output.remark(&format!(
            "no server answered: this is the last-known-good copy, {seconds:.1} s old"
        ));
    }
    if output.receipt {
        // Standard output belongs to what is run or rendered.
        match output.is_json() {
            true => output.remark(&super::json::receipt(&state.receipt).to_string()),
            false => output.remark_receipt(&state.receipt),
        }
    }
    Ok(state)
}

pub(super) fn cached_error(error: CachedError) -> CliError {
    let exit = match &error {
        CachedError::Refused(source) | CachedError::Unanswered { source, .. } => Exit::from(source),
        CachedError::NoCopy { .. } => Exit::Unavailable,
        CachedError::TooLarge => Exit::Usage,
        CachedError::File { .. } => Exit::Failed,
    };
    let hint = match &error {
        CachedError::Unanswered { .. } | CachedError::NoCopy { .. } => {
            "`--cache DIR` keeps a copy of what servers answer; a longer `cached:AGE` takes an older one"
        }
        CachedError::TooLarge => "name a longer prefix",
        CachedError::Refused(_) | CachedError::File { .. } => "",
    };
    CliError::refused(exit, chain(&error), hint)
}
