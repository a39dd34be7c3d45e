//! Three nodes of Cassandra, and Cassandra as a target of the load generator.
//!
//! Its own defaults, but for what three nodes on one machine need: an address of loopback each,
//! a small heap, tokens that are dealt out beforehand, and no waiting for others at the start.

use std::fmt::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quorate::bench::{BenchError, Connection, LoadOptions, Operation, Report, Target, preload};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::cell::{Ack, Cell, Copies, Work};
use crate::error::CompareError;
use crate::store::{Counter, LOOK_PAUSE, NODES, Store, run_counted, spawn, stop};

/// How long all nodes may take until a write reaches every one of them: three Java machines
/// start at once.
const READY_MAX: Duration = Duration::from_secs(300);
/// Where free ports are looked for: below those that the system hands out.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// Three nodes with a replica on each: every key is everywhere, as in a range of Quorate.
const KEYSPACE: &str = "CREATE KEYSPACE bench WITH replication = \
     {'class': 'SimpleStrategy', 'replication_factor': 3}";
const TABLE: &str = "CREATE TABLE bench.kv (key blob PRIMARY KEY, value blob)";
const PUT: &str = "INSERT INTO bench.kv (key, value) VALUES (?, ?)";
const GET: &str = "SELECT value FROM bench.kv WHERE key = ?";

/// What Cassandra's own start script gives Java 17, as far as the daemon needs it.
const JAVA_OPENS: [&str; 14] = [
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.lang.reflect",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
];
/// As above.
const JAVA_EXPORTS: [&str; 7] = [
    "java.base/java.lang.ref",
    "java.base/jdk.internal.misc",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
];

/// What is started.
#[derive(Clone, Debug)]
pub struct CassandraOptions {
    /// The folder with Cassandra's jars and all that it depends on.
    pub jars: PathBuf,
    /// The heap of each node, MiB.
    pub heap_mib: u32,
    /// `disk`: the commit log is synced before an answer (`batch`); `memory`: every 10 s
    /// (`periodic`, its default).
    pub ack: Ack,
}

/// A running cluster of Cassandra.
pub struct Cassandra {
    children: Vec<Child>,
    pids: Vec<u32>,
    /// Of the first node; its clients learn the others from it.
    endpoint: String,
}

impl Cassandra {
    /// Starts nodes with their data in `dir`, and waits until all of them take writes.
    ///
    /// # Errors
    ///
    /// No Java, a node that ends, a cluster that does not serve in time.
    pub async fn start(options: &CassandraOptions, dir: &Path) -> Result<Self, CompareError> {
        // Nodes find each other by address alone: all have the same ports.
        let (storage, native) = free_ports().ok_or(CompareError::NoPorts)?;
        let mut children = Vec::with_capacity(NODES);
        for node in 0..NODES {
            let folder = dir.join(format!("cassandra-{node}"));
            std::fs::create_dir(&folder).map_err(CompareError::io("make a folder for a node"))?;
            write_files(&folder, node, storage, native, options.ack)?;
            let log = dir.join(format!("cassandra-{node}.log"));
            children.push(spawn(
                Path::new("java"),
                &arguments(options, &folder)?,
                &log,
            )?);
        }
        let mut cassandra = Self {
            pids: children.iter().filter_map(Child::id).collect(),
            children,
            endpoint: format!("{}:{native}", address(0)),
        };
        cassandra.wait_until_ready(dir).await?;
        Ok(cassandra)
    }

    async fn wait_until_ready(&mut self, dir: &Path) -> Result<(), CompareError> {
        let begin = Instant::now();
        while let Err(problem) = self.create_table().await {
            for (node, child) in self.children.iter_mut().enumerate() {
                let ended = child.try_wait();
                if ended
                    .map_err(CompareError::io("watch Cassandra"))?
                    .is_some()
                {
                    return Err(CompareError::Ended {
                        store: Self::NAME,
                        log: dir.join(format!("cassandra-{node}.log")),
                    });
                }
            }
            if begin.elapsed() > READY_MAX {
                return Err(CompareError::Refused {
                    store: Self::NAME,
                    waited: READY_MAX,
                    problem,
                });
            }
            sleep(LOOK_PAUSE).await;
        }
        Ok(())
    }

    /// Makes the table, and writes to every node.
    async fn create_table(&self) -> Result<(), String> {
        let session = connect(&self.endpoint).await?;
        let known = session.get_cluster_state().get_nodes_info().len();
        if known < NODES {
            return Err(format!("{known} nodes have found each other"));
        }
        for (what, statement) in [("KEYSPACE", KEYSPACE), ("TABLE", TABLE)] {
            // An earlier try may have come so far.
            let statement = statement.replace(what, &format!("{what} IF NOT EXISTS"));
            let made = session.query_unpaged(statement, ()).await;
            made.map_err(|error| error.to_string())?;
        }
        let put = prepare(&session, PUT, Consistency::All).await?;
        let ready: &[u8] = b"ready";
        let written = session.execute_unpaged(&put, (ready, ready)).await;
        written.map(|_| ()).map_err(|error| error.to_string())
    }

    fn target(&self, copies: Copies) -> CassandraTarget {
        CassandraTarget {
            endpoint: self.endpoint.clone(),
            consistency: match copies {
                Copies::One => Consistency::One,
                Copies::Quorum => Consistency::Quorum,
            },
        }
    }
}

/// Two ports that nobody listens on at any node's address. Java takes long to get there: ports
/// that the system hands out to clients might be taken by then.
fn free_ports() -> Option<(u16, u16)> {
    let is_free =
        |port: &u16| (0..NODES).all(|node| TcpListener::bind((address(node), *port)).is_ok());
    let mut free = PORTS.filter(is_free);
    free.next().zip(free.next())
}

/// Where a node listens.
fn address(node: usize) -> String {
    format!("127.0.0.{}", node + 1)
}

fn write_files(
    folder: &Path,
    node: usize,
    storage: u16,
    native: u16,
    ack: Ack,
) -> Result<(), CompareError> {
    let settings = settings(folder, node, storage, native, ack);
    for (name, text) in [
        ("cassandra.yaml", settings.as_str()),
        ("logback.xml", LOGGING),
    ] {
        let written = std::fs::write(folder.join(name), text);
        written.map_err(CompareError::io("write Cassandra's settings"))?;
    }
    Ok(())
}

/// Warnings alone, on standard output.
const LOGGING: &str = r#"<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level %date %logger{0}: %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="OUT"/></root>
</configuration>
"#;

/// What differs from the defaults, or has none.
fn settings(folder: &Path, node: usize, storage: u16, native: u16, ack: Ack) -> String {
    // Even parts of the token ring; dealt out, nodes need not ask each other before they join.
    let token = i64::MIN as i128 + (node as i128) * ((1 << 64) / NODES as i128);
    let seeds: Vec<String> = (0..NODES)
        .map(|node| format!("{}:{storage}", address(node)))
        .collect();
    let sync = match ack {
        Ack::Disk => "commitlog_sync: batch",
        Ack::Memory => "commitlog_sync: periodic\ncommitlog_sync_period: 10000ms",
    };
    let mut text = format!(
        "cluster_name: side-by-side\n\
         partitioner: org.apache.cassandra.dht.Murmur3Partitioner\n\
         endpoint_snitch: SimpleSnitch\n\
         num_tokens: 1\n\
         initial_token: {token}\n\
         listen_address: {address}\n\
         rpc_address: {address}\n\
         storage_port: {storage}\n\
         native_transport_port: {native}\n\
         start_native_transport: true\n\
         {sync}\n\
         seed_provider:\n\
         - class_name: org.apache.cassandra.locator.SimpleSeedProvider\n  \
           parameters:\n  \
           - seeds: \"{seeds}\"\n",
        address = address(node),
        seeds = seeds.join(","),
    );
    for (name, below) in [
        ("commitlog_directory", "commitlog"),
        ("saved_caches_directory", "caches"),
        ("hints_directory", "hints"),
        ("cdc_raw_directory", "cdc"),
    ] {
        let path = folder.join(below);
        writeln!(text, "{name}: {}", path.display()).expect("text takes in any text");
    }
    let data = folder.join("data");
    writeln!(text, "data_file_directories:\n- {}", data.display()).expect("text takes in any text");
    text
}

/// Java's, for one node.
fn arguments(options: &CassandraOptions, folder: &Path) -> Result<Vec<String>, CompareError> {
    let heap = options.heap_mib;
    let agent = jar(&options.jars, "jamm-")?;
    let mut arguments: Vec<String> = vec![
        format!("-Xms{heap}M"),
        format!("-Xmx{heap}M"),
        "-Xss256k".to_owned(),
        "-XX:+UseG1GC".to_owned(),
        "-XX:MaxGCPauseMillis=300".to_owned(),
        "-XX:+ParallelRefProcEnabled".to_owned(),
        "-XX:+PerfDisableSharedMem".to_owned(),
        format!("-javaagent:{}", agent.display()),
        "-Djava.net.preferIPv4Stack=true".to_owned(),
        "-Djdk.attach.allowAttachSelf=true".to_owned(),
        "-Dio.netty.tryReflectionSetAccessible=true".to_owned(),
        format!(
            "-Dcassandra.config=file://{}/cassandra.yaml",
            folder.display()
        ),
        format!(
            "-Dlogback.configurationFile={}/logback.xml",
            folder.display()
        ),
        format!("-Dcassandra.storagedir={}", folder.display()),
        "-Dcassandra.ring_delay_ms=1000".to_owned(),
        "-Dcassandra.skip_wait_for_gossip_to_settle=0".to_owned(),
        "-Dcassandra-foreground=yes".to_owned(),
    ];
    arguments.extend(JAVA_OPENS.map(|name| format!("--add-opens={name}=ALL-UNNAMED")));
    arguments.extend(JAVA_EXPORTS.map(|name| format!("--add-exports={name}=ALL-UNNAMED")));
    arguments.push("-cp".to_owned());
    arguments.push(format!("{}/*", options.jars.display()));
    arguments.push("org.apache.cassandra.service.CassandraDaemon".to_owned());
    Ok(arguments)
}

/// The one file of `jars` whose name begins with `name`.
fn jar(jars: &Path, name: &str) -> Result<PathBuf, CompareError> {
    let files = std::fs::read_dir(jars).map_err(CompareError::io("list Cassandra's jars"))?;
    files
        .filter_map(|file| Some(file.ok()?.path()))
        .find(|path| {
            let file = path.file_name().unwrap_or_default();
            file.to_string_lossy().starts_with(name)
        })
        .ok_or_else(|| CompareError::NoJar {
            name: name.to_owned(),
            folder: jars.to_owned(),
        })
}

async fn connect(endpoint: &str) -> Result<Session, String> {
    let session = SessionBuilder::new().known_node(endpoint).build().await;
    session.map_err(|error| error.to_string())
}

async fn prepare(
    session: &Session,
    statement: &str,
    consistency: Consistency,
) -> Result<PreparedStatement, String> {
    let prepared = session.prepare(statement).await;
    let mut prepared = prepared.map_err(|error| error.to_string())?;
    prepared.set_consistency(consistency);
    Ok(prepared)
}

impl Store for Cassandra {
    const NAME: &'static str = "Cassandra";

    fn pids(&self) -> &[u32] {
        &self.pids
    }

    async fn fill(&self, options: &LoadOptions) -> Result<(), BenchError> {
        preload(&self.target(Copies::Quorum), options, |_| ()).await
    }

    async fn load(
        &self,
        cell: Cell,
        options: LoadOptions,
        counter: Counter,
    ) -> Result<Report, BenchError> {
        let copies = match cell.work {
            Work::EventualPut(copies, _) | Work::EventualGet(copies) => copies,
            Work::Put | Work::Get | Work::StaleGet | Work::Watch | Work::Empty => {
                let problem = format!("Cassandra has no `{}`", cell.work);
                return Err(BenchError::Connect { client: 0, problem });
            }
        };
        run_counted(self.target(copies), &options, counter).await
    }

    async fn stop(self) -> Result<(), CompareError> {
        stop(self.children).await
    }
}

/// Cassandra under load. Each client has a session, with a connection to each node, and sends a
/// request to a node that holds its key: to any, as all do.
struct CassandraTarget {
    endpoint: String,
    consistency: Consistency,
}

struct CassandraConnection {
    session: Arc<Session>,
    put: PreparedStatement,
    get: PreparedStatement,
}

impl CassandraTarget {
    async fn session(&self) -> Result<CassandraConnection, String> {
        let session = connect(&self.endpoint).await?;
        Ok(CassandraConnection {
            put: prepare(&session, PUT, self.consistency).await?,
            get: prepare(&session, GET, self.consistency).await?,
            session: Arc::new(session),
        })
    }
}

impl Target for CassandraTarget {
    type Connection = CassandraConnection;

    async fn connect(&self, client: usize, _depth: usize) -> Result<Self::Connection, BenchError> {
        let session = self.session().await;
        session.map_err(|problem| BenchError::Connect { client, problem })
    }
}

impl Connection for CassandraConnection {
    async fn perform(&self, operation: Operation) -> Result<(), String> {
        let answer = match operation {
            Operation::Put { key, value } => {
                let written = self.session.execute_unpaged(&self.put, (key, value)).await;
                return written.map(|_| ()).map_err(|error| error.to_string());
            }
            Operation::Get { key } => self.session.execute_unpaged(&self.get, (key,)).await,
            Operation::Scan { .. } => return Err("not compared: rows are hashed".to_owned()),
        };
        let rows = answer
            .map_err(|error| error.to_string())?
            .into_rows_result();
        match rows.map_err(|error| error.to_string())?.rows_num() {
            0 => Err("nothing there to read".to_owned()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_share_the_ring_evenly_and_all_are_seeds() {
        let text = |node| settings(Path::new("/d"), node, 7, 9, Ack::Disk);
        assert!(text(0).contains("initial_token: -9223372036854775808\n"));
        assert!(text(1).contains("initial_token: -3074457345618258603\n"));
        assert!(text(2).contains("initial_token: 3074457345618258602\n"));
        assert!(
            text(0).contains("  parameters:\n  - seeds: \"127.0.0.1:7,127.0.0.2:7,127.0.0.3:7\"\n")
        );
        assert!(text(0).contains("commitlog_sync: batch\n"));
    }
}
