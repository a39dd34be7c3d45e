//! Who waits for a lock hears at once that it is free, and gets it whatever becomes of the node
//! that was to tell.

use std::time::{Duration, Instant};

use quorate_client::{Client, ClientOptions, HeldLock};
use tokio::task::JoinHandle;

use crate::harness::{Cluster, READY_MAX, rounds, wait_until};

const LOCK: &str = "gate";
const TTL: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);
/// `QUORATE_HAND_OVERS=50` for numbers.
const HAND_OVERS_USUAL: usize = 5;
/// Who is not told asks again after a second at the soonest.
const UNTOLD_MIN: Duration = Duration::from_secs(1);

/// A client of the keyspace that has leases, at home at one node.
fn client(cluster: &Cluster, home: usize) -> Client {
    let mut endpoints = cluster.endpoints();
    endpoints.rotate_left(home);
    Client::connect(ClientOptions {
        endpoints,
        keyspace: "jobs".to_owned(),
        ..ClientOptions::default()
    })
    .unwrap()
}

async fn take(client: &Client) -> HeldLock {
    let taken = client.lock(LOCK, "", TTL, PATIENCE).await.unwrap();
    taken.expect("nobody keeps it for a minute")
}

/// Takes the lock, and says when it had it.
fn wait_for_it(client: Client) -> JoinHandle<(HeldLock, Instant)> {
    tokio::spawn(async move { (take(&client).await, Instant::now()) })
}

/// A node at which the lock is watched.
async fn told_by(cluster: &Cluster) -> Option<u64> {
    let open = cluster.watches().await;
    open.iter()
        .find(|(_, open)| *open > 0)
        .map(|(node, _)| *node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_lock_is_told_that_it_is_free() {
    let mut cluster = Cluster::start(3).await;
    let create = ["keyspace", "create", "jobs", "--mode", "strong"];
    cluster.expect(0, &create).await;
    let (one, other) = (client(&cluster, 0), client(&cluster, 1));
    let mut delays = Vec::new();
    for _ in 0..rounds("QUORATE_HAND_OVERS", HAND_OVERS_USUAL) {
        let held = take(&one).await;
        let waiting = wait_for_it(other.clone());
        wait_until("a watch of the lock", READY_MAX, async || {
            told_by(&cluster).await.is_some()
        })
        .await;
        let freed = Instant::now();
        held.unlock().await.unwrap();
        let (held, at) = waiting.await.unwrap();
        delays.push(at - freed);
        held.unlock().await.unwrap();
        wait_until("an end of the watch", READY_MAX, async || {
            told_by(&cluster).await.is_none()
        })
        .await;
    }
    delays.sort_unstable();
    let median = delays[delays.len() / 2];
    eprintln!(
        "{} hand-overs: {median:.1?} at the median, {delays:.1?}",
        delays.len()
    );
    assert!(median < UNTOLD_MIN / 2, "{delays:?}");
    the_node_that_was_to_tell_is_killed(&mut cluster, &one, other).await;
}

async fn the_node_that_was_to_tell_is_killed(cluster: &mut Cluster, one: &Client, other: Client) {
    let held = take(one).await;
    let waiting = wait_for_it(other);
    let mut node = None;
    wait_until("a watch of the lock", READY_MAX, async || {
        node = told_by(cluster).await;
        node.is_some()
    })
    .await;
    cluster.node(node.unwrap()).kill();
    held.unlock().await.unwrap();
    let (held, _) = tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap()
        .unwrap();
    held.unlock().await.unwrap();
}
