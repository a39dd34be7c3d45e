//! One node's process: how it is started, heard and stopped.
//!
//! A child runs as long as its standard input is open. It has a process group of its own, so
//! that Ctrl-C in the terminal reaches the parent alone, which then stops all in order.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use super::error::DevError;
use super::topology::{NodePlan, Topology};

/// How often a log is looked at for new lines.
const LOG_LOOK_PAUSE: Duration = Duration::from_millis(250);
/// Bytes of new log that are looked at in one go.
const LOG_LOOK_MAX_BYTES: u64 = 1 << 20;
/// Bytes from the log's end that are shown when a node stops by itself.
const LOG_TAIL_BYTES: u64 = 4 << 10;
/// Lines of them.
const LOG_TAIL_LINES: usize = 8;
const LOG_NAME: &str = "server.log";

/// How far the cluster is in being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Nobody stops.
    No,
    /// Nodes hand over and end.
    Gracefully,
    /// Nodes are killed.
    Now,
}

/// A node that runs.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) plan: NodePlan,
    pub(super) pid: u32,
    child: Child,
    stdin: ChildStdin,
}

/// A node that does not run any more.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) id: u64,
    pub(super) status: io::Result<ExitStatus>,
    pub(super) asked: bool,
}

impl Node {
    /// Starts a node's process.
    pub(super) fn start(topology: &Topology, plan: &NodePlan) -> Result<Self, DevError> {
        let log = fresh_log(&plan.dir)?;
        let failed = |source| DevError::Start {
            id: plan.id,
            source,
        };
        let program = std::env::current_exe().map_err(failed)?;
        let stdout = log.try_clone().map_err(failed)?;
        let mut child = Command::new(program)
            .args(topology.arguments(plan))
            .arg("--stdin-watch")
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdin = child
            .stdin
            .take()
            .expect("standard input was asked for as a pipe");
        let pid = child.id().expect("the child has not been waited for");
        Ok(Self {
            plan: plan.clone(),
            pid,
            child,
            stdin,
        })
    }

    /// Waits until the process ends, by itself or because `stop` says so.
    pub(super) async fn watch(self, mut stop: watch::Receiver<Stop>) -> Ended {
        let Self {
            plan,
            mut child,
            stdin,
            ..
        } = self;
        let mut stdin = Some(stdin);
        let mut asked = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                changed = stop.changed() => {
                    // A parent that is gone stops its children.
                    let stop = changed.map_or(Stop::Now, |()| *stop.borrow());
                    asked |= stop != Stop::No;
                    if asked {
                        drop(stdin.take());
                    }
                    if stop == Stop::Now {
                        // It may have ended in between: the wait tells.
                        let _ = child.start_kill();
                        break child.wait().await;
                    }
                }
            }
        };
        Ended {
            id: plan.id,
            status,
            asked,
        }
    }
}

/// Begins a new log beside the last one.
fn fresh_log(dir: &Path) -> Result<File, DevError> {
    fs::create_dir_all(dir).map_err(|error| DevError::file("create", dir, error))?;
    let path = log_path(dir);
    match fs::rename(&path, path.with_extension("log.1")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(DevError::file("put aside", path, error));
        }
        Ok(()) | Err(_) => {}
    }
    File::options()
        .append(true)
        .create(true)
        .open(&path)
        .map_err(|error| DevError::file("create", path, error))
}

/// Where a node's log is.
pub(super) fn log_path(dir: &Path) -> PathBuf {
    dir.join(LOG_NAME)
}

/// The last lines of a node's log.
pub(super) fn log_tail(dir: &Path) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log_path(dir))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_TAIL_LINES);
    lines[from..].iter().map(|&line| line.to_owned()).collect()
}

/// Follows a node's log, and passes on lines that tell of errors, until dropped.
pub(super) async fn follow_log(node: u64, dir: PathBuf, say: impl Fn(u64, &str)) {
    let path = log_path(&dir);
    let mut position = 0;
    loop {
        tokio::time::sleep(LOG_LOOK_PAUSE).await;
        // A log that cannot be read now may be readable at the next look.
        let Ok(fresh) = read_lines_from(&path, position) else {
            continue;
        };
        position += fresh.len() as u64;
        let text = String::from_utf8_lossy(&fresh);
        for line in text.lines().filter(|line| tells_of_an_error(line)) {
            say(node, line);
        }
    }
}

/// Whole lines from a position on; what is not ended by a newline waits for the next look.
fn read_lines_from(path: &Path, position: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(position))?;
    let mut bytes = Vec::new();
    file.take(LOG_LOOK_MAX_BYTES).read_to_end(&mut bytes)?;
    let whole = match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(last) => last + 1,
        // One line longer than a look: it is passed over in pieces.
        None if bytes.len() as u64 == LOG_LOOK_MAX_BYTES => bytes.len(),
        None => 0,
    };
    bytes.truncate(whole);
    Ok(bytes)
}

fn tells_of_an_error(line: &str) -> bool {
    line.contains("ERROR") || line.starts_with("error:") || line.contains("panicked at")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_log_is_read_by_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = log_path(folder.path());
        fs::write(&path, "one\ntwo\nhal").unwrap();
        assert_eq!(read_lines_from(&path, 0).unwrap(), b"one\ntwo\n");
        assert_eq!(read_lines_from(&path, 8).unwrap(), b"");
        fs::write(&path, "one\ntwo\nhalf\n").unwrap();
        assert_eq!(read_lines_from(&path, 8).unwrap(), b"half\n");
    }

    #[test]
    fn the_tail_is_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (0..100).map(|n| format!("line {n}")).collect();
        fs::write(log_path(folder.path()), lines.join("\n")).unwrap();
        let tail = log_tail(folder.path());
        assert_eq!(tail.len(), LOG_TAIL_LINES);
        assert_eq!(tail[LOG_TAIL_LINES - 1], "line 99");
    }

    #[test]
    fn a_new_start_keeps_the_log_before() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(log_path(folder.path()), "before").unwrap();
        drop(fresh_log(folder.path()).unwrap());
        assert_eq!(fs::read(log_path(folder.path())).unwrap(), b"");
        let before = fs::read(folder.path().join("server.log.1")).unwrap();
        assert_eq!(before, b"before");
    }
}
