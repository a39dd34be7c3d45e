//! One prefix as it was at one revision, and the bytes of its file. Plain code over values.
//!
//! A file is: `QRCOPY01`, the CRC-32 of what follows, then the time when the copy was known to be
//! true, the revision, keyspace and prefix, the number of keys, and each key, value and revision.
//! Numbers are little-endian, texts and bytes go behind their length. Whatever of it is not as it
//! should be makes the whole file nothing: a copy is true, or there is none.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_types::{Revision, Timestamp};
use thiserror::Error;

const MAGIC: &[u8; 8] = b"QRCOPY01";

/// A prefix's values as of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    pub keyspace: String,
    pub prefix: Bytes,
    pub revision: Revision,
    /// When it was last known to be what servers had.
    pub true_at: Timestamp,
    pub entries: BTreeMap<Bytes, (Bytes, Revision)>,
}

/// Why a file is no copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum CopyDamage {
    /// It is something else, or of another version.
    #[error("it is no copy of this version")]
    Strange,
    /// It is not what was written.
    #[error("its checksum is wrong")]
    Checksum,
}

impl Copy {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.true_at.0.to_le_bytes());
        body.extend_from_slice(&self.revision.0.to_le_bytes());
        put_bytes(&mut body, self.keyspace.as_bytes());
        put_bytes(&mut body, &self.prefix);
        body.extend_from_slice(&(self.entries.len() as u64).to_le_bytes());
        for (key, (value, revision)) in &self.entries {
            put_bytes(&mut body, key);
            put_bytes(&mut body, value);
            body.extend_from_slice(&revision.0.to_le_bytes());
        }
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        file.extend_from_slice(&body);
        file
    }

    pub(super) fn decode(file: &Bytes) -> Result<Copy, CopyDamage> {
        let head = MAGIC.len() + size_of::<u32>();
        if file.len() < head || !file.starts_with(MAGIC) {
            return Err(CopyDamage::Strange);
        }
        let body = file.slice(head..);
        if file[MAGIC.len()..head] != crc32fast::hash(&body).to_le_bytes() {
            return Err(CopyDamage::Checksum);
        }
        Copy::decode_body(Reader(body)).ok_or(CopyDamage::Strange)
    }

    fn decode_body(mut body: Reader) -> Option<Copy> {
        let (true_at, revision) = (Timestamp(body.number()?), Revision(body.number()?));
        let keyspace = String::from_utf8(body.bytes()?.to_vec()).ok()?;
        let prefix = body.bytes()?;
        let mut entries = BTreeMap::new();
        for _ in 0..body.number()? {
            let (key, value) = (body.bytes()?, body.bytes()?);
            entries.insert(key, (value, Revision(body.number()?)));
        }
        body.0.is_empty().then_some(Copy {
            keyspace,
            prefix,
            revision,
            true_at,
            entries,
        })
    }
}

fn put_bytes(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    body.extend_from_slice(bytes);
}

struct Reader(Bytes);

impl Reader {
    fn take(&mut self, count: usize) -> Option<Bytes> {
        (count <= self.0.len()).then(|| self.0.split_to(count))
    }

    fn number(&mut self) -> Option<u64> {
        let bytes = self.take(size_of::<u64>())?;
        Some(u64::from_le_bytes(bytes[..].try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let count = usize::try_from(self.number()?).ok()?;
        self.take(count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn sample() -> Copy {
        let entry = |value: &'static [u8]| (Bytes::from_static(value), Revision(7));
        Copy {
            keyspace: "default".to_owned(),
            prefix: "app/".into(),
            revision: Revision(9),
            true_at: Timestamp(1_000_000),
            entries: BTreeMap::from([
                ("app/a".into(), entry(b"\x00\xff")),
                ("app/b".into(), entry(b"")),
            ]),
        }
    }

    #[test]
    fn a_copy_survives_its_file() {
        let copy = sample();
        assert_eq!(Copy::decode(&copy.encode().into()), Ok(copy));
    }

    #[test]
    fn any_flipped_bit_and_any_missing_end_is_noticed() {
        let file = sample().encode();
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 1;
            Copy::decode(&flipped.into()).unwrap_err();
            Copy::decode(&file[..at].to_vec().into()).unwrap_err();
        }
        let mut longer = file;
        longer.push(0);
        assert_eq!(Copy::decode(&longer.into()), Err(CopyDamage::Checksum));
    }
}
