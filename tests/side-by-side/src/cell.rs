//! What is measured: one cell is one kind of request at one load, on one store.

use std::fmt;

/// Streams that requests in flight are spread over, where there are as many.
const STREAMS: usize = 4;

/// How many nodes a request of the eventual path waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Copies {
    /// Any one.
    One,
    /// More than half of the replicas.
    Quorum,
}

/// When a node has a write of the eventual path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ack {
    /// Once it is on disk.
    Disk,
    /// Once it is in memory; it reaches the disk later.
    Memory,
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Writes of 256 bytes, durable on a majority.
    Put,
    /// Linearizable reads.
    Get,
    /// Reads of what the asked node has (etcd: serializable).
    StaleGet,
    /// Writes of 256 bytes, until a watcher at another node has their event.
    Watch,
    /// A call that does nothing: the bound of all unary calls.
    Empty,
    /// Writes of 256 bytes without consensus.
    EventualPut(Copies, Ack),
    /// Reads without consensus.
    EventualGet(Copies),
}

impl Work {
    /// Whether it writes.
    pub const fn is_put(self) -> bool {
        matches!(self, Self::Put | Self::Watch | Self::EventualPut(..))
    }
}

impl fmt::Display for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "one",
            Self::Quorum => "quorum",
        })
    }
}

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        })
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put => f.write_str("put"),
            Self::Get => f.write_str("linearizable get"),
            Self::StaleGet => f.write_str("stale get"),
            Self::Watch => f.write_str("put until watched"),
            Self::Empty => f.write_str("empty call"),
            Self::EventualPut(copies, ack) => write!(f, "put at {copies}, ack = {ack}"),
            Self::EventualGet(copies) => write!(f, "get at {copies}"),
        }
    }
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
        let work = self.work;
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
