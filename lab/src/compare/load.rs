//! The clients: for each level and side a stream of calls at a steady rate, whether those before
//! were answered or not, so that a store that stalls cannot slow down what it is measured with.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::probe::Act;
use super::sample::{Key, Moment, Sample, Side};
use super::sides::Sides;
use super::target::{Call, Target};
use crate::random::Random;

/// Keys that each stream of writes has for itself.
const OWN_KEYS: usize = 2;
/// Of so many writes in a hundred the key is shared with the other side.
const SHARED_PERCENT: usize = 25;
/// A shared key is written for so long, and then left for a new one.
const ROUND: Duration = Duration::from_secs(2);
/// Calls of one stream under way; with more of them the store would be flooded by its own delay.
const UNDER_WAY_MAX: usize = 256;

/// What all streams share.
pub(crate) struct Load {
    pub(crate) target: Arc<dyn Target>,
    pub(crate) sides: Sides,
    /// When what counts begins.
    epoch: Instant,
    values: AtomicI64,
    samples: Mutex<Vec<Sample>>,
}

impl Load {
    /// The clients of a run; what counts begins after some time in which all warm up.
    pub(crate) fn new(target: Arc<dyn Target>, sides: Sides, warm_up: Duration) -> Self {
        Self {
            target,
            sides,
            epoch: Instant::now() + warm_up,
            values: AtomicI64::new(0),
            samples: Mutex::default(),
        }
    }

    /// Now.
    pub(crate) fn now(&self) -> Moment {
        let now = Instant::now();
        match now.checked_duration_since(self.epoch) {
            Some(after) => Moment::after(after),
            None => Moment(-Moment::after(self.epoch - now).0),
        }
    }

    /// All calls that have ended, in the order in which they began.
    pub(crate) fn take_samples(&self) -> Vec<Sample> {
        let samples = self.samples.lock();
        let mut samples = std::mem::take(&mut *samples.expect("nobody panics while recording"));
        samples.sort_by_key(|sample| sample.begin);
        samples
    }

    async fn one(self: Arc<Self>, call: Call, key: Key) {
        let begin = self.now();
        let answer = self.target.perform(&call).await;
        let sample = Sample {
            probe: call.probe,
            side: call.side,
            node: call.node,
            key,
            begin,
            end: self.now(),
            came_to: answer.came_to,
            may_apply: answer.may_apply,
            written: call.value,
            read: answer.values,
            problem: answer.problem,
        };
        let samples = self.samples.lock();
        samples.expect("nobody panics while recording").push(sample);
    }
}

/// One level on one side.
struct Stream {
    load: Arc<Load>,
    probe: usize,
    side: Side,
    random: Random,
    /// Streams of writes that reads look at.
    shown: Vec<usize>,
    /// Calls so far.
    turn: usize,
}

/// Starts all streams; they end when it is over.
pub(crate) fn start(
    load: &Arc<Load>,
    rate_per_second: f64,
    seed: u64,
    over: &watch::Receiver<bool>,
) -> JoinSet<()> {
    let probes = load.target.probes();
    let streams = probes.len() * Side::BOTH.len();
    let pause = Duration::from_secs_f64(streams as f64 / rate_per_second);
    let shown = probes.iter().enumerate();
    let shown = shown.filter(|(_, probe)| probe.shows.is_some());
    let shown: Vec<usize> = shown.map(|(place, _)| place).collect();
    let mut running = JoinSet::new();
    for probe in 0..probes.len() {
        for side in Side::BOTH {
            let number = (probe * Side::BOTH.len() + side.place()) as u64;
            let stream = Stream {
                load: load.clone(),
                probe,
                side,
                random: Random::of(seed, 1 + number),
                shown: shown.clone(),
                turn: 0,
            };
            running.spawn(stream.run(pause, over.clone()));
        }
    }
    running
}

impl Stream {
    async fn run(mut self, pause: Duration, mut over: watch::Receiver<bool>) {
        let mut calls = JoinSet::new();
        // Streams do not call all at the same moment.
        let mut due = Instant::now() + self.random.between(Duration::ZERO, pause);
        loop {
            let ended = tokio::time::timeout_at(due.into(), over.wait_for(|over| *over));
            if ended.await.is_ok() {
                break;
            }
            while calls.try_join_next().is_some() {}
            if calls.len() < UNDER_WAY_MAX {
                let (call, key) = self.next();
                calls.spawn(self.load.clone().one(call, key));
            }
            due += pause;
        }
        // A call that has begun is ended: it has a time-out.
        calls.join_all().await;
    }

    fn next(&mut self) -> (Call, Key) {
        let nodes = self.load.sides.nodes(self.side);
        let act = self.load.target.probes()[self.probe].act;
        let node = nodes[self.turn % nodes.len()];
        self.turn += 1;
        let (key, value) = match act {
            Act::Read => (self.key_to_read(), None),
            Act::Write => {
                let value = self.load.values.fetch_add(1, Ordering::Relaxed) + 1;
                (self.key_to_write(), Some(value))
            }
        };
        let call = Call {
            probe: self.probe,
            side: self.side,
            node,
            key: key.to_string(),
            value,
        };
        (call, key)
    }

    /// A key that one of both sides writes.
    fn key_to_read(&mut self) -> Key {
        Key::Own {
            probe: *self.random.pick(&self.shown),
            side: *self.random.pick(&Side::BOTH),
            number: self.random.below(OWN_KEYS),
        }
    }

    fn key_to_write(&mut self) -> Key {
        let probe = self.probe;
        if self.random.percent(SHARED_PERCENT) {
            let rounds = Moment::after(ROUND).0;
            // All that warms up is one round.
            let round = usize::try_from(self.load.now().0.div_euclid(rounds) + 1).unwrap_or(0);
            return Key::Shared { probe, round };
        }
        Key::Own {
            probe,
            side: self.side,
            number: self.random.below(OWN_KEYS),
        }
    }
}
