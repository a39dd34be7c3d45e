//! Exactly once over real sockets: increments by compare-and-set and pipelined puts through
//! connections that are cut at random, while leaders are killed. Each write is applied once, or
//! its client is told that it cannot know, and then asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use quorate_client::{
    CasOutcome, Client, ClientError, ClientOptions, Expect, OutcomeState, WriteOptions,
};
use quorate_types::{Effect, RequestHandle};

use crate::harness::{Cluster, rounds, wait_until};
use crate::proxy::Proxy;

const OPERATIONS_USUAL: usize = 300;
const COUNTERS: usize = 2;
const PUTS_IN_FLIGHT: usize = 32;
/// Leaders are killed so often in the course of the test.
const KILLS: u64 = 3;
/// Operations that end while a leader is away, before it comes back.
const OPERATIONS_WHILE_DOWN: u64 = 10;
/// Cut as they are, connections carry at least so many operations a second.
const OPERATIONS_PER_SECOND_MIN: u64 = 5;
/// An answer that is asked for again and again comes within this.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// What became of a write in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Applied,
    NotApplied,
    TooOld,
}

/// What is known of a failed write: what its error says, or else what its outcome does.
async fn fate(client: &Client, error: &ClientError) -> Fate {
    match error.effect() {
        Effect::Applied => return Fate::Applied,
        Effect::None => return Fate::NotApplied,
        Effect::Unknown => {}
    }
    let Some(handle) = error.handle() else {
        return Fate::TooOld;
    };
    match outcome(client, handle).await {
        OutcomeState::Applied { succeeded, .. } if succeeded => Fate::Applied,
        OutcomeState::Applied { .. } | OutcomeState::NotApplied => Fate::NotApplied,
        OutcomeState::TooOld => Fate::TooOld,
    }
}

async fn outcome(client: &Client, handle: RequestHandle) -> OutcomeState {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.outcome(handle).await {
            Ok(told) => return told.state,
            Err(error) => assert!(Instant::now() < deadline, "no outcome: {error}"),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// One increment of a counter that stands at `expected`, and what the next one should expect.
async fn increment(client: &Client, expected: u64) -> (Fate, Option<u64>) {
    let expect = match expected {
        0 => Expect::Absent,
        _ => Expect::Value(expected.to_string().into()),
    };
    let value = (expected + 1).to_string();
    let options = WriteOptions::default();
    match client
        .compare_and_set("counter", expect, value, options)
        .await
    {
        Ok(CasOutcome::Done(_)) => (Fate::Applied, Some(expected + 1)),
        Ok(CasOutcome::Refused { current, .. }) => {
            let current = current.map(|entry| number(&entry.value));
            (Fate::NotApplied, current)
        }
        Err(error) => (fate(client, &error).await, None),
    }
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

async fn counter(client: &Client) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.get("counter").await {
            Ok(got) => return got.entry.map_or(0, |entry| number(&entry.value)),
            Err(error) => assert!(Instant::now() < deadline, "no counter: {error}"),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Increments until so many were applied; says how many nobody can tell.
async fn count(client: Client, wanted: usize, done: Arc<AtomicU64>) -> u64 {
    let (mut applied, mut too_old, mut expected) = (0, 0, 0);
    while applied < wanted {
        let (fate, next) = increment(&client, expected).await;
        match fate {
            Fate::Applied => {
                applied += 1;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Fate::NotApplied => {}
            Fate::TooOld => too_old += 1,
        }
        expected = match next {
            Some(next) => next,
            None => counter(&client).await,
        };
    }
    too_old
}

/// Puts so many keys, each once, many at a time on one pipeline.
async fn put_all(client: Client, wanted: usize, done: Arc<AtomicU64>) -> Vec<Fate> {
    let pipeline = client.pipeline();
    let puts = (0..wanted).map(|index| {
        let (pipeline, done) = (pipeline.clone(), done.clone());
        async move {
            let put = pipeline.put(format!("put-{index}"), "x".repeat(200)).await;
            done.fetch_add(1, Ordering::Relaxed);
            match put {
                Ok(_) => Fate::Applied,
                Err(error) => fate(&pipeline, &error).await,
            }
        }
    });
    futures::stream::iter(puts)
        .buffered(PUTS_IN_FLIGHT)
        .collect()
        .await
}

/// Each put left as many versions as its client was told.
async fn check_puts(client: &Client, fates: &[Fate]) {
    let versions = (0..fates.len()).map(|index| {
        let client = client.clone();
        async move {
            let history = client.history(format!("put-{index}")).await.unwrap();
            history.entries.len()
        }
    });
    let versions: Vec<usize> = futures::stream::iter(versions)
        .buffered(PUTS_IN_FLIGHT)
        .collect()
        .await;
    for (index, (fate, versions)) in fates.iter().zip(versions).enumerate() {
        let right = match fate {
            Fate::Applied => versions == 1,
            Fate::NotApplied => versions == 0,
            Fate::TooOld => versions <= 1,
        };
        assert!(right, "put-{index}: {fate:?}, and {versions} versions");
    }
}

/// Kills leaders, evenly over the time that the work takes, and starts them again.
async fn kill_leaders(cluster: &mut Cluster, done: &AtomicU64, work: u64) {
    let longest = PATIENCE + Duration::from_secs(work / OPERATIONS_PER_SECOND_MIN);
    let reach = async |goal| {
        let reached = async || done.load(Ordering::Relaxed) >= goal;
        wait_until("progress", longest, reached).await;
    };
    for kill in 1..=KILLS {
        reach(work * kill / (KILLS + 1)).await;
        let leader = cluster.leader().await;
        cluster.node(leader).kill();
        reach(done.load(Ordering::Relaxed) + OPERATIONS_WHILE_DOWN).await;
        cluster.node(leader).start();
    }
}

/// `QUORATE_OPERATIONS=10000` for the long run: so many increments, and so many puts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_through_cut_connections_are_applied_once() {
    let operations = rounds("QUORATE_OPERATIONS", OPERATIONS_USUAL);
    let mut cluster = Cluster::start(3).await;
    let mut proxies = Vec::new();
    for id in cluster.ids() {
        proxies.push(Proxy::start(cluster.node(id).listen, id).await);
    }
    let client = || {
        Client::connect(ClientOptions {
            endpoints: proxies.iter().map(|p| p.address.to_string()).collect(),
            ..ClientOptions::default()
        })
        .unwrap()
    };
    let done = Arc::<AtomicU64>::default();
    let each = operations.div_ceil(COUNTERS);
    let counts = (0..COUNTERS).map(|_| tokio::spawn(count(client(), each, done.clone())));
    let counts: Vec<_> = counts.collect();
    let puts = tokio::spawn(put_all(client(), operations, done.clone()));
    kill_leaders(&mut cluster, &done, 2 * operations as u64).await;
    let fates = puts.await.unwrap();
    let mut too_old = 0;
    for task in counts {
        too_old += task.await.unwrap();
    }
    let direct = cluster.client();
    let applied = (each * COUNTERS) as u64;
    let counted = counter(&direct).await;
    assert!(
        (applied..=applied + too_old).contains(&counted),
        "the counter is {counted} after {applied} increments and {too_old} unknown ones"
    );
    check_puts(&direct, &fates).await;
    let cuts: u64 = proxies.iter().map(Proxy::cuts).sum();
    let told = |fate| fates.iter().filter(|f| **f == fate).count();
    eprintln!(
        "{applied} increments, {too_old} of unknown fate; puts: {} applied, {} not applied, {} of \
         unknown fate; {cuts} connections cut, {KILLS} leaders killed",
        told(Fate::Applied),
        told(Fate::NotApplied),
        told(Fate::TooOld),
    );
    assert!(cuts > KILLS, "{cuts} cuts are too few to mean anything");
}
