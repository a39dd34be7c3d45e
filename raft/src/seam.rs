//! Two of the four seams to the outside: the clock and randomness. (The disk is in
//! `quorate-storage`, the peer transport in [`crate::peer`].)

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use quorate_types::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// The wall clock of a node. Durations are measured with tokio's own clock, which simulations
/// pause and move.
pub trait Clock: Send + Sync + Debug {
    /// Microseconds since the epoch. It may be wrong, jump, or go back.
    fn now(&self) -> Timestamp;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // this is the seam
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp(since.map_or(0, |d| d.as_micros() as u64))
    }
}

/// The operating system's clock, made wrong by so many microseconds: for tests of whole processes.
#[derive(Clone, Debug, Default)]
pub struct OffsetClock {
    offset_micros: Arc<AtomicI64>,
}

impl OffsetClock {
    /// How wrong it is, to be set at any time.
    pub fn offset_micros(&self) -> Arc<AtomicI64> {
        self.offset_micros.clone()
    }
}

impl Clock for OffsetClock {
    fn now(&self) -> Timestamp {
        let offset = self.offset_micros.load(Ordering::Relaxed);
        Timestamp(SystemClock.now().0.saturating_add_signed(offset))
    }
}

/// A clock that follows tokio's (paused) time from a given start, with an offset that can be set.
#[derive(Clone, Debug)]
pub struct SimulatedClock {
    start: tokio::time::Instant,
    epoch: Timestamp,
    offset_micros: Arc<Mutex<i64>>,
}

impl SimulatedClock {
    /// A clock that shows `epoch` now.
    pub fn new(epoch: Timestamp) -> SimulatedClock {
        let offset_micros = Arc::new(Mutex::new(0));
        SimulatedClock {
            start: tokio::time::Instant::now(),
            epoch,
            offset_micros,
        }
    }

    /// Makes the clock wrong by so many microseconds.
    pub fn set_offset(&self, micros: i64) {
        *self.offset_micros.lock() = micros;
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        let elapsed = self.start.elapsed().as_micros() as u64;
        Timestamp((self.epoch.0 + elapsed).saturating_add_signed(*self.offset_micros.lock()))
    }
}

/// Where ids and jitter come from.
pub trait Randomness: Send + Sync + Debug {
    /// 64 random bits.
    fn next(&self) -> u64;
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    #[allow(clippy::disallowed_methods)] // this is the seam
    fn next(&self) -> u64 {
        rand::random()
    }
}

/// Randomness that follows from a seed.
#[derive(Debug)]
pub struct SeededRandomness(Mutex<SmallRng>);

impl SeededRandomness {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> SeededRandomness {
        SeededRandomness(Mutex::new(SmallRng::seed_from_u64(seed)))
    }
}

impl Randomness for SeededRandomness {
    fn next(&self) -> u64 {
        self.0.lock().next_u64()
    }
}
