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
async fn watchers_that_forget_where_they_were_are_found_out() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("run");
    let ran = run(
        &dir,
        &["--workload=watch-control", "--nodes=3", "--time=3s"],
    )
    .await;
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let results = results(&dir);
    assert_eq!(results["check"]["verdict"], "invalid");
    // And nothing else is wrong with them.
    let counts = results["check"]["anomalies"].as_object().unwrap();
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["lost"], "{results}");
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
        (&["--nemesis=loss"], "loss cannot be had on proxy"),
        (
            &["--workload=siblings", "--nemesis=bit-flip"],
            "may be on the one disk that bit-flip damages",
        ),
        (
            &["--node=x", "--client=x", "--nemesis=kill-leader"],
            "kill-leader cannot be had with a store that is not Quorate",
        ),
        (
            &["--node=x", "--client=x", "--workload=bank"],
            "bank cannot be had with a store that is not Quorate",
        ),
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

/// The power goes in all nodes at once, with bytes on their way to the disks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_power_cuts_of_all() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("run");
    let arguments = ["--nemesis=power-cut-all", "--nodes=3", "--time=8s"];
    let ran = run(&dir, &arguments).await;
    assert_eq!(ran.status.code(), Some(0), "{ran:?} {}", results(&dir));
    let results = results(&dir);
    let faults = results["faults"].as_array().unwrap();
    let proofs = faults.iter().filter_map(|fault| fault["proof"].as_str());
    let dropped = proofs.filter(|proof| proof.contains("bytes unsynced"));
    assert!(dropped.count() > 0, "{results}");
}

/// A store that answers before it tells the others is found guilty, by clients that know nothing
/// of ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_replicates_late_is_found_guilty() {
    let python = tokio::process::Command::new("python3").arg("-V").output();
    if !python.await.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: the store that is to be found guilty takes python3, which is not here");
        return;
    }
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("run");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/lab/examples/late_register.py");
    let node = format!("--node=python3 {script} node");
    let client = format!("--client=python3 {script} client");
    let arguments = [
        &*node,
        &*client,
        "--nodes=3",
        "--nemesis=halves",
        "--time=6s",
    ];
    let ran = run(&dir, &arguments).await;
    assert_eq!(ran.status.code(), Some(1), "{ran:?} {}", results(&dir));
    let results = results(&dir);
    assert_eq!(results["check"]["verdict"], "invalid", "{results}");
    assert!(results["calls"]["ok"].as_u64().unwrap() > 100, "{results}");
}

/// What `ip` prints; none where it cannot be had.
fn ip(arguments: &[&str]) -> Option<String> {
    let ran = std::process::Command::new("ip")
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    ran.status.success().then_some(text)
}

fn namespaces_and_links() -> Option<String> {
    Some(ip(&["netns", "list"])? + &ip(&["-o", "link", "show"])?)
}

/// Ctrl-C in network namespaces: all that carries the run's mark goes, other marks stay, and what a
/// run that was killed has left went when this one began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_run_leaves_no_namespaces_and_touches_no_others() {
    let nft = std::process::Command::new("nft")
        .args(["list", "ruleset"])
        .output();
    let has_nft = nft.is_ok_and(|output| output.status.success());
    let others = format!("other-lab-{}", std::process::id());
    if !has_nft || ip(&["netns", "add", &others]).is_none() {
        eprintln!("SKIPPED: network namespaces take root, `ip` and `nft`");
        return;
    }
    let _alone = alone();
    // Above all process ids: a run that is gone.
    let left = "quorate-lab-4194999-1";
    ip(&["netns", "add", left]);
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("run");
    let mut child = tokio::process::Command::new(BINARY)
        .args(["jepsen", "run", "--hosts=netns", "--nodes=3", "--time=10m"])
        .args(["--nemesis=halves", "--dir"])
        .arg(&dir)
        .kill_on_drop(true)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let id = child.id().unwrap().to_string();
    let history = dir.join("history.jsonl");
    let recorded = async || std::fs::metadata(&history).is_ok_and(|file| file.len() > 10_000);
    wait_until("a recording", RUN_MAX, recorded).await;
    let during = namespaces_and_links().unwrap();
    assert!(during.contains(&format!("quorate-lab-{id}-3")), "{during}");
    assert!(!during.contains(left), "{during}");
    let told = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(told.unwrap().success());
    let ended = tokio::time::timeout(RUN_MAX, child.wait()).await;
    assert_eq!(ended.expect("it ends").unwrap().code(), Some(2));
    let after = namespaces_and_links().unwrap();
    ip(&["netns", "del", &others]);
    assert!(!after.contains(&format!("quorate-lab-{id}")), "{after}");
    assert!(!after.contains(&format!("qlab{id}")), "{after}");
    assert!(after.contains(&others), "another's was taken: {after}");
    let results = results(&dir);
    assert_eq!(results["check"]["verdict"], "valid", "{results}");
}
