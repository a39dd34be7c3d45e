//! A follower that hangs: others hardly notice, and its return disturbs nobody.

use std::time::{Duration, Instant};

use quorate_client::Client;

use crate::harness::{Cluster, READY_MAX, wait_until};

const STOPPED_FOR: Duration = Duration::from_secs(5);
const WARM_UP_FOR: Duration = Duration::from_secs(3);
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
