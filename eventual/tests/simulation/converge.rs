//! A partition of five nodes into two and three, with writes on both sides: all primaries hold
//! the same soon after the heal, by hints and repair, and by either alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_eventual::BackgroundWork;
use quorate_types::Copies;
use quorate_types::causal::Update;
use tokio::time::Instant;

use crate::clients::{key, rung, write_of};
use crate::network::Quality;
use crate::run::run;
use crate::world::{PRIMARIES, SIBLINGS, Settings, Shared};

const PARTITION: Duration = Duration::from_secs(20);
const KEYS: u64 = 500;
/// Of each node's writer, between two writes.
const PAUSE: Duration = Duration::from_millis(25);
/// So little that some courtesies are dropped, and only repair brings what they were for.
const COURTESY_MAX_BYTES: usize = 4 << 10;

/// Puts through one node until the time is over. Returns how many were acknowledged.
async fn put_through(world: Shared, at: usize, until: Instant) -> u64 {
    let mut done = 0;
    for sequence in 0_u64.. {
        if Instant::now() > until {
            break;
        }
        let Some(node) = world.node(at) else { break };
        let value = Bytes::from(format!("{at}-{sequence}"));
        let rung = rung(Copies::One, Duration::from_millis(500));
        let key = key(world.roll(KEYS));
        let written = node.write(write_of(SIBLINGS, key, Update::Put(value), rung));
        done += u64::from(written.await.is_ok());
        tokio::time::sleep(PAUSE).await;
    }
    done
}

fn work(world: &Shared) -> BackgroundWork {
    let mut sum = BackgroundWork::default();
    for node in world.all().filter_map(|at| world.node(at)) {
        let work = node.background_work();
        sum.hints_handed_over += work.hints_handed_over;
        sum.keys_repaired += work.keys_repaired;
        sum.repair_bytes += work.repair_bytes;
    }
    sum
}

/// Returns how long it took after the heal, and the work that was done since.
fn partitioned(settings: Settings, hints_gone: bool) -> (Duration, BackgroundWork) {
    let took = Arc::new(parking_lot::Mutex::new(None));
    let (took_inside, acknowledged) = (took.clone(), AtomicU64::new(0));
    let shown = run(5, settings, |world: Shared| async move {
        let ids: Vec<_> = world.all().map(|at| world.id(at)).collect();
        // One primary with one stand-in, and two with the other.
        world
            .network
            .partition(&[ids[0], ids[3]], &[ids[1], ids[2], ids[4]]);
        let until = Instant::now() + PARTITION;
        let writers = world
            .all()
            .map(|at| tokio::spawn(put_through(world.clone(), at, until)));
        for writer in writers.collect::<Vec<_>>() {
            acknowledged.fetch_add(writer.await.unwrap(), Ordering::Relaxed);
        }
        let before = work(&world);
        world.network.heal();
        let began = Instant::now();
        let equal = || {
            let hash = |at| Some(world.report(at, SIBLINGS)?.hash);
            let hashes: Vec<_> = (0..PRIMARIES).map(hash).collect();
            let hints = world.all().filter_map(|at| world.report(at, SIBLINGS));
            let hints: u64 = hints.map(|report| report.hints).sum();
            hashes.windows(2).all(|pair| pair[0] == pair[1]) && (!hints_gone || hints == 0)
        };
        while !equal() && began.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let after = work(&world);
        let work = BackgroundWork {
            hints_handed_over: after.hints_handed_over - before.hints_handed_over,
            keys_repaired: after.keys_repaired - before.keys_repaired,
            repair_bytes: after.repair_bytes - before.repair_bytes,
            starts_closed: after.starts_closed - before.starts_closed,
        };
        println!(
            "{acknowledged:?} writes; equal {:?} after the heal; {work:?}",
            began.elapsed()
        );
        *took_inside.lock() = Some((began.elapsed(), work));
    });
    assert!(shown.violations.is_empty(), "{:?}", shown.violations);
    let took = *took.lock();
    took.unwrap()
}

fn settings() -> Settings {
    Settings {
        quality: Quality::GOOD,
        memory_bytes: 4 << 20,
        segment_bytes: 4 << 20,
        ..Settings::default()
    }
}

#[test]
fn hints_and_repair_bring_two_sides_together() {
    let mut settings = settings();
    settings.options.courtesy_max_bytes = COURTESY_MAX_BYTES;
    let (took, work) = partitioned(settings, true);
    assert!(took <= Duration::from_secs(10), "{took:?}");
    assert!(work.hints_handed_over > 0);
    assert!(work.keys_repaired > 0);
}

#[test]
fn repair_alone_brings_two_sides_together() {
    let mut settings = settings();
    settings.options.hand_over = false;
    let (took, work) = partitioned(settings, false);
    assert!(took <= Duration::from_secs(30), "{took:?}");
    assert_eq!(work.hints_handed_over, 0);
}

#[test]
fn hints_alone_bring_two_sides_together() {
    let mut settings = settings();
    settings.options.repair = false;
    let (took, work) = partitioned(settings, true);
    assert!(took <= Duration::from_secs(10), "{took:?}");
    assert_eq!(work.keys_repaired, 0);
}
