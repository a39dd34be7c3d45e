//! What goes wrong in a command, in words: what failed, what it did to the data, how to fix it.
//!
//! The number that a script sees is in `exit`. An error is written here, once, to standard error.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use quorate_client::ClientError;
use quorate_types::{Effect, Reason, chain};
use thiserror::Error;

use super::exit::Exit;
use crate::bench::BenchError;
use crate::dev::DevError;
use crate::server::ServerError;
use crate::transfer::TransferError;

/// Why a command ended without doing all of what it was told.
#[derive(Debug, Error)]
pub enum CliError {
    /// Refused, or found otherwise than asked; `exit` says which. No effect.
    #[error("{message}")]
    Refused {
        /// What kind of end it is.
        exit: Exit,
        /// What is wrong.
        message: String,
        /// What to do instead; empty: nothing to add.
        hint: String,
    },
    /// A file or folder of this machine.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The cluster, or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The node that was to run here.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The local cluster.
    #[error(transparent)]
    Dev(#[from] DevError),
    /// The load generator.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// Import or export.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// Nobody takes the results.
    #[error("cannot write the results")]
    Output(#[source] io::Error),
    /// Everything has been said already, the exit code is left.
    #[error("some of it failed")]
    Reported(Exit),
}

impl CliError {
    /// Wrong usage.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::refused(Exit::Usage, message, hint)
    }

    /// An end with a message and a way out.
    pub fn refused(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused {
            exit,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// A file or folder that could not be used.
    pub fn file(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    /// How the process ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Refused { exit, .. } | Self::Reported(exit) => *exit,
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NotFound,
            Self::Client(error) => Exit::from(error),
            Self::Bench(error) => Exit::from(error),
            Self::Dev(error) => Exit::from(error),
            Self::Transfer(error) => Exit::from(error),
            // A reader that has seen enough, as `head` does, is no failure.
            Self::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Server(error) if error.is_data_loss() => Exit::DataLoss,
            Self::File { .. } | Self::Server(_) | Self::Output(_) => Exit::Failed,
        }
    }

    /// What to do about it, if there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } => Some(hint.clone()).filter(|hint| !hint.is_empty()),
            Self::Client(error) => client_hint(error),
            Self::Dev(error) => error.hint(),
            Self::Transfer(error) => error.hint(),
            Self::File { .. }
            | Self::Server(_)
            | Self::Bench(_)
            | Self::Output(_)
            | Self::Reported(_) => None,
        }
    }

    /// Says it on standard error.
    pub fn report(&self) {
        if matches!(self, Self::Reported(_)) || self.exit() == Exit::Done {
            return;
        }
        let mut text = format!("error: {}\n", chain(self));
        if let Self::Client(error) = self {
            text.push_str(&fate(error));
        }
        if let Some(hint) = self.hint() {
            text.push_str(&format!("hint: {hint}\n"));
        }
        // Without a standard error there is nobody left to tell.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// What is known of a write that failed, beyond the message.
fn fate(error: &ClientError) -> String {
    let id = match (error.handle(), error.request()) {
        (Some(handle), _) => handle.to_string(),
        (None, Some(request)) => request.to_string(),
        (None, None) => "none".to_owned(),
    };
    match error.effect() {
        Effect::None => String::new(),
        Effect::Applied => format!("effect: applied\nrequest id: {id}\n"),
        Effect::Unknown => format!("effect: unknown\nrequest id: {id}\n"),
    }
}

fn client_hint(error: &ClientError) -> Option<String> {
    if error.effect() == Effect::Unknown {
        return Some(match error.handle() {
            Some(handle) => format!("`quorate outcome {handle}` tells what became of it"),
            None => "read the key before writing again: the write may be applied".to_owned(),
        });
    }
    if let ClientError::Lost(_) = error {
        return Some(
            "is the cluster running, and are these its addresses? \
             (`--endpoints HOST:PORT,…`; `quorate dev` starts one here)"
                .to_owned(),
        );
    }
    let after = error.retry_after().map(|delay| {
        let after = format!("try again in {} ms", delay.as_millis());
        match error.metadata("levels") {
            Some(levels) => format!("{after}; what can be met now: --level {levels}"),
            None => after,
        }
    });
    after.or_else(|| error.reason().and_then(reason_hint).map(str::to_owned))
}

const fn reason_hint(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::KeyspaceExists => Some("`quorate keyspace show NAME` shows its options"),
        Reason::LevelNotServed => {
            Some("`quorate keyspace show NAME` shows the mode; `--level` names another level")
        }
        Reason::ValueTooLong | Reason::KeyTooLong => {
            Some("`quorate keyspace alter NAME --value-max-bytes N` sets the limit, up to 16 MiB")
        }
        Reason::RangesSpanned => {
            Some("a transaction's keys must lie in one range: `quorate ranges` shows them")
        }
        Reason::RevisionCollected => {
            Some("`quorate keyspace alter NAME --history 1h` keeps versions longer from now on")
        }
        Reason::CompareFailed | Reason::AlreadyExists => {
            Some("read the key again, and decide with what is there now")
        }
        Reason::TokenInvalid => Some("delete the token's file to begin a new session"),
        Reason::TimedOut => Some("`--timeout 30s` gives it more time"),
        Reason::NoLeader | Reason::NoMajority | Reason::NodeStopping | Reason::HoldersMissing => {
            Some("`quorate status` shows which nodes answer")
        }
        Reason::NotCaughtUp | Reason::StalenessExceeded => {
            Some("another level may be served: `--level 'LEVEL > LEVEL'` tries them in turn")
        }
        Reason::NotConverged => {
            Some("they get it by themselves once they can be reached: wait longer, `--timeout 1m`")
        }
        Reason::ContextInvalid => {
            Some("it is not this key's: `quorate get KEY --context FILE` writes a new one")
        }
        Reason::PolicyMismatch => Some(
            "counters take `quorate incr`, sets `set-add` and `set-remove`, maps `map-put`; \
                 `quorate keyspace show NAME` shows which it is",
        ),
        Reason::TooManySiblings => {
            Some("`quorate resolve KEY` shows the values, and puts one in their place")
        }
        Reason::SchemaViolated => Some("`quorate config schema show PREFIX` shows what is wanted"),
        Reason::QuotaExceeded => Some(
            "delete something, or raise it: of a prefix `quorate config quota set`, of a keyspace \
                 `quorate keyspace alter --quota`",
        ),
        Reason::DataLoss => {
            Some("`quorate node replace ID` puts a healthy replica in the place of a damaged one")
        }
        // What remains is said by the message itself.
        Reason::KeyEmpty
        | Reason::KeyspaceNotFound
        | Reason::FieldInvalid
        | Reason::RevisionFuture
        | Reason::PageTokenMismatch
        | Reason::Overloaded
        | Reason::BelowWindow
        | Reason::ClockOffset
        | Reason::RangeMoved
        | Reason::CounterOverflow
        | Reason::LeaseNotFound
        | Reason::LeaseLimit
        | Reason::Internal
        | Reason::NotImplemented => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_one_line_and_says_nothing_twice() {
        let source = io::Error::new(io::ErrorKind::PermissionDenied, "permission denied");
        let error = CliError::file("open", Path::new("secret"), source);
        assert_eq!(chain(&error), "cannot open secret: permission denied");
        assert_eq!(error.exit(), Exit::Failed);
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let error = CliError::Output(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(error.exit(), Exit::Done);
    }
}
