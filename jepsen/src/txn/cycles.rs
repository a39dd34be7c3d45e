//! Cycles of transactions, sorted into Adya's kinds: the least surprising ones first.
//!
//! Components tell *that* there are cycles, in linear time; a search in breadth from one edge of
//! each wanted kind makes a short one of it. That search is bounded: in a huge component a rarer
//! kind may be missed beside the others, and then the result says so. Whether a cycle without two
//! adjacent read-write edges exists (which decides snapshot isolation) is bounded as well.
//! (Adya, "Weak Consistency", 1999; Cerone and Gotsman, "Analysing Snapshot Isolation", 2018;
//! Kingsbury and Alvaro, "Elle", 2020.)

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use super::components::components;
use super::graph::{Allowed, Graph, Ground, Kind, Why};
use crate::budget::{Budget, Spent};
use crate::hash::{QuickMap, QuickSet};
use crate::report::FINDINGS_SHOWN_MAX;

/// Edges that one search of a kind of cycle starts from, at most, in one component.
const STARTS_MAX: usize = 2_000;
/// Nodes that all searches of a kind visit together, at most, in one component.
const VISITS_MAX: usize = 2_000_000;

/// A cycle: transactions, each with why the next one (the first, after the last) comes after it.
pub type Cycle = Vec<(u32, Kind)>;

/// What was found.
#[derive(Debug, Default)]
pub struct Cycles {
    /// Cycles by name, a few of each.
    pub found: Vec<(String, Cycle)>,
    /// Something was not searched to the end: there may be kinds that are not in `found`.
    pub partial: bool,
}

/// The name of a cycle, by its edges.
pub fn name(cycle: &Cycle) -> String {
    let is_rw = |at: usize| cycle[at % cycle.len()].1.why == Why::ReadWrite;
    let rw = (0..cycle.len()).filter(|at| is_rw(*at)).count();
    let adjacent = (0..cycle.len()).any(|at| is_rw(at) && is_rw(at + 1));
    let has_wr = cycle.iter().any(|(_, kind)| kind.why == Why::WriteRead);
    let base = match (rw, has_wr) {
        (0, false) => "G0",
        (0, true) => "G1c",
        (1, _) => "G-single",
        _ if !adjacent => "G-nonadjacent",
        _ => "G2-item",
    };
    let suffix = match cycle.iter().map(|(_, kind)| kind.ground).max() {
        Some(Ground::Session) => "-process",
        Some(Ground::Realtime) => "-realtime",
        Some(Ground::Values) | None => "",
    };
    format!("{base}{suffix}")
}

/// What a search looks for: a cycle through an edge of one reason, the rest of it restricted.
struct Wanted {
    start: Why,
    rest: Why,
    /// No read-write edge next to another.
    nonadjacent: bool,
}

const WANTED: [Wanted; 5] = [
    // G0
    Wanted {
        start: Why::WriteWrite,
        rest: Why::WriteWrite,
        nonadjacent: false,
    },
    // G1c
    Wanted {
        start: Why::WriteRead,
        rest: Why::WriteRead,
        nonadjacent: false,
    },
    // G-single
    Wanted {
        start: Why::ReadWrite,
        rest: Why::WriteRead,
        nonadjacent: false,
    },
    // G-nonadjacent
    Wanted {
        start: Why::ReadWrite,
        rest: Why::ReadWrite,
        nonadjacent: true,
    },
    // G2-item
    Wanted {
        start: Why::ReadWrite,
        rest: Why::ReadWrite,
        nonadjacent: false,
    },
];

/// Looks for cycles in a graph, on any ground up to one.
///
/// # Errors
///
/// The budget ran out before it was clear whether there is any.
pub fn cycles(graph: &Graph, ground: Ground, budget: &mut Budget<'_>) -> Result<Cycles, Spent> {
    let all = Allowed {
        why: Why::ReadWrite,
        ground,
    };
    let mut cycles = Cycles::default();
    let knots = components(graph, all, None);
    budget.look()?;
    let knotted: Vec<u32> = knots.iter().flatten().copied().collect();
    let mut searched = Ok(());
    for ground in Ground::ALL.into_iter().filter(|at| *at <= ground) {
        for wanted in &WANTED {
            let mut search = Search {
                graph,
                ground,
                wanted,
                cycles: &mut cycles,
            };
            searched = searched.and_then(|()| search.all(&knotted, budget));
        }
    }
    cycles.partial |= searched.is_err();
    if cycles.found.is_empty()
        && let Some(knot) = knots.first()
    {
        let found = any(graph, all, knot);
        cycles.found.push((name(&found), found));
    }
    Ok(cycles)
}

/// Any cycle of a component, where no search got to one: a transaction, and a way back to it.
fn any(graph: &Graph, allowed: Allowed, knot: &[u32]) -> Cycle {
    let way = Way {
        graph,
        allowed,
        members: &knot.iter().copied().collect(),
        nonadjacent: false,
    };
    let mut starts = knot.iter().filter(|node| graph.is_transaction(**node));
    let found = starts.find_map(|start| {
        let mut first = graph.from(*start).iter();
        first.find_map(|(to, kind)| {
            let wanted = allowed.has(*kind) && way.members.contains(to);
            let path = wanted.then(|| way.find((*to, *start), *kind, &mut 0))??;
            Some(cycle(graph, *start, *kind, &path))
        })
    });
    found.expect("a strongly connected component has a way back to each of its transactions")
}

struct Search<'a> {
    graph: &'a Graph,
    ground: Ground,
    wanted: &'a Wanted,
    cycles: &'a mut Cycles,
}

impl Search<'_> {
    /// Looks for cycles of the wanted kind among nodes that lie on cycles.
    fn all(&mut self, knotted: &[u32], budget: &mut Budget<'_>) -> Result<(), Spent> {
        let why = self.wanted.rest.max(self.wanted.start);
        let allowed = Allowed {
            why,
            ground: self.ground,
        };
        for part in components(self.graph, allowed, Some(knotted)) {
            if self.part(&part, budget)? {
                break;
            }
        }
        Ok(())
    }

    /// Looks in one component; true if enough were found.
    fn part(&mut self, part: &[u32], budget: &mut Budget<'_>) -> Result<bool, Spent> {
        let (graph, wanted) = (self.graph, self.wanted);
        let members: QuickSet<u32> = part.iter().copied().collect();
        let way = Way {
            graph,
            allowed: Allowed {
                why: wanted.rest,
                ground: self.ground,
            },
            members: &members,
            nonadjacent: wanted.nonadjacent,
        };
        let (mut starts, mut visits) = (0, 0);
        for node in part.iter().filter(|node| graph.is_transaction(**node)) {
            for (to, kind) in graph.from(*node) {
                let starts_here = kind.why == wanted.start && kind.ground <= self.ground;
                if !starts_here || !members.contains(to) {
                    continue;
                }
                if starts >= STARTS_MAX || visits >= VISITS_MAX {
                    self.cycles.partial = true;
                    return Ok(false);
                }
                starts += 1;
                budget.look()?;
                let found = way.find((*to, *node), *kind, &mut visits);
                if found.is_some_and(|way| self.take(cycle(graph, *node, *kind, &way))) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Takes a cycle, unless there are enough of its name; true if there are now.
    fn take(&mut self, cycle: Cycle) -> bool {
        let name = name(&cycle);
        let known = self.cycles.found.iter();
        let known = known.filter(|(other, _)| *other == name).count();
        if known < FINDINGS_SHOWN_MAX && !self.is_known(&cycle) {
            self.cycles.found.push((name, cycle));
        }
        known + 1 >= FINDINGS_SHOWN_MAX
    }

    fn is_known(&self, cycle: &Cycle) -> bool {
        let sorted = |cycle: &Cycle| {
            let mut members: Vec<u32> = cycle.iter().map(|(node, _)| *node).collect();
            members.sort_unstable();
            members
        };
        let members = sorted(cycle);
        self.cycles
            .found
            .iter()
            .any(|(_, other)| sorted(other) == members)
    }
}

/// A node of the search, with whether the way came there over a read-write edge.
type Spot = (u32, bool);

/// A way that is looked for, to close a circle.
struct Way<'a> {
    graph: &'a Graph,
    allowed: Allowed,
    /// The nodes that it may lead through.
    members: &'a QuickSet<u32>,
    /// No read-write edge next to another.
    nonadjacent: bool,
}

impl Way<'_> {
    fn may(&self, after_rw: bool, kind: Kind) -> bool {
        let adjacent = after_rw && kind.why == Why::ReadWrite;
        self.allowed.has(kind) && !(self.nonadjacent && adjacent)
    }

    /// The shortest way from one node to another: nodes, each with the edge that leaves it. The
    /// way came over an edge of the kind `over`, and that edge comes again after it.
    fn find(
        &self,
        (from, to): (u32, u32),
        over: Kind,
        visits: &mut usize,
    ) -> Option<Vec<(u32, Kind)>> {
        let over_rw = over.why == Why::ReadWrite;
        let start = (from, over_rw);
        let mut came: QuickMap<Spot, (Spot, Kind)> = QuickMap::default();
        let mut queue = VecDeque::from([start]);
        came.insert(start, (start, over));
        while let Some(spot) = queue.pop_front() {
            // Back at the start: the first edge follows, and must be allowed there.
            if spot.0 == to && !(self.nonadjacent && spot.1 && over_rw) {
                return Some(back(&came, start, spot));
            }
            for (next, kind) in self.graph.from(spot.0) {
                if !self.members.contains(next) || !self.may(spot.1, *kind) {
                    continue;
                }
                *visits += 1;
                let after_rw = match kind.why {
                    Why::Link => spot.1,
                    Why::WriteWrite | Why::WriteRead | Why::Order => false,
                    Why::ReadWrite => true,
                };
                if let Entry::Vacant(place) = came.entry((*next, after_rw)) {
                    place.insert((spot, *kind));
                    queue.push_back((*next, after_rw));
                }
            }
        }
        None
    }
}

/// The way back along a search's traces.
fn back(came: &QuickMap<Spot, (Spot, Kind)>, start: Spot, end: Spot) -> Vec<(u32, Kind)> {
    let mut way = Vec::new();
    let mut spot = end;
    while spot != start {
        let (before, kind) = came[&spot];
        way.push((before.0, kind));
        spot = before;
    }
    way.reverse();
    way
}

/// A cycle without its joints: each transaction with the reason that it is left for.
fn cycle(graph: &Graph, start: u32, first: Kind, path: &[(u32, Kind)]) -> Cycle {
    let mut cycle = vec![(start, first)];
    let real = path.iter().filter(|(node, _)| graph.is_transaction(*node));
    cycle.extend(real);
    cycle
}
