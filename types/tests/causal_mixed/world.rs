//! A `mixed` range with primaries, stand-ins with hints, a network and a log that delay,
//! repeat and lose, repairs that take their time, crashes, snapshots and lost disks, driven
//! by one seed.
//!
//! Not here: what clients write (see `writes`), repairs (see `repairs`), what a primary does with
//! what arrives (see `primary`), and the checks of what it shows (see `truth`).

mod repairs;
mod writes;

use std::collections::BTreeSet;

use quorate_types::causal::{Dots, log_dot};
use quorate_types::{Dot, Revision, Timestamp};

use crate::course::{Course, Kind, Mistake};
use crate::primary::{Names, Primary};
use crate::random::Random;
use crate::table::{Disk, Entry, KEYS, Message, Seen, Table};
use crate::truth::{Truth, Write};
use repairs::{Closing, Repair};

pub const PRIMARIES: usize = 3;
const STAND_INS: usize = 2;
const CLIENTS: usize = 4;
/// Holders that a write is acknowledged by, and primaries that a hint is handed to.
const W: usize = 2;
const STEPS: u64 = 300;
/// Steps until a busy time becomes a calm one, in which rows go, and back.
const STEPS_A_TEMPO: u64 = 40;
const STEP_KINDS: usize = 19;
/// How often each kind of step is taken.
const BUSY: [u64; STEP_KINDS] = [18, 12, 8, 9, 12, 12, 5, 2, 7, 5, 5, 3, 2, 2, 2, 1, 1, 6, 1];
const CALM: [u64; STEP_KINDS] = [3, 5, 3, 4, 8, 12, 4, 3, 14, 6, 4, 6, 2, 2, 2, 0, 1, 6, 20];
/// The kind of step that has values expire.
const EXPIRES: usize = 17;
/// Both rules are compared once in so many steps. What differs once stays different for long.
const STEPS_A_COMPARISON: u64 = 10;
/// Rounds of absorption, repair and trimming after which nothing is left.
const ROUNDS_MAX: usize = 8;

pub struct StandIn {
    identity: u64,
    start: u32,
    counter: u64,
}

struct Hint {
    message: Message,
    /// The identities of the primaries that have it on disk.
    held_by: BTreeSet<u64>,
}

pub struct World {
    pub course: Course,
    pub random: Random,
    pub nodes: Vec<Primary>,
    pub stand_ins: Vec<StandIn>,
    hints: Vec<Hint>,
    network: Vec<(u64, Message)>,
    pub repairs: Vec<Repair>,
    /// Starts that are to be closed.
    closing: Option<Closing>,
    log: Vec<(Revision, Entry)>,
    /// What the log has decided up to its end, and at each of its entries.
    head: Table,
    history: Vec<Table>,
    /// Entries on their way to the log, and the length from which on it takes them.
    proposals: Vec<(usize, Entry)>,
    sessions: Vec<Vec<Seen>>,
    pub truth: Truth,
    names: Names,
    identities: u64,
    /// Of disks that were lost.
    left: Vec<u64>,
    /// Whether a full repair has ended since a disk was lost.
    pub repaired: bool,
    requests: u64,
    step: u64,
    /// By how much each kind of step is more frequent than usual, in quarters: each run
    /// has habits of its own, so that rare coincidences are frequent in some (Groce et
    /// al., "Swarm testing", 2012).
    habits: [u64; STEP_KINDS],
    /// How likely a write reaches a primary at once.
    reach: f64,
}

impl World {
    pub fn new(seed: u64, course: Course) -> Self {
        let with_exact = course.mistake.is_none();
        // Identities from 1: that of the log is 0.
        let identity = |index: usize| index as u64 + 1;
        let stand_in = |at| StandIn {
            identity: identity(at),
            start: 1,
            counter: 0,
        };
        let mut random = Random::new(seed);
        let mut head = Table::new(with_exact);
        // A revision is a time: none is 1.
        head.at = Revision(1);
        Self {
            course,
            nodes: (0..PRIMARIES)
                .map(|at| Primary::new(identity(at), Disk::new(with_exact), course))
                .collect(),
            stand_ins: (PRIMARIES..PRIMARIES + STAND_INS).map(stand_in).collect(),
            hints: Vec::new(),
            network: Vec::new(),
            repairs: Vec::new(),
            closing: None,
            log: Vec::new(),
            head,
            history: Vec::new(),
            proposals: Vec::new(),
            sessions: vec![vec![Seen::default(); KEYS]; CLIENTS],
            truth: Truth::new(course.kind),
            names: Names::new(),
            identities: identity(PRIMARIES + STAND_INS),
            left: Vec::new(),
            repaired: true,
            requests: 0,
            step: 0,
            habits: [(); STEP_KINDS].map(|()| [1, 4, 12][random.below(3)]),
            reach: [0.3, 0.6, 0.95][random.below(3)],
            random,
        }
    }

    /// Runs to the end, and says what went wrong.
    pub fn run(mut self) -> Result<(), String> {
        for step in 1..=STEPS {
            self.step = step;
            self.step()
                .and_then(|()| self.check(step % STEPS_A_COMPARISON == 0))
                .map_err(|why| format!("step {step}: {why}"))?;
        }
        self.end()
    }

    fn step(&mut self) -> Result<(), String> {
        let key = self.random.below(KEYS);
        let calm = self.step / STEPS_A_TEMPO % 2 == 1;
        let mut weights = if calm { CALM } else { BUSY };
        for (weight, factor) in weights.iter_mut().zip(&self.habits) {
            *weight *= factor;
        }
        if self.course.kind != Kind::Timed {
            weights[EXPIRES] = 0;
        }
        if calm && self.step.is_multiple_of(STEPS_A_TEMPO) && self.random.unit() < 0.7 {
            self.deliver_all();
            if self.random.unit() < 0.7 {
                self.repair_all()?;
            }
        }
        if self.course.closes {
            self.close_some()?;
        }
        match pick(&mut self.random, &weights) {
            0 => self.write(key),
            1 => self.read(key),
            2 => self.strong_put(key)?,
            3 => self.absorb(),
            4 => self.apply_some()?,
            5 => self.deliver(),
            6 => self.hand_over(),
            7 => self.begin_repair(),
            8 => self.go_on_with_a_repair(),
            9 => self.any().flush(),
            10 => self.any().remember(),
            11 => {
                let at = self.random.below(PRIMARIES);
                self.trim(at)?;
            }
            12 => self.any().give_up(),
            13 => self.crash(),
            14 => self.snapshot(),
            15 => self.repair_fully()?,
            16 if self.repaired => self.lose_a_disk()?,
            16 => {}
            EXPIRES => self.expire(),
            _ => {
                let at = self.random.below(PRIMARIES);
                if self.random.unit() < 0.5 {
                    let leader = (self.step / STEPS_A_TEMPO) as usize / 2 % PRIMARIES;
                    self.absorb_all(leader)?;
                }
                self.apply(at, usize::MAX)?;
                if self.random.unit() < 0.5 {
                    self.nodes[at].flush();
                }
                self.nodes[at].remember();
                self.trim(at)?;
            }
        }
        self.decide_due()
    }

    fn close_some(&mut self) -> Result<(), String> {
        if self.random.unit() < 0.2 {
            self.close()?;
        }
        if self.random.unit() < 0.1 {
            self.any().close_rows();
        }
        Ok(())
    }

    pub fn any(&mut self) -> &mut Primary {
        let at = self.random.below(PRIMARIES);
        &mut self.nodes[at]
    }

    fn read(&mut self, key: usize) {
        let client = self.random.below(CLIENTS);
        let node = &self.nodes[self.random.below(PRIMARIES)];
        let (mut seen, view) = (node.seen(key), node.view(key));
        let live: Dots = view.live().map(|(dot, _)| *dot).collect();
        if self.course.has(Mistake::LiveOnly) {
            seen.real = live;
        } else if self.course.has(Mistake::Compact) {
            let mut base = node.base().real;
            base.union(&node.table.causal.clock(node.table.at).base());
            base.union(&live);
            seen.real = base;
        }
        let joins = self.random.unit() < 0.5;
        let session = &mut self.sessions[client][key];
        if joins {
            session.exact.extend(seen.exact);
            session.real.union(&seen.real);
        } else {
            *session = seen;
        }
    }

    /// A mistake: one maximum per actor.
    fn as_written(&self, seen: &Dots) -> Dots {
        let mut written = seen.clone();
        if self.course.has(Mistake::Maxima) {
            for (actor, counters) in seen.actors() {
                for counter in 1..counters.top() {
                    written.insert(Dot::new(actor, counter));
                }
            }
        }
        written
    }

    /// Absorption, by whoever leads or believes to; it may be late, or never decided.
    fn absorb(&mut self) {
        let Some(absorb) = self.any().propose() else {
            return;
        };
        if self.random.unit() < 0.85 {
            let due = self.log.len() + self.random.below(4);
            self.proposals.push((due, Entry::Absorb(absorb)));
        }
    }

    /// Values whose time is over by the clock of whoever leads or believes to.
    fn expire(&mut self) {
        let now = Timestamp(self.course.kind.clock(self.step));
        let table = &self.any().table;
        let live = (0..KEYS).flat_map(|key| table.live(key).into_iter().map(move |at| (key, at)));
        let due = live.filter_map(|(key, (_, value))| {
            let expiry = value.expiry.filter(|expiry| *expiry <= now)?;
            Some((key, expiry))
        });
        let due: Vec<(usize, Timestamp)> = due.collect();
        if !due.is_empty() {
            let when = self.log.len() + self.random.below(6);
            self.proposals.push((when, Entry::Expire(due)));
        }
    }

    /// A leader whose peers all answer gets everything into the log.
    fn absorb_all(&mut self, at: usize) -> Result<(), String> {
        self.nodes[at].give_up();
        while let Some(absorb) = self.nodes[at].propose() {
            self.decide(Entry::Absorb(absorb))?;
            self.apply(at, usize::MAX)?;
        }
        Ok(())
    }

    fn decide_due(&mut self) -> Result<(), String> {
        let length = self.log.len();
        let (due, later) = std::mem::take(&mut self.proposals)
            .into_iter()
            .partition(|(due, _)| *due <= length);
        self.proposals = later;
        let due: Vec<(usize, Entry)> = due;
        due.into_iter()
            .try_for_each(|(_, entry)| self.decide(entry))
    }

    /// A revision is a time, by the clock of whoever leads, and rises.
    fn next_revision(&mut self) -> Revision {
        let least = self.head.at.0 + 1;
        match self.course.kind {
            Kind::Values | Kind::Counters => Revision(least + self.random.below(3) as u64),
            Kind::Timed => {
                let clock = self.step.saturating_sub(self.random.below(20) as u64);
                Revision(least.max(clock))
            }
        }
    }

    /// The log's next entry, and what it does.
    fn decide(&mut self, mut entry: Entry) -> Result<(), String> {
        let at = self.next_revision();
        if self.course.has(Mistake::ClockNewer)
            && let Entry::Absorb(absorb) = &mut entry
            && let Some(node) = self
                .nodes
                .iter()
                .find(|node| node.identity == absorb.from.0)
        {
            absorb.base = absorb.base.as_ref().map(|_| node.base());
        }
        let live_before = |key| self.head.live(key).into_iter().map(|(dot, _)| dot);
        if let Entry::Put(put) = &entry
            && !self.head.knows_request(put.request)
        {
            let mut seen = put.seen.real.clone();
            live_before(put.key).for_each(|dot| {
                seen.insert(dot);
            });
            let write = Write {
                key: put.key,
                past: self.truth.past(put.key, &seen),
                value: put.value,
                counted: BTreeSet::new(),
                expiry: put
                    .value
                    .and_then(|value| self.course.kind.expiry_of(value)),
            };
            self.truth.add(log_dot(at), write);
        }
        let before: Vec<Dots> = (0..KEYS).map(|key| live_before(key).collect()).collect();
        let repeated = matches!(&entry, Entry::Put(put) if self.head.knows_request(put.request));
        self.head.apply(at, &entry, &self.course, &[]);
        self.check_decided(at, &entry, &before, repeated)?;
        for key in 0..KEYS {
            self.truth
                .check(key, &self.head.state(key))
                .map_err(|why| format!("the log: {why}"))?;
        }
        self.log.push((at, entry));
        self.history.push(self.head.without_exact());
        Ok(())
    }

    /// What an entry has no right to.
    fn check_decided(
        &mut self,
        at: Revision,
        entry: &Entry,
        before: &[Dots],
        repeated: bool,
    ) -> Result<(), String> {
        let undone = |key: usize| {
            let left: Dots = self.head.live(key).iter().map(|(dot, _)| *dot).collect();
            crate::exact::explicit(&before[key].without(&left))
        };
        match entry {
            Entry::Put(put) if repeated && !undone(put.key).is_empty() => {
                Err("a repeated write undid others".to_owned())
            }
            Entry::Delta(message) => {
                let write = &self.truth.writes[&message.real.dot];
                // What an increment knows beside what it folds is dead by other writes.
                let is_known = self.course.kind == Kind::Counters;
                let unseen =
                    |dot: &Dot| !(write.past.contains(dot) || is_known && self.truth.is_gone(*dot));
                match undone(message.key).iter().any(unseen) {
                    true => Err("a ladder undid what it had not seen".to_owned()),
                    false => Ok(()),
                }
            }
            Entry::Expire(_) => {
                let expired = (0..KEYS).flat_map(undone).collect();
                self.truth.expired(at, &expired)
            }
            Entry::Put(_) | Entry::Absorb(_) | Entry::Close(_) => Ok(()),
        }
    }

    fn apply_some(&mut self) -> Result<(), String> {
        let at = self.random.below(PRIMARIES);
        let count = 1 + self.random.below(4);
        self.apply(at, count)
    }

    fn apply(&mut self, at: usize, count: usize) -> Result<(), String> {
        for _ in 0..count {
            let node = &mut self.nodes[at];
            let index = node.table.index;
            let Some((revision, entry)) = self.log.get(index) else {
                return Ok(());
            };
            node.apply(*revision, entry);
            if !node.table.is_like(&self.history[index]) {
                return Err("committed state differs at equal positions".to_owned());
            }
        }
        Ok(())
    }

    /// Late, repeated, out of order.
    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let which = self.random.below(self.network.len());
        let (identity, message) = self.network.swap_remove(which);
        if let Some(at) = self.node(identity) {
            self.nodes[at].accept(&message);
        }
        if self.random.unit() < 0.2 {
            self.network.push((identity, message));
        }
    }

    pub fn node(&self, identity: u64) -> Option<usize> {
        self.nodes.iter().position(|node| node.identity == identity)
    }

    /// A hint goes to a primary, and is deleted once W primaries, by identity, have it.
    fn hand_over(&mut self) {
        if self.hints.is_empty() {
            return;
        }
        let which = self.random.below(self.hints.len());
        let to = self.random.below(PRIMARIES);
        let hint = &mut self.hints[which];
        self.nodes[to].accept(&hint.message);
        hint.held_by.insert(self.nodes[to].identity);
        let present = self
            .nodes
            .iter()
            .filter(|node| hint.held_by.contains(&node.identity));
        if present.count() >= W {
            self.hints.swap_remove(which);
        }
    }

    fn trim(&mut self, at: usize) -> Result<(), String> {
        let identity = self.nodes[at].identity;
        let compared = self.repairs.iter().any(|repair| repair.to == identity);
        if !compared || self.course.has(Mistake::TrimInRepair) {
            self.nodes[at].trim()?;
        }
        Ok(())
    }

    /// Its repairs end with it.
    fn crash(&mut self) {
        let at = self.random.below(PRIMARIES + STAND_INS);
        if at >= PRIMARIES {
            let stand_in = &mut self.stand_ins[at - PRIMARIES];
            stand_in.start += 1;
            stand_in.counter = 0;
            return;
        }
        let identity = self.nodes[at].identity;
        self.repairs.retain(|repair| repair.to != identity);
        self.nodes[at].restart();
    }

    fn snapshot(&mut self) {
        let mut nodes: Vec<usize> = (0..PRIMARIES).collect();
        self.random.shuffle(&mut nodes);
        let peer = self.nodes[nodes[0]].disk.clone();
        let node = &mut self.nodes[nodes[1]];
        if peer.table().index > node.table.index {
            node.install(&peer);
        }
    }

    /// The one that comes in its place takes part once its log's state, on its disk, is as new
    /// as the log was when it came: the starts that are closed by then it will never hear of.
    fn lose_a_disk(&mut self) -> Result<(), String> {
        self.repaired = false;
        self.closing = None;
        let lost = self.random.below(PRIMARIES);
        let peer = (lost + 1 + self.random.below(PRIMARIES - 1)) % PRIMARIES;
        let old = self.nodes[lost].identity;
        self.network.retain(|(identity, _)| *identity != old);
        self.left.push(old);
        self.identities += 1;
        let disk = self.nodes[peer].disk.clone();
        self.nodes[lost] = Primary::new(self.identities, disk, self.course);
        self.apply(lost, usize::MAX)?;
        self.nodes[lost].flush();
        Ok(())
    }

    /// All hints to all, and all that is in the network.
    fn deliver_all(&mut self) {
        for hint in std::mem::take(&mut self.hints) {
            for node in &mut self.nodes {
                node.accept(&hint.message);
            }
        }
        for (identity, message) in std::mem::take(&mut self.network) {
            if let Some(at) = self.node(identity) {
                self.nodes[at].accept(&message);
            }
            if self.random.unit() < 0.2 {
                self.network.push((identity, message));
            }
        }
    }

    fn check(&self, thoroughly: bool) -> Result<(), String> {
        for (at, node) in self.nodes.iter().enumerate() {
            if !node.touched.replace(false) && !thoroughly {
                continue;
            }
            for key in 0..KEYS {
                self.truth
                    .check(key, &node.view(key))
                    .map_err(|why| format!("node {at}: {why}"))?;
            }
            self.truth
                .check_claims(node)
                .map_err(|why| format!("node {at}: {why}"))?;
            if thoroughly {
                node.compare(&self.names)
                    .map_err(|why| format!("node {at}: {why}"))?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        self.repairs.clear();
        for (_, entry) in std::mem::take(&mut self.proposals) {
            self.decide(entry)?;
        }
        self.repair_fully()?;
        if self.course.closes {
            (0..PRIMARIES).for_each(|at| self.nodes[at].restart());
            self.stand_ins.iter_mut().for_each(|at| at.start += 1);
            self.repair_fully()?;
            self.close()?;
        }
        for _ in 0..ROUNDS_MAX {
            self.settle_all()?;
            self.check(true)?;
        }
        self.check_end()
    }

    fn settle_all(&mut self) -> Result<(), String> {
        for at in 0..PRIMARIES {
            self.absorb_all(at)?;
        }
        self.repair_all()?;
        for node in &mut self.nodes {
            node.close_rows();
            node.remember();
            node.remember();
            node.trim()?;
        }
        Ok(())
    }

    fn check_end(&self) -> Result<(), String> {
        for (at, node) in self.nodes.iter().enumerate() {
            for key in 0..KEYS {
                self.truth.check_end(key, &node.view(key))?;
                let live = |node: &Primary| -> Vec<_> { node.view(key).live().cloned().collect() };
                if live(node) != live(&self.nodes[0]) {
                    return Err(format!("node {at}: the views of key {key} differ"));
                }
            }
            if !node.is_settled() {
                return Err(format!("node {at}: an overlay is left"));
            }
            if node.table.causal.beyond_keys() > 0 {
                return Err(format!("node {at}: dots beyond base are left"));
            }
        }
        Ok(())
    }
}

/// Which of several things, by their weights.
fn pick(random: &mut Random, weights: &[u64]) -> usize {
    let mut left = random.next() % weights.iter().sum::<u64>();
    let at = weights
        .iter()
        .position(|weight| match left.checked_sub(*weight) {
            Some(less) => {
                left = less;
                false
            }
            None => true,
        });
    at.expect("it is below the sum")
}
