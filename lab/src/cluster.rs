//! The nodes of a run, and what can be done to them. Several nemeses may be at work at once: each
//! names its own cuts, and what is cut is what any of them cuts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_client::{Client, ClientOptions};
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};

use crate::error::LabError;
use crate::hosts::{Cut, Hosts};
use crate::node::Node;
use crate::plan::Plan;

/// The name that the nodes' data carries.
const CLUSTER_NAME: &str = "lab";
/// A cluster that has just been started serves after this, or never.
const READY_MAX: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Who leads is asked for so long.
const ASK_MAX: Duration = Duration::from_secs(1);

/// The nodes of a run.
pub(crate) struct Cluster {
    hosts: Arc<dyn Hosts>,
    nodes: Vec<Mutex<Node>>,
    program: PathBuf,
    data: PathBuf,
    /// By nemesis, what it cuts.
    cuts: Mutex<BTreeMap<usize, BTreeSet<Cut>>>,
}

impl Cluster {
    /// Starts all nodes, and waits until they serve.
    pub(crate) async fn start(plan: &Plan) -> Result<Self, LabError> {
        let options = &plan.options;
        let cluster = Self {
            hosts: plan.hosts.open(options.nodes).await?,
            nodes: (1..=options.nodes)
                .map(|id| Mutex::new(Node::new(id, options.dir.join(format!("node-{id}.log")))))
                .collect(),
            program: options.program.clone(),
            data: options.dir.join("data"),
            cuts: Mutex::default(),
        };
        let started = cluster.start_all().await;
        match started {
            Ok(()) => Ok(cluster),
            Err(error) => {
                cluster.close().await;
                Err(error)
            }
        }
    }

    async fn start_all(&self) -> Result<(), LabError> {
        let made = std::fs::create_dir_all(&self.data);
        made.map_err(|error| LabError::file(&self.data, error))?;
        for id in self.ids() {
            self.start_node(id).await?;
        }
        self.wait_until_ready().await
    }

    /// A cluster that is being founded refuses for a while what it will serve: so it is asked again.
    async fn wait_until_ready(&self) -> Result<(), LabError> {
        let begin = Instant::now();
        loop {
            let client = self.client(&self.endpoints(), "default", ASK_MAX)?;
            let Err(error) = client.put("lab/ready", "yes").await else {
                return Ok(());
            };
            if begin.elapsed() > READY_MAX {
                return Err(LabError::NotReady {
                    waited_seconds: READY_MAX.as_secs(),
                    problem: error.to_string(),
                });
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// All nodes, by number.
    pub(crate) fn ids(&self) -> Vec<usize> {
        (1..=self.nodes.len()).collect()
    }

    pub(crate) fn hosts(&self) -> &dyn Hosts {
        &*self.hosts
    }

    pub(crate) async fn node(&self, id: usize) -> MutexGuard<'_, Node> {
        self.nodes[id - 1].lock().await
    }

    /// Where a node is reached by clients.
    pub(crate) fn endpoint(&self, id: usize) -> String {
        self.hosts.listen(id).to_string()
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.ids().into_iter().map(|id| self.endpoint(id)).collect()
    }

    /// A client of its own connections.
    pub(crate) fn client(
        &self,
        endpoints: &[String],
        keyspace: &str,
        timeout: Duration,
    ) -> Result<Client, LabError> {
        Client::connect(ClientOptions {
            endpoints: endpoints.to_vec(),
            keyspace: keyspace.to_owned(),
            timeout,
            ..ClientOptions::default()
        })
        .map_err(LabError::Prepare)
    }

    /// Starts a node, if it does not run.
    pub(crate) async fn start_node(&self, id: usize) -> Result<(), LabError> {
        let command = self.command(id);
        let mut node = self.node(id).await;
        if !node.is_running() {
            node.start(command)?;
        }
        Ok(())
    }

    fn command(&self, id: usize) -> Command {
        let mut command = self.hosts.command(id, &self.program);
        command.arg("server").arg(format!("--id={id}"));
        command.arg(format!(
            "--dir={}",
            self.data.join(format!("node-{id}")).display()
        ));
        command.arg(format!("--listen={}", self.hosts.listen(id)));
        command.arg(format!("--http-listen={}", self.hosts.http(id)));
        command.arg(format!("--cluster={CLUSTER_NAME}"));
        command.args(["--stdin-watch", "--insecure"]);
        command.arg(format!(
            "--clock-offset-file={}",
            self.clock_file(id).display()
        ));
        for peer in self.ids().into_iter().filter(|peer| *peer != id) {
            command.arg(format!("--peer={peer}={}", self.hosts.listen(peer)));
            if let Some(relay) = self.hosts.detour(id, peer) {
                command.arg(format!("--detour={peer}={relay}"));
            }
        }
        command
    }

    fn clock_file(&self, id: usize) -> PathBuf {
        self.data.join(format!("clock-{id}"))
    }

    /// Makes a node's clock wrong by so much; 0: right.
    pub(crate) fn set_clock(&self, id: usize, offset_ms: i64) -> Result<(), LabError> {
        let path = self.clock_file(id);
        let written = std::fs::write(&path, offset_ms.to_string());
        written.map_err(|error| LabError::file(path, error))
    }

    /// How wrong the others see the clocks of these nodes, the worst of them, milliseconds.
    pub(crate) async fn clock_offset(&self, of: &[usize]) -> Option<i64> {
        let others = self.ids().into_iter().filter(|id| !of.contains(id));
        let endpoints: Vec<String> = others.map(|id| self.endpoint(id)).collect();
        let client = self.client(&endpoints, "default", ASK_MAX).ok()?;
        let status = client.admin().status().await.ok()?;
        let of = |id: u64| of.iter().any(|node| *node as u64 == id);
        let offsets = status.nodes.iter().filter(|node| of(node.id));
        offsets
            .map(|node| node.clock_offset_ms)
            .max_by_key(|offset| offset.abs())
    }

    /// Cuts what one nemesis wants cut, beside what the others do.
    pub(crate) async fn cut(&self, nemesis: usize, cuts: BTreeSet<Cut>) -> Result<(), LabError> {
        let mut all = self.cuts.lock().await;
        all.insert(nemesis, cuts);
        let joined = all.values().flatten().copied().collect();
        self.hosts.cut(&joined).await
    }

    /// The node that leads most ranges of a keyspace, as far as one can be asked.
    pub(crate) async fn leader(&self, keyspace: &str) -> Option<usize> {
        let client = self.client(&self.endpoints(), keyspace, ASK_MAX).ok()?;
        let ranges = client.admin().ranges(keyspace, false).await.ok()?;
        let mut led: BTreeMap<u64, usize> = BTreeMap::new();
        for range in ranges.iter().filter(|range| range.leader > 0) {
            *led.entry(range.leader).or_default() += 1;
        }
        let (leader, _) = led.into_iter().max_by_key(|(_, ranges)| *ranges)?;
        usize::try_from(leader).ok()
    }

    /// Makes everything whole: no cuts, no pauses, all nodes running.
    pub(crate) async fn heal(&self) -> Result<(), LabError> {
        self.cuts.lock().await.clear();
        self.hosts.cut(&BTreeSet::new()).await?;
        for id in self.ids() {
            self.set_clock(id, 0)?;
            self.node(id).await.resume()?;
            self.start_node(id).await?;
        }
        Ok(())
    }

    /// Waits until a node serves by itself, and says how long that took.
    pub(crate) async fn serves(&self, id: usize, longest: Duration) -> Result<Duration, String> {
        let begin = Instant::now();
        let endpoint = [self.endpoint(id)];
        let mut problem = "it was not asked".to_owned();
        while begin.elapsed() < longest {
            if !self.node(id).await.is_running() {
                return Err("its process has ended by itself".to_owned());
            }
            let client = self.client(&endpoint, "default", ASK_MAX);
            let client = client.map_err(|error| error.to_string())?;
            match client.put(format!("lab/serves/{id}"), "yes").await {
                Ok(_) => return Ok(begin.elapsed()),
                Err(error) => problem = error.to_string(),
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Err(problem)
    }

    /// Ends all processes, and takes the hosts away.
    pub(crate) async fn close(&self) {
        for id in self.ids() {
            // A process that cannot be killed is told by its closed input.
            let _ = self.node(id).await.kill().await;
        }
        self.hosts.close().await;
    }
}
