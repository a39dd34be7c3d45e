//! Whether any order of each key's writes gives the transactions a serial order.
//!
//! For each two writes of a key, one came first, and all who read the first precede the second.
//! What follows is drawn on; what stays open is tried both ways. Exponential at worst, so it is
//! bounded in size and steps. (The problem is NP-complete: Papadimitriou, "The Serializability of
//! Concurrent Database Updates", 1979.)

use super::graph::{Allowed, Graph, Ground, Why};
use super::register::Version;
use crate::budget::{Budget, Spent};

/// Transactions of the largest history for which this is tried.
pub(super) const EXACT_MAX_TRANSACTIONS: usize = 500;
/// Choices that are tried at most.
const CHOICES_MAX: u32 = 20_000;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exact {
    /// There is an order.
    Some,
    /// There is none.
    None,
    /// Too many choices to say.
    TooMany,
}

/// Who surely precedes whom: a row of bits for each transaction.
#[derive(Clone)]
struct Before {
    words: usize,
    bits: Vec<u64>,
}

impl Before {
    fn has(&self, from: u32, to: u32) -> bool {
        let word = self.bits[from as usize * self.words + to as usize / 64];
        word >> (to % 64) & 1 == 1
    }

    fn set(&mut self, from: u32, to: u32) {
        self.bits[from as usize * self.words + to as usize / 64] |= 1 << (to % 64);
    }

    /// Adds a pair, and all that follows; false if that is a contradiction.
    fn add(&mut self, from: u32, to: u32) -> bool {
        if from == to || self.has(to, from) {
            return false;
        }
        if self.has(from, to) {
            return true;
        }
        let count = self.bits.len() / self.words;
        let gained: Vec<u64> = (0..self.words)
            .map(|word| {
                let own = if to as usize / 64 == word {
                    1 << (to % 64)
                } else {
                    0
                };
                self.bits[to as usize * self.words + word] | own
            })
            .collect();
        for node in 0..count as u32 {
            if node == from || self.has(node, from) {
                let row = &mut self.bits[node as usize * self.words..][..self.words];
                row.iter_mut()
                    .zip(&gained)
                    .for_each(|(bits, more)| *bits |= more);
            }
        }
        true
    }
}

/// Two versions of a key whose order is open.
type Choice<'a> = (&'a Version, &'a Version);

/// Looks for an order. The graph has no cycle.
pub(super) fn exists(
    graph: &Graph,
    transactions: usize,
    versions: &[&Version],
    ground: Ground,
    budget: &mut Budget<'_>,
) -> Result<Exact, Spent> {
    let mut before = known(graph, transactions, ground);
    let mut choices = Vec::new();
    for (at, one) in versions.iter().enumerate() {
        for other in &versions[at + 1..] {
            if one.key == other.key {
                choices.push((*one, *other));
            }
        }
    }
    let mut tried = 0;
    search(&mut before, &mut choices, &mut tried, budget)
}

/// Who precedes whom along the graph's edges.
fn known(graph: &Graph, transactions: usize, ground: Ground) -> Before {
    let allowed = Allowed {
        why: Why::ReadWrite,
        ground,
    };
    let words = transactions.div_ceil(64).max(1);
    let mut before = Before {
        words,
        bits: vec![0; words * transactions],
    };
    for start in 0..transactions as u32 {
        let mut seen = vec![false; graph.nodes() as usize];
        let mut open = vec![start];
        while let Some(node) = open.pop() {
            for (to, kind) in graph.from(node) {
                if allowed.has(*kind) && !seen[*to as usize] {
                    seen[*to as usize] = true;
                    open.push(*to);
                    if graph.is_transaction(*to) {
                        before.set(start, *to);
                    }
                }
            }
        }
    }
    before
}

/// Puts one version before the other; false if that is a contradiction.
fn decide(before: &mut Before, (first, second): Choice<'_>) -> bool {
    let readers = first.readers.iter();
    let mut readers = readers.filter(|reader| **reader != second.writer);
    before.add(first.writer, second.writer)
        && readers.all(|reader| before.add(*reader, second.writer))
}

fn search(
    before: &mut Before,
    choices: &mut Vec<Choice<'_>>,
    tried: &mut u32,
    budget: &mut Budget<'_>,
) -> Result<Exact, Spent> {
    // Draws on what only one order is left for, until nothing new follows.
    loop {
        let open = choices.len();
        let mut stuck = false;
        let mut left = Vec::new();
        for (one, other) in choices.drain(..) {
            let forwards = decide(&mut before.clone(), (one, other));
            let backwards = decide(&mut before.clone(), (other, one));
            match (forwards, backwards) {
                (true, true) => left.push((one, other)),
                (true, false) => stuck |= !decide(before, (one, other)),
                (false, true) => stuck |= !decide(before, (other, one)),
                (false, false) => stuck = true,
            }
            budget.step(0)?;
        }
        *choices = left;
        if stuck {
            return Ok(Exact::None);
        }
        if choices.len() == open || choices.is_empty() {
            break;
        }
    }
    let Some((one, other)) = choices.pop() else {
        return Ok(Exact::Some);
    };
    *tried += 1;
    if *tried > CHOICES_MAX {
        return Ok(Exact::TooMany);
    }
    for choice in [(one, other), (other, one)] {
        let mut further = before.clone();
        if !decide(&mut further, choice) {
            continue;
        }
        match search(&mut further, &mut choices.clone(), tried, budget)? {
            Exact::None => {}
            decided => return Ok(decided),
        }
    }
    Ok(Exact::None)
}
