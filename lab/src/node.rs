//! One node's process: started, killed, paused, asked to stop.
//!
//! A node lives as long as its standard input is open, so that none is left behind when the lab
//! itself is killed.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};

use crate::error::LabError;

/// A node that was asked to stop is killed after so long.
const STOP_MAX: Duration = Duration::from_secs(10);

/// A node, whether it runs or not.
pub(crate) struct Node {
    pub(crate) id: usize,
    log: PathBuf,
    running: Option<Running>,
    paused: bool,
    /// Starts so far.
    pub(crate) starts: u64,
    /// The exit code of the last process, if it ended by itself.
    pub(crate) exit: Option<i32>,
}

struct Running {
    child: Child,
    /// Open as long as the node is to live.
    stdin: Option<ChildStdin>,
}

impl Node {
    pub(crate) fn new(id: usize, log: PathBuf) -> Self {
        Self {
            id,
            log,
            running: None,
            paused: false,
            starts: 0,
            exit: None,
        }
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(std::io::Error) -> LabError {
        let node = self.id;
        move |source| LabError::Process { node, what, source }
    }

    /// Starts the process, if none runs.
    pub(crate) fn start(&mut self, mut command: Command) -> Result<(), LabError> {
        if self.running.is_some() {
            return Ok(());
        }
        let log = File::options().append(true).create(true).open(&self.log);
        let log = log.map_err(|error| LabError::file(&self.log, error))?;
        let stdout = log.try_clone();
        let stdout = stdout.map_err(|error| LabError::file(&self.log, error))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(self.failed("cannot be started"))?;
        let stdin = child.stdin.take();
        self.running = Some(Running { child, stdin });
        self.paused = false;
        self.exit = None;
        self.starts += 1;
        Ok(())
    }

    /// The process that runs now.
    pub(crate) fn process_id(&self) -> Option<u32> {
        self.running.as_ref()?.child.id()
    }

    /// Whether its process runs, and has not ended by itself.
    pub(crate) fn is_running(&mut self) -> bool {
        let Some(running) = &mut self.running else {
            return false;
        };
        match running.child.try_wait() {
            Ok(None) => return true,
            Ok(Some(status)) => self.exit = status.code(),
            // A process that nobody can wait for is nobody's any more.
            Err(_) => {}
        }
        self.running = None;
        false
    }

    fn signal(&self, signal: Signal) -> Result<bool, LabError> {
        let pid = self.process_id().and_then(|id| i32::try_from(id).ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            return Ok(false);
        };
        kill_process(pid, signal).map_err(|error| self.failed("takes no signal")(error.into()))?;
        Ok(true)
    }

    /// kill -9, and waits until it is gone. The process that is gone, if there was one.
    pub(crate) async fn kill(&mut self) -> Result<Option<u32>, LabError> {
        let id = self.process_id();
        if let Some(mut running) = self.running.take() {
            let killed = running.child.kill().await;
            killed.map_err(self.failed("cannot be killed"))?;
        }
        self.paused = false;
        Ok(id)
    }

    /// Asks it to stop in order, and waits.
    pub(crate) async fn stop(&mut self) -> Result<Option<u32>, LabError> {
        let id = self.process_id();
        self.resume()?;
        if let Some(running) = &mut self.running {
            drop(running.stdin.take());
            self.signal(Signal::TERM)?;
        }
        if let Some(running) = &mut self.running
            && tokio::time::timeout(STOP_MAX, running.child.wait())
                .await
                .is_err()
        {
            return self.kill().await;
        }
        self.running = None;
        Ok(id)
    }

    /// Stops its time; says whether it now stands still, as the system sees it.
    pub(crate) fn pause(&mut self) -> Result<bool, LabError> {
        self.paused = self.signal(Signal::STOP)?;
        Ok(self.paused)
    }

    /// Lets its time go on.
    pub(crate) fn resume(&mut self) -> Result<(), LabError> {
        if std::mem::take(&mut self.paused) {
            self.signal(Signal::CONT)?;
        }
        Ok(())
    }

    /// Whether the system says that it stands still.
    pub(crate) fn stands_still(&self) -> bool {
        let Some(id) = self.process_id() else {
            return false;
        };
        // "PID (NAME) STATE …"; the name may hold anything but is closed by the last bracket.
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"));
        let stat = stat.unwrap_or_default();
        let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
        state.is_some_and(|state| state.starts_with('T'))
    }
}
