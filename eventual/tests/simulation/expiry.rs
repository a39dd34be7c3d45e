//! Values that expire, with clocks that are wrong: none goes before its time, and all go after it,
//! from memory and disk.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use quorate_eventual::{Faults, WriteRequest, WriteRung};
use quorate_types::causal::Update;
use quorate_types::{Copies, Timestamp};
use tokio::time::Instant;

use crate::clients::{key, read, rung, write_of};
use crate::network::Quality;
use crate::run::{must_be_found, run_all};
use crate::world::{PRIMARIES, SIBLINGS, Settings, Shared};

const KEYS: u64 = 12;
const LIFE_MIN_MILLIS: u64 = 500;
const LIFE_MAX_MILLIS: u64 = 3_000;
/// Crashes while values expire.
const CRASHES: u64 = 4;
/// No node may be this late in removing what has expired.
const REMOVED_AFTER: Duration = Duration::from_secs(10);

fn later(at: Timestamp, millis: u64) -> Timestamp {
    Timestamp(at.0 + millis * 1_000)
}

/// Puts all keys, each with an expiry of its own. Returns those expiries.
async fn put_all(world: &Shared) -> Vec<Timestamp> {
    let mut expiries = Vec::new();
    for number in 0..KEYS {
        let life = LIFE_MIN_MILLIS + world.roll(LIFE_MAX_MILLIS - LIFE_MIN_MILLIS);
        let expiry = later(world.network.now(), life);
        let update = Update::Put(Bytes::from_static(b"value"));
        let rung = WriteRung {
            // A stand-in that counts would leave a primary without the value for a while.
            strict: true,
            ..rung(Copies::All, Duration::from_secs(2))
        };
        let request = WriteRequest {
            expiry: Some(expiry),
            ..write_of(SIBLINGS, key(number), update, rung)
        };
        let node = world.node(world.any()).unwrap();
        if let Err(error) = node.write(request).await {
            world.accuse(format!("key {number} was not put: {error}"));
        }
        expiries.push(expiry);
    }
    expiries
}

/// Accuses those primaries that do not hold a value whose time is not over.
async fn judge(world: &Shared, expiries: &[Timestamp]) {
    for (number, expiry) in (0..).zip(expiries) {
        for at in 0..PRIMARIES {
            let Some(node) = world.node(at) else { continue };
            let Ok(found) = read(&node, SIBLINGS, key(number), Copies::One).await else {
                continue;
            };
            if world.network.now() < *expiry && found.state.live().len() == 0 {
                world.accuse(format!("node {at} removed key {number} before its time"));
            }
            world.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn expire(world: Shared) {
    let expiries = put_all(&world).await;
    let last = expiries.iter().copied().max().unwrap();
    let mut crashes = 0;
    while world.network.now() < last {
        judge(&world, &expiries).await;
        if crashes < CRASHES && world.percent(20) {
            crashes += 1;
            let at = world.any();
            match world.percent(50) {
                true => world.kill(at),
                false => world.cut_power(at),
            }
            world.restart(at).await;
        }
        tokio::time::sleep(Duration::from_millis(50 + world.roll(100))).await;
    }
    world.make_whole().await;
    let left = || {
        let report = |at| world.report(at, SIBLINGS);
        let reports = (0..PRIMARIES).map(report);
        reports
            .map(|report| report.map_or(0, |report| report.record_bytes))
            .sum::<u64>()
    };
    let began = Instant::now();
    while left() > 0 && began.elapsed() < REMOVED_AFTER {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if left() > 0 {
        world.accuse(format!("{} bytes of expired keys are left", left()));
    }
    world.converge(SIBLINGS).await;
    for at in 0..PRIMARIES {
        if let Err(broken) = world.node(at).unwrap().validate(SIBLINGS) {
            world.accuse(format!("node {at}: {broken}"));
        }
    }
}

fn settings() -> Settings {
    Settings {
        quality: Quality::GOOD,
        ..Settings::default()
    }
}

#[test]
fn what_expires_goes_and_nothing_before_its_time() {
    run_all(
        "what_expires_goes_and_nothing_before_its_time",
        30,
        &settings(),
        expire,
    );
}

/// A primary whose clock is ten minutes ahead removes nothing by it, and learns from the others.
#[test]
fn a_clock_that_is_far_ahead_removes_nothing() {
    let settings = Settings {
        clock_ahead: Some((1, Duration::from_secs(600))),
        ..settings()
    };
    run_all(
        "a_clock_that_is_far_ahead_removes_nothing",
        20,
        &settings,
        expire,
    );
}

#[test]
fn a_clock_that_is_trusted_blindly_is_noticed() {
    let mut settings = Settings {
        clock_ahead: Some((1, Duration::from_secs(600))),
        ..settings()
    };
    settings.options.faults = Faults {
        trust_any_clock: true,
        ..Faults::default()
    };
    must_be_found(100, &settings, |v| v.contains("before its time"), expire);
}
