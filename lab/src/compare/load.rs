//! The clients: for each level and side a stream of calls at a steady rate, whether those before
//! were answered or not, so that a store that stalls cannot slow down what it is measured with.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::probe::Act;
use super::sample::{Key, Moment, Sample, Side};
use super::sides::Sides;
use super::target::{Call, Target};
use crate::error::LabError;
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
    tape: Mutex<Tape>,
}

/// Calls that have ended, here and in a file, where they stay if the lab does not live to its end.
struct Tape {
    samples: Vec<Sample>,
    file: File,
    failed: Option<io::Error>,
}

impl Tape {
    /// One call a line.
    fn write(&mut self, sample: Sample) {
        let line = json!({
            "probe": sample.probe,
            "side": sample.side.name(),
            "node": sample.node,
            "key": sample.key.to_string(),
            "begin_us": sample.begin.0,
            "end_us": sample.end.0,
            "came_to": sample.came_to.name(),
            "rung": sample.came_to.rung(),
            "written": sample.written,
            "read": sample.read,
            "problem": sample.problem,
        });
        if let Err(error) = self.file.write_all(format!("{line}\n").as_bytes()) {
            self.failed.get_or_insert(error);
        }
        self.samples.push(sample);
    }
}

impl Load {
    /// The clients of a run; what counts begins after some time in which all warm up.
    pub(crate) fn new(
        target: Arc<dyn Target>,
        sides: Sides,
        warm_up: Duration,
        path: &Path,
    ) -> Result<Self, LabError> {
        Ok(Self {
            target,
            sides,
            epoch: Instant::now() + warm_up,
            values: AtomicI64::new(0),
            tape: Mutex::new(Tape {
                samples: Vec::new(),
                file: File::create(path).map_err(|error| LabError::file(path, error))?,
                failed: None,
            }),
        })
    }

    /// Now.
    pub(crate) fn now(&self) -> Moment {
        let now = Instant::now();
        match now.checked_duration_since(self.epoch) {
            Some(after) => Moment::after(after),
            None => Moment(-Moment::after(self.epoch - now).0),
        }
    }

    /// All calls that have ended, in the order in which they began; or why not all of them are in
    /// the file.
    pub(crate) fn take_samples(&self) -> Result<Vec<Sample>, io::Error> {
        let mut tape = self.tape.lock().expect("nobody panics while recording");
        if let Some(error) = tape.failed.take() {
            return Err(error);
        }
        let mut samples = std::mem::take(&mut tape.samples);
        samples.sort_by_key(|sample| sample.begin);
        Ok(samples)
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
        let tape = self.tape.lock();
        tape.expect("nobody panics while recording").write(sample);
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
        let kinds = self.shown.len() * Side::BOTH.len();
        let turn = self.turn;
        self.turn += 1;
        // Each node comes to each kind of key.
        let node = nodes[(turn + turn / kinds) % nodes.len()];
        let (key, value) = match act {
            Act::Read => (self.key_to_read(turn), None),
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

    /// A key of each side and plane in turn: within a few calls all are looked at.
    fn key_to_read(&mut self, turn: usize) -> Key {
        Key::Own {
            probe: self.shown[turn % self.shown.len()],
            side: Side::BOTH[turn / self.shown.len() % Side::BOTH.len()],
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
