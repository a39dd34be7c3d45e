//! The causal store of one range, as plain code over values: names of writes, what a replica
//! has taken in, deltas and their joins, and the conflict policies over what is live.
//!
//! The rules are those of dotted version vectors with one clock for many keys (Gonçalves,
//! Almeida, Baquero, Fonte: "DottedDB: anti-entropy without Merkle trees, deletes without
//! tombstones", 2017) and of delta-state CRDTs (Almeida, Shoker, Baquero 2018). A write is a
//! [`Delta`]: its own dot with its value, and the dots that it replaces. A replica of a range
//! holds one [`Clock`], and per key a [`Record`]. The gapless part of the clock is its *base*;
//! a dot of a key that is in the base or in the record's `beyond`, and not live, is dead for
//! ever. So a record without live values and without dots beyond the base says nothing that
//! the clock does not say, and is removed.
//!
//! Every rule is a function over one clock and one record ([`accept`], [`join_key`],
//! [`settle`], [`expire`]), so that a store may keep its records where it likes;
//! [`RangeStore`] keeps them in memory. What a store of many records has to do about the
//! ones that a growing base sets free is [`Unsettled`]'s.
//!
//! Not here: who holds what, hints, quorums, repair's messages (the eventual path has them);
//! clocks and disks. An actor's range is the one that its clock stands in; every encoding
//! opens with a version byte, which leaves room for actors of other ranges.

mod clock;
mod committed;
mod context;
mod delta;
mod dots;
mod encoding;
mod evaluate;
mod intervals;
mod join;
pub mod overlay;
mod part;
mod record;
mod store;
mod unsettled;
mod write;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::ParseError;

pub use clock::Clock;
pub use committed::{Committed, Stored, log_dot};
pub use context::{Binding, CONTEXT_MAX_BYTES, Context, ContextError};
pub use delta::Delta;
pub use dots::Dots;
pub use encoding::DecodeError;
pub use evaluate::{EvaluateError, Field, KeyReading, Reading, Shown, evaluate};
pub use intervals::Intervals;
pub use join::{Outcome, accept, expire, join_key, join_range, settle};
pub use part::{MAP_DEPTH_MAX, Part, PartError};
pub use record::{KeyState, Record, Value};
pub use store::{RangeImage, RangeStore};
pub use unsettled::Unsettled;
pub use write::{Limits, Planned, Seen, Update, WriteError, beside, plan};

/// Who names writes: one start of one disk identity, in the range whose clock it stands in.
/// A node takes a new start number, synced, each time it starts, so no dot is given twice.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Actor {
    /// The identity of the disk; a node that lost its disk takes a new one. Never 0.
    pub disk: u64,
    /// The how-manieth start of a node on that disk.
    pub start: u32,
}

impl Actor {
    /// The range's Raft log, whose dots are its own numbers.
    pub const LOG: Actor = Actor { disk: 0, start: 0 };
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::LOG {
            return f.write_str("log");
        }
        write!(f, "{:x}.{}", self.disk, self.start)
    }
}

/// The unique name of one write: the how-manieth of which actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who named it.
    pub actor: Actor,
    /// The actor's count of writes in the range, from 1.
    pub counter: u64,
}

impl Dot {
    /// The `counter`th write of `actor`.
    pub const fn new(actor: Actor, counter: u64) -> Self {
        Self { actor, counter }
    }
}

impl FromStr for Dot {
    type Err = ParseError;

    /// What [`Dot`] is shown as, but for the log's own.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parts = || {
            let (actor, counter) = text.split_once(':')?;
            let (disk, start) = actor.split_once('.')?;
            let disk = u64::from_str_radix(disk, 16).ok()?;
            let start = start.parse().ok()?;
            Some(Dot::new(Actor { disk, start }, counter.parse().ok()?))
        };
        parts().ok_or_else(|| ParseError::new("name of a write", text, "NODE.START:COUNT"))
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.actor, self.counter)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_of_writes_are_read_as_they_are_shown() {
        let dot = Dot::new(
            Actor {
                disk: 0x1f,
                start: 3,
            },
            12,
        );
        assert_eq!(dot.to_string().parse::<Dot>().unwrap(), dot);
        for text in ["", "log:4", "1.2", "1:2", "1.2:x", "g.1:1", "1.2:3:4"] {
            assert!(text.parse::<Dot>().is_err(), "{text}");
        }
    }
}
