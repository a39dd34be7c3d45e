//! Names of writes, and what a reader has seen: room in the record formats for the eventual
//! path. Not here: the causal stores that give these their meaning.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The unique name of one write: the how-manieth of which actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who wrote: one start of one disk identity in one range.
    pub actor: u64,
    /// The actor's count of writes, from 1.
    pub counter: u64,
}

/// Which dots of a key a reader has seen. Opaque to clients, who send it back with their
/// next write of that key; as text it is hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Context(#[serde(with = "crate::hex")] pub Bytes);
