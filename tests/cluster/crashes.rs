//! kill -9 under load: of any node, of the leader, of all at once. What was acknowledged is
//! read back, and nothing that was never written appears.

use std::time::Duration;

use quorate_client::ClientOptions;
use quorate_types::stable_hash;

use crate::harness::{Cluster, READY_MAX, rounds, wait_until};
#[cfg(feature = "planted-faults")]
use crate::load::differences;
use crate::load::{Ledger, Load, check};

const CLIENTS: usize = 8;
/// Acknowledged writes before the kill, and again after it.
const WRITES_BETWEEN: u64 = 150;
const PROGRESS_MAX: Duration = Duration::from_secs(30);
const ROUNDS_USUAL: usize = 10;

#[derive(Clone, Copy, Debug)]
enum Victim {
    Any,
    Leader,
    All,
}

/// `QUORATE_ROUNDS=200` for the long run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kills() {
    let mut cluster = Cluster::start(3).await;
    let mut all = Ledger::new();
    for round in 0..rounds("QUORATE_ROUNDS", ROUNDS_USUAL) {
        let victim = [Victim::Leader, Victim::Any, Victim::All][round % 3];
        let prefix = format!("round-{round}/");
        let ledger = kill_under_load(&mut cluster, round, victim, &prefix).await;
        let acknowledged = check(&cluster.client(), &prefix, &ledger).await;
        // What one replica lacks would show only once it leads.
        replicas_agree(&cluster).await;
        eprintln!("round {round}: {victim:?} killed, {acknowledged} acknowledged writes are there");
        all.extend(ledger);
    }
    check(&cluster.client(), "round-", &all).await;
}

/// The control of the test above: servers that answer before an entry is in the log lose what
/// they acknowledged, and the same check notices. Only where the servers can be told to:
/// `cargo test --features planted-faults --target-dir target/planted --test cluster crashes`.
#[cfg(feature = "planted-faults")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_before_the_log_are_noticed() {
    let mut cluster = Cluster::start_with_fault(3, "ack-before-log").await;
    for round in 0..ROUNDS_USUAL {
        let prefix = format!("round-{round}/");
        let ledger = kill_under_load(&mut cluster, round, Victim::Leader, &prefix).await;
        let wrong = differences(&cluster.client(), &prefix, &ledger).await;
        if let Some(first) = wrong.first() {
            eprintln!("round {round}: {} wrong, {first}", wrong.len());
            return;
        }
    }
    panic!("{ROUNDS_USUAL} rounds do not notice");
}

async fn kill_under_load(
    cluster: &mut Cluster,
    round: usize,
    victim: Victim,
    prefix: &str,
) -> Ledger {
    let clients = (0..CLIENTS).map(|_| cluster.client_with(ClientOptions::default()));
    let load = Load::start(clients.collect(), prefix);
    progress(&load, "writes before the kill").await;
    let ids = cluster.ids();
    let killed = match victim {
        Victim::Leader => vec![cluster.leader().await],
        Victim::All => ids,
        Victim::Any => {
            let drawn = stable_hash(&round.to_be_bytes()) % ids.len() as u64;
            vec![ids[usize::try_from(drawn).unwrap()]]
        }
    };
    for id in &killed {
        cluster.node(*id).kill();
    }
    if killed.len() == 1 {
        progress(&load, "writes while one is down").await;
    }
    for id in &killed {
        cluster.node(*id).start();
    }
    progress(&load, "writes after the start").await;
    let ledger = load.end().await;
    cluster.ready().await;
    ledger
}

async fn progress(load: &Load, what: &str) {
    let goal = load.acknowledged() + WRITES_BETWEEN;
    wait_until(what, PROGRESS_MAX, async || load.acknowledged() >= goal).await;
}

/// Waits until all replicas are at one position, and asserts that their content is the same.
async fn replicas_agree(cluster: &Cluster) {
    let client = cluster.client();
    wait_until("replicas at one position", READY_MAX, async || {
        let Ok(mut ranges) = client.admin().ranges("default", true).await else {
            return false;
        };
        let replicas = ranges.remove(0).replicas;
        let first = &replicas[0];
        let is_level = replicas
            .iter()
            .all(|r| r.hash_applied == first.hash_applied);
        let is_equal = replicas.iter().all(|r| r.hash == first.hash);
        assert!(!is_level || is_equal, "replicas differ: {replicas:#?}");
        is_level && !first.hash.is_empty()
    })
    .await;
}
