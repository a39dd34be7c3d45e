//! `quorate jepsen compare`: a short cut on relays, which need no root.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{BINARY, alone, wait_until};

/// A run of a few seconds with all that comes before and after.
const RUN_MAX: Duration = Duration::from_secs(120);

fn command(dir: &Path, arguments: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(BINARY);
    command
        .args([
            "jepsen",
            "compare",
            "--hosts=proxy",
            "--output=json",
            "--dir",
        ])
        .arg(dir)
        .args(arguments)
        .env_remove("ETCD")
        .kill_on_drop(true);
    command
}

async fn compare(dir: &Path, arguments: &[&str]) -> Output {
    let ended = tokio::time::timeout(RUN_MAX, command(dir, arguments).output()).await;
    ended.expect("the run ends").unwrap()
}

fn results(dir: &Path) -> Value {
    let text = std::fs::read(dir.join("results.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Of the calls that began in the cut, the share that was served on the minority's side.
fn served_apart(results: &Value, act: &str, level: &str) -> f64 {
    let rows = results["rows"].as_array().unwrap().iter();
    let mut rows = rows.filter(|row| row["act"] == act && row["level"] == level);
    let phase = &rows.next().unwrap()["sides"][1]["phases"][1];
    let done = phase["done"].as_array().unwrap().iter();
    let done: u64 = done.map(|count| count.as_u64().unwrap()).sum();
    let calls = phase["calls"].as_u64().unwrap();
    assert!(calls > 0, "{results}");
    done as f64 / calls as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_shows_who_is_served_on_which_side() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("run");
    let arguments = [
        "--nodes=3",
        "--before=2s",
        "--cut-time=4s",
        "--after=3s",
        "--rate=150",
    ];
    let ran = compare(&dir, &arguments).await;
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(0), "{said} {}", results(&dir));
    let results = results(&dir);
    assert_eq!(results["outcome"], "held", "{results}");
    assert_eq!(results["ledger"]["lost"], 0, "{results}");
    assert!(
        results["ledger"]["acknowledged"].as_u64() > Some(100),
        "{results}"
    );
    assert!(results["cut"]["proof"].is_string(), "{results}");
    // A call that began just before the heal may be served after it.
    for act in ["read", "write"] {
        let strong = served_apart(&results, act, "linearizable");
        let eventual = served_apart(&results, act, "eventual:one");
        assert!(
            strong < 0.5 && eventual > 0.5,
            "{act}: {strong}, {eventual}: {results}"
        );
    }
    let report = std::fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(
        report.contains("<svg") && report.contains("held"),
        "{report}"
    );
    let samples = std::fs::read_to_string(dir.join("samples.jsonl")).unwrap();
    assert!(samples.lines().count() > 500, "{samples}");
    assert!(!dir.join("data").exists(), "a good run leaves no data");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_that_cannot_be_done_is_refused_before_anything_starts() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("run");
    for (arguments, wanted) in [
        (&["--nodes=2"][..], "--nodes 2"),
        (&["--replication=4", "--nodes=3"], "--replication 4"),
        (&["--cut=thirds"], "known are halves and leader"),
        (&["--target=etcd"], "relays cannot be put between them"),
        (&["--rate=0"], "--rate 0"),
    ] {
        let ran = compare(&dir, arguments).await;
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
        assert!(!dir.exists(), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_that_is_interrupted_keeps_its_samples() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("run");
    let arguments = ["--nodes=3", "--before=10m"];
    let mut child = command(&dir, &arguments)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let samples = dir.join("samples.jsonl");
    let recorded = async || std::fs::metadata(&samples).is_ok_and(|file| file.len() > 100_000);
    wait_until("samples", RUN_MAX, recorded).await;
    let id = child.id().unwrap().to_string();
    let told = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(told.unwrap().success());
    let ended = tokio::time::timeout(RUN_MAX, child.wait()).await;
    assert_eq!(ended.expect("it ends").unwrap().code(), Some(2));
    let results = results(&dir);
    assert_eq!(results["outcome"], "open", "{results}");
    assert!(results["cut"]["proof"].is_null(), "{results}");
    let report = std::fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(report.contains("it was interrupted"), "{report}");
}
