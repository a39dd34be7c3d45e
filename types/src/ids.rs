//! Ids as newtypes, so that no number is taken for another one.
//!
//! Not here: who gives ids out (the catalog does), and actors and dots (see `causal`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::ParseError;

/// Parses decimal digits only: no sign, no space, no empty text.
fn parse_decimal<T: FromStr>(what: &'static str, text: &str) -> Result<T, ParseError> {
    let refused = || ParseError::new(what, text, "a whole number, digits only");
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused());
    }
    text.parse().map_err(|_| refused())
}

macro_rules! decimal_id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $what:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                parse_decimal($what, text).map(Self)
            }
        }
    };
}

decimal_id! {
    /// A node, as the catalog knows it. A node that lost its disk comes back under a new one.
    NodeId(u64), "node id"
}

decimal_id! {
    /// A keyspace. Never given out twice, so a dropped keyspace's leftovers belong to nobody.
    KeyspaceId(u32), "keyspace id"
}

decimal_id! {
    /// A range, and the Raft group that replicates it.
    RangeId(u64), "range id"
}

impl RangeId {
    /// The meta range, which holds the catalog.
    pub const META: RangeId = RangeId(1);
}

/// One client process or connection pool: the owner of a sequence of requests. Drawn at
/// random by the client, shown as 16 hexadecimal digits.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ClientId(pub u64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ClientId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refused = || ParseError::new("client id", text, "1 to 16 hexadecimal digits");
        if text.len() > 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refused());
        }
        u64::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| refused())
    }
}

/// A lease of a keyspace: chosen by a client or drawn, shown as 16 hexadecimal digits. Never 0, and
/// below 2^63, so that it fits the signed numbers of other protocols.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

impl LeaseId {
    /// The highest one.
    pub const MAX: LeaseId = LeaseId(u64::MAX >> 1);

    /// The one that follows from the name of the request that grants it: the same at each attempt.
    pub fn drawn(request: &RequestId) -> LeaseId {
        let name = [
            request.client.0.to_be_bytes(),
            request.sequence.to_be_bytes(),
        ];
        let drawn = crate::stable_hash::stable_hash(&name.concat()) & LeaseId::MAX.0;
        LeaseId(drawn.max(1))
    }

    /// The key whose range keeps the lease.
    pub fn home_key(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for LeaseId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refused = || {
            let allowed = "1 to 16 hexadecimal digits, from 1 to 7fffffffffffffff";
            ParseError::new("lease id", text, allowed)
        };
        if text.len() > 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refused());
        }
        let id = u64::from_str_radix(text, 16).map_err(|_| refused())?;
        match (1..=LeaseId::MAX.0).contains(&id) {
            true => Ok(LeaseId(id)),
            false => Err(refused()),
        }
    }
}

/// Names one request for ever: a retry carries the id of the first attempt.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RequestId {
    /// Who asked.
    pub client: ClientId,
    /// The how-manieth request of that client, from 1.
    pub sequence: u64,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.client, self.sequence)
    }
}

impl FromStr for RequestId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refused = || {
            ParseError::new(
                "request id",
                text,
                "CLIENT-SEQUENCE, as in 00c0ffee00000001-42",
            )
        };
        let (client, sequence) = text.split_once('-').ok_or_else(refused)?;
        Ok(Self {
            client: client.parse().map_err(|_| refused())?,
            sequence: parse_decimal("sequence", sequence).map_err(|_| refused())?,
        })
    }
}

/// A request id with the range that remembers its outcome: what a user hands to
/// `quorate outcome`. Text form: `r7-00c0ffee00000001-42`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestHandle {
    /// Whose exactly-once window answers.
    pub range: RangeId,
    /// Which request.
    pub request: RequestId,
}

impl fmt::Display for RequestHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}-{}", self.range, self.request)
    }
}

impl FromStr for RequestHandle {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refused = || {
            ParseError::new(
                "request handle",
                text,
                "rRANGE-CLIENT-SEQUENCE, as in r7-00c0ffee00000001-42",
            )
        };
        let (range, request) = text
            .strip_prefix('r')
            .and_then(|rest| rest.split_once('-'))
            .ok_or_else(refused)?;
        Ok(Self {
            range: range.parse().map_err(|_| refused())?,
            request: request.parse().map_err(|_| refused())?,
        })
    }
}
