//! Clients that are not ours, unchanged: they put, watch and lock while the leader is killed.
//!
//! Each is skipped, loudly, where its toolchain or its modules are not there.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use quorate_proto::etcd::etcdserverpb::StatusRequest;
use quorate_proto::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use tonic::transport::Endpoint;

use crate::servers::{Server, start_quorate};

/// Kills the node that leads the store, at once.
fn kill_leader(server: &Server) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let leader = runtime.block_on(async {
        let endpoint = Endpoint::from_shared(server.endpoints[0].clone()).unwrap();
        let mut client = MaintenanceClient::new(endpoint.connect().await.unwrap());
        let status = client.status(StatusRequest {}).await.unwrap();
        status.into_inner().leader
    });
    let pid = server.nodes[&leader].to_string();
    let killed = Command::new("kill").args(["-KILL", &pid]).status().unwrap();
    assert!(killed.success());
}

/// Runs a client that says `kill` when it wants the leader killed, and what it did.
fn run(mut client: Command, server: &Server) {
    let mut child = client
        .args(&server.endpoints)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == "kill" {
            kill_leader(server);
            writeln!(input, "done").unwrap();
        }
        eprintln!("client: {line}");
        said.push(line);
    }
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: {said:#?}");
    assert!(said.iter().any(|line| line == "kill"), "{said:#?}");
}

#[test]
fn the_go_client_and_its_concurrency_package_outlive_a_leader() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/etcd/go");
    let go = |arguments: &[&str]| {
        let mut go = Command::new("go");
        // A test fetches nothing: what is not in the module cache is not there.
        go.args(arguments).current_dir(&source);
        go.envs([("GOPROXY", "off"), ("GOTOOLCHAIN", "local")]);
        go
    };
    let modules = go(&["mod", "download"]).output();
    if !modules.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED: the Go client was not tested: no go of 1.26 or newer, or its modules are not \
             there (`go mod download` in tests/etcd/go fetches them)"
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("client");
    let built = go(&["build", "-o", program.to_str().unwrap(), "."]).output();
    let built = built.unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    run(Command::new(program), &start_quorate());
}

/// Compiles protocol files for crates that need that: in PATH, or where `tests/side-by-side/run`
/// leaves it.
fn protoc() -> Option<PathBuf> {
    let named = std::env::var_os("PROTOC").map(PathBuf::from);
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&in_path).map(|dir| dir.join("protoc"));
    let built = std::env::var_os("HOME")
        .map(|home| Path::new(&home).join(".cache/quorate-side-by-side/protox/bin/protox"));
    let programs = named.into_iter().chain(built).chain(in_path);
    programs.into_iter().find(|program| program.is_file())
}

#[test]
fn the_crate_etcd_client_outlives_a_leader() {
    let skipped = |why: &str| eprintln!("SKIPPED: the crate etcd-client was not tested: {why}");
    let Some(protoc) = protoc() else {
        return skipped("no protoc ($PROTOC names one)");
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = root.join("tests/etcd/crate");
    let target = root.join("target/etcd-crate");
    let cargo = |arguments: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(arguments).current_dir(&source);
        cargo
            .env("PROTOC", &protoc)
            .env("CARGO_TARGET_DIR", &target);
        cargo.output().unwrap()
    };
    // A test fetches nothing: what is not in the registry's cache is not there.
    let fetched = cargo(&["fetch", "--locked", "--offline"]);
    if !fetched.status.success() {
        return skipped(
            "its crates are not there (`cargo fetch` in tests/etcd/crate fetches them)",
        );
    }
    let built = cargo(&["build", "--locked", "--offline"]);
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let program = target.join("debug/etcd-crate-client");
    run(Command::new(program), &start_quorate());
}

#[test]
fn a_python_client_of_the_json_gateway_outlives_a_leader() {
    let python = std::env::var("QUORATE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let version = Command::new(&python).arg("--version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: the Python client was not tested: there is no {python}");
        return;
    }
    let mut client = Command::new(python);
    client.args(["-c", include_str!("client.py")]);
    run(client, &start_quorate());
}
