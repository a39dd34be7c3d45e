//! Graphs of transactions: who must come before whom, and why. Edges first, then rows.
//!
//! Besides transactions there are *joints*: nodes that stand for nobody, through which many edges
//! run as few. An edge's kind is told where a transaction is left; from a joint on it is a link.

/// Why one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// The second overwrote what the first wrote.
    WriteWrite,
    /// The second read what the first wrote.
    WriteRead,
    /// The second overwrote what the first read.
    ReadWrite,
    /// The order of a process, or of time.
    Order,
    /// From a joint onwards: the kind was told before.
    Link,
}

/// What an edge rests on beyond the transactions' own values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ground {
    /// Nothing.
    Values,
    /// Each process sees its own transactions in order.
    Session,
    /// What ended before another thing began came before it.
    Realtime,
}

impl Ground {
    /// All of them, the weakest assumption first.
    pub const ALL: [Self; 3] = [Self::Values, Self::Session, Self::Realtime];
}

/// The kind of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    /// Why.
    pub why: Why,
    /// On what ground.
    pub ground: Ground,
}

impl Kind {
    /// A kind that rests on values alone.
    pub const fn of(why: Why) -> Self {
        Self {
            why,
            ground: Ground::Values,
        }
    }

    /// A kind that rests on some ground.
    pub const fn on(why: Why, ground: Ground) -> Self {
        Self { why, ground }
    }
}

/// Which edges a search may take.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// The reason that goes furthest: `WriteWrite` alone, with `WriteRead`, or all.
    pub why: Why,
    /// The strongest ground.
    pub ground: Ground,
}

impl Allowed {
    /// Whether an edge of a kind may be taken.
    pub fn has(self, kind: Kind) -> bool {
        let why = match kind.why {
            Why::WriteWrite | Why::WriteRead | Why::ReadWrite => kind.why <= self.why,
            Why::Order | Why::Link => true,
        };
        why && kind.ground <= self.ground
    }
}

/// Edges as they are found.
#[derive(Debug)]
pub struct Edges {
    transactions: u32,
    nodes: u32,
    list: Vec<(u32, u32, Kind)>,
}

impl Edges {
    /// None yet, between so many transactions.
    pub fn new(transactions: u32) -> Self {
        Self {
            transactions,
            nodes: transactions,
            list: Vec::new(),
        }
    }

    /// Adds an edge; one from a node to itself says nothing, and is left out.
    pub fn add(&mut self, from: u32, to: u32, kind: Kind) {
        if from != to {
            self.list.push((from, to, kind));
        }
    }

    /// A new joint.
    pub fn joint(&mut self) -> u32 {
        self.nodes += 1;
        self.nodes - 1
    }

    /// Adds edges from each of `from` to each of `to`, but never from one to itself, in linear
    /// size: two rows of joints along `to`, one backwards, one forwards. Both lists rise.
    pub fn add_all(&mut self, from: &[u32], to: &[u32], kind: Kind) {
        const FEW: usize = 16;
        if from.len() * to.len() <= FEW {
            for from in from {
                for to in to {
                    self.add(*from, *to, kind);
                }
            }
            return;
        }
        let link = Kind::of(Why::Link);
        let rows = to.iter().map(|to| {
            let pair = (self.joint(), self.joint());
            self.add(pair.0, *to, link);
            self.add(pair.1, *to, link);
            pair
        });
        let rows: Vec<(u32, u32)> = rows.collect();
        for pair in rows.windows(2) {
            self.add(pair[1].0, pair[0].0, link);
            self.add(pair[0].1, pair[1].1, link);
        }
        for from in from {
            // All before the first that is not smaller, and all behind it if it is the same.
            let at = to.partition_point(|to| to < from);
            if let Some(before) = at.checked_sub(1) {
                self.add(*from, rows[before].0, kind);
            }
            let next = at + usize::from(to.get(at) == Some(from));
            if let Some((_, forwards)) = rows.get(next) {
                self.add(*from, *forwards, kind);
            }
        }
    }

    /// Rows of edges by node.
    pub fn into_graph(self) -> Graph {
        let mut starts = vec![0u32; self.nodes as usize + 1];
        for (from, ..) in &self.list {
            starts[*from as usize + 1] += 1;
        }
        for node in 0..self.nodes as usize {
            starts[node + 1] += starts[node];
        }
        let mut at = starts.clone();
        let mut edges = vec![(0, Kind::of(Why::Link)); self.list.len()];
        for (from, to, kind) in &self.list {
            let place = &mut at[*from as usize];
            edges[*place as usize] = (*to, *kind);
            *place += 1;
        }
        Graph {
            transactions: self.transactions,
            starts,
            edges,
        }
    }
}

/// A graph that does not change any more.
#[derive(Debug)]
pub struct Graph {
    transactions: u32,
    starts: Vec<u32>,
    edges: Vec<(u32, Kind)>,
}

impl Graph {
    /// How many nodes there are, joints included.
    pub fn nodes(&self) -> u32 {
        self.starts.len() as u32 - 1
    }

    /// Whether a node is a transaction, not a joint.
    pub fn is_transaction(&self, node: u32) -> bool {
        node < self.transactions
    }

    /// The edges that leave a node.
    pub fn from(&self, node: u32) -> &[(u32, Kind)] {
        let node = node as usize;
        &self.edges[self.starts[node] as usize..self.starts[node + 1] as usize]
    }
}
