//! Many watchers of one prefix: each event once and in order at each of them, how long after its
//! acknowledgement it comes, and what changes while one of them stands still.
//!
//! `QUORATE_WATCHERS=1000 QUORATE_EVENTS=60000 QUORATE_RATE=1000 cargo test --test cluster
//! many_watch_one_prefix -- --nocapture` is the long run.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::{Duration, Instant};

use quorate_client::{Client, ClientOptions, Watch, WatchOptions};
use tokio::task::{JoinHandle, JoinSet};

use crate::harness::{Cluster, rounds};

/// Nothing is waited for any longer, once all is written.
const PATIENCE: Duration = Duration::from_secs(120);
const WATCHERS_USUAL: usize = 50;
const EVENTS_USUAL: usize = 400;
const RATE_USUAL: usize = 200;
/// Watchers that share a connection.
const PER_CONNECTION: usize = 100;
const KEYS: usize = 100;
const VALUE_BYTES: usize = 100;

/// What one watcher was told: how often, in an order of which the sum is known, and when.
struct Told {
    sum: u64,
    at_us: Vec<u32>,
}

/// Sums up revisions in their order.
fn sum(revisions: impl Iterator<Item = u64>) -> u64 {
    let mut hasher = DefaultHasher::new();
    revisions.for_each(|revision| hasher.write_u64(revision));
    hasher.finish()
}

fn micros_since(begun: Instant) -> u32 {
    u32::try_from(begun.elapsed().as_micros()).expect("it takes less than an hour")
}

async fn follow(mut watch: Watch, events: usize, begun: Instant) -> Told {
    let mut hasher = DefaultHasher::new();
    let mut at_us = Vec::with_capacity(events);
    while at_us.len() < events {
        let batch = watch.next_batch().await.unwrap();
        let now = micros_since(begun);
        for event in &batch.events {
            hasher.write_u64(event.entry.revision.0);
            at_us.push(now);
        }
    }
    let sum = hasher.finish();
    Told { sum, at_us }
}

/// Puts at a steady rate; when each was acknowledged, by revision.
async fn write(client: &Client, events: usize, begun: Instant) -> BTreeMap<u64, u32> {
    let rate = u32::try_from(rounds("QUORATE_RATE", RATE_USUAL)).unwrap();
    let mut puts = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    for number in 0..events {
        ticks.tick().await;
        let client = client.clone();
        puts.spawn(async move {
            let key = format!("m/{}", number % KEYS);
            let put = client.put(key, "x".repeat(VALUE_BYTES)).await;
            (put.unwrap().revision.0, micros_since(begun))
        });
    }
    puts.join_all().await.into_iter().collect()
}

async fn begin_all(cluster: &Cluster, watchers: usize) -> Vec<Watch> {
    let mut watches = Vec::new();
    for connection in 0..watchers.div_ceil(PER_CONNECTION) {
        let mut endpoints = cluster.endpoints();
        endpoints.rotate_left(connection % 3);
        endpoints.truncate(1);
        let watcher = Client::connect(ClientOptions {
            endpoints,
            ..ClientOptions::default()
        })
        .unwrap();
        while watches.len() < watchers.min((connection + 1) * PER_CONNECTION) {
            watches.push(watcher.watch(WatchOptions::prefix("m/")).await.unwrap());
        }
    }
    watches
}

/// One run; the delays from acknowledgement to delivery, all of them, in microseconds.
async fn measure(cluster: &Cluster, watchers: usize, events: usize) -> Vec<u32> {
    let client = cluster.client();
    let watches = begin_all(cluster, watchers).await;
    let begun = Instant::now();
    let following = watches.into_iter();
    let following: Vec<JoinHandle<Told>> = following
        .map(|watch| tokio::spawn(follow(watch, events, begun)))
        .collect();
    let acknowledged = write(&client, events, begun).await;
    let took = begun.elapsed();
    let wanted = sum(acknowledged.keys().copied());
    let mut delays = Vec::with_capacity(watchers * events);
    for following in following {
        let told = tokio::time::timeout(PATIENCE, following).await;
        let told = told.expect("all is told").unwrap();
        assert_eq!(told.sum, wanted, "lost, twice, or out of order");
        let pairs = told.at_us.iter().zip(acknowledged.values());
        delays.extend(pairs.map(|(told, acknowledged)| told.saturating_sub(*acknowledged)));
    }
    delays.sort_unstable();
    let all = begun.elapsed();
    eprintln!("{events} puts in {took:.1?}, all told in {all:.1?}");
    delays
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_watch_one_prefix() {
    let watchers = rounds("QUORATE_WATCHERS", WATCHERS_USUAL);
    let events = rounds("QUORATE_EVENTS", EVENTS_USUAL);
    let cluster = Cluster::start(3).await;
    for still in [0, 1] {
        let still = begin_all(&cluster, still).await;
        let delays = measure(&cluster, watchers, events).await;
        let percentile = |per_mille: usize| {
            let at = (delays.len() - 1) * per_mille / 1000;
            Duration::from_micros(u64::from(delays[at]))
        };
        eprintln!(
            "{watchers} watchers and {} that stands still, {events} events: delivered {:.1?} after \
             the acknowledgement at the median, {:.1?} at p99, {:.1?} at the most",
            still.len(),
            percentile(500),
            percentile(990),
            percentile(1000)
        );
    }
}
