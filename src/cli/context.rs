//! `--context`: what a writer has seen of one key, kept in a file between two commands.
//!
//! What a context means, and whether it is that of this key, is the server's part.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use quorate_client::{ReadOptions, Receipt, WriteOptions};

use super::consistency::{LevelArgs, replace};
use super::error::CliError;
use super::input;
use super::output::Output;

/// Largest context that is read from a file, bytes.
const CONTEXT_MAX_BYTES: u64 = 1 << 20;

/// How a request for one key is to be served.
#[derive(Args, Debug, Default)]
pub(super) struct KeyArgs {
    #[command(flatten)]
    level: LevelArgs,
    /// The key's causal context (eventual levels): a write replaces what it covers, the new one
    /// is written back. No such file: a write replaces what its coordinator sees; an empty one:
    /// nothing, so the value becomes a sibling
    #[arg(long, value_name = "FILE")]
    context: Option<PathBuf>,
    /// See every eventual write that a majority of the key's primaries had acknowledged
    /// (linearizable, in keyspaces of mode mixed)
    #[arg(long)]
    fence: bool,
}

impl KeyArgs {
    pub(super) fn read(&self) -> Result<ReadOptions, CliError> {
        Ok(ReadOptions {
            fence: self.fence,
            ..self.level.read()?
        })
    }

    pub(super) fn write(&self) -> Result<WriteOptions, CliError> {
        Ok(WriteOptions {
            context: self.read_context()?,
            fence: self.fence,
            ..self.level.write()?
        })
    }

    pub(super) const fn has_context(&self) -> bool {
        self.context.is_some()
    }

    fn read_context(&self) -> Result<Option<Bytes>, CliError> {
        let Some(path) = &self.context else {
            return Ok(None);
        };
        match input::read_file(path, CONTEXT_MAX_BYTES) {
            Ok(context) => Ok(Some(Bytes::from(context))),
            Err(CliError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps what has been seen now: of the session, and of the key.
    pub(super) fn remember(&self, receipt: &Receipt, output: &Output) -> Result<(), CliError> {
        self.level.remember(receipt)?;
        match &self.context {
            Some(path) if !receipt.context.is_empty() => replace(path, &receipt.context)
                .map_err(|error| CliError::file("write", path, error)),
            Some(path) => {
                // An empty file would say "nothing was seen", and make the next put a sibling.
                output.remark(&format!(
                    "no context for {}: eventual levels have one, this one does not",
                    path.display()
                ));
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn no_file_is_no_context_and_an_empty_one_is_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("context");
        let mut args = KeyArgs::default();
        assert_eq!(args.write().unwrap().context, None);
        args.context = Some(path.clone());
        assert_eq!(args.write().unwrap().context, None);
        std::fs::write(&path, b"").unwrap();
        assert_eq!(args.write().unwrap().context, Some(Bytes::new()));
        std::fs::write(&path, b"seen").unwrap();
        assert_eq!(args.write().unwrap().context.unwrap(), "seen");
    }
}
