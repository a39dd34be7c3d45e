//! Reading and writing the bytes of the causal store: varints, counts, dots.
//!
//! Every value has one encoding only: a number that could be shorter, a set out of order and
//! bytes left over are refused. Reading takes memory in proportion to the input, whatever
//! counts it claims. What the fields of a record or a delta are stands with those types.

use bytes::{Buf, Bytes};
use thiserror::Error;

use super::{Actor, Dot};

/// Seven bits of a number a byte, lowest first (LEB128).
const VARINT_MAX_BYTES: usize = 10;

/// Why bytes are not what they should be. Nothing was changed, and a retry changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Written by a later version, or not by Quorate.
    #[error("version {found} of a {what}, which this program does not know")]
    Version {
        /// What was to be read.
        what: &'static str,
        /// Its first byte.
        found: u8,
    },
    /// The input ends too early.
    #[error("it ends within a {0}")]
    Truncated(&'static str),
    /// Bytes are left over.
    #[error("{0} bytes too many")]
    Trailing(usize),
    /// A number out of its bounds, or not in its shortest form.
    #[error("a {0} that cannot be")]
    Number(&'static str),
    /// A set that is not in its order, or holds something twice.
    #[error("{0} out of order")]
    Order(&'static str),
}

/// Appends fields to a buffer.
#[derive(Default)]
pub(super) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub(super) fn versioned(version: u8) -> Self {
        Self::with_room(version, 0)
    }

    /// As `versioned`, with memory for so many more bytes set aside.
    pub(super) fn with_room(version: u8, bytes: usize) -> Self {
        let mut out = Vec::with_capacity(1 + bytes);
        out.push(version);
        Self { out }
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.out.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }

    /// A signed number: those close to zero are short, of either sign.
    pub(super) fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)) as u64);
    }

    pub(super) fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Bytes with their length in front.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    pub(super) fn dot(&mut self, dot: Dot) {
        self.number(dot.actor.disk);
        self.number(u64::from(dot.actor.start));
        self.number(dot.counter);
    }

    pub(super) fn finish(self) -> Bytes {
        Bytes::from(self.out)
    }

    pub(super) fn finish_vec(self) -> Vec<u8> {
        self.out
    }
}

/// Takes fields off a buffer; byte strings share its memory.
pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(super) fn new(input: &Bytes) -> Self {
        Self {
            rest: input.clone(),
        }
    }

    /// Checks the version byte in front.
    pub(super) fn versioned(
        input: &Bytes,
        what: &'static str,
        version: u8,
    ) -> Result<Self, DecodeError> {
        let mut reader = Self::new(input);
        let found = reader.byte(what)?;
        if found == version {
            Ok(reader)
        } else {
            Err(DecodeError::Version { what, found })
        }
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        let first = *self.rest.first().ok_or(DecodeError::Truncated(what))?;
        self.rest.advance(1);
        Ok(first)
    }

    pub(super) fn number(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut number = 0u64;
        for (index, byte) in self.rest.iter().take(VARINT_MAX_BYTES).enumerate() {
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * index as u32;
            // The tenth byte has one bit to give; a last byte of zero could have been left out.
            if (bits << shift) >> shift != bits || (*byte == 0 && index > 0) {
                return Err(DecodeError::Number(what));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                self.rest.advance(index + 1);
                return Ok(number);
            }
        }
        if self.rest.len() < VARINT_MAX_BYTES {
            Err(DecodeError::Truncated(what))
        } else {
            Err(DecodeError::Number(what))
        }
    }

    pub(super) fn number_u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        u32::try_from(self.number(what)?).map_err(|_| DecodeError::Number(what))
    }

    pub(super) fn signed(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let folded = self.number(what)?;
        Ok((folded >> 1) as i64 ^ -((folded & 1) as i64))
    }

    /// A count of things of at least `each_min_bytes`: more than the input could hold is
    /// refused before anything is set aside for them.
    pub(super) fn count(
        &mut self,
        what: &'static str,
        each_min_bytes: usize,
    ) -> Result<usize, DecodeError> {
        let count = self.number(what)?;
        if count > (self.rest.len() / each_min_bytes) as u64 {
            return Err(DecodeError::Truncated(what));
        }
        Ok(count as usize)
    }

    pub(super) fn raw(&mut self, what: &'static str, length: usize) -> Result<Bytes, DecodeError> {
        if length > self.rest.len() {
            return Err(DecodeError::Truncated(what));
        }
        Ok(self.rest.split_to(length))
    }

    pub(super) fn bytes(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let length = self.count(what, 1)?;
        self.raw(what, length)
    }

    pub(super) fn dot(&mut self) -> Result<Dot, DecodeError> {
        let disk = self.number("dot")?;
        let start = self.number_u32("dot")?;
        let counter = self.number("dot")?;
        if counter == 0 {
            return Err(DecodeError::Number("dot"));
        }
        Ok(Dot::new(Actor { disk, start }, counter))
    }

    /// All that is left.
    pub(super) fn rest(self) -> Bytes {
        self.rest
    }

    pub(super) fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }
}
