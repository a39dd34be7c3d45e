//! Page tokens: where a scan, or the deletion of a prefix, goes on. Bound to the request's other
//! parameters, so that a token of another scan is refused and never answered with wrong rows.
//!
//! Everything a later page needs is inside: no node remembers a scan.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_types::{KeyspaceId, Revision, stable_hash};

use crate::errors::GatewayError;
use crate::seal::{self, ClusterTag, Kind};

/// The next page's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    /// Of the parameters that must stay the same, see [`Fingerprint`].
    pub fingerprint: u64,
    /// The snapshot of all pages; zero: each page reads the present.
    pub at: Revision,
    /// Deletions: the bucket that is next.
    pub bucket: u16,
    /// Forward: the first user key of the next page. Backward: the first that is not in it any more.
    pub key: Bytes,
}

impl PageToken {
    /// The token's bytes.
    pub fn encode(&self, kind: Kind, cluster: ClusterTag) -> Bytes {
        seal::seal(kind, cluster, |body| {
            body.put_u64(self.fingerprint);
            body.put_u64(self.at.0);
            body.put_u16(self.bucket);
            body.put_slice(&self.key);
        })
    }

    /// Reads a token for a request whose parameters have this fingerprint.
    ///
    /// # Errors
    ///
    /// `PAGE_TOKEN_MISMATCH`: damaged, of another cluster or kind, or of another request.
    pub fn decode(
        kind: Kind,
        cluster: ClusterTag,
        fingerprint: u64,
        sealed: &Bytes,
    ) -> Result<PageToken, GatewayError> {
        let refused = |problem| GatewayError::PageToken { problem };
        let body = seal::open(kind, cluster, sealed).map_err(refused)?;
        let token = Self::decode_body(body).ok_or_else(|| refused("cannot be read"))?;
        if token.fingerprint != fingerprint {
            return Err(refused("belongs to a request with other parameters"));
        }
        Ok(token)
    }

    fn decode_body(mut body: Bytes) -> Option<PageToken> {
        Some(PageToken {
            fingerprint: body.try_get_u64().ok()?,
            at: Revision(body.try_get_u64().ok()?),
            bucket: body.try_get_u16().ok()?,
            key: body,
        })
    }
}

/// Collects the parameters of a request that a page token is bound to.
pub struct Fingerprint(BytesMut);

impl Fingerprint {
    /// Begins with the keyspace: by id, so that a dropped one's tokens die with it.
    pub fn new(keyspace: KeyspaceId) -> Fingerprint {
        let mut bytes = BytesMut::with_capacity(128);
        bytes.put_u32(keyspace.0);
        Fingerprint(bytes)
    }

    /// Adds bytes, with their length, so that neighbours cannot be taken for each other.
    pub fn bytes(mut self, bytes: &[u8]) -> Fingerprint {
        self.0.put_u64(bytes.len() as u64);
        self.0.put_slice(bytes);
        self
    }

    /// Adds a number or a flag.
    pub fn number(mut self, number: u64) -> Fingerprint {
        self.0.put_u64(number);
        self
    }

    /// The fingerprint of all that was added.
    pub fn finish(self) -> u64 {
        stable_hash(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn tag() -> ClusterTag {
        ClusterTag::of(b"cluster")
    }

    fn fingerprint(start: &[u8], end: &[u8]) -> u64 {
        Fingerprint::new(KeyspaceId(3))
            .bytes(start)
            .bytes(end)
            .number(1)
            .finish()
    }

    #[test]
    fn it_opens_for_the_same_request_only() {
        let token = PageToken {
            fingerprint: fingerprint(b"a", b"bc"),
            at: Revision(99),
            bucket: 0,
            key: Bytes::from_static(b"abc"),
        };
        let bytes = token.encode(Kind::Scan, tag());
        let read = PageToken::decode(Kind::Scan, tag(), fingerprint(b"a", b"bc"), &bytes).unwrap();
        assert_eq!(read, token);
        for other in [fingerprint(b"ab", b"c"), fingerprint(b"a", b"b")] {
            let error = PageToken::decode(Kind::Scan, tag(), other, &bytes).unwrap_err();
            assert_eq!(
                error.reason(),
                Some(quorate_types::Reason::PageTokenMismatch)
            );
        }
        let wrong_kind = PageToken::decode(Kind::DeletePrefix, tag(), token.fingerprint, &bytes);
        assert!(wrong_kind.is_err());
    }
}
