//! The entries that a replica's part of the node log is made of: what was taken in, so that it
//! can be taken in again after a crash.
//!
//! Each entry opens with its kind (one byte). Lengths are `u32`, big-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_types::causal::{Actor, Dot};
use quorate_types::{NodeId, Timestamp};

const ACCEPT: u8 = 1;
const JOIN: u8 = 2;
const MERGE: u8 = 3;
const KEEP: u8 = 4;
const HELD: u8 = 5;
const FORGET: u8 = 6;
const FILLED: u8 = 7;
const EXPIRE: u8 = 8;
const LEFT: u8 = 9;
const CLOSE: u8 = 10;
const SEED: u8 = 11;
const TRIM: u8 = 12;

/// A hint as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The encoded key.
    pub key: Bytes,
    /// The delta, encoded.
    pub delta: Bytes,
    /// Distinct primaries that must have it before it may be deleted; 0: a courtesy, which no
    /// acknowledgement counted on.
    pub wanted: u8,
    /// Primaries known to have it on disk.
    pub holders: Vec<NodeId>,
}

/// One change of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A write.
    Accept {
        /// The encoded key.
        key: Bytes,
        /// Its deltas, encoded: one, or all parts of a typed update.
        deltas: Vec<Bytes>,
    },
    /// What others know of a key.
    Join {
        /// The encoded key.
        key: Bytes,
        /// The state, encoded.
        state: Bytes,
    },
    /// The base of a peer's clock, after a full repair.
    Merge {
        /// Encoded.
        clock: Bytes,
    },
    /// Hints are kept.
    Keep {
        /// By the names of their writes.
        hints: Vec<(Dot, Hint)>,
    },
    /// A primary has taken these over.
    Held {
        /// Who.
        node: NodeId,
        /// Which writes.
        dots: Vec<Dot>,
    },
    /// Hints that are not needed any more.
    Forget {
        /// Which writes.
        dots: Vec<Dot>,
    },
    /// A new primary has been filled: it may answer.
    Filled,
    /// In a `mixed` range, a row of a key that had none, as the log has decided it.
    Seed {
        /// The encoded key.
        key: Bytes,
        /// The row.
        record: Bytes,
    },
    /// In a `mixed` range, rows of which the log's state on this disk knows all.
    Trim {
        /// The encoded keys.
        keys: Vec<Bytes>,
    },
    /// The node holds the range no more, and those who do have all that it held.
    Left,
    /// Finished starts of nodes are closed: what was not seen of them never was.
    Close {
        /// For each disk, the lowest start that is not closed.
        starts: Vec<(u64, u32)>,
    },
    /// Values that expired at or before a moment are dead.
    Expire {
        /// The node's clock, less what it may be wrong.
        deadline: Timestamp,
        /// Whose values.
        keys: Vec<Bytes>,
    },
}

fn put_bytes(to: &mut BytesMut, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("entries are far below 4 GiB");
    to.put_u32(length);
    to.put_slice(bytes);
}

fn put_dot(to: &mut BytesMut, dot: Dot) {
    to.put_u64(dot.actor.disk);
    to.put_u32(dot.actor.start);
    to.put_u64(dot.counter);
}

fn put_count(to: &mut BytesMut, count: usize) {
    to.put_u32(u32::try_from(count).expect("steps are bounded"));
}

fn put_dots(to: &mut BytesMut, dots: &[Dot]) {
    put_count(to, dots.len());
    for dot in dots {
        put_dot(to, *dot);
    }
}

fn take_bytes(from: &mut Bytes) -> Option<Bytes> {
    let length = from.try_get_u32().ok()? as usize;
    (length <= from.len()).then(|| from.split_to(length))
}

fn take_dot(from: &mut Bytes) -> Option<Dot> {
    let disk = from.try_get_u64().ok()?;
    let start = from.try_get_u32().ok()?;
    let counter = from.try_get_u64().ok()?;
    Some(Dot::new(Actor { disk, start }, counter))
}

/// As many as are announced; what is cut short ends with the bytes, not with the memory.
fn take_list<T>(from: &mut Bytes, take: impl Fn(&mut Bytes) -> Option<T>) -> Option<Vec<T>> {
    let count = from.try_get_u32().ok()?;
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(take(from)?);
    }
    Some(list)
}

impl Hint {
    fn put(&self, to: &mut BytesMut) {
        put_bytes(to, &self.key);
        put_bytes(to, &self.delta);
        to.put_u8(self.wanted);
        to.put_u8(u8::try_from(self.holders.len()).unwrap_or(u8::MAX));
        for holder in self.holders.iter().take(usize::from(u8::MAX)) {
            to.put_u64(holder.0);
        }
    }

    fn take(from: &mut Bytes) -> Option<Hint> {
        let key = take_bytes(from)?;
        let delta = take_bytes(from)?;
        let wanted = from.try_get_u8().ok()?;
        let count = from.try_get_u8().ok()?;
        let holders = (0..count).map(|_| from.try_get_u64().ok().map(NodeId));
        let holders = holders.collect::<Option<_>>()?;
        Some(Hint {
            key,
            delta,
            wanted,
            holders,
        })
    }

    /// As a row holds it.
    pub fn encode(&self) -> Bytes {
        let mut to = BytesMut::with_capacity(self.bytes());
        self.put(&mut to);
        to.freeze()
    }

    /// What [`Hint::encode`] wrote; `None` for anything else.
    pub fn decode(mut from: Bytes) -> Option<Hint> {
        Hint::take(&mut from).filter(|_| from.is_empty())
    }

    /// What it takes on disk, about.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.delta.len() + 8 * self.holders.len() + 10
    }
}

impl Step {
    /// As the log holds it.
    pub fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        match self {
            Step::Accept { key, deltas } => {
                let bytes: usize = deltas.iter().map(|delta| 4 + delta.len()).sum();
                to.reserve(9 + key.len() + bytes);
                to.put_u8(ACCEPT);
                put_bytes(&mut to, key);
                put_count(&mut to, deltas.len());
                for delta in deltas {
                    put_bytes(&mut to, delta);
                }
            }
            Step::Join { key, state } => {
                to.put_u8(JOIN);
                put_bytes(&mut to, key);
                put_bytes(&mut to, state);
            }
            Step::Merge { clock } => {
                to.put_u8(MERGE);
                put_bytes(&mut to, clock);
            }
            Step::Keep { hints } => {
                to.put_u8(KEEP);
                put_count(&mut to, hints.len());
                for (dot, hint) in hints {
                    put_dot(&mut to, *dot);
                    hint.put(&mut to);
                }
            }
            Step::Held { node, dots } => {
                to.put_u8(HELD);
                to.put_u64(node.0);
                put_dots(&mut to, dots);
            }
            Step::Forget { dots } => {
                to.put_u8(FORGET);
                put_dots(&mut to, dots);
            }
            Step::Filled => to.put_u8(FILLED),
            Step::Seed { key, record } => {
                to.put_u8(SEED);
                put_bytes(&mut to, key);
                put_bytes(&mut to, record);
            }
            Step::Trim { keys } => {
                to.put_u8(TRIM);
                put_count(&mut to, keys.len());
                for key in keys {
                    put_bytes(&mut to, key);
                }
            }
            Step::Left => to.put_u8(LEFT),
            Step::Close { starts } => {
                to.put_u8(CLOSE);
                put_count(&mut to, starts.len());
                for (disk, start) in starts {
                    to.put_u64(*disk);
                    to.put_u32(*start);
                }
            }
            Step::Expire { deadline, keys } => {
                to.put_u8(EXPIRE);
                to.put_u64(deadline.0);
                put_count(&mut to, keys.len());
                for key in keys {
                    put_bytes(&mut to, key);
                }
            }
        }
        to.freeze()
    }

    /// What [`Step::encode`] wrote; `None` for anything else.
    pub fn decode(mut from: Bytes) -> Option<Step> {
        let step = match from.try_get_u8().ok()? {
            ACCEPT => Step::Accept {
                key: take_bytes(&mut from)?,
                deltas: take_list(&mut from, take_bytes)?,
            },
            JOIN => Step::Join {
                key: take_bytes(&mut from)?,
                state: take_bytes(&mut from)?,
            },
            MERGE => Step::Merge {
                clock: take_bytes(&mut from)?,
            },
            KEEP => Step::Keep {
                hints: take_list(&mut from, |from| Some((take_dot(from)?, Hint::take(from)?)))?,
            },
            HELD => Step::Held {
                node: NodeId(from.try_get_u64().ok()?),
                dots: take_list(&mut from, take_dot)?,
            },
            FORGET => Step::Forget {
                dots: take_list(&mut from, take_dot)?,
            },
            FILLED => Step::Filled,
            SEED => Step::Seed {
                key: take_bytes(&mut from)?,
                record: take_bytes(&mut from)?,
            },
            TRIM => Step::Trim {
                keys: take_list(&mut from, take_bytes)?,
            },
            LEFT => Step::Left,
            CLOSE => Step::Close {
                starts: take_list(&mut from, |from| {
                    Some((from.try_get_u64().ok()?, from.try_get_u32().ok()?))
                })?,
            },
            EXPIRE => Step::Expire {
                deadline: Timestamp(from.try_get_u64().ok()?),
                keys: take_list(&mut from, take_bytes)?,
            },
            _ => return None,
        };
        from.is_empty().then_some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_survive_the_log_and_nothing_else_decodes() {
        let dot = Dot::new(Actor { disk: 7, start: 1 }, 3);
        let hint = Hint {
            key: Bytes::from_static(b"k"),
            delta: Bytes::from_static(b"delta"),
            wanted: 2,
            holders: vec![NodeId(4)],
        };
        let (key, other) = (Bytes::from_static(b"key"), Bytes::from_static(b"other"));
        let steps = [
            Step::Accept {
                key: key.clone(),
                deltas: vec![other.clone(), other.clone()],
            },
            Step::Join {
                key: key.clone(),
                state: other.clone(),
            },
            Step::Seed {
                key: key.clone(),
                record: other.clone(),
            },
            Step::Trim {
                keys: vec![key, other.clone()],
            },
            Step::Merge { clock: other },
            Step::Keep {
                hints: vec![(dot, hint.clone())],
            },
            Step::Held {
                node: NodeId(1),
                dots: vec![dot, dot],
            },
            Step::Forget { dots: vec![dot] },
            Step::Filled,
            Step::Left,
            Step::Close {
                starts: vec![(7, 2)],
            },
            Step::Expire {
                deadline: Timestamp(9),
                keys: vec![hint.key.clone()],
            },
        ];
        for step in steps {
            let bytes = step.encode();
            assert_eq!(Step::decode(bytes.clone()), Some(step));
            for end in 0..bytes.len() {
                assert_eq!(Step::decode(bytes.slice(..end)), None);
            }
        }
        assert_eq!(Hint::decode(hint.encode()), Some(hint));
    }
}
