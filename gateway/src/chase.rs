//! In which order a range's replicas are tried: plain code over values, no waiting and no sending.
//!
//! A hint is followed first, then the replicas in turn. After as many hops as there are replicas
//! (and as many hints again) a pause is due, so that nodes that point at each other cost nothing.

use std::time::Duration;

use quorate_types::NodeId;

/// The first pause between two rounds.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest pause: short against the second that a fail-over may take.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Try this replica.
    Try(NodeId),
    /// All were tried: wait, look for a new leader, go on.
    Pause(Duration),
}

/// The search for a replica that serves one request.
#[derive(Debug)]
pub struct Chase<'a> {
    replicas: &'a [NodeId],
    hint: Option<NodeId>,
    last: Option<NodeId>,
    next: usize,
    hops: usize,
    rounds: u32,
}

impl<'a> Chase<'a> {
    /// A search that begins with `first`, where one is known.
    pub fn new(replicas: &'a [NodeId], first: Option<NodeId>) -> Chase<'a> {
        Chase {
            replicas,
            hint: first,
            last: None,
            next: 0,
            hops: 0,
            rounds: 0,
        }
    }

    /// Takes note of who may serve it. The one that was tried last is no hint.
    pub fn hint(&mut self, hint: Option<NodeId>) {
        self.hint = hint.filter(|hint| Some(*hint) != self.last);
    }

    /// Pauses so far.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// The next step.
    pub fn step(&mut self) -> Step {
        if self.replicas.is_empty() || self.hops >= 2 * self.replicas.len() {
            return self.pause();
        }
        if let Some(hint) = self.hint.take() {
            return self.attempt(hint);
        }
        if self.next >= self.replicas.len() {
            return self.pause();
        }
        let node = self.replicas[self.next];
        self.next += 1;
        if Some(node) == self.last {
            return self.step();
        }
        self.attempt(node)
    }

    fn attempt(&mut self, node: NodeId) -> Step {
        self.hops += 1;
        self.last = Some(node);
        Step::Try(node)
    }

    fn pause(&mut self) -> Step {
        let pause = PAUSE_MIN
            .saturating_mul(1 << self.rounds.min(8))
            .min(PAUSE_MAX);
        self.rounds += 1;
        self.hops = 0;
        self.next = 0;
        self.last = None;
        Step::Pause(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICAS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    fn tried(chase: &mut Chase<'_>) -> Vec<u64> {
        let mut tried = Vec::new();
        while let Step::Try(node) = chase.step() {
            tried.push(node.0);
        }
        tried
    }

    #[test]
    fn all_replicas_each_round() {
        let mut chase = Chase::new(&REPLICAS, None);
        assert_eq!(tried(&mut chase), [1, 2, 3]);
        assert_eq!(tried(&mut chase), [1, 2, 3]);
        assert_eq!(chase.rounds(), 2);
    }

    #[test]
    fn the_hint_is_first_and_not_repeated_at_once() {
        let mut chase = Chase::new(&REPLICAS, Some(NodeId(1)));
        assert_eq!(tried(&mut chase), [1, 2, 3]);
        chase.hint(Some(NodeId(3)));
        assert_eq!(tried(&mut chase), [3, 1, 2, 3]);
    }

    #[test]
    fn nodes_that_point_at_each_other_lead_to_a_pause() {
        let mut chase = Chase::new(&REPLICAS, Some(NodeId(1)));
        let mut hops = 0;
        while let Step::Try(node) = chase.step() {
            let other = if node == NodeId(1) {
                NodeId(2)
            } else {
                NodeId(1)
            };
            chase.hint(Some(other));
            hops += 1;
        }
        assert_eq!(hops, 6);
    }

    #[test]
    fn pauses_grow_to_their_limit() {
        let mut chase = Chase::new(&[], None);
        let pauses: Vec<Step> = (0..6).map(|_| chase.step()).collect();
        assert_eq!(pauses[0], Step::Pause(PAUSE_MIN));
        assert_eq!(pauses[5], Step::Pause(PAUSE_MAX));
    }
}
