//! What `eventual:one,memory` can lose: the last moments before all nodes are killed at once, and
//! nothing that `eventual:one` has acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quorate_client::{Client, ReadOptions, WriteOptions};

use crate::eventual::{KEYSPACE, with_keyspace};
use crate::harness::{Cluster, rounds, wait_until};

const CLIENTS: u64 = 8;
/// `QUORATE_ROUNDS=20` for the long run.
const ROUNDS_USUAL: usize = 2;
/// How long clients put before the nodes are killed.
const LOAD: Duration = Duration::from_millis(700);
/// What was acknowledged longer ago than this is in no node's memory alone: a log takes what is
/// queued at once, and syncs it. The rest is the patience of a busy machine.
const AT_RISK_MAX: Duration = Duration::from_millis(500);
const READ_MAX: Duration = Duration::from_secs(20);

type Acknowledged = Vec<(String, Instant)>;

async fn put_all(
    client: Client,
    prefix: String,
    level: &'static str,
    stop: Arc<AtomicBool>,
) -> Acknowledged {
    let mut acknowledged = Vec::new();
    for count in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{prefix}/{count}");
        let options = WriteOptions {
            ladder: Some(level.parse().unwrap()),
            timeout: Some(Duration::from_millis(300)),
            ..WriteOptions::default()
        };
        let put = client.put_with(key.clone(), "value", options).await;
        if put.is_ok() {
            acknowledged.push((key, Instant::now()));
        }
    }
    acknowledged
}

/// How long before the kill each lost write was acknowledged.
async fn lost_of(client: &Client, acknowledged: Acknowledged, killed: Instant) -> Vec<Duration> {
    let all = || ReadOptions {
        ladder: Some("eventual:all".parse().unwrap()),
        ..ReadOptions::default()
    };
    let mut lost = Vec::new();
    for (key, at) in acknowledged {
        let mut found = false;
        wait_until("all holders to answer", READ_MAX, async || {
            let got = client.get_with(key.clone(), all()).await;
            found = got.as_ref().is_ok_and(|got| got.entry.is_some());
            got.is_ok()
        })
        .await;
        if !found {
            lost.push(killed.saturating_duration_since(at));
        }
    }
    lost
}

/// Puts at a level, kills all nodes at once, and says what is lost, of how many.
async fn kill_all_after(
    cluster: &mut Cluster,
    level: &'static str,
    round: usize,
) -> (Vec<Duration>, usize) {
    let stop = Arc::new(AtomicBool::new(false));
    let clients = (0..CLIENTS).map(|number| {
        let client = cluster.client().keyspace(KEYSPACE).unwrap();
        tokio::spawn(put_all(
            client,
            format!("{level}/{round}/{number}"),
            level,
            stop.clone(),
        ))
    });
    let clients: Vec<_> = clients.collect();
    tokio::time::sleep(LOAD).await;
    let killed = Instant::now();
    let pids: Vec<u32> = cluster
        .ids()
        .into_iter()
        .map(|id| cluster.node(id).pid())
        .collect();
    pids.into_iter()
        .for_each(|pid| crate::harness::signal(pid, "KILL"));
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    for id in cluster.ids() {
        cluster.node(id).kill();
        cluster.node(id).start();
    }
    cluster.ready().await;
    let count = acknowledged.len();
    let client = cluster.client().keyspace(KEYSPACE).unwrap();
    (lost_of(&client, acknowledged, killed).await, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_loses_the_last_moments_at_most_and_disk_nothing() {
    let mut cluster = Cluster::start(3).await;
    with_keyspace(&cluster).await;
    for round in 0..rounds("QUORATE_ROUNDS", ROUNDS_USUAL) {
        for level in ["eventual:one", "eventual:one,memory"] {
            let (lost, of) = kill_all_after(&mut cluster, level, round).await;
            let oldest = lost.iter().max().copied().unwrap_or_default();
            eprintln!(
                "{level}: {} of {of} lost, the oldest acknowledged {oldest:?} before",
                lost.len()
            );
            assert!(of > 0, "{level}: nothing was acknowledged");
            match level {
                "eventual:one" => assert!(lost.is_empty(), "{lost:?}"),
                _ => assert!(oldest <= AT_RISK_MAX, "{lost:?}"),
            }
        }
    }
}
