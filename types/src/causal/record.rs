//! What a replica holds of one key, and the self-contained form that repair and reads send.
//!
//! Not here: the rules that change a record (see `join`), and what its values mean (see
//! `evaluate`).

use bytes::Bytes;

use super::encoding::{DecodeError, Reader, Writer};
use super::{Clock, Dot, Dots};
use crate::time::Timestamp;

const RECORD_VERSION: u8 = 1;
const STATE_VERSION: u8 = 1;

/// Fewest bytes that a live value takes with its dot: what bounds the count of an encoding.
const LIVE_MIN_BYTES: usize = 6;
/// What a live value usually takes beside its payload, at most.
pub(super) const LIVE_USUAL_BYTES: usize = 48;

/// The value of a live dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// What was put; in keyspaces of typed keys, an encoded [`super::Part`].
    pub payload: Bytes,
    /// When it was written. Chooses among concurrent values only.
    pub timestamp: Timestamp,
    /// From when on it is hidden.
    pub expiry: Option<Timestamp>,
}

impl Value {
    /// Whether reads at `now` show it.
    pub fn is_visible(&self, now: Timestamp) -> bool {
        self.expiry.is_none_or(|expiry| now < expiry)
    }

    /// Timestamp, a byte 1 and the expiry or a byte 0, the payload with its length in front.
    pub(super) fn encode(&self, to: &mut Writer) {
        to.number(self.timestamp.0);
        match self.expiry {
            Some(expiry) => {
                to.byte(1);
                to.number(expiry.0);
            }
            None => to.byte(0),
        }
        to.bytes(&self.payload);
    }

    pub(super) fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        let timestamp = Timestamp(from.number("timestamp")?);
        let expiry = match from.byte("expiry")? {
            0 => None,
            1 => Some(Timestamp(from.number("expiry")?)),
            _ => return Err(DecodeError::Number("expiry")),
        };
        let payload = from.bytes("payload")?;
        Ok(Self {
            payload,
            timestamp,
            expiry,
        })
    }
}

/// Live values with their dots, sorted by dot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Live(Vec<(Dot, Value)>);

impl Live {
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &(Dot, Value)> {
        self.0.iter()
    }

    pub(super) fn contains(&self, dot: Dot) -> bool {
        self.0.binary_search_by_key(&dot, |(dot, _)| *dot).is_ok()
    }

    /// Adds a value unless its dot is there.
    pub(super) fn insert(&mut self, dot: Dot, value: Value) {
        if let Err(at) = self.0.binary_search_by_key(&dot, |(dot, _)| *dot) {
            self.0.insert(at, (dot, value));
        }
    }

    fn encode(&self, to: &mut Writer) {
        to.count(self.0.len());
        for (dot, value) in &self.0 {
            to.dot(*dot);
            value.encode(to);
        }
    }

    /// Bytes of the encoding, with some to spare for what usually stands beside it.
    fn room(&self) -> usize {
        let values = self.0.iter();
        let bytes = values.map(|(_, value)| LIVE_USUAL_BYTES + value.payload.len());
        bytes.sum::<usize>() + LIVE_USUAL_BYTES
    }

    fn decode(from: &mut Reader) -> Result<Self, DecodeError> {
        let count = from.count("live value", LIVE_MIN_BYTES)?;
        let mut live: Vec<(Dot, Value)> = Vec::new();
        for _ in 0..count {
            let dot = from.dot()?;
            if live.last().is_some_and(|(last, _)| *last >= dot) {
                return Err(DecodeError::Order("live values"));
            }
            live.push((dot, Value::decode(from)?));
        }
        Ok(Self(live))
    }
}

impl FromIterator<(Dot, Value)> for Live {
    fn from_iter<T: IntoIterator<Item = (Dot, Value)>>(values: T) -> Self {
        let mut live: Vec<(Dot, Value)> = values.into_iter().collect();
        live.sort_by_key(|(dot, _)| *dot);
        live.dedup_by_key(|(dot, _)| *dot);
        Self(live)
    }
}

/// What a replica holds of one key. The record of a key that is not stored is the default.
///
/// Two replicas hold the same of a key if their records are equal: hash trees take the
/// whole encoding, `beyond` included, since equal live values alone leave out what a record
/// knows to be dead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub(super) live: Live,
    pub(super) beyond: Dots,
}

impl Record {
    /// The live values with their dots, sorted by dot.
    pub fn live(&self) -> impl ExactSizeIterator<Item = &(Dot, Value)> {
        self.live.iter()
    }

    /// The dots of the key, live, replaced or told by a context, that base did not cover
    /// when the record was last settled; as one interval from 1 where no gap is between them
    /// and the base. Empty if base covers all.
    pub const fn beyond(&self) -> &Dots {
        &self.beyond
    }

    /// Whether the clock says all that this record could say: it is not stored.
    pub fn is_gone(&self) -> bool {
        self.live.iter().len() == 0 && self.beyond.is_empty()
    }

    /// Whether `dot` was taken in or told of: if so and it is not live, it is dead.
    pub fn knows(&self, clock: &Clock, dot: Dot) -> bool {
        clock.covers(dot) || self.beyond.contains(dot)
    }

    /// The context of the key: all dots that a reader of this record has seen.
    pub fn context(&self, clock: &Clock) -> Dots {
        let mut context = clock.base();
        context.union(&self.beyond);
        context
    }

    /// What repair and reads send of the key.
    pub fn state(&self, clock: &Clock) -> KeyState {
        KeyState {
            live: self.live.clone(),
            context: self.context(clock),
        }
    }

    /// Whether the record keeps its own rules and its clock's: each live dot is known. A
    /// record of a store is also settled: [`super::settle`] has nothing to do.
    ///
    /// # Errors
    ///
    /// The first live dot that is not known.
    pub fn validate(&self, clock: &Clock) -> Result<(), Dot> {
        match self.live().find(|(dot, _)| !self.knows(clock, *dot)) {
            Some((dot, _)) => Err(*dot),
            None => Ok(()),
        }
    }

    /// Version byte, the number of live values, of each its dot and value, `beyond`.
    pub fn encode(&self) -> Bytes {
        let mut to = Writer::with_room(RECORD_VERSION, self.live.room());
        self.live.encode(&mut to);
        self.beyond.encode(&mut to);
        to.finish()
    }

    /// Reads what [`Record::encode`] wrote. Payloads share the memory of `input`.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything else.
    pub fn decode(input: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::versioned(input, "record", RECORD_VERSION)?;
        let live = Live::decode(&mut from)?;
        let beyond = Dots::decode(&mut from)?;
        from.finish()?;
        Ok(Self { live, beyond })
    }
}

/// What some nodes know of one key, without a clock to expand it: live values and context.
/// A read joins those of several nodes; repair of a key sends one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyState {
    pub(super) live: Live,
    pub(super) context: Dots,
}

impl KeyState {
    /// These live values, and all dots known of the key. Live dots are known.
    pub fn of(live: impl IntoIterator<Item = (Dot, Value)>, mut context: Dots) -> Self {
        let live: Live = live.into_iter().collect();
        for (dot, _) in live.iter() {
            context.insert(*dot);
        }
        Self { live, context }
    }

    /// The live values with their dots, sorted by dot.
    pub fn live(&self) -> impl ExactSizeIterator<Item = &(Dot, Value)> {
        self.live.iter()
    }

    /// All dots known of the key.
    pub const fn context(&self) -> &Dots {
        &self.context
    }

    /// Takes in what others know: what one side knows and does not show is dead.
    pub fn join(&mut self, other: &Self) {
        let mine = self
            .live
            .iter()
            .filter(|(dot, _)| other.live.contains(*dot) || !other.context.contains(*dot));
        let theirs = other
            .live
            .iter()
            .filter(|(dot, _)| self.live.contains(*dot) || !self.context.contains(*dot));
        self.live = mine.chain(theirs).cloned().collect();
        self.context.union(&other.context);
    }

    /// Version byte, live values as in a record, context.
    pub fn encode(&self) -> Bytes {
        let mut to = Writer::with_room(STATE_VERSION, self.live.room());
        self.live.encode(&mut to);
        self.context.encode(&mut to);
        to.finish()
    }

    /// Reads what [`KeyState::encode`] wrote. Payloads share the memory of `input`.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for anything else, also for a live value outside its context.
    pub fn decode(input: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Reader::versioned(input, "key state", STATE_VERSION)?;
        let live = Live::decode(&mut from)?;
        let context = Dots::decode(&mut from)?;
        from.finish()?;
        if live.iter().any(|(dot, _)| !context.contains(*dot)) {
            return Err(DecodeError::Number("context"));
        }
        Ok(Self { live, context })
    }
}
