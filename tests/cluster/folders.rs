//! Folders and ports that a node must not use: named at the start, exit 1 or 2, nothing changed.

use std::path::Path;

use crate::harness::{BINARY, Cluster, Ran, finish, free_address, program};

/// Starts a server that must refuse, by these arguments.
async fn refuses(arguments: &[String]) -> Ran {
    let mut command = program();
    command.arg("server").args(arguments);
    let ran = finish(command, b"").await;
    assert!([1, 2].contains(&ran.code), "{arguments:?}: {ran:?}");
    ran
}

fn arguments(id: u64, dir: &Path, cluster: &str) -> Vec<String> {
    vec![
        format!("--id={id}"),
        format!("--dir={}", dir.display()),
        format!("--listen={}", free_address()),
        format!("--http-listen={}", free_address()),
        format!("--cluster={cluster}"),
    ]
}

/// Names and sizes of all files.
fn listing(dir: &Path) -> Vec<(String, u64)> {
    let files = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter();
    files
        .map(|entry| {
            let entry = entry.unwrap();
            let bytes = entry.metadata().unwrap();
            let length = if bytes.is_file() { bytes.len() } else { 0 };
            (entry.path().display().to_string(), length)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_others_is_refused_by_name() {
    let mut cluster = Cluster::start(1).await;
    cluster.expect(0, &["put", "k", "v"]).await;
    let dir = cluster.node(1).dir.clone();
    let in_use = refuses(&arguments(1, &dir, "test")).await;
    assert!(in_use.stderr.contains("in use"), "{in_use:?}");

    let mut port = arguments(9, &cluster.dir().join("other"), "test");
    port[2] = format!("--listen={}", cluster.node(1).listen);
    let port = refuses(&port).await;
    let listen = cluster.node(1).listen.to_string();
    assert!(port.stderr.contains(&listen), "{port:?}");
    assert!(!cluster.dir().join("other").exists(), "a folder was made");

    assert!(cluster.node(1).terminate().await.success());
    let before = listing(&dir);
    let node = refuses(&arguments(2, &dir, "test")).await;
    assert!(node.stderr.contains("node"), "{node:?}");
    let other = refuses(&arguments(1, &dir, "elsewhere")).await;
    assert!(other.stderr.contains("cluster"), "{other:?}");
    assert_eq!(listing(&dir), before);

    cluster.node(1).start();
    cluster.ready().await;
    assert_eq!(cluster.expect(0, &["get", "k"]).await.text(), "v");
}

/// It was 1 until then, which no operator could tell from a port that is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_log_is_damaged_ends_with_7() {
    let mut cluster = Cluster::start(1).await;
    for number in 0..20 {
        let key = format!("k/{number}");
        cluster.expect(0, &["put", &key, "damaged-below"]).await;
    }
    let dir = cluster.node(1).dir.clone();
    assert!(cluster.node(1).terminate().await.success());
    let segments = std::fs::read_dir(dir.join("log")).unwrap();
    let mut segments = segments.map(|file| file.unwrap().path());
    let is_segment = |path: &std::path::PathBuf| path.to_string_lossy().contains("/segment-");
    let segment = segments.find(is_segment).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let value = b"damaged-below";
    let at = bytes.windows(value.len()).position(|bytes| bytes == value);
    bytes[at.unwrap()] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let mut command = program();
    command.arg("server").args(arguments(1, &dir, "test"));
    let ran = finish(command, b"").await;
    assert_eq!(ran.code, 7, "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_that_cannot_be_written_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let ran = refuses(&arguments(1, &file, "test")).await;
    assert!(ran.stderr.contains("file"), "{ran:?}");
    // A file system that nobody writes to, root neither.
    let ran = refuses(&arguments(1, Path::new("/proc/quorate"), "test")).await;
    assert!(ran.stderr.contains("/proc/quorate"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_cluster_starts_stops_and_keeps_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready.json");
    let mut revision = String::new();
    for round in 0..2 {
        let mut dev = tokio::process::Command::new(BINARY);
        dev.args(["dev", "--port", "0", "--dir"])
            .arg(dir.path().join("data"))
            .arg("--ready-file")
            .arg(&ready)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true);
        let begun = std::time::Instant::now();
        let mut child = dev.spawn().unwrap();
        crate::harness::wait_until("the ready file", crate::harness::READY_MAX, async || {
            ready.exists()
        })
        .await;
        eprintln!("dev is ready after {:.0?}", begun.elapsed());
        let file = std::fs::read(&ready).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
        assert_eq!(file["nodes"].as_array().unwrap().len(), 3);
        let endpoints: Vec<_> = file["endpoints"].as_array().unwrap().iter().collect();
        let endpoints: Vec<_> = endpoints.iter().map(|e| e.as_str().unwrap()).collect();
        let mut command = program();
        command.env("QUORATE_ENDPOINTS", endpoints.join(","));
        if round == 0 {
            let put = finish(with(command, &["put", "k", "v"]), b"").await;
            assert_eq!(put.code, 0, "{put:?}");
            revision = put.text();
        } else {
            let got = finish(with(command, &["get", "k", "-o", "json"]), b"").await;
            assert_eq!(got.json()["revision"].to_string(), revision);
        }
        crate::harness::signal(child.id().unwrap(), "TERM");
        let status = child.wait().await.unwrap();
        assert!(status.success(), "{status}");
        for node in file["nodes"].as_array().unwrap() {
            let pid = node["pid"].as_u64().unwrap();
            assert!(
                !Path::new(&format!("/proc/{pid}")).exists(),
                "{pid} runs on"
            );
        }
        assert!(!ready.exists(), "nothing is ready any more");
    }
}

fn with(mut command: tokio::process::Command, arguments: &[&str]) -> tokio::process::Command {
    command.args(arguments);
    command
}
