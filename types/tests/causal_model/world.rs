//! A range with primaries, stand-ins with hints, a network that delays, repeats and loses
//! order, repairs on their way, lost disks and restarts, driven by one seed. Each step is
//! taken by the real store and by the plain rules; a mistake is planted in the real one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_types::causal::{Clock, Delta, Dots, KeyState, RangeImage, RangeStore};
use quorate_types::{Actor, Dot, Timestamp};

use crate::exact::{DotSet, Exact, ExactDelta, ExactState, explicit};
use crate::random::Random;

const PRIMARIES: usize = 3;
const STAND_INS: usize = 2;
const CLIENTS: usize = 4;
const KEYS: usize = 2;
/// Holders that a write is acknowledged by, and primaries that a hint is handed to.
const W: usize = 2;
const STEPS: u64 = 400;
/// The stores are compared once in so many steps. What differs once stays different for long.
const STEPS_A_COMPARISON: u64 = 10;

/// What this field is known to get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A context holds the live dots of a read alone.
    LiveOnly,
    /// A context holds base and live dots: replaced dots beyond base are left out.
    Compact,
    /// A dot of a replaced value leaves the clock.
    Forget,
    /// A hint is deleted once any primary has it, though that one was counted already.
    AnyPrimary,
    /// A lost primary gets the clock first, and its records later.
    ClockFirst,
    /// Repair of a range sends the records of one moment with the clock of a later one.
    ClockNewer,
    /// A lost primary comes back under its old name, with nothing.
    Empty,
    /// What a writer has seen is kept as one maximum per actor.
    Maxima,
}

/// How one run goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Course {
    pub mistake: Option<Mistake>,
    /// One primary is away during the whole run.
    pub away: bool,
}

#[derive(Clone)]
struct Message {
    key: usize,
    exact: ExactDelta,
    real: Delta,
}

/// What a client has seen of a key, in both forms.
#[derive(Clone, Default)]
struct Seen {
    exact: DotSet,
    real: Dots,
}

struct Write {
    key: usize,
    /// All that it replaces, directly or not.
    past: DotSet,
    value: Option<u64>,
}

struct Node {
    /// Its identity: lost disks come back under another one.
    disk: u64,
    start: u32,
    counter: u64,
    exact: Exact,
    real: RangeStore,
}

impl Node {
    fn new(disk: u64) -> Self {
        Self {
            disk,
            start: 1,
            counter: 0,
            exact: Exact::new(KEYS),
            real: RangeStore::new(Actor { disk, start: 1 }),
        }
    }

    fn next_dot(&mut self) -> Dot {
        self.counter += 1;
        let actor = Actor {
            disk: self.disk,
            start: self.start,
        };
        Dot::new(actor, self.counter)
    }

    fn accept(&mut self, message: &Message) {
        self.exact.accept(message.key, &message.exact);
        let _ = self.real.accept(&name(message.key), &message.real);
    }

    fn image(&self) -> Image {
        Image {
            exact: self.exact.image(),
            real: self.real.image(),
        }
    }

    fn join_range(&mut self, image: &Image) {
        self.exact.join_range(&image.exact);
        self.real.join_range(&image.real);
    }
}

#[derive(Clone)]
struct Image {
    exact: (Vec<ExactState>, DotSet),
    real: RangeImage,
}

struct Repair {
    from: u64,
    to: u64,
    image: Image,
    /// Only the clock is of the image's moment; keys are read, and compared, when the repair
    /// goes on, and equal ones are not sent: how hash trees do it.
    piecewise: bool,
}

pub struct World {
    course: Course,
    random: Random,
    nodes: Vec<Node>,
    stand_ins: Vec<Node>,
    /// With the identities of the primaries that have it on disk.
    hints: Vec<(Message, BTreeSet<u64>)>,
    network: Vec<(u64, Message)>,
    repairs: Vec<Repair>,
    /// Whether a full repair has ended since a disk was lost.
    repaired: bool,
    sessions: Vec<Vec<Seen>>,
    writes: BTreeMap<Dot, Write>,
    disks: u64,
}

fn name(key: usize) -> Bytes {
    Bytes::from(format!("key-{key}"))
}

fn payload(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

impl World {
    pub fn new(seed: u64, course: Course) -> Self {
        // Identities from 1: that of the log is 0.
        let disk = |index: usize| index as u64 + 1;
        Self {
            course,
            random: Random::new(seed),
            nodes: (0..PRIMARIES).map(|at| Node::new(disk(at))).collect(),
            stand_ins: (PRIMARIES..PRIMARIES + STAND_INS)
                .map(|at| Node::new(disk(at)))
                .collect(),
            hints: Vec::new(),
            network: Vec::new(),
            repairs: Vec::new(),
            repaired: true,
            sessions: vec![vec![Seen::default(); KEYS]; CLIENTS],
            writes: BTreeMap::new(),
            disks: disk(PRIMARIES + STAND_INS),
        }
    }

    /// Runs to the end, and says what went wrong.
    pub fn run(mut self) -> Result<(), String> {
        for step in 1..=STEPS {
            self.step(step)
                .map_err(|why| format!("step {step}: {why}"))?;
            if step % STEPS_A_COMPARISON == 0 {
                self.compare()
                    .map_err(|why| format!("step {step}: {why}"))?;
            }
        }
        self.deliver_all();
        self.compare()?;
        self.check_end()
    }

    fn step(&mut self, step: u64) -> Result<(), String> {
        let action = self.random.unit();
        let key = self.random.below(KEYS);
        match action {
            at if at < 0.30 => self.write(step, key),
            at if at < 0.50 => return self.read(key),
            at if at < 0.66 => self.deliver(),
            at if at < 0.76 => self.hand_over(),
            at if at < 0.84 => self.repair(key),
            at if at < 0.88 => self.finish_repair(),
            at if at < 0.90 => self.repair_fully(),
            at if at > 0.97 && self.repaired => self.lose_a_disk(),
            at if at > 0.96 => self.restart(),
            _ => {}
        }
        Ok(())
    }

    fn is_away(&self, at: usize) -> bool {
        self.course.away && at == PRIMARIES - 1
    }

    /// The primaries that are up, by index.
    fn up(&self) -> Vec<usize> {
        (0..PRIMARIES).filter(|at| !self.is_away(*at)).collect()
    }

    fn planted(&self, mistake: Mistake) -> bool {
        self.course.mistake == Some(mistake)
    }

    /// A write, at W holders at least; holders from `PRIMARIES` on are stand-ins.
    fn write(&mut self, step: u64, key: usize) {
        let client = self.random.below(CLIENTS);
        let mut holders = self.up();
        holders.extend(PRIMARIES..PRIMARIES + STAND_INS);
        self.random.shuffle(&mut holders);
        holders.truncate(W);
        let seen = match self.random.unit() {
            at if at < 0.7 => self.sessions[client][key].clone(),
            _ => Seen::default(),
        };
        let coordinator = match holders[0] {
            at if at < PRIMARIES => &mut self.nodes[at],
            at => &mut self.stand_ins[at - PRIMARIES],
        };
        let dot = coordinator.next_dot();
        let value = (self.random.unit() >= 0.25).then_some(step);
        let message = self.message(key, dot, value, seen, step);
        for at in &holders {
            match *at {
                at if at < PRIMARIES => self.nodes[at].accept(&message),
                _ => self.hints.push((message.clone(), BTreeSet::new())),
            }
        }
        for at in (0..PRIMARIES).filter(|at| !holders.contains(at)) {
            if self.random.unit() < 0.3 {
                self.network.push((self.nodes[at].disk, message.clone()));
            }
        }
    }

    fn message(
        &mut self,
        key: usize,
        dot: Dot,
        value: Option<u64>,
        seen: Seen,
        step: u64,
    ) -> Message {
        let past = self.past(key, &seen.real);
        self.writes.insert(dot, Write { key, past, value });
        let mut exact = seen.exact;
        if value.is_none() {
            exact.insert(dot);
        }
        let mut context = seen.real;
        if self.planted(Mistake::Maxima) {
            for (actor, counters) in context.clone().actors() {
                let below = (1..counters.top()).map(|counter| Dot::new(actor, counter));
                below.for_each(|dot| {
                    context.insert(dot);
                });
            }
        }
        Message {
            key,
            exact: ExactDelta {
                dot,
                context: exact,
                value,
            },
            real: Delta {
                dot,
                context,
                value: value.map(payload),
                timestamp: Timestamp(step),
                expiry: None,
            },
        }
    }

    /// All that these dots of the key replace, themselves included.
    fn past(&self, key: usize, dots: &Dots) -> DotSet {
        let seen = self
            .writes
            .iter()
            .filter(|(dot, write)| write.key == key && dots.contains(**dot));
        seen.flat_map(|(dot, write)| write.past.iter().copied().chain([*dot]))
            .collect()
    }

    fn read(&mut self, key: usize) -> Result<(), String> {
        let client = self.random.below(CLIENTS);
        let up = self.up();
        let at = up[self.random.below(up.len())];
        let live: Vec<Dot> = self.nodes[at]
            .real
            .record(&name(key))
            .live()
            .map(|(dot, _)| *dot)
            .collect();
        for other in &live {
            if live.iter().any(|dot| self.writes[other].past.contains(dot)) {
                return Err("a read shows a value beside one that had replaced it".to_owned());
            }
        }
        let seen = self.seen_at(at, key);
        let session = &mut self.sessions[client][key];
        if self.random.unit() < 0.5 {
            session.exact.extend(seen.exact);
            session.real.union(&seen.real);
        } else {
            *session = seen;
        }
        if self.planted(Mistake::Forget) {
            self.forget(at, key);
        }
        Ok(())
    }

    fn seen_at(&self, at: usize, key: usize) -> Seen {
        let node = &self.nodes[at];
        let record = node.real.record(&name(key));
        let live: Dots = record.live().map(|(dot, _)| *dot).collect();
        let real = if self.planted(Mistake::LiveOnly) {
            live
        } else if self.planted(Mistake::Compact) {
            let mut context = node.real.clock().base();
            context.union(&live);
            context
        } else {
            record.context(node.real.clock())
        };
        Seen {
            exact: node.exact.context(key),
            real,
        }
    }

    /// The mistake: dead dots leave the clock.
    fn forget(&mut self, at: usize, key: usize) {
        let real = &self.nodes[at].real;
        let record = real.record(&name(key));
        let live: BTreeSet<Dot> = real
            .records()
            .flat_map(|(_, record)| record.live().map(|(dot, _)| *dot).collect::<Vec<_>>())
            .collect();
        let dead: Dots = explicit(real.clock().dots())
            .into_iter()
            .filter(|dot| record.knows(real.clock(), *dot) && !live.contains(dot))
            .collect();
        let mut rebuilt = RangeStore::new(real.actor());
        for (key, record) in real.records() {
            let state = KeyState::of(record.live().cloned(), record.beyond().without(&dead));
            let _ = rebuilt.join_key(key, &state);
        }
        let image = RangeImage {
            clock: Clock::of(real.clock().dots().without(&dead)),
            ..rebuilt.image()
        };
        self.nodes[at].real = RangeStore::filled(real.actor(), image);
    }

    /// Late, repeated, out of order.
    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let (disk, message) = self
            .network
            .swap_remove(self.random.below(self.network.len()));
        if let Some(at) = self.primary(disk)
            && !self.is_away(at)
        {
            self.nodes[at].accept(&message);
        }
        if self.random.unit() < 0.2 {
            self.network.push((disk, message));
        }
    }

    fn primary(&self, disk: u64) -> Option<usize> {
        self.nodes.iter().position(|node| node.disk == disk)
    }

    /// A hint goes to a primary, and is deleted once W primaries, by identity, have it.
    fn hand_over(&mut self) {
        if self.hints.is_empty() {
            return;
        }
        let which = self.random.below(self.hints.len());
        let up = self.up();
        let to = up[self.random.below(up.len())];
        let (message, held_by) = &mut self.hints[which];
        self.nodes[to].accept(message);
        held_by.insert(self.nodes[to].disk);
        let present = self
            .nodes
            .iter()
            .filter(|node| held_by.contains(&node.disk))
            .count();
        let enough = if self.planted(Mistake::AnyPrimary) {
            1
        } else {
            W
        };
        if present >= enough {
            self.hints.swap_remove(which);
        }
    }

    /// Read repair of one key; now and then of the range, which is on its way for a while.
    fn repair(&mut self, key: usize) {
        let mut up = self.up();
        self.random.shuffle(&mut up);
        let (from, to) = (up[0], up[1]);
        if self.random.unit() < 0.7 {
            let exact = self.nodes[from].exact.state(key);
            let real = self.nodes[from].real.state(&name(key));
            self.nodes[to].exact.join(key, &exact);
            let _ = self.nodes[to].real.join_key(&name(key), &real);
        } else {
            self.repairs.push(Repair {
                from: self.nodes[from].disk,
                to: self.nodes[to].disk,
                image: self.nodes[from].image(),
                piecewise: self.random.unit() < 0.5,
            });
        }
    }

    fn finish_repair(&mut self) {
        if self.repairs.is_empty() {
            return;
        }
        let mut repair = self
            .repairs
            .swap_remove(self.random.below(self.repairs.len()));
        if let (Some(from), Some(to)) = (self.primary(repair.from), self.primary(repair.to)) {
            if self.planted(Mistake::ClockNewer) {
                repair.image.real.clock = self.nodes[from].real.clock().clone();
            }
            if repair.piecewise {
                self.join_pieces(from, to, &repair.image);
            } else {
                self.nodes[to].join_range(&repair.image);
            }
        }
    }

    /// Both take for equal what the real records are; the exact ones could tell more, and the
    /// rules must hold without.
    fn join_pieces(&mut self, from: usize, to: usize, clocks: &Image) {
        for key in 0..KEYS {
            let peer = &self.nodes[from];
            if peer.real.record(&name(key)) == self.nodes[to].real.record(&name(key)) {
                continue;
            }
            let (exact, real) = (peer.exact.state(key), peer.real.state(&name(key)));
            self.nodes[to].exact.join(key, &exact);
            let _ = self.nodes[to].real.join_key(&name(key), &real);
        }
        let base = clocks.real.clock.base();
        self.nodes[to].exact.merge_clock(&explicit(&base));
        self.nodes[to].real.merge_base(&base);
    }

    fn repair_fully(&mut self) {
        let up = self.up();
        for (message, _) in &self.hints {
            for at in &up {
                self.nodes[*at].accept(message);
            }
        }
        self.join_all(&up, 2);
        self.repaired = !self.course.away;
    }

    fn join_all(&mut self, nodes: &[usize], rounds: usize) {
        for _ in 0..rounds {
            for from in nodes {
                let image = self.nodes[*from].image();
                for to in nodes.iter().filter(|to| *to != from) {
                    self.nodes[*to].join_range(&image);
                }
            }
        }
    }

    fn lose_a_disk(&mut self) {
        self.repaired = false;
        let lost = self.random.below(PRIMARIES);
        let peer = (lost + 1 + self.random.below(PRIMARIES - 1)) % PRIMARIES;
        let old = self.nodes[lost].disk;
        self.network.retain(|(disk, _)| *disk != old);
        let image = self.nodes[peer].image();
        let mut node = Node::new(self.disks + 1);
        if self.planted(Mistake::Empty) {
            node = Node::new(old);
        } else {
            self.disks += 1;
            node.exact = self.nodes[peer].exact.clone();
            let image = if self.planted(Mistake::ClockFirst) {
                RangeImage {
                    clock: image.real.clock,
                    ..RangeImage::default()
                }
            } else {
                image.real
            };
            node.real = RangeStore::filled(node.real.actor(), image);
        }
        self.nodes[lost] = node;
    }

    /// A node starts again: its writes have a new actor.
    fn restart(&mut self) {
        let node = match self.random.below(PRIMARIES + STAND_INS) {
            at if at < PRIMARIES => &mut self.nodes[at],
            at => &mut self.stand_ins[at - PRIMARIES],
        };
        node.start += 1;
        node.counter = 0;
    }

    fn deliver_all(&mut self) {
        for (message, _) in std::mem::take(&mut self.hints) {
            for node in &mut self.nodes {
                node.accept(&message);
            }
        }
        for (disk, message) in std::mem::take(&mut self.network) {
            if let Some(at) = self.primary(disk) {
                self.nodes[at].accept(&message);
            }
        }
        self.join_all(&[0, 1, 2], 3);
    }

    /// Whether each record knows what its replica's clock holds of the key: else a late copy
    /// would be taken for a new write.
    fn check_clocks(&self) -> Result<(), String> {
        for node in &self.nodes {
            for (dot, write) in &self.writes {
                let clock = node.real.clock();
                let record = node.real.record(&name(write.key));
                if clock.contains(*dot) && !record.knows(clock, *dot) {
                    return Err(format!("node {}: {dot} could come back", node.disk));
                }
            }
        }
        Ok(())
    }

    /// Whether the real stores hold what the plain rules say, by every measure; not where a
    /// mistake is planted, which is for the other checks to find.
    fn compare(&self) -> Result<(), String> {
        self.check_clocks()?;
        if self.course.mistake.is_some() {
            return Ok(());
        }
        for node in &self.nodes {
            if let Err(key) = node.real.validate() {
                return Err(format!("the record of {key:?} breaks its rules"));
            }
            if explicit(node.real.clock().dots()) != node.exact.clock {
                return Err(format!("node {}: another clock", node.disk));
            }
            for key in 0..KEYS {
                let record = node.real.record(&name(key));
                let shown: Vec<_> = record
                    .live()
                    .map(|(dot, value)| (*dot, value.payload.clone()))
                    .collect();
                let meant: Vec<_> = node.exact.live[key]
                    .iter()
                    .map(|(dot, value)| (*dot, payload(*value)))
                    .collect();
                if shown != meant {
                    return Err(format!(
                        "node {}: other live values of key {key}",
                        node.disk
                    ));
                }
                let base = node.real.clock().base();
                if explicit(&record.beyond().without(&base)) != node.exact.beyond[key] {
                    return Err(format!("node {}: another beyond of key {key}", node.disk));
                }
            }
        }
        Ok(())
    }

    fn check_end(&self) -> Result<(), String> {
        let live_of =
            |node: &Node, key| -> Vec<_> { node.real.record(&name(key)).live().cloned().collect() };
        let replaced: DotSet = self
            .writes
            .values()
            .flat_map(|write| write.past.iter().copied())
            .collect();
        for key in 0..KEYS {
            let first = live_of(&self.nodes[0], key);
            if self.nodes.iter().any(|node| live_of(node, key) != first) {
                return Err("primaries differ".to_owned());
            }
        }
        self.check_nothing_is_left()?;
        for (dot, write) in &self.writes {
            let live = live_of(&self.nodes[0], write.key)
                .iter()
                .any(|(other, _)| other == dot);
            if write.value.is_some() && !live && !replaced.contains(dot) {
                return Err(format!("lost: {dot}"));
            }
            if live && replaced.contains(dot) {
                return Err(format!("came back: {dot}"));
            }
        }
        Ok(())
    }

    /// Without gaps, there is a record for each key with live values, and no dot beyond base.
    fn check_nothing_is_left(&self) -> Result<(), String> {
        for node in &self.nodes {
            if !self
                .writes
                .keys()
                .all(|dot| node.real.clock().contains(*dot))
            {
                continue;
            }
            let more = |(_, record): (&Bytes, &quorate_types::causal::Record)| {
                record.live().len() == 0 || !record.beyond().is_empty()
            };
            if node.real.records().any(more) {
                return Err("more than live values and a clock is left".to_owned());
            }
        }
        Ok(())
    }
}
