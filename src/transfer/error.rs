//! Why an import or export ended early, or is not complete.

use std::io;
use std::path::PathBuf;

use quorate_client::ClientError;
use quorate_types::Effect;
use thiserror::Error;

/// Why a transfer did not do all of it. Whatever was done stays, and repeating is safe.
#[derive(Debug, Error)]
pub enum TransferError {
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
    /// Neither a folder nor a `.jsonl` file.
    #[error("{} is neither a folder nor a .jsonl file", path.display())]
    NotImportable {
        /// What was to be imported.
        path: PathBuf,
    },
    /// The export's target holds something.
    #[error("{} is there already", path.display())]
    TargetExists {
        /// The target.
        path: PathBuf,
    },
    /// Keys that have no place in a folder; nothing was exported.
    #[error("{count} key(s) cannot be files, and nothing was exported")]
    KeysUnfit {
        /// How many.
        count: u64,
    },
    /// Some files failed, the others are done.
    #[error("{failed} file(s) or line(s) failed, the others are imported")]
    Incomplete {
        /// How many.
        failed: u64,
    },
    /// The cluster could not go on.
    #[error("stopped at {name}")]
    Stopped {
        /// The key or file that met the error.
        name: String,
        /// What the cluster, or the way to it, said.
        #[source]
        source: ClientError,
    },
    /// Stopped by the user.
    #[error("interrupted")]
    Interrupted,
}

impl TransferError {
    pub(super) fn file(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File {
            doing,
            path: path.into(),
            source,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotImportable { .. } => {
                "give a folder, or a file whose name ends in .jsonl with \
                 {\"key\":…,\"value\":…} a line"
            }
            Self::TargetExists { .. } => "export to a name that is not there yet",
            Self::KeysUnfit { .. } => "export to a name that ends in .jsonl: any key fits there",
            Self::Stopped { source, .. } if is_final(source) => return None,
            Self::Stopped { .. } | Self::Interrupted => {
                "run the same command again: what is stored already is not written twice"
            }
            Self::File { .. } | Self::Incomplete { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// Whether the same command would meet the same refusal again.
fn is_final(source: &ClientError) -> bool {
    source.effect() == Effect::None && !source.is_retryable()
}
