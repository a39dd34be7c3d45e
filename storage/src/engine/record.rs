//! Bytes of the records in the engine's tables, and their checksums.
//!
//! Nothing is returned from here whose checksum does not cover both it and the
//! key it was stored under. Byte by byte: docs/FORMAT-ENGINE.md.

use bytes::Bytes;

use super::error::EngineError;
use super::{Position, Version};

/// Version of the records below.
pub(super) const RECORD_VERSION: u8 = 1;

const HAS_EXPIRY: u8 = 1;
const HAS_CAUSAL: u8 = 2;
const HAS_ENDING: u8 = 4;
const ENDED_BY_DELETE: u8 = 8;
const KNOWN_FLAGS: u8 = HAS_EXPIRY | HAS_CAUSAL | HAS_ENDING | ENDED_BY_DELETE;

/// When and how a version stopped being the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// Revision of the write that replaced it.
    pub(super) revision: u64,
    /// Whether that write was a delete.
    pub(super) by_delete: bool,
}

/// One version as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) revision: u64,
    pub(super) expiry: Option<u64>,
    /// Names of the writes that it shows, where they are not this one alone.
    pub(super) causal: Option<&'a [u8]>,
    /// Only in history.
    pub(super) ending: Option<Ending>,
    pub(super) value: &'a [u8],
}

impl Record<'_> {
    pub(super) fn version(&self) -> Version {
        Version {
            revision: self.revision,
            expiry: self.expiry,
            value: Bytes::copy_from_slice(self.value),
            causal: self.causal.map(Bytes::copy_from_slice),
        }
    }

    /// The version without its value, for those who want keys alone.
    pub(super) fn bare_version(&self) -> Version {
        Version {
            value: Bytes::new(),
            ..Record {
                value: &[],
                ..*self
            }
            .version()
        }
    }

    /// Puts the record's bytes, stored under `key`, in the place of `out`.
    pub(super) fn encode(&self, key: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend([RECORD_VERSION, self.flags()]);
        out.extend(self.revision.to_le_bytes());
        out.extend(self.expiry.map(u64::to_le_bytes).into_iter().flatten());
        let ending = self.ending.map(|ending| ending.revision.to_le_bytes());
        out.extend(ending.into_iter().flatten());
        if let Some(causal) = self.causal {
            let len = u32::try_from(causal.len()).expect("names are bounded far below 4 GiB");
            out.extend(len.to_le_bytes());
            out.extend_from_slice(causal);
        }
        out.extend_from_slice(self.value);
        let sum = checksum(key, out);
        out.extend(sum);
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        flags |= if self.expiry.is_some() { HAS_EXPIRY } else { 0 };
        flags |= if self.causal.is_some() { HAS_CAUSAL } else { 0 };
        if let Some(ending) = self.ending {
            flags |= HAS_ENDING;
            flags |= if ending.by_delete { ENDED_BY_DELETE } else { 0 };
        }
        flags
    }
}

/// Reads a record that was stored under `key`.
pub(super) fn decode<'a>(key: &[u8], stored: &'a [u8]) -> Result<Record<'a>, EngineError> {
    let body = checked(key, stored)?;
    let mut fields = Fields { key, rest: body };
    let [version, flags] = fields.array()?;
    if version != RECORD_VERSION || flags & !KNOWN_FLAGS != 0 {
        return Err(EngineError::Version {
            what: "a record",
            found: version.into(),
            known: RECORD_VERSION.into(),
        });
    }
    let revision = fields.number()?;
    let expiry = (flags & HAS_EXPIRY != 0)
        .then(|| fields.number())
        .transpose()?;
    let ended_at = (flags & HAS_ENDING != 0)
        .then(|| fields.number())
        .transpose()?;
    let causal = (flags & HAS_CAUSAL != 0)
        .then(|| fields.run())
        .transpose()?;
    Ok(Record {
        revision,
        expiry,
        causal,
        ending: ended_at.map(|revision| Ending {
            revision,
            by_delete: flags & ENDED_BY_DELETE != 0,
        }),
        value: fields.rest,
    })
}

/// The revision that a record says it has, unchecked; 0 where there is none.
/// For finding a record among others, which is then decoded.
pub(super) fn claimed_revision(stored: &[u8]) -> u64 {
    let revision = stored.get(2..10).and_then(|bytes| bytes.try_into().ok());
    revision.map_or(0, u64::from_le_bytes)
}

/// Reads a record of history, which must say how it ended.
pub(super) fn decode_ended<'a>(
    key: &[u8],
    stored: &'a [u8],
) -> Result<(Record<'a>, Ending), EngineError> {
    let record = decode(key, stored)?;
    let ending = record
        .ending
        .ok_or_else(|| EngineError::corrupt(key, "history without an ending"))?;
    Ok((record, ending))
}

/// What the engine keeps about a range beside its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeMeta {
    /// The last log entry whose effects are in the file.
    pub position: Option<Position>,
    /// First key, and the key behind the last (empty: no end).
    pub interval: (Bytes, Bytes),
    /// Highest revision up to that position.
    pub last_revision: u64,
    /// Oldest revision that can be read.
    pub floor: u64,
    /// Whether superseded versions are kept.
    pub keeps_history: bool,
}

const HAS_POSITION: u8 = 1;
const KEEPS_HISTORY: u8 = 2;

impl RangeMeta {
    /// The range's own record, as stored under `key` in the table of metadata.
    pub(super) fn encode(&self, key: &[u8]) -> Vec<u8> {
        let position = self.position.unwrap_or_default();
        let mut out = vec![RECORD_VERSION, 0];
        out[1] |= if self.position.is_some() {
            HAS_POSITION
        } else {
            0
        };
        out[1] |= if self.keeps_history { KEEPS_HISTORY } else { 0 };
        for number in [
            position.term,
            position.index,
            self.last_revision,
            self.floor,
        ] {
            out.extend(number.to_le_bytes());
        }
        for bound in [&self.interval.0, &self.interval.1] {
            let len = u32::try_from(bound.len()).expect("keys are bounded far below 4 GiB");
            out.extend(len.to_le_bytes());
            out.extend_from_slice(bound);
        }
        let sum = checksum(key, &out);
        out.extend(sum);
        out
    }

    pub(super) fn decode(key: &[u8], stored: &[u8]) -> Result<Self, EngineError> {
        let mut fields = Fields {
            key,
            rest: checked(key, stored)?,
        };
        let [version, flags] = fields.array()?;
        expect_version("a range's record", version)?;
        let (term, index) = (fields.number()?, fields.number()?);
        Ok(Self {
            position: (flags & HAS_POSITION != 0).then_some(Position { term, index }),
            last_revision: fields.number()?,
            floor: fields.number()?,
            interval: (
                Bytes::copy_from_slice(fields.run()?),
                Bytes::copy_from_slice(fields.run()?),
            ),
            keeps_history: flags & KEEPS_HISTORY != 0,
        })
    }
}

/// Wraps a caller's metadata for storing.
pub(super) fn seal_bytes(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 5);
    out.push(RECORD_VERSION);
    out.extend_from_slice(bytes);
    let sum = checksum(key, &out);
    out.extend(sum);
    out
}

/// The bytes that [`seal_bytes`] was given.
pub(super) fn open_bytes<'a>(key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], EngineError> {
    let mut fields = Fields {
        key,
        rest: checked(key, stored)?,
    };
    let [version] = fields.array()?;
    expect_version("a record of metadata", version)?;
    Ok(fields.rest)
}

fn expect_version(what: &'static str, found: u8) -> Result<(), EngineError> {
    if found == RECORD_VERSION {
        return Ok(());
    }
    Err(EngineError::Version {
        what,
        found: found.into(),
        known: RECORD_VERSION.into(),
    })
}

/// What stands before the checksum, if that is right.
fn checked<'a>(key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], EngineError> {
    let split = stored.len().checked_sub(4);
    let (body, sum) = split
        .map(|at| stored.split_at(at))
        .ok_or_else(|| EngineError::corrupt(key, "too short for a checksum"))?;
    if sum != checksum(key, body) {
        return Err(EngineError::corrupt(key, "checksum mismatch"));
    }
    Ok(body)
}

/// The key's length is the CRC's seed, so no byte can change sides.
fn checksum(key: &[u8], body: &[u8]) -> [u8; 4] {
    let mut sum = crc32fast::Hasher::new_with_initial(key.len() as u32);
    sum.update(key);
    sum.update(body);
    sum.finalize().to_le_bytes()
}

/// Takes fields off the front of a record.
struct Fields<'k, 'a> {
    key: &'k [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'_, 'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], EngineError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| EngineError::corrupt(self.key, "ends within a field"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], EngineError> {
        let taken = self.take(LEN)?;
        Ok(taken.try_into().expect("take gives exactly as many bytes"))
    }

    fn number(&mut self) -> Result<u64, EngineError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length, and as many bytes.
    fn run(&mut self) -> Result<&'a [u8], EngineError> {
        let len = u32::from_le_bytes(self.array()?);
        self.take(len as usize)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn records_come_back() {
        let ending = Ending {
            revision: 99,
            by_delete: true,
        };
        for (expiry, causal, ending) in [
            (None, None, None),
            (Some(5), Some(b"causal".as_slice()), Some(ending)),
            (None, Some(b"".as_slice()), None),
        ] {
            let record = Record {
                revision: 7,
                expiry,
                causal,
                ending,
                value: b"value",
            };
            let mut bytes = Vec::new();
            record.encode(b"key", &mut bytes);
            assert_eq!(decode(b"key", &bytes).unwrap(), record);
        }
    }

    #[test]
    fn another_key_or_bit_is_refused() {
        let record = Record {
            revision: 7,
            expiry: Some(8),
            causal: None,
            ending: None,
            value: b"value",
        };
        let mut bytes = Vec::new();
        record.encode(b"key", &mut bytes);
        assert!(decode(b"keyx", &bytes).is_err());
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(
                decode(b"key", &bytes),
                Err(EngineError::Corrupt { .. })
            ));
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..bytes.len() {
            assert!(decode(b"key", &bytes[..len]).is_err());
        }
    }

    #[test]
    fn metadata_comes_back() {
        let meta = RangeMeta {
            position: Some(Position { term: 3, index: 9 }),
            interval: (Bytes::from_static(b"a"), Bytes::new()),
            last_revision: 77,
            floor: 5,
            keeps_history: true,
        };
        let stored = meta.encode(b"name");
        assert_eq!(RangeMeta::decode(b"name", &stored).unwrap(), meta);
        assert!(RangeMeta::decode(b"other", &stored).is_err());
        let sealed = seal_bytes(b"name", b"bytes");
        assert_eq!(open_bytes(b"name", &sealed).unwrap(), b"bytes");
    }
}
