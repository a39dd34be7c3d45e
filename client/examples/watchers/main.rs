//! Many watchers of one prefix, puts at a steady rate: each event must come once and in order at each
//! watcher, and it is told how long after its acknowledgement it comes; first alone, then beside
//! watchers that stand still.
//!
//! `cargo run --release -p quorate-client --example watchers -- 127.0.0.1:7450 1000 1000 60 1`:
//! endpoints, watchers, puts a second, seconds, watchers that are never read.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use quorate_client::{Client, ClientError, ClientOptions, Watch, WatchOptions};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Watchers that share a connection.
const PER_CONNECTION: usize = 100;
const KEYS: u32 = 100;
const VALUE_BYTES: usize = 100;
/// Delays are counted in steps of that.
const STEP_US: u32 = 100;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoints, watchers, rate, seconds, still] = &arguments[..] else {
        return Err("wanted: ENDPOINTS WATCHERS RATE SECONDS STILL".into());
    };
    let endpoints: Vec<String> = endpoints.split(',').map(str::to_owned).collect();
    let (watchers, rate): (usize, u32) = (watchers.parse()?, rate.parse()?);
    let events = rate * seconds.parse::<u32>()?;
    run(&endpoints, watchers, rate, events).await?;
    let still = begin_all(&endpoints, still.parse()?).await?;
    println!("beside {} that stand still:", still.len());
    run(&endpoints, watchers, rate, events).await
}

fn client(endpoints: &[String], first: usize) -> Result<Client, ClientError> {
    let mut endpoints = endpoints.to_vec();
    let first = first % endpoints.len();
    endpoints.rotate_left(first);
    Client::connect(ClientOptions {
        endpoints,
        timeout: Duration::from_secs(20),
        ..ClientOptions::default()
    })
}

async fn begin_all(endpoints: &[String], watchers: usize) -> Result<Vec<Watch>, ClientError> {
    let mut watches = Vec::with_capacity(watchers);
    for connection in 0..watchers.div_ceil(PER_CONNECTION) {
        let client = client(endpoints, connection)?;
        while watches.len() < watchers.min((connection + 1) * PER_CONNECTION) {
            watches.push(client.watch(WatchOptions::prefix("watched/")).await?);
        }
    }
    Ok(watches)
}

/// What one watcher was told: revisions in their order, summed up, and when.
struct Told {
    sum: u64,
    at_us: Vec<u32>,
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
async fn write(client: &Client, rate: u32, events: u32, begun: Instant) -> BTreeMap<u64, u32> {
    let mut puts = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    for number in 0..events {
        ticks.tick().await;
        let client = client.clone();
        puts.spawn(async move {
            let key = format!("watched/{}", number % KEYS);
            let put = client.put(key, "x".repeat(VALUE_BYTES)).await;
            put.map(|put| (put.revision.0, micros_since(begun)))
        });
    }
    let done = puts.join_all().await.into_iter();
    done.filter_map(|put| {
        put.inspect_err(|error| println!("a put failed: {error}"))
            .ok()
    })
    .collect()
}

async fn run(endpoints: &[String], watchers: usize, rate: u32, events: u32) -> Result<(), Failure> {
    let watches = begin_all(endpoints, watchers).await?;
    let writer = client(endpoints, 0)?;
    let begun = Instant::now();
    let mut following = JoinSet::new();
    for watch in watches {
        following.spawn(follow(watch, events, begun));
    }
    let acknowledged = write(&writer, rate, events, begun).await;
    let written = begun.elapsed();
    if acknowledged.len() < events as usize {
        return Err("puts failed".into());
    }
    let mut hasher = DefaultHasher::new();
    for revision in acknowledged.keys() {
        hasher.write_u64(*revision);
    }
    let wanted = hasher.finish();
    let mut steps: BTreeMap<u32, u64> = BTreeMap::new();
    while let Some(told) = following.join_next().await {
        let told = told??;
        if told.sum != wanted {
            return Err("a watcher was not told each event once and in order".into());
        }
        for (told, acknowledged) in told.at_us.iter().zip(acknowledged.values()) {
            let delay = told.saturating_sub(*acknowledged);
            *steps.entry(delay / STEP_US).or_default() += 1;
        }
    }
    println!(
        "{events} puts in {written:.1?}, all told in {:.1?}",
        begun.elapsed()
    );
    let all = steps.values().sum();
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("the most", 1.0)] {
        let delay = percentile(&steps, all, share);
        println!("{name}: {delay:?} after the acknowledgement");
    }
    Ok(())
}

fn percentile(steps: &BTreeMap<u32, u64>, all: u64, share: f64) -> Duration {
    let mut left = (all as f64 * share).ceil() as u64;
    for (step, count) in steps {
        if *count >= left {
            return Duration::from_micros(u64::from((step + 1) * STEP_US));
        }
        left -= count;
    }
    Duration::ZERO
}
