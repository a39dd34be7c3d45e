//! Sessions that hop over gateways, levels and planes while nodes are killed and cut off: each
//! reads its own writes, never goes back in what it was shown, and writes over what it saw. The
//! same course without tokens breaks that, or the storm shows nothing.
//!
//! `QUORATE_OPERATIONS` says how many answers a run is to gather; `cargo test --release` makes it
//! through a million.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_types::causal::Dot;

use crate::asking::{Asked, Level, Shown, dot_named};
use crate::run::{number_from, run};
use crate::storm::{Storm, faults};
use crate::world::{Settings, Shared};

const CLIENTS: u64 = 8;
const KEYS_SHARED: u64 = 4;
const KEYS_OWN: u64 = 2;
const BEGIN: &[u8] = &[0];
/// Steps that lead to a violation, as it is told.
const COURSE_SHOWN: usize = 12;
const SEEDS: u64 = 6;
/// Of a course without tokens: seeds within which a violation must show.
const CONTROL_SEEDS: u64 = 30;

/// What all sessions of a run know of each other.
#[derive(Default)]
struct Common {
    /// Of an answered write: the writes of its key that its session had seen.
    replaces: BTreeMap<Dot, BTreeSet<Dot>>,
    token_bytes: Vec<usize>,
    operations: u64,
    refused: u64,
}

/// What a session knows of a key.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Writes that it was shown, or has made itself.
    seen: BTreeSet<Dot>,
    /// Those of them that it saw replaced, or has replaced.
    gone: BTreeSet<Dot>,
    /// What happened to it, for whoever looks into a violation.
    course: Vec<String>,
}

struct Session {
    world: Shared,
    common: Arc<Mutex<Common>>,
    number: u64,
    /// Empty: a course without tokens.
    token: Bytes,
    keys: BTreeMap<String, Known>,
    /// A write whose outcome is unknown may yet do anything: its key is not asked again.
    generation: u64,
    sequence: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Put,
    Delete,
}

fn rungs(levels: &[(v1::Level, v1::Copies, u32)]) -> Vec<v1::Rung> {
    let rung = |(level, copies, budget_ms): &(v1::Level, v1::Copies, u32)| v1::Rung {
        level: *level as i32,
        copies: *copies as i32,
        budget_ms: *budget_ms,
        // What a bounded read may be old.
        staleness_max_ms: 3_000 * u32::from(*level == v1::Level::Bounded),
        ..v1::Rung::default()
    };
    levels.iter().map(rung).collect()
}

impl Session {
    fn consistency(&self, rungs: Vec<v1::Rung>) -> Option<v1::Consistency> {
        Some(v1::Consistency {
            rungs,
            session_token: self.token.clone(),
            ..v1::Consistency::default()
        })
    }

    fn read_rungs(&self) -> Vec<v1::Rung> {
        use v1::Level::{Bounded, Eventual, Linearizable, Session, Stale};
        let none = v1::Copies::Unspecified;
        match self.world.roll(8) {
            0 => rungs(&[(Linearizable, none, 0)]),
            1 => rungs(&[(Stale, none, 0)]),
            2 => rungs(&[(Bounded, none, 0)]),
            3 if !self.token.is_empty() => rungs(&[(Session, none, 0)]),
            4 => rungs(&[(Eventual, v1::Copies::Quorum, 0)]),
            5 => rungs(&[(Linearizable, none, 50), (Eventual, v1::Copies::One, 0)]),
            _ => rungs(&[(Eventual, v1::Copies::One, 0)]),
        }
    }

    fn write_rungs(&self) -> Vec<v1::Rung> {
        use v1::Level::{Eventual, Linearizable};
        let none = v1::Copies::Unspecified;
        match self.world.roll(6) {
            0 | 1 => rungs(&[(Linearizable, none, 0)]),
            2 => rungs(&[(Linearizable, none, 100), (Eventual, v1::Copies::One, 0)]),
            3 => rungs(&[(Eventual, v1::Copies::Quorum, 0)]),
            _ => rungs(&[(Eventual, v1::Copies::One, 0)]),
        }
    }

    fn key(&self) -> String {
        if self.world.percent(50) {
            return format!("shared-{}", self.world.roll(KEYS_SHARED));
        }
        let (slot, generation) = (self.world.roll(KEYS_OWN), self.generation);
        // Others' keys as well, as far as they are asked now.
        let other = 1 + self.world.roll(CLIENTS);
        match other == self.number || self.world.percent(70) {
            true => format!("own-{}-{slot}-{generation}", self.number),
            false => format!("own-{other}-{slot}-0"),
        }
    }

    async fn run(mut self, stop: Arc<AtomicBool>, pause_max_millis: u64) {
        while !stop.load(Ordering::Relaxed) {
            let pause = self.world.roll(pause_max_millis);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let key = self.key();
            let mine =
                key.starts_with("shared") || key.starts_with(&format!("own-{}-", self.number));
            match self.world.roll(100) {
                0..30 if mine => self.write(&key, Write::Put).await,
                30..36 if mine => self.write(&key, Write::Delete).await,
                _ => self.read(&key).await,
            }
        }
    }

    fn within(&self) -> Duration {
        Duration::from_millis(50 + self.world.roll(800))
    }

    fn remember(&mut self, receipt: Option<&v1::Receipt>) {
        let mut common = self.common.lock();
        common.operations += 1;
        if self.token.is_empty() {
            return;
        }
        let token = &receipt.unwrap().session_token;
        assert!(!token.is_empty(), "an answer without its token");
        common.token_bytes.push(token.len());
        self.token = token.clone();
    }

    async fn write(&mut self, key: &str, write: Write) {
        self.sequence += 1;
        let at = self.world.any();
        let (keyspace, name) = (self.world.keyspace().to_owned(), key.as_bytes().to_vec());
        let consistency = self.consistency(self.write_rungs());
        let request = match write {
            Write::Put => Request::Put(v1::PutRequest {
                keyspace,
                key: name.into(),
                value: format!("{}-{}", self.number, self.sequence).into(),
                consistency,
                ..v1::PutRequest::default()
            }),
            Write::Delete => Request::Delete(v1::DeleteRequest {
                keyspace,
                key: name.into(),
                consistency,
                ..v1::DeleteRequest::default()
            }),
        };
        let asked = self.world.ask(at, self.within(), request).await;
        let (dot, receipt) = match asked {
            Asked::Done(Response::Put(put)) => (dot_named(&put.dot, put.revision), put.receipt),
            Asked::Done(Response::Delete(gone)) => {
                (dot_named(&gone.dot, gone.revision), gone.receipt)
            }
            Asked::Done(other) => panic!("{other:?}"),
            Asked::Refused(why) => {
                let known = self.keys.entry(key.to_owned()).or_default();
                known.course.push(format!("write at {at} refused: {why}"));
                return self.common.lock().refused += 1;
            }
            Asked::Unknown(_) => {
                self.generation += 1;
                return;
            }
        };
        let level = receipt.as_ref().and_then(|of| of.level).unwrap().level;
        self.remember(receipt.as_ref());
        let known = self.keys.entry(key.to_owned()).or_default();
        let word = if write == Write::Put { "put" } else { "delete" };
        let replayed = receipt.is_some_and(|of| of.replayed);
        let course = format!("{word} at {at}, level {level}: {dot}, replayed {replayed}");
        known.course.push(course);
        let replaced = std::mem::take(&mut known.seen);
        known.gone.extend(replaced.iter().copied());
        known.seen.insert(dot);
        if write == Write::Delete {
            // It shows by what is gone.
            known.seen.clear();
        }
        self.common.lock().replaces.insert(dot, replaced);
    }

    async fn read(&mut self, key: &str) {
        let at = self.world.any();
        let request = Request::Get(v1::GetRequest {
            keyspace: self.world.keyspace().to_owned(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            consistency: self.consistency(self.read_rungs()),
            at_revision: 0,
        });
        let asked = self.world.ask(at, self.within(), request).await;
        let got = match asked {
            Asked::Done(Response::Get(got)) => got,
            Asked::Done(other) => panic!("{other:?}"),
            Asked::Refused(_) => return self.common.lock().refused += 1,
            Asked::Unknown(_) => return,
        };
        self.remember(got.receipt.as_ref());
        let level = got.receipt.as_ref().unwrap().level;
        let level = level.map_or(0, |rung| rung.level);
        let has_context = got
            .receipt
            .as_ref()
            .is_some_and(|of| !of.context.is_empty());
        let shown = Shown::of(got, Level::Linearizable);
        // Of a prefix of the log: what it has replaced it does not show.
        let told = has_context.then(|| self.world.opened(key, &shown.context));
        let what = format!("session {} at {at}, level {level}, {key}", self.number);
        self.judge(key, &shown, told.as_ref(), &what);
    }

    fn judge(
        &mut self,
        key: &str,
        shown: &Shown,
        told: Option<&quorate_types::causal::Dots>,
        what: &str,
    ) {
        let live: BTreeSet<Dot> = shown.values.keys().copied().collect();
        let known = self.keys.entry(key.to_owned()).or_default();
        let mut wrong = Vec::new();
        for dot in live.intersection(&known.gone) {
            wrong.push(format!("{what}: {dot} is back"));
        }
        for dot in known.seen.difference(&live) {
            // Replaced by somebody: then its reader has seen it all the same.
            if told.is_some_and(|told| !told.contains(*dot)) {
                wrong.push(format!("{what}: {dot} is not known any more"));
            }
            // An own key has one writer, and this read is between two of its writes.
            if key.starts_with(&format!("own-{}-", self.number)) && live.is_empty() {
                wrong.push(format!("{what}: own write {dot} is not there"));
            }
        }
        {
            let common = self.common.lock();
            for dot in &live {
                let replaced = common.replaces.get(dot).into_iter().flatten();
                for old in replaced.filter(|old| live.contains(old)) {
                    wrong.push(format!(
                        "{what}: {dot} does not replace {old}, which it followed"
                    ));
                }
            }
        }
        let replaced: Vec<Dot> = known.seen.difference(&live).copied().collect();
        known.gone.extend(replaced);
        known.seen = live;
        let shown: Vec<String> = known.seen.iter().map(Dot::to_string).collect();
        known.course.push(format!("{what} shows {shown:?}"));
        if !wrong.is_empty() {
            let course = &known.course[known.course.len().saturating_sub(COURSE_SHOWN)..];
            self.world.accuse(format!("{wrong:?} after {course:#?}"));
        }
    }
}

async fn storm_of_sessions(world: Shared, common: Arc<Mutex<Common>>, tokens: bool, what: Storm) {
    let stop = Arc::new(AtomicBool::new(false));
    let token = Bytes::from_static(if tokens { BEGIN } else { &[] });
    let sessions = (1..=CLIENTS).map(|number| {
        let session = Session {
            world: world.clone(),
            common: common.clone(),
            number,
            token: token.clone(),
            keys: BTreeMap::new(),
            generation: 0,
            sequence: 0,
        };
        tokio::spawn(session.run(stop.clone(), what.pause_max_millis))
    });
    let sessions: Vec<_> = sessions.collect();
    faults(&world, what).await;
    world.make_whole().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    for session in sessions {
        session.await.unwrap();
    }
}

const STORM: Storm = Storm {
    faults: 8,
    pause_max_millis: 20,
    ..Storm::ALL
};

#[test]
fn sessions_hop_over_gateways_levels_and_planes() {
    let name = "sessions_hop_over_gateways_levels_and_planes";
    let first = number_from("QUORATE_SEED").unwrap_or(0);
    let seeds = number_from("QUORATE_SEEDS").unwrap_or(SEEDS);
    let wanted = number_from("QUORATE_OPERATIONS").unwrap_or(0);
    let (mut failed, mut operations, mut refused) = (Vec::new(), 0, 0);
    let mut token_bytes: Vec<usize> = Vec::new();
    let mut seed = first;
    while seed < first + seeds || operations < wanted {
        let common = Arc::<Mutex<Common>>::default();
        let shown = run(seed, Settings::default(), |world| {
            storm_of_sessions(world, common.clone(), true, STORM)
        });
        if !shown.violations.is_empty() {
            println!("seed {seed} failed: {:#?}", shown.violations);
            failed.push(seed);
        }
        let mut common = common.lock();
        operations += common.operations;
        refused += common.refused;
        token_bytes.append(&mut common.token_bytes);
        seed += 1;
    }
    token_bytes.sort_unstable();
    let at = |part: usize| token_bytes[token_bytes.len() * part / 1_000];
    println!(
        "{} seeds, {operations} operations, {refused} refused, tokens of {} bytes (p50), {} (p99), \
         {} (longest)",
        seed - first,
        at(500),
        at(990),
        token_bytes[token_bytes.len() - 1]
    );
    assert!(failed.is_empty(), "{name} fails with seeds {failed:?}");
    assert!(operations >= (seed - first) * 100, "too little was done");
    // Nodes that do not run refuse as well.
    assert!(refused < operations * 2, "too much was refused");
    assert!(at(990) <= 512, "tokens are too long: {}", at(990));
}

#[test]
fn the_same_course_without_tokens_goes_back() {
    for seed in 0..CONTROL_SEEDS {
        let common = Arc::<Mutex<Common>>::default();
        let shown = run(seed, Settings::default(), |world| {
            storm_of_sessions(world, common, false, STORM)
        });
        if let Some(found) = shown.violations.first() {
            println!(
                "found with seed {seed}: {} violations, the first: {found}",
                shown.violations.len()
            );
            return;
        }
    }
    panic!("{CONTROL_SEEDS} seeds without tokens do not go back");
}
