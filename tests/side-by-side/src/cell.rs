//! What is measured: one cell is one kind of request at one load, on one store.

use std::fmt;

/// Streams that requests in flight are spread over, where there are as many.
const STREAMS: usize = 4;

/// The loads under which puts must not become slower: requests in flight.
pub const SCALE: [usize; 5] = [1, 8, 64, 256, 1000];

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Writes of 256 bytes, durable on a majority.
    Put,
    /// Linearizable reads.
    Get,
    /// Reads of what the asked node has (etcd: serializable).
    StaleGet,
    /// A call that does nothing: the bound of all unary calls.
    Empty,
}

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// One call a request; in flight are as many as there are clients.
    Unary,
    /// Few clients, each with many requests in flight on a stream.
    Streams,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// The kind of request.
    pub work: Work,
    /// How they travel.
    pub way: Way,
    /// How many are in flight.
    pub in_flight: usize,
    /// Over how many ranges the keys are spread (etcd has one).
    pub ranges: u16,
}

impl Cell {
    /// By unary calls in one range.
    pub const fn unary(work: Work, clients: usize) -> Self {
        Self {
            work,
            way: Way::Unary,
            in_flight: clients,
            ranges: 1,
        }
    }

    /// On streams in so many ranges.
    pub const fn streams(work: Work, in_flight: usize, ranges: u16) -> Self {
        Self {
            work,
            way: Way::Streams,
            in_flight,
            ranges,
        }
    }

    /// Clients, and the requests that each has in flight.
    pub fn clients_and_depth(&self) -> (usize, usize) {
        match self.way {
            Way::Unary => (self.in_flight, 1),
            Way::Streams => {
                let clients = self.in_flight.min(STREAMS);
                (clients, self.in_flight / clients)
            }
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = match self.work {
            Work::Put => "put",
            Work::Get => "linearizable get",
            Work::StaleGet => "stale get",
            Work::Empty => "empty call",
        };
        match self.way {
            Way::Unary => write!(f, "{work}, {} client(s), unary", self.in_flight)?,
            Way::Streams => write!(f, "{work}, {} in flight on streams", self.in_flight)?,
        }
        match self.ranges {
            1 => Ok(()),
            ranges => write!(f, ", {ranges} ranges"),
        }
    }
}

/// The cells of etcd: it knows unary calls and one range.
pub fn etcd_cells() -> Vec<Cell> {
    let puts = SCALE.map(|clients| Cell::unary(Work::Put, clients));
    let gets = [
        Cell::unary(Work::Get, 64),
        Cell::unary(Work::Get, 256),
        Cell::unary(Work::StaleGet, 64),
    ];
    [puts.as_slice(), &gets].concat()
}

/// The cells of Quorate.
pub fn quorate_cells() -> Vec<Cell> {
    let unary = [Cell::unary(Work::Put, 1), Cell::unary(Work::Put, 64)];
    let puts = SCALE.map(|in_flight| Cell::streams(Work::Put, in_flight, 1));
    let others = [
        Cell::streams(Work::Put, 256, 16),
        Cell::unary(Work::Get, 64),
        Cell::streams(Work::Get, 256, 1),
        Cell::unary(Work::StaleGet, 64),
        Cell::unary(Work::Empty, 64),
    ];
    [unary.as_slice(), &puts, &others].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_asked_is_in_flight() {
        for cell in etcd_cells().into_iter().chain(quorate_cells()) {
            let (clients, depth) = cell.clients_and_depth();
            assert_eq!(clients * depth, cell.in_flight, "{cell}");
        }
    }
}
