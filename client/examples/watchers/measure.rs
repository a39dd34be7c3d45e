//! Many watchers of one prefix, and puts at a steady rate: each event must come once and in order at
//! each watcher, and it is told how long after its acknowledgement it comes. Of the example
//! `watchers` and of the test `many_watch_one_prefix`, which say how many and how fast.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use quorate_client::{Client, ClientError, Watch, WatchOptions};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What is watched.
const PREFIX: &str = "watched/";
/// Watchers that share a connection.
const PER_CONNECTION: usize = 100;
const KEYS: u32 = 100;
const VALUE_BYTES: usize = 100;
/// Delays are counted in steps of that.
const STEP_US: u32 = 100;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long after their acknowledgement events came.
pub struct Delays {
    /// How long the puts took, and until all was told.
    pub written: Duration,
    pub told: Duration,
    /// How many by their step.
    steps: BTreeMap<u32, u64>,
}

impl Delays {
    /// The delay that this share of all does not exceed.
    pub fn percentile(&self, share: f64) -> Duration {
        let all: u64 = self.steps.values().sum();
        let mut left = (all as f64 * share).ceil() as u64;
        for (step, count) in &self.steps {
            if *count >= left {
                return Duration::from_micros(u64::from((step + 1) * STEP_US));
            }
            left -= count;
        }
        Duration::ZERO
    }
}

/// Begins watches, a hundred on each connection; `connect` makes the next one.
pub async fn begin_all(
    connect: impl Fn(usize) -> Result<Client, ClientError>,
    watchers: usize,
) -> Result<Vec<Watch>, ClientError> {
    let mut watches = Vec::with_capacity(watchers);
    for connection in 0..watchers.div_ceil(PER_CONNECTION) {
        let client = connect(connection)?;
        while watches.len() < watchers.min((connection + 1) * PER_CONNECTION) {
            watches.push(client.watch(WatchOptions::prefix(PREFIX)).await?);
        }
    }
    Ok(watches)
}

/// What one watcher was told: revisions in their order, summed up, and when.
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

async fn follow(mut watch: Watch, events: u32, begun: Instant) -> Result<Told, ClientError> {
    let mut hasher = DefaultHasher::new();
    let mut at_us = Vec::with_capacity(events as usize);
    while at_us.len() < events as usize {
        let batch = watch.next_batch().await?;
        let now = micros_since(begun);
        for event in &batch.events {
            hasher.write_u64(event.entry.revision.0);
            at_us.push(now);
        }
    }
    let sum = hasher.finish();
    Ok(Told { sum, at_us })
}

fn micros_since(begun: Instant) -> u32 {
    u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX)
}

/// Puts at a steady rate; when each was acknowledged, by revision.
async fn write(
    client: &Client,
    rate: u32,
    events: u32,
    begun: Instant,
) -> Result<BTreeMap<u64, u32>, ClientError> {
    let mut puts = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    for number in 0..events {
        ticks.tick().await;
        let client = client.clone();
        puts.spawn(async move {
            let key = format!("{PREFIX}{}", number % KEYS);
            let put = client.put(key, "x".repeat(VALUE_BYTES)).await;
            put.map(|put| (put.revision.0, micros_since(begun)))
        });
    }
    puts.join_all().await.into_iter().collect()
}

/// One run: so many puts, so many a second, followed by all these watches.
///
/// # Errors
///
/// A put that failed, or a watcher that was not told each event once and in order.
pub async fn measure(
    writer: &Client,
    watches: Vec<Watch>,
    (rate, events): (u32, u32),
) -> Result<Delays, Failure> {
    let begun = Instant::now();
    let mut following = JoinSet::new();
    for watch in watches {
        following.spawn(follow(watch, events, begun));
    }
    let acknowledged = write(writer, rate, events, begun).await?;
    let written = begun.elapsed();
    let wanted = sum(acknowledged.keys().copied());
    let mut steps: BTreeMap<u32, u64> = BTreeMap::new();
    while let Some(told) = following.join_next().await {
        let told = told??;
        if told.sum != wanted {
            return Err("a watcher was told an event twice, out of order, or not at all".into());
        }
        for (told, acknowledged) in told.at_us.iter().zip(acknowledged.values()) {
            let delay = told.saturating_sub(*acknowledged);
            *steps.entry(delay / STEP_US).or_default() += 1;
        }
    }
    Ok(Delays {
        written,
        told: begun.elapsed(),
        steps,
    })
}
