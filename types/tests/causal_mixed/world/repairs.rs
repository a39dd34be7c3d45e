//! Repairs, a key at a time while everything else goes on, or of all by all; and the closing
//! of starts, which waits for the latter.
//!
//! Not here: what a primary does with what a repair brings (see `primary`).

use quorate_types::Actor;
use quorate_types::causal::{Clock, KeyState};

use super::{PRIMARIES, World};
use crate::course::Mistake;
use crate::exact::ExactState;
use crate::primary::explicit_among;
use crate::table::{Closed, Entry, KEYS, Seen};

/// Repairs that are open at a time.
const REPAIRS_MAX: usize = 2;

/// What one primary tells another of, a key at a time.
pub struct Repair {
    pub from: u64,
    pub to: u64,
    /// The sender's base, from before the first key was looked at.
    pub base: Seen,
    /// How many rows had begun at the receiver then.
    pub beginnings: u64,
    pub keys: Vec<usize>,
    /// The index that the receiver's disk must have before it may merge the base; none while
    /// keys are left.
    pub needed: Option<usize>,
}

/// Starts that are to be closed.
pub struct Closing {
    /// Who does it, unless it starts again.
    leader: Actor,
    finished: Closed,
}

impl World {
    pub fn begin_repair(&mut self) {
        let mut nodes: Vec<usize> = (0..PRIMARIES).collect();
        self.random.shuffle(&mut nodes);
        if self.repairs.len() == REPAIRS_MAX {
            return self.go_on_with_a_repair();
        }
        let mut repair = self.repair(nodes[0], nodes[1]);
        self.random.shuffle(&mut repair.keys);
        self.repairs.push(repair);
    }

    fn repair(&self, from: usize, to: usize) -> Repair {
        Repair {
            from: self.nodes[from].identity,
            to: self.nodes[to].identity,
            base: self.nodes[from].base(),
            beginnings: self.nodes[to].beginnings,
            keys: (0..KEYS).collect(),
            needed: None,
        }
    }

    pub fn go_on_with_a_repair(&mut self) {
        if self.repairs.is_empty() {
            return;
        }
        let which = self.random.below(self.repairs.len());
        let mut repair = self.repairs.swap_remove(which);
        if !self.advance(&mut repair) {
            self.repairs.push(repair);
        }
    }

    /// Compares the next key, or ends. Says whether nothing is left to do.
    fn advance(&mut self, repair: &mut Repair) -> bool {
        let (Some(from), Some(to)) = (self.node(repair.from), self.node(repair.to)) else {
            return true;
        };
        if let Some(key) = repair.keys.pop() {
            self.exchange(from, to, key);
            return false;
        }
        let (sender, receiver) = (&self.nodes[from], &self.nodes[to]);
        let needed = *repair
            .needed
            .get_or_insert(sender.durable().index.max(receiver.table.index));
        if receiver.durable().index < needed && !self.course.has(Mistake::MergeAtOnce) {
            // It may wait for that, or leave the base to the next repair.
            return self.random.unit() < 0.3;
        }
        self.nodes[to].merge(&repair.base, repair.beginnings);
        true
    }

    /// Rows that are equal, and no row on both sides, are left out.
    fn exchange(&mut self, from: usize, to: usize, key: usize) {
        let sender = &self.nodes[from];
        if sender.rows.get(&key) != self.nodes[to].rows.get(&key) {
            let state: (KeyState, ExactState) = (sender.view(key), sender.exact_view(key));
            self.nodes[to].join(key, &state);
        }
    }

    /// All that waits is delivered, decided, applied and on disk; then all repair from all.
    /// Finished starts are to be closed once the log has what that repair found.
    pub fn repair_fully(&mut self) -> Result<(), String> {
        self.deliver_all();
        if self.course.has(Mistake::CloseEarly) {
            self.decide(Entry::Close(self.finished()))?;
        }
        self.repair_all()?;
        self.repaired = true;
        if !self.course.closes {
            return Ok(());
        }
        let finished = self.finished();
        if self.course.has(Mistake::CloseUnabsorbed) {
            return self.decide(Entry::Close(finished));
        }
        if self.course.has(Mistake::CloseUndecided) {
            let nodes = self.nodes.iter_mut();
            nodes.for_each(|node| node.close(finished.real.dots()));
            return Ok(());
        }
        let leader = &self.nodes[self.random.below(PRIMARIES)];
        self.closing = Some(Closing {
            leader: leader.actor(),
            finished,
        });
        Ok(())
    }

    /// The end of a closing, some time after all primaries have repaired: the leader of that time
    /// has the log take in its rows, and then what is closed.
    pub fn close(&mut self) -> Result<(), String> {
        let Some(closing) = self.closing.take() else {
            return Ok(());
        };
        let leader = self
            .nodes
            .iter()
            .position(|node| node.actor() == closing.leader);
        let Some(leader) = leader else { return Ok(()) };
        self.absorb_all(leader)?;
        self.decide(Entry::Close(closing.finished))
    }

    /// Twice from all to all, with nothing in between.
    pub fn repair_all(&mut self) -> Result<(), String> {
        for at in 0..PRIMARIES {
            self.apply(at, usize::MAX)?;
            self.nodes[at].flush();
        }
        for _ in 0..2 {
            for (from, to) in (0..PRIMARIES * PRIMARIES).map(|at| (at / PRIMARIES, at % PRIMARIES))
            {
                if from != to {
                    let mut repair = self.repair(from, to);
                    while !self.advance(&mut repair) {}
                }
            }
        }
        Ok(())
    }

    /// The starts that are over, and the disks that left. No node holds a hint of theirs.
    pub fn finished(&self) -> Closed {
        let nodes = self.nodes.iter().map(|node| (node.identity, node.start));
        let stand_ins = self.stand_ins.iter().map(|at| (at.identity, at.start));
        let left = self.left.iter().map(|identity| (*identity, u32::MAX));
        let mut real = Clock::default();
        for (identity, start) in nodes.chain(stand_ins).chain(left) {
            real.close(identity, start);
        }
        let exact = explicit_among(real.dots(), &self.names);
        Closed { real, exact }
    }
}
