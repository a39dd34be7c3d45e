//! Session tokens: what a client has written and read so far, as opaque bytes that it carries.
//!
//! Per range a revision; the format leaves room for the dots of the eventual plane. A token has a
//! bounded size: beyond [`TOKEN_RANGES_MAX`] the lowest revisions are dropped, and a floor is
//! raised that then holds for every range that is not named. Since revisions are times, that asks
//! at most for fresher state than needed, never for older. Not here: waiting for a replica.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};
use quorate_types::{RangeId, Revision};

use crate::errors::GatewayError;
use crate::seal::{self, ClusterTag, Kind};

/// Most ranges that one token names.
pub const TOKEN_RANGES_MAX: usize = 512;
/// Longest token that is taken, by far above what we give.
pub const TOKEN_MAX_BYTES: usize = 64 << 10;

/// What a client has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionToken {
    floor: Revision,
    ranges: BTreeMap<RangeId, Revision>,
}

impl SessionToken {
    /// Reads a token that a client sent.
    ///
    /// # Errors
    ///
    /// `TOKEN_INVALID`: damaged, or of another cluster or version.
    pub fn decode(cluster: ClusterTag, sealed: &Bytes) -> Result<SessionToken, GatewayError> {
        let refused = |problem| GatewayError::SessionToken { problem };
        if sealed.len() > TOKEN_MAX_BYTES {
            return Err(refused("longer than any of ours"));
        }
        let body = seal::open(Kind::Session, cluster, sealed).map_err(refused)?;
        Self::decode_body(body).ok_or_else(|| refused("cannot be read"))
    }

    fn decode_body(mut body: Bytes) -> Option<SessionToken> {
        let floor = Revision(body.try_get_u64().ok()?);
        let count = body.try_get_u16().ok()?;
        let mut ranges = BTreeMap::new();
        for _ in 0..count {
            let range = RangeId(body.try_get_u64().ok()?);
            let revision = Revision(body.try_get_u64().ok()?);
            let dots_bytes = usize::from(body.try_get_u16().ok()?);
            // Dots are of a later version's eventual plane: a reader without one skips them.
            if body.remaining() < dots_bytes {
                return None;
            }
            body.advance(dots_bytes);
            ranges.insert(range, revision);
        }
        (!body.has_remaining()).then_some(SessionToken { floor, ranges })
    }

    /// The token's bytes.
    pub fn encode(&self, cluster: ClusterTag) -> Bytes {
        seal::seal(Kind::Session, cluster, |body| {
            body.put_u64(self.floor.0);
            let count = u16::try_from(self.ranges.len()).expect("TOKEN_RANGES_MAX is below 65536");
            body.put_u16(count);
            for (range, revision) in &self.ranges {
                body.put_u64(range.0);
                body.put_u64(revision.0);
                body.put_u16(0);
            }
        })
    }

    /// What a replica of this range must have applied (or closed) to serve the session.
    pub fn wanted(&self, range: RangeId) -> Revision {
        self.ranges.get(&range).copied().unwrap_or(self.floor)
    }

    /// Takes note of something written to or read from a range.
    pub fn saw(&mut self, range: RangeId, revision: Revision) {
        let known = self.ranges.entry(range).or_insert(self.floor);
        *known = (*known).max(revision);
        while self.ranges.len() > TOKEN_RANGES_MAX {
            self.drop_lowest();
        }
    }

    /// Takes over all that another token has seen.
    pub fn join(&mut self, other: &SessionToken) {
        let floor = self.floor.max(other.floor);
        let both: Vec<RangeId> = self
            .ranges
            .keys()
            .chain(other.ranges.keys())
            .copied()
            .collect();
        for range in both {
            let wanted = self.wanted(range).max(other.wanted(range));
            self.ranges.insert(range, wanted);
        }
        self.floor = floor;
        while self.ranges.len() > TOKEN_RANGES_MAX {
            self.drop_lowest();
        }
    }

    fn drop_lowest(&mut self) {
        let lowest = self.ranges.iter().min_by_key(|(_, revision)| **revision);
        if let Some((range, revision)) = lowest.map(|(range, revision)| (*range, *revision)) {
            self.ranges.remove(&range);
            self.floor = self.floor.max(revision);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn tag() -> ClusterTag {
        ClusterTag::of(b"cluster")
    }

    #[test]
    fn round_trip() {
        let mut token = SessionToken::default();
        token.saw(RangeId(2), Revision(10));
        token.saw(RangeId(3), Revision(20));
        token.saw(RangeId(2), Revision(5));
        let read = SessionToken::decode(tag(), &token.encode(tag())).unwrap();
        assert_eq!(read, token);
        assert_eq!(read.wanted(RangeId(2)), Revision(10));
        assert_eq!(read.wanted(RangeId(9)), Revision::ZERO);
    }

    #[test]
    fn garbage_is_refused_by_name() {
        for garbage in [&b"x"[..], &[0; 100], &[1; TOKEN_MAX_BYTES + 1]] {
            let error = SessionToken::decode(tag(), &Bytes::copy_from_slice(garbage)).unwrap_err();
            assert_eq!(error.reason(), Some(quorate_types::Reason::TokenInvalid));
        }
    }

    #[test]
    fn a_full_token_forgets_ranges_but_never_asks_for_less() {
        let mut token = SessionToken::default();
        let ranges = TOKEN_RANGES_MAX as u64 * 2;
        for range in 1..=ranges {
            token.saw(RangeId(range), Revision(range * 10));
        }
        assert_eq!(token.ranges.len(), TOKEN_RANGES_MAX);
        for range in 1..=ranges {
            assert!(
                token.wanted(RangeId(range)) >= Revision(range * 10),
                "range {range}"
            );
        }
        assert!(token.encode(tag()).len() < TOKEN_MAX_BYTES);
    }

    #[test]
    fn joined_tokens_want_what_either_wanted() {
        let (mut left, mut right) = (SessionToken::default(), SessionToken::default());
        left.saw(RangeId(1), Revision(10));
        right.saw(RangeId(1), Revision(30));
        right.saw(RangeId(2), Revision(7));
        left.join(&right);
        assert_eq!(left.wanted(RangeId(1)), Revision(30));
        assert_eq!(left.wanted(RangeId(2)), Revision(7));
    }
}
