//! The nodes of a run, and what can be done to them. Several nemeses may be at work at once: each
//! names its own cuts, and what is cut is what any of them cuts. A node that has lost its data is
//! replaced by a spare, for which the hosts have a place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use quorate_client::{Client, ClientOptions};
use serde_json::Value as Json;
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};

use crate::disk::DiskFiles;
use crate::error::LabError;
use crate::foreign::{Answer, ForeignStore, NodeWords, shell};
use crate::hosts::{Cut, Hosts, HostsKind, Meet, Strains};
use crate::nemesis::DATA_LOSS;
use crate::node::Node;
use crate::plan::Plan;

/// The name that the nodes' data carries.
const CLUSTER_NAME: &str = "lab";
/// A cluster that has just been started serves after this, or never.
const READY_MAX: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Who leads is asked for so long.
const ASK_MAX: Duration = Duration::from_secs(1);
/// Read to see whether a store that is not ours serves.
const UNWRITTEN_KEY: i64 = -1;
const HAND_OVER_MAX: Duration = Duration::from_secs(4);

/// A spare has taken the place of a lost node after this, or never does. Others may be down or cut
/// off meanwhile.
const REPLACE_MAX: Duration = Duration::from_secs(40);
const REPLACE_PAUSE: Duration = Duration::from_millis(500);

/// The nodes of a run.
pub(crate) struct Cluster {
    hosts: Arc<dyn Hosts>,
    /// Founders first, then spares.
    nodes: Vec<Mutex<Node>>,
    founders: usize,
    /// Who belongs to it now, and the next spare.
    members: RwLock<Members>,
    program: PathBuf,
    /// The store under test, if it is not Quorate.
    foreign: Option<ForeignStore>,
    node_arguments: Vec<String>,
    data: PathBuf,
    /// Nodes have disks that take orders.
    fault_disks: bool,
    /// By nemesis, what it cuts.
    cuts: Mutex<BTreeMap<usize, BTreeSet<Cut>>>,
    /// By nemesis, what it strains.
    strains: Mutex<BTreeMap<usize, Strains>>,
    /// The node whose files were damaged.
    damaged: Mutex<Option<usize>>,
}

#[derive(Clone, Debug)]
struct Members {
    ids: BTreeSet<usize>,
    next_spare: usize,
}

impl Cluster {
    /// Starts all nodes, and waits until they serve.
    pub(crate) async fn start(plan: &Plan) -> Result<Self, LabError> {
        let options = &plan.options;
        let places = options.nodes + plan.spares();
        let meet = match options.foreign {
            None => Meet::WithClients,
            Some(_) => Meet::Apart,
        };
        let hosts = plan.hosts.open(places, meet).await?;
        let cluster = Self {
            founders: options.nodes,
            members: RwLock::new(Members {
                ids: (1..=options.nodes).collect(),
                next_spare: options.nodes + 1,
            }),
            foreign: options.foreign.clone(),
            node_arguments: options.node_arguments.clone(),
            fault_disks: options.nemeses.iter().any(|nemesis| nemesis.is_of_disks()),
            ..Self::plain(hosts, places, &options.dir, &options.program)
        };
        cluster.started().await
    }

    /// The same of so many nodes that are a program's `server` command, without spares.
    pub(crate) async fn start_on(
        hosts: HostsKind,
        nodes: usize,
        dir: &Path,
        program: &Path,
    ) -> Result<Self, LabError> {
        let hosts = hosts.open(nodes, Meet::WithClients).await?;
        Self::plain(hosts, nodes, dir, program).started().await
    }

    fn plain(hosts: Arc<dyn Hosts>, nodes: usize, dir: &Path, program: &Path) -> Self {
        Self {
            hosts,
            nodes: (1..=nodes)
                .map(|id| Mutex::new(Node::new(id, dir.join(format!("node-{id}.log")))))
                .collect(),
            founders: nodes,
            members: RwLock::new(Members {
                ids: (1..=nodes).collect(),
                next_spare: nodes + 1,
            }),
            program: program.to_owned(),
            foreign: None,
            node_arguments: Vec::new(),
            data: dir.join("data"),
            fault_disks: false,
            cuts: Mutex::default(),
            strains: Mutex::default(),
            damaged: Mutex::default(),
        }
    }

    async fn started(self) -> Result<Self, LabError> {
        match self.start_all().await {
            Ok(()) => Ok(self),
            Err(error) => {
                self.close().await;
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
        match &self.foreign {
            None => self.wait_until_ready().await,
            Some(_) => self.wait_until_all_serve().await,
        }
    }

    async fn wait_until_all_serve(&self) -> Result<(), LabError> {
        for id in self.ids() {
            let served = self.serves(id, READY_MAX).await;
            served.map_err(|problem| LabError::NotReady {
                waited_seconds: READY_MAX.as_secs(),
                problem: format!("node {id}: {problem}"),
            })?;
        }
        Ok(())
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

    fn members(&self) -> Members {
        let members = self.members.read();
        members.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All nodes that belong to it, by number.
    pub(crate) fn ids(&self) -> Vec<usize> {
        self.members().ids.into_iter().collect()
    }

    /// How many lost nodes can still be replaced.
    pub(crate) fn spares_left(&self) -> usize {
        self.nodes.len() + 1 - self.members().next_spare
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

    /// Starts a node, if it does not run; one that was replaced stays out.
    pub(crate) async fn start_node(&self, id: usize) -> Result<(), LabError> {
        if !self.members().ids.contains(&id) {
            return Ok(());
        }
        let command = self.command(id)?;
        let mut node = self.node(id).await;
        if !node.is_running() {
            node.start(command)?;
        }
        Ok(())
    }

    fn command(&self, id: usize) -> Result<Command, LabError> {
        match &self.foreign {
            None => Ok(self.server(id)),
            Some(store) => self.foreign_node(id, store),
        }
    }

    fn foreign_node(&self, id: usize, store: &ForeignStore) -> Result<Command, LabError> {
        let dir = self.folder(id);
        std::fs::create_dir_all(&dir).map_err(|error| LabError::file(&dir, error))?;
        let peers = self.ids().into_iter().filter(|peer| *peer != id);
        let reached = |peer| {
            let relay = self.hosts.detour(id, peer);
            relay.unwrap_or_else(|| self.hosts.http(peer)).to_string()
        };
        let words = NodeWords {
            node: id,
            nodes: self.nodes.len(),
            listen: self.hosts.listen(id).to_string(),
            peer_listen: self.hosts.http(id).to_string(),
            peers: peers.map(reached).collect(),
            dir: dir.display().to_string(),
        };
        let mut command = self.hosts.command(id, Path::new("sh"));
        command.args(shell(&store.node)).envs(words.environment());
        Ok(command)
    }

    fn server(&self, id: usize) -> Command {
        let mut command = self.hosts.command(id, &self.program);
        command.arg("server").arg(format!("--id={id}"));
        command.arg(format!("--dir={}", self.folder(id).display()));
        command.arg(format!("--listen={}", self.hosts.listen(id)));
        command.arg(format!("--http-listen={}", self.hosts.http(id)));
        command.arg(format!("--cluster={CLUSTER_NAME}"));
        command.args(["--stdin-watch", "--insecure"]);
        command.args(&self.node_arguments);
        command.arg(format!(
            "--clock-offset-file={}",
            self.clock_file(id).display()
        ));
        if self.fault_disks {
            let orders = self.disk(id);
            command.arg(format!("--disk-fault-file={}", orders.path().display()));
        }
        // Spares join by those who are there; founders always name each other.
        let is_founder = id <= self.founders;
        let peers = match is_founder {
            true => (1..=self.founders).collect(),
            false => self.ids(),
        };
        command.args((!is_founder).then_some("--join"));
        for peer in peers.into_iter().filter(|peer| *peer != id) {
            command.arg(format!("--peer={peer}={}", self.hosts.listen(peer)));
        }
        for peer in (1..=self.nodes.len()).filter(|peer| *peer != id) {
            if let Some(relay) = self.hosts.detour(id, peer) {
                command.arg(format!("--detour={peer}={relay}"));
            }
        }
        command
    }

    /// Where a node keeps its data.
    pub(crate) fn folder(&self, id: usize) -> PathBuf {
        self.data.join(format!("node-{id}"))
    }

    /// By which a node's disk is told what is wrong with it.
    pub(crate) fn disk(&self, id: usize) -> DiskFiles {
        DiskFiles::of(id, &self.data)
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

    /// Strains what one nemesis wants strained, beside what the others do.
    pub(crate) async fn strain(&self, nemesis: usize, strains: Strains) -> Result<(), LabError> {
        let mut all = self.strains.lock().await;
        all.insert(nemesis, strains);
        let mut joined = Strains::new();
        for (way, strain) in all.values().flatten() {
            let both = joined.get(way).map_or(*strain, |other| strain.and(*other));
            joined.insert(*way, both);
        }
        self.hosts.strain(&joined).await
    }

    /// Has a node hand over what it leads: how many ranges, and how many of them it leads no more.
    pub(crate) async fn hand_over(&self, id: usize) -> Option<(u32, u32)> {
        let client = self
            .client(&[self.endpoint(id)], "default", HAND_OVER_MAX)
            .ok()?;
        let handed = client.admin().hand_over().await.ok()?;
        Some((handed.led, handed.handed_over))
    }

    /// The node whose files were damaged, if it is still there.
    pub(crate) async fn damaged(&self) -> Option<usize> {
        *self.damaged.lock().await
    }

    pub(crate) async fn set_damaged(&self, id: usize) {
        *self.damaged.lock().await = Some(id);
    }

    /// How a node's last process ended, if it ended by itself.
    pub(crate) async fn exit_of(&self, id: usize) -> Option<i32> {
        let mut node = self.node(id).await;
        match node.is_running() {
            true => None,
            false => node.exit,
        }
    }

    /// Puts a spare in the place of the damaged node, if that has said data loss.
    pub(crate) async fn replace_lost(&self) -> Result<(), LabError> {
        let mut damaged = self.damaged.lock().await;
        let Some(lost) = *damaged else {
            return Ok(());
        };
        if self.exit_of(lost).await != Some(DATA_LOSS) || self.spares_left() == 0 {
            return Ok(());
        }
        let spare = {
            let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
            let spare = members.next_spare;
            members.next_spare += 1;
            members.ids.remove(&lost);
            members.ids.insert(spare);
            spare
        };
        *damaged = None;
        self.start_node(spare).await?;
        let endpoints: Vec<String> = self.endpoints();
        let client = self.client(&endpoints, "default", REPLACE_MAX)?;
        let begin = Instant::now();
        let (lost_id, spare_id) = (lost as u64, spare as u64);
        // The others have to see that the one is gone, and the other is there.
        while let Err(error) = client.admin().replace_node(lost_id, spare_id, |_| {}).await {
            if begin.elapsed() > REPLACE_MAX {
                return Err(LabError::NotReplaced {
                    node: lost,
                    waited_seconds: REPLACE_MAX.as_secs(),
                    problem: error.to_string(),
                });
            }
            tokio::time::sleep(REPLACE_PAUSE).await;
        }
        Ok(())
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
        self.strains.lock().await.clear();
        self.hosts.strain(&Strains::new()).await?;
        for id in self.ids() {
            self.set_clock(id, 0)?;
            if self.fault_disks {
                self.disk(id).order("")?;
            }
            self.node(id).await.resume()?;
            self.start_node(id).await?;
        }
        self.replace_lost().await
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
            let asked = match &self.foreign {
                None => self.ask_node(id, &endpoint).await,
                Some(store) => self.ask_foreign_node(store, &endpoint[0]).await,
            };
            match asked {
                Ok(()) => return Ok(begin.elapsed()),
                Err(told) => problem = told,
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Err(problem)
    }

    async fn ask_node(&self, id: usize, endpoint: &[String]) -> Result<(), String> {
        let client = self.client(endpoint, "default", ASK_MAX);
        let client = client.map_err(|error| error.to_string())?;
        let put = client.put(format!("lab/serves/{id}"), "yes").await;
        put.map(drop).map_err(|error| error.to_string())
    }

    /// By a client of its own: a key that nobody writes is read.
    async fn ask_foreign_node(&self, store: &ForeignStore, endpoint: &str) -> Result<(), String> {
        let program = store.program(endpoint, &self.endpoints());
        let mut program = program.map_err(|error| error.to_string())?;
        match program.call("read", UNWRITTEN_KEY, &Json::Null).await.0 {
            Answer::Ok(_) => Ok(()),
            Answer::Fail(problem) => Err(problem.unwrap_or_else(|| "a read failed".to_owned())),
            Answer::Info(problem) => Err(problem),
        }
    }

    /// Ends all processes, and takes the hosts away.
    pub(crate) async fn close(&self) {
        for node in &self.nodes {
            // A process that cannot be killed is told by its closed input.
            let _ = node.lock().await.kill().await;
        }
        self.hosts.close().await;
    }
}
