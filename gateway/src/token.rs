//! Session tokens: what a client has written and read so far, as opaque bytes that it carries.
//!
//! Per range a revision, for what the log has decided, and a set of dots, for what it has not: a
//! replica has caught up with a session once its log's state has that revision and its clock these
//! dots (DESIGN, section 3). Bound to cluster and keyspace.
//!
//! A token has a bounded size. Past [`RANGE_INTERVALS_MAX`] the gaps between a range's dots are
//! filled; past [`TOKEN_RANGES_MAX`] the lowest revisions are dropped, and a floor is raised that
//! then holds for every range that is not named. Both ask at most for fresher state than needed,
//! never for older. Dots have no such floor: a token that would be longer than [`TOKEN_MAX_BYTES`]
//! with them says so, and the next request that carries it is refused. Not here: waiting for a
//! replica.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};
use quorate_types::causal::{Actor, Dots, Intervals};
use quorate_types::{RangeId, Revision};

use crate::errors::GatewayError;
use crate::seal::{self, ClusterTag, Kind};

/// Most ranges that one token names.
pub const TOKEN_RANGES_MAX: usize = 512;
/// Intervals of one range's dots, past which those go that the log has decided by then.
pub const RANGE_INTERVALS_KEPT: usize = 8;
/// Intervals of one range's dots, past which the gaps between them are filled. Of each start of a
/// node one is left then.
pub const RANGE_INTERVALS_MAX: usize = 16;
/// Longest token that is taken or given.
pub const TOKEN_MAX_BYTES: usize = 64 << 10;

/// The short identity of a keyspace, with its incarnation, that is put into tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyspaceTag(u64);

impl KeyspaceTag {
    /// Of a keyspace's id and incarnation.
    pub fn of(identity: &[u8]) -> KeyspaceTag {
        KeyspaceTag(quorate_types::stable_hash(identity))
    }
}

/// What a token is bound to.
pub type Binding = (ClusterTag, KeyspaceTag);

/// What a client has seen of one range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Up to it, of the log.
    pub revision: Revision,
    /// Of writes that the log may not have decided yet.
    pub dots: Dots,
    /// Whether the dots are not those that were seen: some were left to the revision, or gaps were
    /// filled. Then they say what a replica must have, and not what a write may replace.
    pub is_coarse: bool,
}

impl Seen {
    /// All of it as dots: the log counts its writes by revisions.
    pub fn all(&self) -> Dots {
        let mut all = self.dots.clone();
        all.insert_all(Actor::LOG, &Intervals::up_to(self.revision.0));
        all
    }

    /// What a reader has seen whose answer has this context.
    pub fn of_context(context: &Dots) -> Seen {
        let log = context.counters(Actor::LOG);
        Seen {
            revision: Revision(log.map_or(0, Intervals::top)),
            dots: context.without_actor(Actor::LOG),
            is_coarse: false,
        }
    }

    /// Takes over all that was seen elsewhere.
    pub fn join(&mut self, other: &Seen) {
        self.revision = self.revision.max(other.revision);
        self.dots.union(&other.dots);
        self.is_coarse |= other.is_coarse;
    }

    fn bound(&mut self) {
        if self.dots.intervals() > RANGE_INTERVALS_MAX {
            let filled = self.dots.without_gaps();
            self.is_coarse |= filled != self.dots;
            self.dots = filled;
        }
    }
}

/// What a client has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionToken {
    floor: Revision,
    ranges: BTreeMap<RangeId, Seen>,
    /// More dots were seen than a token has room for: it cannot be used any more.
    is_full: bool,
}

impl SessionToken {
    /// Reads a token that a client sent.
    ///
    /// # Errors
    ///
    /// `TOKEN_INVALID`: damaged, too long, full, or of another cluster, keyspace or version.
    pub fn decode(binding: Binding, sealed: &Bytes) -> Result<SessionToken, GatewayError> {
        let refused = |problem| GatewayError::SessionToken { problem };
        if sealed.len() > TOKEN_MAX_BYTES {
            return Err(refused("longer than 64 KiB, and so than any of ours"));
        }
        let body = seal::open(Kind::Session, binding.0, sealed).map_err(refused)?;
        let (keyspace, token) = Self::decode_body(body).ok_or_else(|| refused("cannot be read"))?;
        if keyspace != binding.1 {
            return Err(refused("of another keyspace, or older than its restore"));
        }
        if token.is_full {
            let problem = "full: the session has seen more undecided writes than a token of \
                           64 KiB names; wait until they have spread, and begin a new one";
            return Err(refused(problem));
        }
        Ok(token)
    }

    fn decode_body(mut body: Bytes) -> Option<(KeyspaceTag, SessionToken)> {
        let keyspace = KeyspaceTag(body.try_get_u64().ok()?);
        let is_full = read_bool(&mut body)?;
        let floor = Revision(body.try_get_u64().ok()?);
        let count = body.try_get_u16().ok()?;
        let mut ranges = BTreeMap::new();
        for _ in 0..count {
            let range = RangeId(body.try_get_u64().ok()?);
            let revision = Revision(body.try_get_u64().ok()?);
            let is_coarse = read_bool(&mut body)?;
            let dots_bytes = usize::from(body.try_get_u16().ok()?);
            if body.remaining() < dots_bytes {
                return None;
            }
            let dots = match dots_bytes {
                0 => Dots::new(),
                _ => Dots::from_bytes(&body.split_to(dots_bytes)).ok()?,
            };
            let seen = Seen {
                revision,
                dots,
                is_coarse,
            };
            ranges.insert(range, seen);
        }
        let token = SessionToken {
            floor,
            ranges,
            is_full,
        };
        (!body.has_remaining()).then_some((keyspace, token))
    }

    /// The token's bytes.
    pub fn encode(&self, binding: Binding) -> Bytes {
        let sealed = self.encode_as(binding, false);
        match sealed {
            Some(sealed) if sealed.len() <= TOKEN_MAX_BYTES => sealed,
            // Without its ranges it has room; and it is refused.
            _ => SessionToken {
                floor: self.floor,
                ..SessionToken::default()
            }
            .encode_as(binding, true)
            .unwrap_or_default(),
        }
    }

    /// `None`: the dots of one range alone are too long.
    fn encode_as(&self, (cluster, keyspace): Binding, is_full: bool) -> Option<Bytes> {
        let count = u16::try_from(self.ranges.len()).ok()?;
        let dots = self.ranges.values().map(|seen| match seen.dots.is_empty() {
            true => Some((Bytes::new(), 0)),
            false => {
                let dots = seen.dots.to_bytes();
                let bytes = u16::try_from(dots.len()).ok()?;
                Some((dots, bytes))
            }
        });
        let dots = dots.collect::<Option<Vec<_>>>()?;
        Some(seal::seal(Kind::Session, cluster, |body| {
            body.put_u64(keyspace.0);
            body.put_u8(u8::from(is_full || self.is_full));
            body.put_u64(self.floor.0);
            body.put_u16(count);
            for ((range, seen), (dots, bytes)) in self.ranges.iter().zip(dots) {
                body.put_u64(range.0);
                body.put_u64(seen.revision.0);
                body.put_u8(u8::from(seen.is_coarse));
                body.put_u16(bytes);
                body.put_slice(&dots);
            }
        }))
    }

    /// What a replica of this range must have to serve the session.
    pub fn wanted(&self, range: RangeId) -> Seen {
        self.ranges.get(&range).cloned().unwrap_or_else(|| Seen {
            revision: self.floor,
            ..Seen::default()
        })
    }

    /// The ranges that it names.
    pub fn ranges(&self) -> impl Iterator<Item = (RangeId, &Seen)> {
        self.ranges.iter().map(|(range, seen)| (*range, seen))
    }

    /// Takes note of something written to or read from a range.
    pub fn saw(&mut self, range: RangeId, seen: &Seen) {
        let floor = self.floor;
        let known = self.ranges.entry(range).or_default();
        known.revision = known.revision.max(floor);
        known.join(seen);
        known.bound();
        self.bound();
    }

    /// Forgets dots of a range but for those left: as of the revision the log has decided the
    /// others.
    pub fn forget(&mut self, range: RangeId, left: Dots, revision: Revision) {
        if let Some(known) = self.ranges.get_mut(&range)
            && left != known.dots
        {
            known.dots = left;
            known.is_coarse = true;
            known.revision = known.revision.max(revision);
        }
    }

    /// Takes over all that another token has seen.
    pub fn join(&mut self, other: &SessionToken) {
        let floor = self.floor.max(other.floor);
        let named: Vec<RangeId> = self
            .ranges
            .keys()
            .chain(other.ranges.keys())
            .copied()
            .collect();
        for range in named {
            let mut wanted = self.wanted(range);
            wanted.join(&other.wanted(range));
            wanted.bound();
            self.ranges.insert(range, wanted);
        }
        self.floor = floor;
        self.is_full |= other.is_full;
        self.bound();
    }

    fn bound(&mut self) {
        while self.ranges.len() > TOKEN_RANGES_MAX {
            let plain = self.ranges.iter().filter(|(_, seen)| seen.dots.is_empty());
            let lowest = plain.min_by_key(|(_, seen)| seen.revision);
            let Some((range, revision)) = lowest.map(|(range, seen)| (*range, seen.revision))
            else {
                self.is_full = true;
                return;
            };
            self.ranges.remove(&range);
            self.floor = self.floor.max(revision);
        }
    }
}

fn read_bool(body: &mut Bytes) -> Option<bool> {
    match body.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use quorate_types::causal::Dot;

    use super::*;

    fn binding() -> Binding {
        (ClusterTag::of(b"cluster"), KeyspaceTag::of(b"keyspace"))
    }

    fn at(revision: u64) -> Seen {
        Seen {
            revision: Revision(revision),
            ..Seen::default()
        }
    }

    fn actor(disk: u64) -> Actor {
        Actor { disk, start: 1 }
    }

    fn dots(counters: &[u64]) -> Seen {
        let named = counters.iter().map(|counter| Dot::new(actor(3), *counter));
        Seen {
            dots: named.collect(),
            ..Seen::default()
        }
    }

    #[test]
    fn round_trip() {
        let mut token = SessionToken::default();
        token.saw(RangeId(2), &at(10));
        token.saw(RangeId(3), &at(20));
        token.saw(RangeId(2), &at(5));
        token.saw(RangeId(2), &dots(&[4, 9]));
        let read = SessionToken::decode(binding(), &token.encode(binding())).unwrap();
        assert_eq!(read, token);
        let wanted = read.wanted(RangeId(2));
        assert_eq!(wanted.revision, Revision(10));
        assert_eq!(wanted.dots, dots(&[4, 9]).dots);
        assert_eq!(read.wanted(RangeId(9)), Seen::default());
    }

    #[test]
    fn garbage_is_refused_by_name() {
        let token = SessionToken::default().encode(binding());
        let mut future = token.to_vec();
        future[0] += 1;
        let elsewhere = (ClusterTag::of(b"other"), binding().1);
        let other = (binding().0, KeyspaceTag::of(b"other"));
        let cases = [
            (Bytes::from_static(b"x"), "too short"),
            (Bytes::from(vec![1; 100]), "damaged"),
            (Bytes::from(vec![1; TOKEN_MAX_BYTES + 1]), "longer"),
            (token.slice(..token.len() - 1), "damaged"),
            (Bytes::from(future), "version"),
            (SessionToken::default().encode(elsewhere), "cluster"),
            (SessionToken::default().encode(other), "keyspace"),
        ];
        for (garbage, word) in cases {
            let error = SessionToken::decode(binding(), &garbage).unwrap_err();
            assert_eq!(error.reason(), Some(quorate_types::Reason::TokenInvalid));
            assert!(error.to_string().contains(word), "{error}: {word}");
        }
    }

    #[test]
    fn a_full_token_forgets_ranges_but_never_asks_for_less() {
        let mut token = SessionToken::default();
        let ranges = TOKEN_RANGES_MAX as u64 * 2;
        for range in 1..=ranges {
            token.saw(RangeId(range), &at(range * 10));
        }
        token.saw(RangeId(1), &dots(&[7]));
        assert_eq!(token.ranges.len(), TOKEN_RANGES_MAX);
        for range in 1..=ranges {
            let wanted = token.wanted(RangeId(range));
            assert!(wanted.revision >= Revision(range * 10), "range {range}");
        }
        assert_eq!(token.wanted(RangeId(1)).dots.len(), 1);
        assert!(token.encode(binding()).len() < TOKEN_MAX_BYTES);
    }

    #[test]
    fn gaps_are_filled_once_there_are_many() {
        let mut token = SessionToken::default();
        for counter in 1..=100_000 {
            token.saw(RangeId(1), &dots(&[counter * 3]));
            let wanted = token.wanted(RangeId(1)).dots;
            assert!(wanted.contains(Dot::new(actor(3), counter * 3)));
        }
        assert!(token.wanted(RangeId(1)).is_coarse);
        assert!(token.encode(binding()).len() < 200);
    }

    #[test]
    fn a_token_without_room_says_so() {
        let mut token = SessionToken::default();
        for disk in 1..=20_000 {
            let one = [Dot::new(actor(disk), u64::MAX)].into_iter().collect();
            let seen = Seen {
                dots: one,
                ..Seen::default()
            };
            token.saw(RangeId(disk % 300), &seen);
        }
        let sealed = token.encode(binding());
        assert!(sealed.len() <= TOKEN_MAX_BYTES);
        let error = SessionToken::decode(binding(), &sealed).unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
    }

    #[test]
    fn what_the_log_has_decided_is_forgotten_for_its_revision() {
        let mut token = SessionToken::default();
        token.saw(RangeId(1), &dots(&[4, 9]));
        token.forget(RangeId(1), dots(&[4, 9]).dots, Revision(50));
        assert_eq!(token.wanted(RangeId(1)).revision, Revision::ZERO);
        token.forget(RangeId(1), dots(&[9]).dots, Revision(50));
        let wanted = token.wanted(RangeId(1));
        assert_eq!((wanted.revision, wanted.dots.len()), (Revision(50), 1));
        assert!(wanted.is_coarse);
    }

    #[test]
    fn joined_tokens_want_what_either_wanted() {
        let (mut left, mut right) = (SessionToken::default(), SessionToken::default());
        left.saw(RangeId(1), &at(10));
        right.saw(RangeId(1), &at(30));
        right.saw(RangeId(2), &dots(&[7]));
        left.join(&right);
        assert_eq!(left.wanted(RangeId(1)).revision, Revision(30));
        assert_eq!(left.wanted(RangeId(2)).dots.len(), 1);
    }
}
