//! A key's context as clients carry it: opaque bytes, bound to their key.
//!
//! The binding and the checksum catch mistakes: a context of another key, cut short, or sent
//! to another cluster. They are no signature; what a forger can still claim is bounded by
//! [`refuse_unwritten`](Context::refuse_unwritten). Not here: session tokens.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::encoding::{DecodeError, Reader, Writer};
use super::{Actor, Dot, Dots};
use crate::stable_hash::stable_hash;

const VERSION: u8 = 1;

/// Longest context that is taken from a client.
pub const CONTEXT_MAX_BYTES: usize = 64 << 10;

const CHECKSUM_BYTES: usize = 4;
const SHORT_HASH_BYTES: usize = 4;
const KEY_HASH_BYTES: usize = 8;

/// Which dots of a key a reader has seen. Opaque to clients, who send it back with their
/// next write of that key; as text it is hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Context(#[serde(with = "crate::hex")] pub Bytes);

/// What a context belongs to. Bytes that differ wherever the things differ: a restored
/// keyspace is another one.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The cluster's identity.
    pub cluster: &'a [u8],
    /// The keyspace's identity and incarnation.
    pub keyspace: &'a [u8],
    /// The key.
    pub key: &'a [u8],
}

/// Why a context is refused. Nothing was stored, and a retry with it fails again: read the
/// key for a new one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ContextError {
    /// It has fewer bytes than it says.
    #[error("the context is cut short: {found} bytes where {expected} were written")]
    Truncated {
        /// Its length.
        found: usize,
        /// The length that it should have.
        expected: usize,
    },
    /// It has more bytes than any.
    #[error("the context has {found} bytes; at most {CONTEXT_MAX_BYTES} are taken")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// Another version of Quorate wrote it.
    #[error("the context has version {found}, which this version of Quorate does not know")]
    Version {
        /// Its version.
        found: u8,
    },
    /// Its checksum fails: it was changed on its way.
    #[error("the context is damaged: its checksum fails")]
    Damaged,
    /// It is of a key of another cluster.
    #[error("the context is of another cluster")]
    OtherCluster,
    /// It is of a key of another keyspace, or of one from before a restore.
    #[error("the context is of another keyspace, or older than its restore")]
    OtherKeyspace,
    /// It is of another key.
    #[error("the context is of another key")]
    OtherKey,
    /// Its checksum is right, and what it holds is no set of dots.
    #[error("the context does not decode")]
    Malformed(#[source] DecodeError),
    /// It claims to have seen a write that was never made.
    #[error("the context is forged: it names the write {0}, which was never made")]
    Unwritten(Dot),
}

impl Context {
    /// Seals what a reader of a key has seen: version byte, length of all that follows,
    /// CRC-32 of all that follows it, short hashes of cluster, keyspace and key, dots.
    pub fn seal(seen: &Dots, binding: &Binding<'_>) -> Self {
        let mut body = Writer::default();
        body.raw(&short_hash(binding.cluster));
        body.raw(&short_hash(binding.keyspace));
        body.raw(&stable_hash(binding.key).to_be_bytes());
        seen.encode(&mut body);
        let body = body.finish_vec();
        let mut sealed = Writer::versioned(VERSION);
        sealed.count(CHECKSUM_BYTES + body.len());
        sealed.raw(&crc32fast::hash(&body).to_be_bytes());
        sealed.raw(&body);
        Self(sealed.finish())
    }

    /// What the reader had seen.
    ///
    /// # Errors
    ///
    /// [`ContextError`] for anything that [`Context::seal`] did not make for this binding.
    pub fn open(&self, binding: &Binding<'_>) -> Result<Dots, ContextError> {
        let mut from = self.unsealed()?;
        let mut is_of = |length, expected: &[u8]| {
            let found = from
                .raw("context", length)
                .map_err(ContextError::Malformed)?;
            Ok(found == expected)
        };
        if !is_of(SHORT_HASH_BYTES, &short_hash(binding.cluster))? {
            return Err(ContextError::OtherCluster);
        }
        if !is_of(SHORT_HASH_BYTES, &short_hash(binding.keyspace))? {
            return Err(ContextError::OtherKeyspace);
        }
        if !is_of(KEY_HASH_BYTES, &stable_hash(binding.key).to_be_bytes())? {
            return Err(ContextError::OtherKey);
        }
        let seen = Dots::decode(&mut from).map_err(ContextError::Malformed)?;
        from.finish().map_err(ContextError::Malformed)?;
        Ok(seen)
    }

    /// The body, after length, version and checksum were looked at.
    fn unsealed(&self) -> Result<Reader, ContextError> {
        let found = self.0.len();
        if found > CONTEXT_MAX_BYTES {
            return Err(ContextError::TooLong { found });
        }
        let cut = |_| ContextError::Truncated {
            found,
            expected: found + 1,
        };
        let mut from = Reader::new(&self.0);
        match from.byte("context").map_err(cut)? {
            VERSION => {}
            other => return Err(ContextError::Version { found: other }),
        }
        let length = from.number("context").map_err(cut)?;
        let rest = from.rest();
        if (rest.len() as u64) < length {
            let missing = usize::try_from(length - rest.len() as u64).unwrap_or(usize::MAX);
            let expected = found.saturating_add(missing);
            return Err(ContextError::Truncated { found, expected });
        }
        let mut from = Reader::new(&rest);
        let checksum = from.raw("checksum", CHECKSUM_BYTES).map_err(cut)?;
        let body = from.rest();
        if rest.len() as u64 > length || crc32fast::hash(&body).to_be_bytes() != *checksum {
            return Err(ContextError::Damaged);
        }
        Ok(Reader::new(&body))
    }

    /// Refuses what names a write of `actor` above `last`, or of a later start of its disk.
    ///
    /// The coordinator, which knows what it has given out, asks this of what a client has
    /// seen: such dots would kill writes that are yet to be made.
    ///
    /// # Errors
    ///
    /// [`ContextError::Unwritten`] with the highest such dot.
    pub fn refuse_unwritten(seen: &Dots, actor: Actor, last: u64) -> Result<(), ContextError> {
        let later = |other: Actor| other.disk == actor.disk && other.start > actor.start;
        for (other, counters) in seen.actors() {
            if later(other) || (other == actor && counters.top() > last) {
                return Err(ContextError::Unwritten(Dot::new(other, counters.top())));
            }
        }
        if seen.is_closed(actor) {
            return Err(ContextError::Unwritten(Dot::new(actor, u64::MAX)));
        }
        Ok(())
    }
}

fn short_hash(bytes: &[u8]) -> [u8; SHORT_HASH_BYTES] {
    (stable_hash(bytes) as u32).to_be_bytes()
}
