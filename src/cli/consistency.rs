//! `--level` and `--token`: how a request is to be served, and what a session has seen.
//!
//! What levels mean, and which a keyspace serves, is the server's part.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use quorate_client::{ReadOptions, Receipt, WriteOptions};
use quorate_types::{Ack, Copies, Ladder, Level};

use super::error::CliError;
use super::input;

/// Largest session token that is read from a file, bytes.
pub(super) const TOKEN_MAX_BYTES: u64 = 1 << 20;
/// The token of a session that has seen nothing yet.
pub(super) const SESSION_BEGIN: &[u8] = &[0];

/// Where a command needs an eventual level and none is named: a majority sees what another one
/// has written.
const EVENTUAL_LEVEL: Level = Level::Eventual {
    copies: Copies::Quorum,
    strict: false,
    ack: Ack::Disk,
};

/// How reads and writes are to be served.
#[derive(Args, Debug, Default)]
pub(super) struct LevelArgs {
    /// Consistency: linearizable, bounded:5s, session, stale, eventual:one|quorum|all|2, or
    /// several with budgets, 'linearizable@200ms > stale' [default: the keyspace's]
    #[arg(long, value_name = "LEVEL")]
    level: Option<Ladder>,
    /// The session's token: read from this file, the new one written back
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Where what the session has seen cannot be shown in time: the best that is there, not an
    /// error; the receipt says what is missing
    #[arg(long, requires = "token")]
    best_available: bool,
}

impl LevelArgs {
    pub(super) fn read(&self) -> Result<ReadOptions, CliError> {
        for rung in self.rungs() {
            rung.read().map_err(refused)?;
        }
        Ok(ReadOptions {
            ladder: self.level.clone(),
            token: self.read_token()?,
            best_available: self.best_available,
            ..ReadOptions::default()
        })
    }

    pub(super) fn write(&self) -> Result<WriteOptions, CliError> {
        for rung in self.rungs() {
            rung.write().map_err(refused)?;
        }
        Ok(WriteOptions {
            ladder: self.level.clone(),
            token: self.read_token()?,
            best_available: self.best_available,
            ..WriteOptions::default()
        })
    }

    /// A read and the write that follows it, at the same eventual level: siblings are seen at
    /// no other one.
    pub(super) fn resolve(&self) -> Result<(ReadOptions, WriteOptions), CliError> {
        let eventual = || Ladder::from(EVENTUAL_LEVEL);
        let ladder = self.level.clone().unwrap_or_else(eventual);
        let levels = LevelArgs {
            level: Some(ladder),
            token: self.token.clone(),
            best_available: self.best_available,
        };
        Ok((levels.read()?, levels.write()?))
    }

    /// How what was written at this level is read, to see whether it is there: only the default
    /// level, the strictest that the keyspace has, tells; of an eventual write, an eventual one.
    pub(super) fn read_back(&self) -> ReadOptions {
        let eventual = self
            .rungs()
            .any(|rung| matches!(rung, Level::Eventual { .. }));
        ReadOptions {
            ladder: eventual.then(|| Ladder::from(EVENTUAL_LEVEL)),
            ..ReadOptions::default()
        }
    }

    fn rungs(&self) -> impl Iterator<Item = Level> + '_ {
        let rungs = self.level.as_ref().map(Ladder::rungs).unwrap_or_default();
        rungs.iter().map(|rung| rung.level)
    }

    fn read_token(&self) -> Result<Bytes, CliError> {
        let Some(path) = &self.token else {
            return Ok(Bytes::new());
        };
        match input::read_file(path, TOKEN_MAX_BYTES) {
            Ok(token) => Ok(Bytes::from(token)),
            Err(CliError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Bytes::from_static(SESSION_BEGIN))
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps what the session has seen now, if it is one.
    pub(super) fn remember(&self, receipt: &Receipt) -> Result<(), CliError> {
        match &self.token {
            Some(path) if !receipt.session_token.is_empty() => {
                replace(path, &receipt.session_token)
                    .map_err(|error| CliError::file("write", path, error))
            }
            _ => Ok(()),
        }
    }
}

fn refused(error: quorate_types::LevelError) -> CliError {
    CliError::usage(error.to_string(), "")
}

/// Replaces a file as a whole: a token that is half written would end the session. A link stays,
/// and what is no file (`/dev/null`, a pipe) is written to, never replaced.
pub(super) fn replace(path: &Path, token: &[u8]) -> io::Result<()> {
    let path = &match fs::canonicalize(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return fs::OpenOptions::new()
            .write(true)
            .open(path)?
            .write_all(token);
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(partial);
    fs::File::create(&partial)
        .and_then(|mut file| file.write_all(token))
        .and_then(|()| fs::rename(&partial, path))
        .inspect_err(|_| {
            // The name says that it is a part.
            let _ = fs::remove_file(&partial);
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn args(level: &str) -> LevelArgs {
        LevelArgs {
            level: Some(level.parse().unwrap()),
            token: None,
            best_available: false,
        }
    }

    #[cfg(unix)]
    #[test]
    fn devices_and_links_are_written_to_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let link = |name: &str, to: &Path| {
            let link = folder.path().join(name);
            std::os::unix::fs::symlink(to, &link).unwrap();
            link
        };
        let (null, file) = (Path::new("/dev/null"), folder.path().join("file"));
        fs::write(&file, b"old").unwrap();
        let (to_null, to_file) = (link("null", null), link("link", &file));
        for link in [&to_null, &to_file] {
            replace(link, b"new").unwrap();
            assert!(fs::symlink_metadata(link).unwrap().is_symlink());
        }
        assert!(!fs::metadata(null).unwrap().is_file());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        let fresh = folder.path().join("fresh");
        replace(&fresh, b"first").unwrap();
        assert_eq!(fs::read(&fresh).unwrap(), b"first");
    }

    #[test]
    fn levels_of_reads_are_refused_for_writes_and_the_reverse() {
        args("stale").read().unwrap();
        assert_eq!(args("stale").write().unwrap_err().exit().code(), 2);
        args("eventual:quorum,strict").write().unwrap();
        assert_eq!(
            args("eventual:quorum,strict")
                .read()
                .unwrap_err()
                .exit()
                .code(),
            2
        );
        assert!(args("linearizable@1s > stale").write().is_err());
    }

    #[test]
    fn a_session_without_a_token_begins_with_one_that_has_seen_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let mut session = args("session");
        session.token = Some(path.clone());
        assert_eq!(session.read().unwrap().token, SESSION_BEGIN);
        fs::write(&path, b"seen").unwrap();
        assert_eq!(session.read().unwrap().token, "seen");
    }
}
