//! What a reader is shown of a key's live values, by the conflict policy of its keyspace.
//!
//! Expired values are left out before anything else, so that nothing changes for readers
//! when they die. Not here: what is live (see `join`), and writing (see `write`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use thiserror::Error;

use super::part::{Part, PartError};
use super::record::{KeyState, Value};
use super::{Binding, Context, Dot};
use crate::options::ConflictPolicy;
use crate::time::Timestamp;

/// A live value as readers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The write that put it.
    pub dot: Dot,
    /// The value.
    pub value: Bytes,
    /// When it was written.
    pub timestamp: Timestamp,
    /// From when on it is hidden.
    pub expiry: Option<Timestamp>,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Nothing that is visible.
    Absent,
    /// Concurrent values, sorted by dot; one if there is no conflict.
    Siblings(Vec<Shown>),
    /// The latest of the concurrent values, and the others, which stay live until a write
    /// that saw them, sorted by dot.
    Latest {
        /// The value.
        shown: Shown,
        /// Those that lost.
        others: Vec<Shown>,
    },
    /// A counter's sum.
    Counter(i64),
    /// A set's elements.
    Set(BTreeSet<Bytes>),
    /// A map's fields.
    Map(BTreeMap<Bytes, Field>),
}

impl Reading {
    /// How many values stand beside each other where one was meant to be; 0 or 1 without
    /// conflict. Counters and sets have no conflicts, a map has its fields'.
    pub fn siblings(&self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Siblings(values) => values.len(),
            Self::Latest { others, .. } => 1 + others.len(),
            Self::Counter(_) | Self::Set(_) => 1,
            Self::Map(fields) => fields.values().map(Field::siblings).max().unwrap_or(0),
        }
    }
}

/// What a map holds under one name. Where writers disagreed about the kind, several kinds
/// stand beside each other, and each is right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// Values of which concurrent ones are siblings, sorted by dot.
    pub registers: Vec<Shown>,
    /// Values of which the latest is shown: that one first, then the others by dot.
    pub latest: Vec<Shown>,
    /// A counter.
    pub counter: Option<i64>,
    /// A set.
    pub set: BTreeSet<Bytes>,
    /// A map in the map.
    pub map: BTreeMap<Bytes, Field>,
}

impl Field {
    fn siblings(&self) -> usize {
        let nested = self.map.values().map(Self::siblings).max().unwrap_or(0);
        self.registers.len().max(self.latest.len()).max(nested)
    }
}

/// A read's answer about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReading {
    /// What the key holds.
    pub reading: Reading,
    /// How many live values stand beside each other, see [`Reading::siblings`].
    pub siblings: usize,
    /// What the reader has seen now, to be sent back with its next write. An absent key has
    /// one too.
    pub context: Context,
}

impl KeyReading {
    /// What readers at `now` are told of a key, with its context sealed for `binding`.
    ///
    /// # Errors
    ///
    /// [`EvaluateError`], for typed keys only.
    pub fn of(
        state: &KeyState,
        policy: ConflictPolicy,
        now: Timestamp,
        binding: &Binding<'_>,
    ) -> Result<Self, EvaluateError> {
        let reading = evaluate(policy, state, now)?;
        Ok(Self {
            siblings: reading.siblings(),
            reading,
            context: Context::seal(state.context(), binding),
        })
    }
}

/// Why live values cannot be shown. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EvaluateError {
    /// A counter's sum is out of the bounds of 64 bits: decrement it, or delete it.
    #[error("the counter's sum, {0}, does not fit 64 bits")]
    Overflow(i128),
    /// A payload does not decode.
    #[error("the value of write {dot} cannot be read")]
    Payload {
        /// Whose.
        dot: Dot,
        /// What is wrong with it.
        #[source]
        source: PartError,
    },
    /// A payload is of another kind than the keyspace's.
    #[error("the value of write {dot} does not fit a keyspace of policy {policy}")]
    Misfit {
        /// Whose.
        dot: Dot,
        /// The keyspace's policy.
        policy: ConflictPolicy,
    },
}

/// What readers at `now` are shown of a key.
///
/// # Errors
///
/// [`EvaluateError`], for typed keys only.
pub fn evaluate(
    policy: ConflictPolicy,
    state: &KeyState,
    now: Timestamp,
) -> Result<Reading, EvaluateError> {
    let visible: Vec<&(Dot, Value)> = state
        .live()
        .filter(|(_, value)| value.is_visible(now))
        .collect();
    if visible.is_empty() {
        return Ok(Reading::Absent);
    }
    match policy {
        ConflictPolicy::Siblings => Ok(Reading::Siblings(visible.into_iter().map(show).collect())),
        ConflictPolicy::LastWriteWins => {
            let mut values = latest_first(visible.into_iter().map(show).collect());
            let shown = values.remove(0);
            Ok(Reading::Latest {
                shown,
                others: values,
            })
        }
        ConflictPolicy::Counter | ConflictPolicy::Set | ConflictPolicy::Map => {
            let mut sum = Gathered::default();
            for (dot, value) in visible {
                sum.add_payload(policy, *dot, value)?;
            }
            sum.reading(policy)
        }
    }
}

fn show((dot, value): &(Dot, Value)) -> Shown {
    show_as(*dot, value, &value.payload)
}

fn show_as(dot: Dot, value: &Value, bytes: &Bytes) -> Shown {
    Shown {
        dot,
        value: bytes.clone(),
        timestamp: value.timestamp,
        expiry: value.expiry,
    }
}

/// Moves the latest value to the front: that of the greatest timestamp, of two with the
/// same one that of the greater actor, so that all replicas choose alike.
fn latest_first(mut values: Vec<Shown>) -> Vec<Shown> {
    let latest = (0..values.len()).max_by_key(|at| (values[*at].timestamp, values[*at].dot));
    if let Some(at) = latest {
        let shown = values.remove(at);
        values.insert(0, shown);
    }
    values
}

/// The parts of a typed key, or of a field, put together. Sums are kept wide, so that their
/// order does not matter.
#[derive(Default)]
struct Gathered {
    registers: Vec<Shown>,
    latest: Vec<Shown>,
    sum: Option<i128>,
    set: BTreeSet<Bytes>,
    fields: BTreeMap<Bytes, Gathered>,
}

impl Gathered {
    fn add_payload(
        &mut self,
        policy: ConflictPolicy,
        dot: Dot,
        value: &Value,
    ) -> Result<(), EvaluateError> {
        let part = Part::decode(&value.payload)
            .map_err(|source| EvaluateError::Payload { dot, source })?;
        let fits = match part {
            Part::Amount(_) => policy == ConflictPolicy::Counter,
            Part::Element(_) => policy == ConflictPolicy::Set,
            Part::Field(..) => policy == ConflictPolicy::Map,
            Part::Register(_) | Part::Latest(_) => false,
        };
        if !fits {
            return Err(EvaluateError::Misfit { dot, policy });
        }
        self.add(dot, value, part);
        Ok(())
    }

    fn add(&mut self, dot: Dot, value: &Value, part: Part) {
        match part {
            Part::Amount(amount) => {
                *self.sum.get_or_insert(0) += i128::from(amount);
            }
            Part::Element(element) => {
                self.set.insert(element);
            }
            Part::Register(bytes) => self.registers.push(show_as(dot, value, &bytes)),
            Part::Latest(bytes) => self.latest.push(show_as(dot, value, &bytes)),
            Part::Field(name, inner) => {
                self.fields.entry(name).or_default().add(dot, value, *inner);
            }
        }
    }

    fn counter(&self) -> Result<Option<i64>, EvaluateError> {
        let narrow = |sum| i64::try_from(sum).map_err(|_| EvaluateError::Overflow(sum));
        self.sum.map(narrow).transpose()
    }

    fn reading(self, policy: ConflictPolicy) -> Result<Reading, EvaluateError> {
        match policy {
            ConflictPolicy::Counter => Ok(Reading::Counter(self.counter()?.unwrap_or(0))),
            ConflictPolicy::Set => Ok(Reading::Set(self.set)),
            ConflictPolicy::Map | ConflictPolicy::Siblings | ConflictPolicy::LastWriteWins => {
                Ok(Reading::Map(self.field()?.map))
            }
        }
    }

    fn field(self) -> Result<Field, EvaluateError> {
        let counter = self.counter()?;
        let mut map = BTreeMap::new();
        for (name, gathered) in self.fields {
            map.insert(name, gathered.field()?);
        }
        Ok(Field {
            registers: self.registers,
            latest: latest_first(self.latest),
            counter,
            set: self.set,
            map,
        })
    }
}
