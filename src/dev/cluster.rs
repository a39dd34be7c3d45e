//! The life of a local cluster: all nodes start, the cluster gets ready, all nodes stop.

use std::future::Future;
use std::path::{self, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep_until};

use super::child::{self, Ended, Node, Stop};
use super::error::DevError;
use super::folder::{self, Folder};
use super::ready;
use super::topology::Topology;

/// How long nodes may take to stop before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is said that the cluster is not ready yet.
const WAITING_PAUSE: Duration = Duration::from_secs(10);

/// What to start.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// How many nodes.
    pub nodes: u16,
    /// Where all data is.
    pub dir: PathBuf,
    /// The first port; 0: any free ones.
    pub port: u16,
    /// The first port for etcd's clients; 0: any free ones.
    pub etcd_port: u16,
    /// Written when the cluster is ready, removed when it stops.
    pub ready_file: Option<PathBuf>,
}

/// Who hears what happens to the cluster.
pub trait Console: Send + Sync + 'static {
    /// The cluster serves.
    fn ready(&self, topology: &Topology, pids: &[u32]);
    /// Something that the user should know.
    fn warn(&self, text: &str);
}

/// Runs a cluster until `told_to_stop` yields once (again: nodes are killed), or all nodes
/// have ended by themselves. No node is left running when it returns.
///
/// # Errors
///
/// [`DevError`] if the cluster could not start, did not get ready, or ended by itself.
pub async fn run<F: Future<Output = ()>>(
    options: DevOptions,
    console: Arc<impl Console>,
    mut told_to_stop: impl FnMut() -> F,
) -> Result<(), DevError> {
    let dir = path::absolute(&options.dir)
        .map_err(|error| DevError::file("find", &options.dir, error))?;
    let last = folder::last_ports(&dir);
    let topology = Topology::plan(options.nodes, options.port, options.etcd_port, &last, &dir)?;
    for node in topology.nodes.iter().filter(|node| node.etcd.is_none()) {
        console.warn(&format!(
            "node {} serves no etcd clients: its port is in use; --etcd-port chooses others",
            node.id
        ));
    }
    let _folder = Folder::open(&dir, options.nodes, topology.ports())?;
    remove_ready_file(&options);
    let mut cluster = Cluster::start(topology, console)?;
    let result = cluster.serve(&options, told_to_stop()).await;
    remove_ready_file(&options);
    cluster.stop(told_to_stop()).await;
    result
}

/// One of an earlier run would tell of a cluster that is gone.
fn remove_ready_file(options: &DevOptions) {
    if let Some(path) = &options.ready_file {
        // Mostly there is none.
        let _ = std::fs::remove_file(path);
    }
}

struct Cluster<C> {
    topology: Topology,
    console: Arc<C>,
    pids: Vec<u32>,
    running: JoinSet<Ended>,
    stop: watch::Sender<Stop>,
    /// Aborted when dropped.
    _followers: JoinSet<()>,
}

impl<C: Console> Cluster<C> {
    fn start(topology: Topology, console: Arc<C>) -> Result<Self, DevError> {
        let nodes = topology
            .nodes
            .iter()
            .map(|plan| Node::start(&topology, plan))
            .collect::<Result<Vec<_>, _>>()?;
        let (stop, stopped) = watch::channel(Stop::No);
        let pids = nodes.iter().map(|node| node.pid).collect();
        let (mut running, mut followers) = (JoinSet::new(), JoinSet::new());
        for node in nodes {
            let console = Arc::clone(&console);
            let dir = node.plan.dir.clone();
            followers.spawn(child::follow_log(node.plan.id, dir, move |id, line| {
                console.warn(&format!("node {id}: {line}"));
            }));
            running.spawn(node.watch(stopped.clone()));
        }
        Ok(Self {
            topology,
            console,
            pids,
            running,
            stop,
            _followers: followers,
        })
    }

    /// Until told to stop, or nothing is left to serve with.
    async fn serve(
        &mut self,
        options: &DevOptions,
        told_to_stop: impl Future<Output = ()>,
    ) -> Result<(), DevError> {
        let topology = self.topology.clone();
        let mut getting_ready = pin!(ready::wait(&topology));
        let mut told_to_stop = pin!(told_to_stop);
        let mut waiting = interval_at(Instant::now() + WAITING_PAUSE, WAITING_PAUSE);
        let mut is_ready = false;
        let mut ended = Vec::new();
        loop {
            tokio::select! {
                () = &mut told_to_stop => return Ok(()),
                Some(node) = self.running.join_next() => {
                    let node = node.expect("a watch does not panic, and nobody aborts it");
                    self.mourn(&node);
                    ended.push(node.id);
                    if self.running.is_empty() {
                        return Err(DevError::AllStopped);
                    }
                    if !is_ready && self.running.len() < self.topology.majority() {
                        return Err(DevError::NotReady { nodes: ended });
                    }
                }
                silent = &mut getting_ready, if !is_ready => {
                    is_ready = true;
                    self.announce(options, &silent, &ended)?;
                }
                _ = waiting.tick(), if !is_ready => {
                    self.console.warn("still waiting for the cluster to serve a put");
                }
            }
        }
    }

    fn announce(
        &self,
        options: &DevOptions,
        silent: &[u64],
        ended: &[u64],
    ) -> Result<(), DevError> {
        for id in silent.iter().filter(|id| !ended.contains(id)) {
            self.console
                .warn(&format!("node {id} does not answer at its own port yet"));
        }
        if let Some(path) = &options.ready_file {
            ready::write_file(path, &self.topology, &self.pids)?;
        }
        self.console.ready(&self.topology, &self.pids);
        Ok(())
    }

    /// Says that a node has ended by itself, why, and how to start it again.
    fn mourn(&self, ended: &Ended) {
        if ended.asked {
            return;
        }
        let plan = self.topology.nodes.iter().find(|plan| plan.id == ended.id);
        let plan = plan.expect("every process is that of a planned node");
        let how = match &ended.status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let mut text = format!("node {} stopped by itself ({how})", ended.id);
        for line in child::log_tail(&plan.dir) {
            text.push_str(&format!("\n  | {line}"));
        }
        let program = std::env::args().next().unwrap_or_default();
        let command: Vec<String> = std::iter::once(program)
            .chain(self.topology.arguments(plan))
            .map(|argument| quoted(&argument))
            .collect();
        text.push_str(&format!(
            "\nthe other nodes go on; this starts it again:\n  {}",
            command.join(" ")
        ));
        self.console.warn(&text);
    }

    /// Stops all nodes: in order first, by force after a time or when told again.
    async fn stop(&mut self, told_again: impl Future<Output = ()>) {
        self.stop.send_replace(Stop::Gracefully);
        let deadline = Instant::now() + STOP_TIMEOUT;
        let mut impatient = pin!(async {
            tokio::select! {
                () = told_again => {}
                () = sleep_until(deadline) => {}
            }
        });
        let mut killed = false;
        while !self.running.is_empty() {
            tokio::select! {
                _ = self.running.join_next() => {}
                () = &mut impatient, if !killed => {
                    killed = true;
                    let left = self.running.len();
                    self.console.warn(&format!("{left} node(s) did not stop, and are killed"));
                    self.stop.send_replace(Stop::Now);
                }
            }
        }
    }
}

/// An argument as a shell takes it.
pub(super) fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_where_a_shell_needs_it() {
        assert_eq!(quoted("--dir=/tmp/a-b"), "--dir=/tmp/a-b");
        assert_eq!(quoted("--dir=/tmp/my data"), "'--dir=/tmp/my data'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
