//! What makes opaque bytes that come back from a client ours: a version, a kind, the cluster, and
//! a checksum around the body. It finds mistakes and damage; it is no defence against forgery, and
//! needs none: a token grants nothing.
//!
//! Layout: version (`u8`), kind (`u8`), cluster (`u64` BE), body, CRC-32 (`u32` BE) of all before.

use bytes::{BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 2 + size_of::<u64>();
const CRC_BYTES: usize = size_of::<u32>();

/// What a sealed text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// What a client has written and read.
    Session = 1,
    /// Where a scan goes on.
    Scan = 2,
    /// Where the deletion of a prefix goes on.
    DeletePrefix = 3,
}

/// The short identity of a cluster that is put into tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterTag(u64);

impl ClusterTag {
    /// Of the cluster's id, as the catalog has it.
    pub fn of(cluster: &[u8]) -> ClusterTag {
        ClusterTag(quorate_types::stable_hash(cluster))
    }
}

/// Seals what `body` writes.
pub fn seal(kind: Kind, cluster: ClusterTag, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut sealed = BytesMut::new();
    sealed.put_u8(VERSION);
    sealed.put_u8(kind as u8);
    sealed.put_u64(cluster.0);
    body(&mut sealed);
    let crc = crc32fast::hash(&sealed);
    sealed.put_u32(crc);
    sealed.freeze()
}

/// The body of a sealed text; otherwise what is wrong with it.
pub fn open(kind: Kind, cluster: ClusterTag, sealed: &Bytes) -> Result<Bytes, &'static str> {
    if sealed.len() < HEAD_BYTES + CRC_BYTES {
        return Err("too short to be one of ours");
    }
    let (content, crc) = sealed.split_at(sealed.len() - CRC_BYTES);
    // Before the checksum: what a later version seals is not damaged, though it may end otherwise.
    if content[0] != VERSION {
        return Err("of another version, or none of ours");
    }
    if crc != crc32fast::hash(content).to_be_bytes() {
        return Err("damaged, or none of ours");
    }
    if content[1] != kind as u8 {
        return Err("of another kind of request");
    }
    if content[2..HEAD_BYTES] != cluster.0.to_be_bytes() {
        return Err("of another cluster");
    }
    Ok(sealed.slice(HEAD_BYTES..content.len()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_the_same_kind_and_cluster_open_it_and_no_bit_may_change() {
        let here = ClusterTag::of(b"one");
        let sealed = seal(Kind::Scan, here, |body| body.put_slice(b"hello"));
        assert_eq!(open(Kind::Scan, here, &sealed).unwrap(), "hello");
        assert_eq!(
            open(Kind::Session, here, &sealed),
            Err("of another kind of request")
        );
        assert_eq!(
            open(Kind::Scan, ClusterTag::of(b"two"), &sealed),
            Err("of another cluster")
        );
        let mut future = sealed.to_vec();
        future[0] = VERSION + 1;
        assert_eq!(
            open(Kind::Scan, here, &future.into()),
            Err("of another version, or none of ours")
        );
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(Kind::Scan, here, &damaged.into()).is_err());
        }
        for cut in 0..sealed.len() {
            assert!(open(Kind::Scan, here, &sealed.slice(..cut)).is_err());
        }
    }
}
