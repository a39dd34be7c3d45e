//! `quorate server`: the options of one node, from flags and from a TOML file.
//!
//! Flags win over the file. What a node does with its options is in `crate::server`.

mod check;
mod file;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::EnvFilter;

use self::check::check;
use self::file::ServerFile;
use super::error::CliError;
use crate::server::{PeerOptions, ServerOptions};

/// The zone of nodes that name none.
pub const ZONE_DEFAULT: &str = "default";
/// The cluster's name where none is given.
pub const CLUSTER_DEFAULT: &str = "quorate";
/// The keyspace that etcd's clients see.
pub const ETCD_KEYSPACE_DEFAULT: &str = "etcd";
const LISTEN_DEFAULT: &str = "127.0.0.1:7450";
const ELECTION_DEFAULT_MS: u64 = 300;
const ENGINE_MEMORY_DEFAULT_BYTES: u64 = 128 << 20;
const IN_FLIGHT_DEFAULT_BYTES: u64 = 64 << 20;

/// Shown by `quorate server --help`.
pub const EXAMPLE: &str = "Example:
  quorate server --id 1 --dir node-1 --listen 127.0.0.1:7450 \\
    --peer 2=127.0.0.1:7452 --peer 3=127.0.0.1:7454
  quorate server --config node-1.toml

QUORATE_LOG sets what is logged: error, warn, info, debug, or by part, as in
info,quorate_raft=debug.";

/// What is logged where `QUORATE_LOG` says nothing. openraft's heartbeats call it an error that
/// the group they belong to has been stopped, which every graceful stop does.
const LOG_DEFAULT: &str = "info,openraft=warn,openraft::core::heartbeat=off";
const LOG_VARIABLE: &str = "QUORATE_LOG";

/// Flags of `quorate server`.
#[derive(Args, Clone, Debug, Default)]
pub struct ServerArgs {
    /// Options as a TOML file, named as the flags; flags win
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// This node's id, from 1, never used by another node
    #[arg(long, value_name = "N")]
    pub id: Option<u64>,
    /// Folder of this node's data
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Address for gRPC: clients and other nodes [default: 127.0.0.1:7450]
    #[arg(long, value_name = "A:P")]
    pub listen: Option<SocketAddr>,
    /// Address for metrics and health over HTTP [default: the gRPC port plus one]
    #[arg(long, value_name = "A:P")]
    pub http_listen: Option<SocketAddr>,
    /// Address for etcd's clients, which see one keyspace [default: none]
    #[arg(long, value_name = "A:P")]
    pub etcd_listen: Option<SocketAddr>,
    /// The keyspace that etcd's clients see; `keyspace create NAME --api etcd` makes it
    /// [default: etcd]
    #[arg(long, value_name = "NAME")]
    pub etcd_keyspace: Option<String>,
    /// Another node, may be given many times
    #[arg(long = "peer", value_name = "ID=A:P[,zone=Z][,weight=W]", value_parser = parse_peer)]
    pub peers: Vec<PeerOptions>,
    /// Dial that node at a relay, whatever the cluster says of it, may be given many times
    #[arg(long = "detour", value_name = "ID=A:P", value_parser = parse_detour, hide = true)]
    pub detours: Vec<(u64, SocketAddr)>,
    /// A file with a number of milliseconds by which this node's clock is to be wrong, for tests
    #[arg(long, value_name = "FILE", hide = true)]
    pub clock_offset_file: Option<PathBuf>,
    /// A file that says what is wrong with this node's disk (words on lines: `sync-ms N`, `full`,
    /// `sync-error`, `write-back PERCENT`), and a tally beside it; what is not synced is lost when
    /// the process is killed. For tests
    #[arg(long, value_name = "FILE", hide = true)]
    pub disk_fault_file: Option<PathBuf>,
    /// Entries that a range's log keeps for late followers; those that are later get a snapshot
    #[arg(long, value_name = "N", hide = true)]
    pub kept_entries: Option<u64>,
    /// Make a mistake on purpose, for tests that must find it
    #[cfg(feature = "planted-faults")]
    #[arg(long, value_name = "NAME", env = "QUORATE_PLANT", hide = true)]
    #[arg(value_parser = crate::planted::named)]
    pub plant: Option<crate::planted::Planted>,
    /// This node's failure domain [default: default]
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// This node's share of the ring, relative to the others' [default: 1]
    #[arg(long, value_name = "W")]
    pub weight: Option<u32>,
    /// The cluster's name; a node refuses data of another one [default: quorate]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Join the peers' cluster as a new node, instead of founding one with them
    #[arg(long)]
    pub join: bool,
    /// Allow addresses outside loopback: there is no TLS yet
    #[arg(long)]
    pub insecure: bool,
    /// Stop when standard input ends, as on SIGTERM
    #[arg(long)]
    pub stdin_watch: bool,
    /// Milliseconds without a leader before a follower stands for election [default: 300]
    #[arg(long, value_name = "MS")]
    pub election_ms: Option<u64>,
    /// Phi above which a silent node is taken to be away; higher is slower, and errs less
    /// [default: 8]
    #[arg(long, value_name = "PHI")]
    pub phi_max: Option<f64>,
    /// Bytes of memory for the engine's tables [default: 128 MiB]
    #[arg(long, value_name = "BYTES")]
    pub engine_memory_max_bytes: Option<u64>,
    /// Bytes of requests in work at once; past them clients are told to retry [default: 64 MiB]
    #[arg(long, value_name = "BYTES")]
    pub in_flight_max_bytes: Option<u64>,
    /// Logs as text or JSON lines, on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// How a node writes its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Runs one node until it is told to stop.
///
/// # Errors
///
/// [`CliError`] for options that do not fit, or a node that cannot start or go on.
pub async fn run(args: ServerArgs) -> Result<(), CliError> {
    let format = args.log_format;
    let options = args.resolve()?;
    with_small_pages();
    log_to_stderr(format)?;
    crate::server::run(options).await?;
    Ok(())
}

/// Read by the allocator when a process starts.
const HUGE_PAGES_VARIABLE: &str = "MIMALLOC_ALLOW_THP";
/// The same: how long it keeps memory that was freed, milliseconds.
const PURGE_DELAY_VARIABLE: &str = "MIMALLOC_PURGE_DELAY";
/// Longer than a table in memory takes to fill again under load: with the allocator's own 10 ms
/// each one's pages go back to the system, and are cleared and mapped anew (8 % of a put's time).
const PURGE_DELAY_MS: &str = "1000";

/// Starts this process once more, under its own id, with an allocator that asks for no huge pages:
/// with them an idle node takes 80 MB instead of 47, and each range of it 2 MB. The allocator can
/// only be told by the environment, before it has begun. Whoever sets the variable, decides.
fn with_small_pages() {
    if std::env::var_os(HUGE_PAGES_VARIABLE).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut again = std::process::Command::new(program);
    again
        .args(std::env::args_os().skip(1))
        .env(HUGE_PAGES_VARIABLE, "0");
    if std::env::var_os(PURGE_DELAY_VARIABLE).is_none() {
        again.env(PURGE_DELAY_VARIABLE, PURGE_DELAY_MS);
    }
    // It returns only if it failed: then the node goes on as it is.
    let error = std::os::unix::process::CommandExt::exec(&mut again);
    drop(error);
}

fn log_to_stderr(format: LogFormat) -> Result<(), CliError> {
    let directives = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| LOG_DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&directives).map_err(|error| {
        CliError::usage(
            format!("{LOG_VARIABLE}={directives}: {error}"),
            "as in `info`, or `info,quorate_raft=debug`",
        )
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

impl ServerArgs {
    /// Joins flags and file, and checks what can be checked before anything is opened.
    ///
    /// # Errors
    ///
    /// [`CliError`] that names the option, and what is wanted instead.
    pub fn resolve(self) -> Result<ServerOptions, CliError> {
        let file = match &self.config {
            Some(path) => file::read(path)?,
            None => ServerFile::default(),
        };
        let listen = self.listen.or(file.listen).unwrap_or_else(|| {
            LISTEN_DEFAULT
                .parse()
                .expect("the default address is written as one")
        });
        let peers = if self.peers.is_empty() {
            file.peers.into_iter().map(PeerOptions::from).collect()
        } else {
            self.peers
        };
        let options = ServerOptions {
            id: self.id.or(file.id).ok_or_else(|| missing("--id"))?,
            dir: self.dir.or(file.dir).ok_or_else(|| missing("--dir"))?,
            listen,
            http_listen: match self.http_listen.or(file.http_listen) {
                Some(address) => address,
                None => next_port(listen)?,
            },
            etcd_listen: self.etcd_listen.or(file.etcd_listen),
            etcd_keyspace: self
                .etcd_keyspace
                .or(file.etcd_keyspace)
                .unwrap_or_else(|| ETCD_KEYSPACE_DEFAULT.to_owned()),
            peers,
            detours: self.detours,
            clock_offset_file: self.clock_offset_file,
            disk_fault_file: self.disk_fault_file,
            kept_entries: self.kept_entries,
            #[cfg(feature = "planted-faults")]
            planted: self.plant.unwrap_or_default(),
            #[cfg(not(feature = "planted-faults"))]
            planted: Default::default(),
            zone: self
                .zone
                .or(file.zone)
                .unwrap_or_else(|| ZONE_DEFAULT.to_owned()),
            weight: self.weight.or(file.weight).unwrap_or(1),
            cluster: self
                .cluster
                .or(file.cluster)
                .unwrap_or_else(|| CLUSTER_DEFAULT.to_owned()),
            join: self.join || file.join,
            insecure: self.insecure || file.insecure,
            stdin_watch: self.stdin_watch,
            election_ms: self
                .election_ms
                .or(file.election_ms)
                .unwrap_or(ELECTION_DEFAULT_MS),
            phi_max: self
                .phi_max
                .or(file.phi_max)
                .unwrap_or(quorate_raft::PHI_MAX_DEFAULT),
            engine_memory_max_bytes: self
                .engine_memory_max_bytes
                .or(file.engine_memory_max_bytes)
                .unwrap_or(ENGINE_MEMORY_DEFAULT_BYTES),
            in_flight_max_bytes: self
                .in_flight_max_bytes
                .or(file.in_flight_max_bytes)
                .unwrap_or(IN_FLIGHT_DEFAULT_BYTES),
        };
        check(&options)?;
        Ok(options)
    }
}

fn missing(flag: &str) -> CliError {
    CliError::usage(
        format!("{flag} is missing"),
        "try `quorate server --id 1 --dir DIR --listen 127.0.0.1:7450`, or `--config FILE.toml`",
    )
}

fn next_port(listen: SocketAddr) -> Result<SocketAddr, CliError> {
    if listen.port() == 0 {
        return Ok(listen);
    }
    let port = listen.port().checked_add(1).ok_or_else(|| {
        CliError::usage(
            format!("no port is left after {listen} for HTTP"),
            "name it with --http-listen",
        )
    })?;
    Ok(SocketAddr::new(listen.ip(), port))
}

/// Parses `2=127.0.0.1:7452,zone=b,weight=2`.
fn parse_peer(text: &str) -> Result<PeerOptions, String> {
    const WANTED: &str = "wanted: ID=ADDRESS:PORT[,zone=ZONE][,weight=N]";
    let mut parts = text.split(',');
    let (id, address) = parts
        .next()
        .and_then(|first| first.split_once('='))
        .ok_or(WANTED)?;
    let mut peer = PeerOptions {
        id: id
            .parse()
            .map_err(|_| format!("`{id}` is no node id; {WANTED}"))?,
        address: address
            .parse()
            .map_err(|_| format!("`{address}` is no ADDRESS:PORT; {WANTED}"))?,
        zone: ZONE_DEFAULT.to_owned(),
        weight: 1,
    };
    for part in parts {
        match part.split_once('=') {
            Some(("zone", zone)) if !zone.is_empty() => zone.clone_into(&mut peer.zone),
            Some(("weight", weight)) => {
                peer.weight = weight
                    .parse()
                    .map_err(|_| format!("`{weight}` is no weight; {WANTED}"))?;
            }
            _ => return Err(format!("`{part}` is not known; {WANTED}")),
        }
    }
    Ok(peer)
}

/// Parses `2=127.0.0.1:9002`.
fn parse_detour(text: &str) -> Result<(u64, SocketAddr), String> {
    let peer = parse_peer(text)?;
    Ok((peer.id, peer.address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn args() -> ServerArgs {
        ServerArgs {
            id: Some(1),
            dir: Some(PathBuf::from("data")),
            ..ServerArgs::default()
        }
    }

    #[test]
    fn peers_parse_with_zone_and_weight() {
        let peer = parse_peer("2=127.0.0.1:7452,zone=b,weight=3").unwrap();
        assert_eq!((peer.id, peer.zone.as_str(), peer.weight), (2, "b", 3));
        for wrong in ["2", "x=127.0.0.1:1", "2=host", "2=127.0.0.1:1,colour=red"] {
            assert!(parse_peer(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn http_is_the_next_port_and_loopback_is_the_default() {
        let options = args().resolve().unwrap();
        assert_eq!(options.listen.to_string(), "127.0.0.1:7450");
        assert_eq!(options.http_listen.to_string(), "127.0.0.1:7451");
    }

    #[test]
    fn outside_loopback_needs_a_word_for_it() {
        let mut open = args();
        open.listen = Some("0.0.0.0:7450".parse().unwrap());
        let error = open.clone().resolve().unwrap_err();
        assert!(error.hint().unwrap().contains("--insecure"));
        assert_eq!(error.exit().code(), 2);
        open.insecure = true;
        open.resolve().unwrap();
    }

    #[test]
    fn ids_are_given_once_and_begin_at_one() {
        let mut twice = args();
        twice.peers = vec![parse_peer("1=127.0.0.1:7452").unwrap()];
        assert!(
            twice
                .resolve()
                .unwrap_err()
                .to_string()
                .contains("given twice")
        );
        let mut zero = args();
        zero.id = Some(0);
        assert!(zero.resolve().is_err());
    }

    #[test]
    fn flags_win_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        std::fs::write(
            &path,
            "id = 7\ndir = \"elsewhere\"\nhttp-listen = \"127.0.0.1:9000\"\n\
             [[peers]]\nid = 2\naddress = \"127.0.0.1:7452\"\n",
        )
        .unwrap();
        let options = ServerArgs {
            config: Some(path.clone()),
            id: Some(3),
            ..ServerArgs::default()
        }
        .resolve()
        .unwrap();
        assert_eq!(
            (options.id, options.dir.to_str(), options.peers.len()),
            (3, Some("elsewhere"), 1)
        );
        std::fs::write(&path, "idd = 7").unwrap();
        let error = ServerArgs {
            config: Some(path),
            ..ServerArgs::default()
        }
        .resolve()
        .unwrap_err();
        assert!(error.to_string().contains("idd"), "{error}");
    }
}
