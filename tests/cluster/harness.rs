//! A cluster of server processes in a temporary folder, and how tests treat it: kill, stop,
//! start again, ask. What a test asserts is in the tests.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_client::{Client, ClientOptions};
use serde_json::Value;
use tempfile::TempDir;

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_quorate");
/// A cluster that does not serve after so long never will.
pub const READY_MAX: Duration = Duration::from_secs(20);
/// A node that was told to stop and runs on after so long hangs.
const STOP_MAX: Duration = Duration::from_secs(15);
/// No command takes longer.
const COMMAND_MAX: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(10);
/// Bytes of each server log that a failed test shows.
const LOG_SHOWN_BYTES: usize = 6000;
/// Ports are taken from here on, below those that the system gives to outgoing connections: a
/// dead node's port must not be taken by a peer's attempt to reach it.
const PORT_FIRST: u16 = 12_000;
const PORT_LAST: u16 = 32_000;

/// Clusters run one at a time: timing is part of what is tested.
static ALONE: Mutex<()> = Mutex::new(());
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// As long as one of it lives, no other test has a cluster running.
pub struct Alone {
    _guard: MutexGuard<'static, ()>,
}

/// Waits until no other test has a cluster running.
pub fn alone() -> Alone {
    Alone {
        _guard: ALONE.lock().unwrap_or_else(PoisonError::into_inner),
    }
}

/// Some servers, and the folder with all that they keep.
pub struct Cluster {
    nodes: Vec<Node>,
    dir: TempDir,
    fault: Option<&'static str>,
    _alone: Alone,
}

/// One server process, running or not.
pub struct Node {
    pub id: u64,
    pub listen: SocketAddr,
    pub dir: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
    fault: Option<&'static str>,
    child: Option<Child>,
}

/// What a command line came to.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    /// Standard output without the last newline.
    pub fn text(&self) -> String {
        let text = String::from_utf8(self.stdout.clone()).unwrap();
        text.trim_end_matches('\n').to_owned()
    }

    /// Standard output as one JSON value.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Standard output as one JSON value a line.
    pub fn lines(&self) -> Vec<Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// A port that is free now.
pub fn free_port() -> u16 {
    loop {
        let step = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let span = u32::from(PORT_LAST - PORT_FIRST);
        let offset = (std::process::id().wrapping_mul(37) + u32::from(step)) % span;
        let port = PORT_FIRST + u16::try_from(offset).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// An address on a free port.
pub fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

impl Cluster {
    /// Starts a cluster and waits until it serves linearizable puts.
    pub async fn start(nodes: u64) -> Cluster {
        let cluster = Cluster::launch(nodes);
        cluster.ready().await;
        cluster
    }

    /// As `start`, of servers that break a promise: one that is built in by the feature
    /// `planted-faults`.
    #[cfg(feature = "planted-faults")]
    pub async fn start_with_fault(nodes: u64, fault: &'static str) -> Cluster {
        let cluster = Cluster::launch_with(nodes, Some(fault));
        cluster.ready().await;
        cluster
    }

    /// Starts a cluster, and waits for nothing.
    pub fn launch(nodes: u64) -> Cluster {
        Cluster::launch_with(nodes, None)
    }

    fn launch_with(nodes: u64, fault: Option<&'static str>) -> Cluster {
        let alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let addresses: Vec<(u64, SocketAddr)> =
            (1..=nodes).map(|id| (id, free_address())).collect();
        let mut cluster = Cluster {
            nodes: Vec::new(),
            dir,
            fault,
            _alone: alone,
        };
        for (id, listen) in &addresses {
            let peers = addresses.iter().filter(|(peer, _)| peer != id);
            let peers = peers.map(|(peer, at)| format!("--peer={peer}={at}"));
            cluster.add(*id, *listen, peers.collect());
        }
        cluster
    }

    /// Starts one more node, with these arguments beside its id, folder and addresses.
    pub fn add(&mut self, id: u64, listen: SocketAddr, more: Vec<String>) {
        let dir = self.dir.path().join(format!("node-{id}"));
        let http = free_address();
        let mut arguments = vec![
            "server".to_owned(),
            format!("--id={id}"),
            format!("--dir={}", dir.display()),
            format!("--listen={listen}"),
            format!("--http-listen={http}"),
            "--cluster=test".to_owned(),
        ];
        arguments.extend(more);
        let log = self.dir.path().join(format!("node-{id}.log"));
        let mut node = Node {
            id,
            listen,
            dir,
            log,
            arguments,
            fault: self.fault,
            child: None,
        };
        node.start();
        self.nodes.push(node);
    }

    /// Adds a node that joins by the others.
    pub fn join(&mut self, id: u64) {
        let peers = self.nodes.iter().filter(|node| node.is_running());
        let mut more: Vec<String> = peers
            .map(|node| format!("--peer={}={}", node.id, node.listen))
            .collect();
        more.push("--join".to_owned());
        self.add(id, free_address(), more);
    }

    /// Waits until a linearizable put succeeds, and each running node answers reads.
    pub async fn ready(&self) {
        self.serves("a put", self.endpoints(), async |client| {
            client.put("ready", "").await.is_ok()
        })
        .await;
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            let endpoint = vec![node.listen.to_string()];
            self.serves("a get at each node", endpoint, async |client| {
                client.get("ready").await.is_ok()
            })
            .await;
        }
    }

    async fn serves(
        &self,
        what: &str,
        endpoints: Vec<String>,
        attempt: impl AsyncFn(&Client) -> bool,
    ) {
        let client = Client::connect(ClientOptions {
            endpoints,
            timeout: Duration::from_secs(1),
            ..ClientOptions::default()
        })
        .unwrap();
        wait_until(what, READY_MAX, async || attempt(&client).await).await;
    }

    pub fn endpoints(&self) -> Vec<String> {
        let running = self.nodes.iter().filter(|node| !node.is_removed());
        running.map(|node| node.listen.to_string()).collect()
    }

    /// A client of all nodes, with the library's defaults.
    pub fn client(&self) -> Client {
        self.client_with(ClientOptions::default())
    }

    /// A client of all nodes.
    pub fn client_with(&self, options: ClientOptions) -> Client {
        Client::connect(ClientOptions {
            endpoints: self.endpoints(),
            ..options
        })
        .unwrap()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        let found = self.nodes.iter_mut().find(|node| node.id == id);
        found.unwrap_or_else(|| panic!("no node {id}"))
    }

    /// Each running node, and how many watches are open there.
    pub async fn watches(&self) -> Vec<(u64, u64)> {
        let mut open = Vec::new();
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            let endpoint = node.listen.to_string();
            let metrics = self.run(&["metrics", "--endpoints", &endpoint]).await;
            let text = metrics.text();
            let of = |line: &str| line.strip_prefix("quorate_watches ")?.parse().ok();
            open.push((node.id, text.lines().find_map(of).unwrap_or_default()));
        }
        open
    }

    /// The leader of the default keyspace's range; waits for one that its replicas agree on.
    pub async fn leader(&self) -> u64 {
        self.leader_and_term().await.0
    }

    /// The leader of the default keyspace's range, and its term.
    pub async fn leader_and_term(&self) -> (u64, u64) {
        let client = self.client();
        let mut found = (0, 0);
        wait_until("a leader", READY_MAX, async || {
            let Ok(ranges) = client.admin().ranges("default", false).await else {
                return false;
            };
            let leads = |replica: &&quorate_proto::v1::ReplicaStatus| replica.role == "leader";
            let leader = ranges.first().and_then(|range| {
                let leaders: Vec<_> = range.replicas.iter().filter(leads).collect();
                let [leader] = leaders[..] else { return None };
                (leader.node == range.leader).then_some((leader.node, leader.term))
            });
            found = leader.unwrap_or_default();
            leader.is_some()
        })
        .await;
        found
    }

    /// Runs a command against this cluster.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, b"").await
    }

    /// As `run`, and asserts the exit code.
    pub async fn expect(&self, code: i32, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments).await;
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        ran
    }

    /// Runs a command with bytes on its standard input.
    pub async fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> Ran {
        let mut command = self.command();
        command.args(arguments);
        finish(command, stdin).await
    }

    /// A command with this cluster's endpoints, to be given arguments.
    pub fn command(&self) -> tokio::process::Command {
        let mut command = program();
        command.env("QUORATE_ENDPOINTS", self.endpoints().join(","));
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
            if std::thread::panicking() {
                eprintln!("--- log of node {}\n{}", node.id, node.log_end());
            }
        }
    }
}

impl Node {
    /// Starts the process; it must not run.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "node {} runs", self.id);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        let mut command = Command::new(BINARY);
        command.envs(self.fault.map(|fault| ("QUORATE_PLANT", fault)));
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    fn is_removed(&self) -> bool {
        !self.dir.exists() && !self.is_running()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    /// Waits for the end.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the node runs");
        let deadline = Instant::now() + STOP_MAX;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                self.child = Some(child);
                panic!("node {} does not stop: {}", self.id, self.log_end());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Resident memory, KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.unwrap().parse().unwrap()
    }

    /// Files, sockets among them, that it has open.
    pub fn open_files(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        open.unwrap().count()
    }

    /// The end of what it has logged.
    pub fn log_end(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let from = bytes.len().saturating_sub(LOG_SHOWN_BYTES);
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }
}

/// Sends a signal by name.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status();
    assert!(sent.unwrap().success(), "no signal to {pid}");
}

/// The program without anything of this test's environment that it would heed.
pub fn program() -> tokio::process::Command {
    let mut command = tokio::process::Command::new(BINARY);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUORATE_") {
            command.env_remove(name);
        }
    }
    command.kill_on_drop(true);
    command
}

/// Runs a command to its end.
pub async fn finish(mut command: tokio::process::Command, stdin: &[u8]) -> Ran {
    use tokio::io::AsyncWriteExt;
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // A command that refuses early does not read.
    let _ = pipe.write_all(stdin).await;
    drop(pipe);
    let output = tokio::time::timeout(COMMAND_MAX, child.wait_with_output()).await;
    let output = output
        .unwrap_or_else(|_| panic!("{command:?} hangs"))
        .unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until something holds; panics with its name when the time is up.
pub async fn wait_until(what: &str, longest: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + longest;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited {longest:?} for {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// A number from the environment, for runs that are longer than the usual one.
pub fn rounds(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number"))
    })
}
