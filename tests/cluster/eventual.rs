//! The eventual path on real processes: it takes writes while two of three primaries are gone,
//! and brings all replicas to the same bytes when they are back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_client::{Client, ClientOptions, ReadOptions, WriteOptions};
use quorate_proto::v1::{EventualStatus, RangeStatus};
use quorate_types::{KeyspaceOptions, Mode};

use crate::harness::{Cluster, READY_MAX, rounds, wait_until};

const CLIENTS: u64 = 8;
pub const KEYSPACE: &str = "carts";
/// `QUORATE_SECONDS=30` for the long run.
const SECONDS_USUAL: usize = 6;
/// What the issue calls available: so many of a thousand requests within this time.
const FAST: Duration = Duration::from_millis(100);
const FAST_PER_MILLE: u64 = 999;
/// After the last node is back.
const CONVERGED_MAX: Duration = Duration::from_secs(10);

fn one() -> WriteOptions {
    WriteOptions {
        ladder: Some("eventual:one".parse().unwrap()),
        ..WriteOptions::default()
    }
}

fn read_one() -> ReadOptions {
    ReadOptions {
        ladder: Some("eventual:one".parse().unwrap()),
        ..ReadOptions::default()
    }
}

pub async fn with_keyspace(cluster: &Cluster) {
    let options = KeyspaceOptions {
        mode: Mode::Eventual,
        ..KeyspaceOptions::default()
    };
    let client = cluster.client();
    let created = client.admin().create_keyspace(KEYSPACE, &options).await;
    created.unwrap();
    let carts = client.keyspace(KEYSPACE).unwrap();
    wait_until("the new keyspace", READY_MAX, async || {
        carts.put("ready", "").await.is_ok()
    })
    .await;
}

async fn range_of(client: &Client, hash: bool) -> Option<RangeStatus> {
    let ranges = client.admin().ranges(KEYSPACE, hash).await.ok()?;
    ranges.into_iter().next()
}

/// Waits until all primaries hold the same bytes; returns what they hold.
async fn converged(cluster: &Cluster, longest: Duration) -> Vec<EventualStatus> {
    let client = cluster.client();
    let mut found = Vec::new();
    wait_until("all primaries to hold the same", longest, async || {
        let Some(range) = range_of(&client, true).await else {
            return false;
        };
        let planes = range
            .replicas
            .iter()
            .map(|replica| replica.eventual.clone());
        let Some(planes) = planes.collect::<Option<Vec<_>>>() else {
            return false;
        };
        let same = planes
            .iter()
            .all(|plane| !plane.hash.is_empty() && plane.hash == planes[0].hash);
        found = planes;
        same && found.len() == 3
    })
    .await;
    found
}

/// What the clients count.
#[derive(Default)]
struct Tally {
    requests: AtomicU64,
    fast: AtomicU64,
    stop: AtomicBool,
}

/// Puts a key, reads it back, and goes on with the next, until told to stop. Returns what was
/// acknowledged.
async fn put_and_get(client: Client, number: u64, tally: Arc<Tally>) -> BTreeMap<String, String> {
    let mut acknowledged = BTreeMap::new();
    for count in 0_u64.. {
        if tally.stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, value) = (format!("{number}/{count}"), format!("value {count}"));
        let began = Instant::now();
        let put = client.put_with(key.clone(), value.clone(), one()).await;
        count_request(&tally, put.is_ok(), began);
        if put.is_err() {
            continue;
        }
        let began = Instant::now();
        let got = client.get_with(key.clone(), read_one()).await;
        let seen = got.ok().and_then(|got| got.entry).map(|entry| entry.value);
        // The replica asked may not have it yet; what is asked here is that somebody answers.
        count_request(&tally, seen.is_none_or(|seen| seen == value), began);
        acknowledged.insert(key, value);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    acknowledged
}

fn count_request(tally: &Tally, is_right: bool, began: Instant) {
    tally.requests.fetch_add(1, Ordering::Relaxed);
    if is_right && began.elapsed() <= FAST {
        tally.fast.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eventual_puts_go_on_while_two_of_three_primaries_are_gone() {
    let mut cluster = Cluster::start(5).await;
    with_keyspace(&cluster).await;
    let range = range_of(&cluster.client(), false).await.unwrap();
    let primaries: Vec<u64> = range.replicas.iter().map(|replica| replica.node).collect();
    assert_eq!(primaries.len(), 3);
    let stays: Vec<u64> = cluster.ids();
    let stays: Vec<u64> = stays
        .into_iter()
        .filter(|id| !primaries[..2].contains(id))
        .collect();
    let endpoints: Vec<String> = stays
        .iter()
        .map(|id| cluster.node(*id).listen.to_string())
        .collect();
    let tally = Arc::new(Tally::default());
    let clients = (0..CLIENTS).map(|number| {
        let options = ClientOptions {
            endpoints: endpoints.clone(),
            keyspace: KEYSPACE.to_owned(),
            ..ClientOptions::default()
        };
        let client = Client::connect(options).unwrap();
        tokio::spawn(put_and_get(client, number, tally.clone()))
    });
    let clients: Vec<_> = clients.collect();
    let seconds = rounds("QUORATE_SECONDS", SECONDS_USUAL) as u64;
    tokio::time::sleep(Duration::from_secs(seconds) / 3).await;
    for id in &primaries[..2] {
        cluster.node(*id).kill();
    }
    tokio::time::sleep(Duration::from_secs(seconds) * 2 / 3).await;
    tally.stop.store(true, Ordering::Relaxed);
    let mut acknowledged = BTreeMap::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    let requests = tally.requests.load(Ordering::Relaxed);
    let fast = tally.fast.load(Ordering::Relaxed);
    eprintln!(
        "{fast} of {requests} requests served within {FAST:?}, {} writes acknowledged",
        acknowledged.len()
    );
    assert!(
        fast * 1000 >= requests * FAST_PER_MILLE,
        "{fast} of {requests}"
    );
    for id in &primaries[..2] {
        cluster.node(*id).start();
    }
    let back = Instant::now();
    cluster.ready().await;
    let planes = converged(&cluster, CONVERGED_MAX).await;
    eprintln!(
        "all primaries hold the same {} bytes {:?} after they were started",
        planes[0].record_bytes,
        back.elapsed()
    );
    let client = cluster.client().keyspace(KEYSPACE).unwrap();
    for (key, value) in &acknowledged {
        let got = client.get(key.clone()).await.unwrap();
        assert_eq!(
            got.entry.map(|entry| entry.value),
            Some(value.clone().into()),
            "{key}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletes_leave_nothing_behind_and_nothing_returns_with_a_node_that_was_away() {
    let mut cluster = Cluster::start(3).await;
    with_keyspace(&cluster).await;
    let client = cluster.client().keyspace(KEYSPACE).unwrap();
    client.delete("ready").await.unwrap();
    let keys = rounds("QUORATE_KEYS", 300);
    for key in 0..keys {
        client.put(format!("k{key}"), vec![7; 100]).await.unwrap();
    }
    converged(&cluster, CONVERGED_MAX).await;
    cluster.node(3).kill();
    for key in 0..keys {
        client.delete(format!("k{key}")).await.unwrap();
    }
    let admin = cluster.client();
    wait_until(
        "no record on the nodes that are up",
        CONVERGED_MAX,
        async || {
            let Some(range) = range_of(&admin, true).await else {
                return false;
            };
            let up = range
                .replicas
                .iter()
                .filter_map(|replica| replica.eventual.as_ref());
            let bytes: Vec<u64> = up.map(|plane| plane.record_bytes).collect();
            bytes == [0, 0]
        },
    )
    .await;
    cluster.node(3).start();
    cluster.ready().await;
    let planes = converged(&cluster, CONVERGED_MAX).await;
    assert!(
        planes.iter().all(|plane| plane.record_bytes == 0),
        "{planes:?}"
    );
    for key in 0..keys {
        let got = client.get(format!("k{key}")).await.unwrap();
        assert!(got.entry.is_none(), "k{key} came back");
    }
}
