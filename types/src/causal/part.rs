//! The payloads of typed keys: what one live dot stands for in a counter, a set or a map.
//!
//! A typed key is the sum of its live dots: each adds an amount, an element, or a field's
//! part. So a join of records joins counters, sets and maps as well, and knows nothing of
//! them. Not here: adding up (see `evaluate`), and which dots a write replaces (see `write`).

use bytes::Bytes;
use thiserror::Error;

use super::encoding::{DecodeError, Reader, Writer};

/// Deepest nesting of maps in a map.
pub const MAP_DEPTH_MAX: usize = 8;

const AMOUNT: u8 = 1;
const ELEMENT: u8 = 2;
const REGISTER: u8 = 3;
const LATEST: u8 = 4;
const FIELD: u8 = 5;

/// What one live dot of a typed key adds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// An amount of a counter.
    Amount(i64),
    /// An element of a set.
    Element(Bytes),
    /// A value of a map's field; concurrent ones are siblings.
    Register(Bytes),
    /// A value of a map's field; reads show the latest of concurrent ones.
    Latest(Bytes),
    /// A part of what a map's field holds.
    Field(Bytes, Box<Part>),
}

/// Why a payload is no part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PartError {
    /// Its bytes are not what a part's are.
    #[error("the payload of a typed key does not decode")]
    Malformed(#[source] DecodeError),
    /// Maps lie in maps too deep.
    #[error("maps are nested deeper than {MAP_DEPTH_MAX}")]
    Depth,
}

impl Part {
    /// How many maps it lies in.
    pub fn depth(&self) -> usize {
        match self {
            Self::Amount(_) | Self::Element(_) | Self::Register(_) | Self::Latest(_) => 0,
            Self::Field(_, inner) => 1 + inner.depth(),
        }
    }

    /// For each field that it lies in a byte 5 and the name with its length in front; then a
    /// byte 1 and a signed number, or a byte 2 to 4 and the bytes up to the end.
    pub fn encode(&self) -> Bytes {
        let mut to = Writer::default();
        self.write(&mut to);
        to.finish()
    }

    fn write(&self, to: &mut Writer) {
        match self {
            Self::Amount(amount) => {
                to.byte(AMOUNT);
                to.signed(*amount);
            }
            Self::Element(bytes) => Self::write_bytes(to, ELEMENT, bytes),
            Self::Register(bytes) => Self::write_bytes(to, REGISTER, bytes),
            Self::Latest(bytes) => Self::write_bytes(to, LATEST, bytes),
            Self::Field(name, inner) => {
                to.byte(FIELD);
                to.bytes(name);
                inner.write(to);
            }
        }
    }

    fn write_bytes(to: &mut Writer, kind: u8, bytes: &[u8]) {
        to.byte(kind);
        to.raw(bytes);
    }

    /// Reads what [`Part::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`PartError`] for anything else.
    pub fn decode(input: &Bytes) -> Result<Self, PartError> {
        Self::read(Reader::new(input), 0)
    }

    fn read(mut from: Reader, depth: usize) -> Result<Self, PartError> {
        match from.byte("part").map_err(PartError::Malformed)? {
            AMOUNT => {
                let amount = from.signed("amount").map_err(PartError::Malformed)?;
                from.finish().map_err(PartError::Malformed)?;
                Ok(Self::Amount(amount))
            }
            ELEMENT => Ok(Self::Element(from.rest())),
            REGISTER => Ok(Self::Register(from.rest())),
            LATEST => Ok(Self::Latest(from.rest())),
            FIELD if depth == MAP_DEPTH_MAX => Err(PartError::Depth),
            FIELD => {
                let name = from.bytes("field").map_err(PartError::Malformed)?;
                let inner = Self::read(from, depth + 1)?;
                Ok(Self::Field(name, Box::new(inner)))
            }
            _ => Err(PartError::Malformed(DecodeError::Number("kind of part"))),
        }
    }
}
