//! The two stores under comparison, each in a temporary folder, stopped when dropped.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A store that does not serve after so long never will.
const READY_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

/// One store.
pub struct Server {
    pub endpoints: Vec<String>,
    /// Where Quorate's own clients connect.
    pub own: Vec<String>,
    /// Quorate's nodes and their processes.
    pub nodes: HashMap<u64, u64>,
    child: Child,
    _dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Told to stop, `dev` stops its nodes as well.
        let _ = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        let over = Instant::now() + STOP_MAX;
        while Instant::now() < over {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Finds one of etcd's programs, or says loudly what is skipped for want of it.
pub fn find(name: &str, variable: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("HOME").map(|home| {
        let cache = Path::new(&home).join(".cache/quorate-side-by-side");
        [cache.join(name), cache.join("bin").join(name)]
    });
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let in_path: Vec<PathBuf> = std::env::split_paths(&in_path)
        .map(|dir| dir.join(name))
        .collect();
    let named = std::env::var_os(variable).map(PathBuf::from);
    let found = named
        .into_iter()
        .chain(in_path)
        .chain(cache.into_iter().flatten())
        .find(|program| program.is_file() && is_new(program));
    if found.is_none() {
        eprintln!("SKIPPED: no {name} of 3.5 or newer: ${variable} names one; nothing was tested");
    }
    found
}

/// Whether the program says that it is 3.5 or newer.
fn is_new(program: &Path) -> bool {
    ["--version", "version"].iter().any(|argument| {
        let Ok(output) = Command::new(program).arg(argument).output() else {
            return false;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_whitespace().find_map(|word| {
            let (major, rest) = word.split_once('.')?;
            let minor = rest.split('.').next()?;
            Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
        });
        version.is_some_and(|version| version >= (3, 5))
    })
}

/// Starts etcd alone.
pub fn start_etcd(program: &Path) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let held: Vec<TcpListener> = (0..2)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
        .collect();
    let port = |at: usize| held[at].local_addr().unwrap();
    let (client, peer) = (format!("http://{}", port(0)), format!("http://{}", port(1)));
    drop(held);
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let child = Command::new(program)
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .args(["--listen-client-urls", &client])
        .args(["--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    Server {
        endpoints: vec![client],
        own: Vec::new(),
        nodes: HashMap::new(),
        child,
        _dir: dir,
    }
}

/// Starts Quorate with three nodes.
pub fn start_quorate() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready.json");
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["dev", "--nodes", "3", "--port", "0"])
        .arg("--dir")
        .arg(dir.path().join("data"))
        .arg("--ready-file")
        .arg(&ready)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let over = Instant::now() + READY_MAX;
    let file = loop {
        let read = std::fs::read(&ready).ok();
        let json = read.and_then(|read| serde_json::from_slice::<serde_json::Value>(&read).ok());
        if let Some(json) = json {
            break json;
        }
        if Instant::now() > over || !matches!(child.try_wait(), Ok(None)) {
            let _ = child.kill();
            let log = std::fs::read_to_string(dir.path().join("log"));
            panic!("quorate dev does not serve: {log:?}");
        }
        std::thread::sleep(POLL);
    };
    let endpoints = file["etcd"].as_array().unwrap().iter();
    let nodes = file["nodes"].as_array().unwrap().iter();
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    Server {
        endpoints: endpoints
            .map(|at| format!("http://{}", at.as_str().unwrap()))
            .collect(),
        own: vec![
            file["endpoints"].as_array().unwrap()[0]
                .as_str()
                .unwrap()
                .to_owned(),
        ],
        nodes: nodes
            .map(|node| (number(&node["id"]), number(&node["pid"])))
            .collect(),
        child,
        _dir: dir,
    }
}
