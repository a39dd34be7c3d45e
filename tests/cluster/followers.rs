//! A follower that hangs: others hardly notice, and its return disturbs nobody.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use quorate_client::Client;

use crate::harness::{Cluster, READY_MAX, wait_until};

const STOPPED_FOR: Duration = Duration::from_secs(5);
const WARM_UP_FOR: Duration = Duration::from_secs(3);
/// See `raft/src/node.rs`: followers behind by more than 20,000 entries get a snapshot.
const WRITES_WHILE_AWAY: u64 = 40_000;
const KEYS: u64 = 5_000;
const IN_FLIGHT: usize = 512;
/// Below this a slower put is noise.
const P99_FLOOR: Duration = Duration::from_millis(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_hangs_slows_nobody_and_returns_quietly() {
    let mut cluster = Cluster::start(3).await;
    let (leader, term) = cluster.leader_and_term().await;
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let client = cluster.client();
    let before = p99_of_puts(&client, WARM_UP_FOR).await;
    cluster.node(follower).signal("STOP");
    let meanwhile = p99_of_puts(&client, STOPPED_FOR).await;
    cluster.node(follower).signal("CONT");
    eprintln!("p99 of puts: {before:.1?}, with a follower stopped {meanwhile:.1?}");
    caught_up(&cluster, follower).await;
    assert_eq!(cluster.leader_and_term().await, (leader, term));
    assert!(
        meanwhile <= before * 2 + P99_FLOOR,
        "{before:?} to {meanwhile:?}"
    );
}

/// More than the entries that a leader keeps for those who are late, so a snapshot is due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_for_long_catches_up() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let away = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    cluster.node(away).kill();
    let pipeline = cluster.client().pipeline();
    let puts = (0..WRITES_WHILE_AWAY).map(|n| {
        let pipeline = pipeline.clone();
        async move { pipeline.put(format!("k{}", n % KEYS), n.to_string()).await }
    });
    futures::stream::iter(puts)
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(async |_| Ok(()))
        .await
        .unwrap();
    cluster.node(away).start();
    caught_up(&cluster, away).await;
    // Replicas are hashed one after the other, so the range must be at rest.
    wait_until("equal replicas", READY_MAX, async || {
        let ranges = cluster.client().admin().ranges("default", true).await;
        let replicas = ranges.unwrap().remove(0).replicas;
        let mut hashes = replicas.iter().map(|r| (&r.hash, r.hash_applied));
        let first = hashes.next().unwrap();
        assert!(first.1 > WRITES_WHILE_AWAY, "{replicas:?}");
        hashes.all(|hash| hash == first)
    })
    .await;
}

async fn p99_of_puts(client: &Client, span: Duration) -> Duration {
    let end = Instant::now() + span;
    let mut times = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        client.put("p99", times.len().to_string()).await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

async fn caught_up(cluster: &Cluster, node: u64) {
    let client = cluster.client();
    wait_until("the follower to catch up", READY_MAX, async || {
        let Ok(ranges) = client.admin().ranges("default", false).await else {
            return false;
        };
        let replicas = &ranges[0].replicas;
        let farthest = replicas.iter().map(|replica| replica.applied).max();
        let mine = replicas.iter().find(|replica| replica.node == node);
        mine.is_some_and(|mine| mine.role == "follower" && Some(mine.applied) == farthest)
    })
    .await;
}
