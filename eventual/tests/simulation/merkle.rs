//! What it costs to find and mend differences by hash trees, and to keep them up. Prints figures.
//!
//! `QUORATE_KEYS` says how many keys there are: 1,000,000 for the figures of the documentation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use quorate_types::Copies;
use quorate_types::causal::Update;

use crate::clients::{key, rung, write_of};
use crate::network::Quality;
use crate::run::{number_from, run};
use crate::world::{SIBLINGS, Settings, Shared};

const KEYS: u64 = 5_000;
const DIFFERENT: u64 = 1_000;
const VALUE_BYTES: usize = 256;
/// Writes that are under way at once.
const IN_FLIGHT: usize = 256;
/// Measurements of which the median is taken.
const UPKEEP_ROUNDS: usize = 5;

fn settings() -> Settings {
    let mut settings = Settings {
        quality: Quality::GOOD,
        memory_bytes: 1 << 30,
        segment_bytes: 1 << 20,
        ..Settings::default()
    };
    settings.options.repair = false;
    settings.options.hand_over = false;
    settings
}

async fn put_all(world: &Shared, keys: impl Iterator<Item = u64>, copies: Copies) {
    let node = world.node(0).unwrap();
    let writes = keys.map(|number| {
        let node = node.clone();
        async move {
            let update = Update::Put(Bytes::from(vec![number as u8; VALUE_BYTES]));
            let rung = rung(copies, Duration::from_secs(60));
            let written = node.write(write_of(SIBLINGS, key(number), update, rung));
            written.await.unwrap();
        }
    });
    let mut writes = futures::stream::iter(writes).buffer_unordered(IN_FLIGHT);
    while writes.next().await.is_some() {}
}

/// Processor time of this thread so far; where the system does not tell it, the time of day.
fn processor_time(since: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|told| told.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| since.elapsed(), Duration::from_nanos)
}

/// Processor time of puts, with hash trees kept up or not.
fn put_time(puts: u64, leave_trees_cold: bool) -> Duration {
    let mut settings = settings();
    settings.options.faults.leave_trees_cold = leave_trees_cold;
    let took = Arc::new(Mutex::new(Duration::ZERO));
    let took_inside = took.clone();
    run(1, settings, |world: Shared| async move {
        // Opens the replicas; their trees are built soon after.
        put_all(&world, 0..1, Copies::All).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let is_warm = world.report(0, SIBLINGS).unwrap().hash.is_some();
        assert_eq!(is_warm, !leave_trees_cold);
        let clock = Instant::now();
        let began = processor_time(clock);
        put_all(&world, (0..puts).map(|number| number % KEYS), Copies::All).await;
        *took_inside.lock() = processor_time(clock) - began;
    });
    *took.lock()
}

/// `QUORATE_PUTS` says how many puts are measured: with 200,000, built for release, the figure of
/// the documentation. On simulated disks, which cost less than real ones.
#[test]
fn upkeep_of_hash_trees_costs_little() {
    let puts = number_from("QUORATE_PUTS").unwrap_or(2_000);
    let mut ratios: Vec<f64> = (0..UPKEEP_ROUNDS)
        .map(|_| put_time(puts, false).as_secs_f64() / put_time(puts, true).as_secs_f64())
        .collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios[UPKEEP_ROUNDS / 2];
    println!("puts with hash trees take {median:.3} times as long as without: {ratios:.3?}");
    // Far above the figure, which is that of a build for release.
    assert!(median < 1.5, "{ratios:?}");
}

#[test]
fn repair_costs_what_differs() {
    let keys = number_from("QUORATE_KEYS").unwrap_or(KEYS);
    run(1, settings(), |world: Shared| async move {
        put_all(&world, 0..keys, Copies::All).await;
        let ids: Vec<_> = world.all().map(|at| world.id(at)).collect();
        world.network.partition(&ids[..1], &ids[1..]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let step = usize::try_from(keys / DIFFERENT).unwrap();
        put_all(&world, (0..keys).step_by(step), Copies::One).await;
        world.network.heal();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (node, clock) = (world.node(0).unwrap(), Instant::now());
        let began = tokio::time::Instant::now();
        let repaired = node.repair(SIBLINGS, ids[1]).await.unwrap();
        println!(
            "{keys} keys: {repaired:?}; {:?} of processor, {:?} simulated",
            clock.elapsed(),
            began.elapsed()
        );
        assert!(repaired.keys >= DIFFERENT);
        let records = 2 * repaired.keys * (VALUE_BYTES as u64 + 128);
        assert!(repaired.bytes <= (2 << 20) + records, "{repaired:?}");
        let equal = node.repair(SIBLINGS, ids[1]).await.unwrap();
        println!("equal: {equal:?}");
        assert!(equal.equal);
        assert!(equal.bytes <= 1 << 10);
    });
}
