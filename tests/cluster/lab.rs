//! `quorate jepsen run`: short runs on relays, which need no root.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{BINARY, alone, wait_until};

/// A run of a few seconds with all that comes before and after.
const RUN_MAX: Duration = Duration::from_secs(120);

async fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(BINARY);
    command
        .args(["jepsen", "run", "--hosts", "proxy", "--output", "json"])
        .arg("--dir")
        .arg(dir)
        .args(arguments)
        .kill_on_drop(true);
    let ended = tokio::time::timeout(RUN_MAX, command.output()).await;
    ended.expect("the run ends").unwrap()
}

fn results(dir: &Path) -> Value {
    let text = std::fs::read(dir.join("results.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_records_proves_its_faults_and_judges() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("run");
    let ran = run(
        &dir,
        &[
            "--workload=register",
            "--nemesis=kill,minority",
            "--nodes=3",
            "--time=6s",
            "--seed=3",
        ],
    )
    .await;
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(0), "{said} {}", results(&dir));
    let results = results(&dir);
    assert_eq!(results["check"]["verdict"], "valid", "{results}");
    let proofs = results["faults"].as_array().unwrap().iter();
    assert!(
        proofs.filter(|fault| fault["proof"].is_string()).count() >= 2,
        "{results}"
    );
    let report = std::fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(
        report.contains("<svg") && report.contains("held"),
        "{report}"
    );
    // What was recorded can be checked again by itself.
    let again = tokio::process::Command::new(BINARY)
        .args([
            "jepsen",
            "check",
            "--model",
            "cas-register",
            "--independent",
        ])
        .arg(dir.join("history.jsonl"))
        .output()
        .await
        .unwrap();
    assert_eq!(again.status.code(), Some(0), "{again:?}");
    assert!(!dir.join("data").exists(), "a good run leaves no data");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_without_fences_are_found_out() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("run");
    let ran = run(
        &dir,
        &["--workload=fence-control", "--nodes=3", "--time=4s"],
    )
    .await;
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    assert_eq!(results(&dir)["check"]["verdict"], "invalid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_is_refused_before_anything_starts() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("run");
    for (arguments, wanted) in [
        (
            &["--workload=register", "--level=eventual:one"][..],
            "register cannot be had at eventual",
        ),
        (&["--nemesis=gremlin"], "no nemesis `gremlin`"),
        (&["--nemesis=majority-ring", "--nodes=3"], "takes 4 nodes"),
        (
            &["--workload=mixed", "--mode=strong"],
            "cannot be had in mode strong",
        ),
        (&["--nodes=0"], "--nodes 0"),
    ] {
        let ran = run(&dir, arguments).await;
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
        assert!(!dir.exists(), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_interrupted_keeps_what_it_recorded() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("run");
    let mut child = tokio::process::Command::new(BINARY)
        .args([
            "jepsen",
            "run",
            "--hosts=proxy",
            "--nodes=3",
            "--time=10m",
            "--dir",
        ])
        .arg(&dir)
        .kill_on_drop(true)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let history = dir.join("history.jsonl");
    let recorded = async || std::fs::metadata(&history).is_ok_and(|file| file.len() > 10_000);
    wait_until("a recording", RUN_MAX, recorded).await;
    let id = child.id().unwrap().to_string();
    let told = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(told.unwrap().success());
    let ended = tokio::time::timeout(RUN_MAX, child.wait()).await;
    assert_eq!(ended.expect("it ends").unwrap().code(), Some(2));
    let results = results(&dir);
    assert_eq!(results["outcome"], "open", "{results}");
    assert_eq!(results["check"]["verdict"], "valid", "{results}");
}
