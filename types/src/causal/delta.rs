//! One write on its way: what coordinators spread, stand-ins keep as hints, logs replay.
//!
//! Not here: the key it is of, which its carrier names, and how it is joined (see `join`).

use bytes::Bytes;

use super::encoding::{DecodeError, Reader, Writer};
use super::record::{KeyState, LIVE_USUAL_BYTES, Value};
use super::{Dot, Dots};
use crate::time::Timestamp;

const VERSION: u8 = 1;

/// A write of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Its name, given before it is sent for the first time, and kept by every retry.
    pub dot: Dot,
    /// What it replaces. A delete's own dot is understood.
    pub context: Dots,
    /// The value; none for a delete.
    pub value: Option<Bytes>,
    /// When it was written.
    pub timestamp: Timestamp,
    /// From when on its value is hidden. A delete has none.
    pub expiry: Option<Timestamp>,
}

impl Delta {
    /// The value as a record holds it; none for a delete.
    pub fn live_value(&self) -> Option<Value> {
        self.value.clone().map(|payload| Value {
            payload,
            timestamp: self.timestamp,
            expiry: self.expiry,
        })
    }

    /// What a node that holds this write alone, such as a stand-in, knows of the key.
    pub fn state(&self) -> KeyState {
        let mut context = self.context.clone();
        context.insert(self.dot);
        KeyState::of(self.live_value().map(|value| (self.dot, value)), context)
    }

    /// Version byte, dot, context, then a byte 0 and the timestamp for a delete, or what a
    /// record holds of a value.
    pub fn encode(&self) -> Bytes {
        let payload = self.value.as_ref().map_or(0, Bytes::len);
        let mut to = Writer::with_room(VERSION, 2 * LIVE_USUAL_BYTES + payload);
        to.dot(self.dot);
        self.context.encode(&mut to);
        match self.live_value() {
            Some(value) => {
                to.byte(1);
                value.encode(&mut to);
            }
            None => {
                to.byte(0);
                to.number(self.timestamp.0);
            }
        }
        to.finish()
    }

    /// Reads what [`Delta::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything else.
    pub fn decode(input: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::versioned(input, "delta", VERSION)?;
        let dot = from.dot()?;
        let context = Dots::decode(&mut from)?;
        let delta = match from.byte("delta")? {
            0 => Self {
                dot,
                context,
                value: None,
                timestamp: Timestamp(from.number("timestamp")?),
                expiry: None,
            },
            1 => {
                let value = Value::decode(&mut from)?;
                Self {
                    dot,
                    context,
                    value: Some(value.payload),
                    timestamp: value.timestamp,
                    expiry: value.expiry,
                }
            }
            _ => return Err(DecodeError::Number("kind of delta")),
        };
        from.finish()?;
        Ok(delta)
    }
}
