//! Stores as a comparison sees them: running clusters, and ways to put load on them.
//!
//! What they share stands here; each has a room of its own (`etcd`, `cassandra`, `cluster`).

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quorate::bench::{BenchError, LoadOptions, Report, Target};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::cell::Cell;
use crate::error::CompareError;

/// Nodes of each cluster.
pub const NODES: usize = 3;
/// A cluster that is told to stop has so long, then it is killed.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Pause between two looks at something that is awaited.
pub const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// A running cluster.
pub trait Store {
    /// Its name in the table.
    const NAME: &'static str;

    /// The processes of its nodes.
    fn pids(&self) -> &[u32];

    /// Writes keys 0 to `options.keys`, where loads of one range read them.
    async fn fill(&self, options: &LoadOptions) -> Result<(), BenchError>;

    /// Puts the load of `cell` on it; counts every success in `counter`, also of the warm-up.
    async fn load(
        &self,
        cell: Cell,
        options: LoadOptions,
        counter: Counter,
    ) -> Result<Report, BenchError>;

    /// Where it serves etcd's API, `http://HOST:PORT` or `HOST:PORT` each; none: it does not.
    fn etcd_endpoints(&self) -> &[String] {
        &[]
    }

    /// Stops it and waits for its end.
    async fn stop(self) -> Result<(), CompareError>;
}

pub use crate::counted::Counter;

/// Runs `options` against `target`, counting.
pub async fn run_counted<T: Target>(
    target: T,
    options: &LoadOptions,
    counter: Counter,
) -> Result<Report, BenchError> {
    quorate::bench::run(&crate::counted::Counted::new(target, counter), options).await
}

/// Addresses on loopback that nobody listens on. They are held together while they are chosen,
/// so that all differ.
pub fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, CompareError> {
    let held: io::Result<Vec<TcpListener>> = (0..count)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect();
    held.and_then(|held| held.iter().map(TcpListener::local_addr).collect())
        .map_err(CompareError::io("find free ports"))
}

/// Starts a program that writes what it says into `log`, and that dies with its handle.
pub fn spawn(program: &Path, args: &[String], log: &Path) -> Result<Child, CompareError> {
    let out = File::create(log).map_err(CompareError::io("create a log file"))?;
    let err = out
        .try_clone()
        .map_err(CompareError::io("create a log file"))?;
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| CompareError::Start {
            program: program.to_owned(),
            source,
        })
}

/// Tells children to stop, waits for them, and kills those that do not.
pub async fn stop(mut children: Vec<Child>) -> Result<(), CompareError> {
    for child in &children {
        if let Some(pid) = child.id() {
            // It may be gone already: that is what is wanted.
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
        }
    }
    let deadline = Instant::now() + STOP_MAX;
    for child in &mut children {
        let left = deadline.saturating_duration_since(Instant::now());
        if timeout(left, child.wait()).await.is_err() {
            child
                .kill()
                .await
                .map_err(CompareError::io("kill a node that does not stop"))?;
        }
    }
    Ok(())
}

/// Waits until none of `pids` is there any more, and kills those that stay.
pub async fn wait_for_end(pids: &[u32]) {
    let deadline = Instant::now() + STOP_MAX;
    for pid in pids {
        let path = format!("/proc/{pid}");
        while Path::new(&path).exists() {
            if Instant::now() > deadline {
                // It may end by itself in between: that is what is wanted.
                let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL);
            }
            sleep(LOOK_PAUSE).await;
        }
    }
}
