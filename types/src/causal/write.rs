//! What a client's write becomes: the contexts and payloads of its deltas, and the limits
//! that bind it. Plain rules for the coordinator; joins have no limits.
//!
//! Not here: naming the dots, storing and spreading (the coordinator does).

use std::collections::BTreeSet;

use bytes::Bytes;
use thiserror::Error;

use super::context::CONTEXT_MAX_BYTES;
use super::encoding::Writer;
use super::part::{MAP_DEPTH_MAX, Part};
use super::record::{KeyState, Value};
use super::{Actor, Delta, Dot, Dots};
use crate::options::ConflictPolicy;
use crate::time::Timestamp;

/// Most dots that are cut out of a context so that it can say what else was seen. Past it a
/// write of a part names only the dots that it replaces.
const CONTEXT_HOLES_MAX: usize = 64;

/// Limits of new writes of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most concurrent values of a key, or of a register in a map.
    pub siblings_max: usize,
    /// Most elements of a set, and live parts of a map.
    pub parts_max: usize,
    /// Longest element of a set, and longest name of a field.
    pub element_max_bytes: usize,
    /// Longest context that a delta carries.
    pub context_max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            siblings_max: 64,
            parts_max: 10_000,
            element_max_bytes: 4096,
            context_max_bytes: CONTEXT_MAX_BYTES,
        }
    }
}

/// What a client asks of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// A value in place of what was seen. In a field: a register with siblings.
    Put(Bytes),
    /// In a field only: a register of which reads show the latest value.
    PutLatest(Bytes),
    /// The key without what was seen. In a field: the field without it.
    Delete,
    /// A counter by so much.
    Increment(i64),
    /// Elements into a set.
    Add(Vec<Bytes>),
    /// Elements out of a set, as far as they were seen.
    Remove(Vec<Bytes>),
    /// Updates of a map's fields, each on its own.
    Fields(Vec<(Bytes, Update)>),
}

impl Update {
    /// Whether doing it twice comes to the same as doing it once, but for a sibling, as long as
    /// nobody else changes the key meanwhile. False wherever a counter is incremented.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Increment(_) => false,
            Self::Fields(fields) => fields.iter().all(|(_, update)| update.is_repeatable()),
            Self::Put(_) | Self::PutLatest(_) | Self::Delete | Self::Add(_) | Self::Remove(_) => {
                true
            }
        }
    }

    /// Its word in errors.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Put(_) => "put",
            Self::PutLatest(_) => "put latest",
            Self::Delete => "delete",
            Self::Increment(_) => "increment",
            Self::Add(_) => "set add",
            Self::Remove(_) => "set remove",
            Self::Fields(_) => "map update",
        }
    }
}

/// What the client says to have seen.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// Nothing was said: the write replaces what its coordinator sees.
    Coordinator,
    /// A context, which may be empty.
    Client(&'a Dots),
}

/// One delta to be: a name and a time are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What it replaces.
    pub context: Dots,
    /// Its payload; none for a delete.
    pub value: Option<Bytes>,
    /// Whether it folds amounts that were acknowledged: it is synced first, whatever the
    /// client asked for.
    pub folds: bool,
}

impl Planned {
    /// The delta, with its name and time. A delete has no expiry.
    pub fn delta(self, dot: Dot, timestamp: Timestamp, expiry: Option<Timestamp>) -> Delta {
        Delta {
            dot,
            context: self.context,
            expiry: expiry.filter(|_| self.value.is_some()),
            value: self.value,
            timestamp,
        }
    }
}

/// Why a write is refused. Nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WriteError {
    /// The keyspace's keys are of another kind.
    #[error("{update} is not for {holder} of a keyspace of policy {policy}")]
    Misfit {
        /// What was asked.
        update: &'static str,
        /// Of what: a key or a field.
        holder: &'static str,
        /// The keyspace's policy.
        policy: ConflictPolicy,
    },
    /// The write names nothing to do.
    #[error("{0} names nothing")]
    Empty(&'static str),
    /// A field is named twice, so that its updates would not see each other.
    #[error("a field is named twice in one map update")]
    Twice,
    /// Too many values stand beside each other: read them, and write with that context.
    #[error(
        "{found} concurrent values would stand beside each other, at most {max}: \
         read the key, merge them, and write with the context of that read"
    )]
    Siblings {
        /// How many there would be.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A set or map would have too many parts.
    #[error("the key would have {found} parts, at most {max}")]
    Parts {
        /// How many there would be.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// An element, or the name of a field, is too long.
    #[error("an element or field name of {found} bytes, at most {max}")]
    ElementBytes {
        /// Its length.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// Maps lie in maps too deep.
    #[error("maps are nested deeper than {MAP_DEPTH_MAX}")]
    Depth,
    /// A counter would leave 64 bits.
    #[error("the counter would be {0}, which does not fit 64 bits")]
    Overflow(i128),
    /// Too many gaps are open in the range's clock for a context of a bounded size.
    #[error(
        "the context would have {found} bytes, at most {max}: write without a context, \
         or wait until repair has closed the gaps"
    )]
    ContextBytes {
        /// Its size.
        found: usize,
        /// The limit.
        max: usize,
    },
}

/// What stays the same over the deltas of one write.
struct Plan<'a> {
    policy: ConflictPolicy,
    limits: &'a Limits,
    view: &'a KeyState,
    /// The live parts of the view; without those that do not decode, which no write touches.
    parts: Vec<(Dot, &'a Value, Part)>,
    seen: Seen<'a>,
    actor: Actor,
    expiry: Option<Timestamp>,
    planned: Vec<Planned>,
}

/// The deltas of a write, in the order in which they are named and stored, all together or
/// none.
///
/// `view` is what the coordinator sees of the key, and `actor` who will name the deltas.
/// From the reading of `view` until the deltas are stored, no other write of the key is
/// planned by the same actor: two that fold the same amount would count it twice.
///
/// # Errors
///
/// [`WriteError`] naming the limit, or what does not fit the keyspace.
pub fn plan(
    policy: ConflictPolicy,
    limits: &Limits,
    view: &KeyState,
    (seen, actor, expiry): (Seen<'_>, Actor, Option<Timestamp>),
    update: &Update,
) -> Result<Vec<Planned>, WriteError> {
    let parts = view
        .live()
        .filter(|_| policy.is_typed())
        .filter_map(|(dot, value)| {
            let part = Part::decode(&value.payload).ok()?;
            Some((*dot, value, part))
        });
    let mut plan = Plan {
        policy,
        limits,
        view,
        parts: parts.collect(),
        seen,
        actor,
        expiry,
        planned: Vec::new(),
    };
    plan.key(update)?;
    plan.check_sizes()?;
    Ok(plan.planned)
}

/// The live values that the deltas of a typed key were planned beside and that a log lacks which
/// knows `known`: as deltas that replace nothing, to be taken in before them.
///
/// A context holds what those values have replaced. A log that took the deltas in by themselves
/// would lose that, and show nothing in its place until it is told of the values.
pub fn beside(
    policy: ConflictPolicy,
    view: &KeyState,
    known: &Dots,
    deltas: &[Delta],
) -> Vec<Delta> {
    let is_named = |dot: Dot| match policy {
        ConflictPolicy::Siblings | ConflictPolicy::LastWriteWins => false,
        // An increment's context holds dots of its own actor.
        ConflictPolicy::Counter => deltas.iter().any(|delta| delta.dot.actor == dot.actor),
        ConflictPolicy::Set | ConflictPolicy::Map => true,
    };
    if deltas.iter().all(|delta| delta.context.is_empty()) {
        return Vec::new();
    }
    let is_replaced = |dot| deltas.iter().any(|delta| delta.context.contains(dot));
    let lacking = view.live().filter(|(dot, _)| {
        dot.actor != Actor::LOG && is_named(*dot) && !known.contains(*dot) && !is_replaced(*dot)
    });
    let deltas = lacking.map(|(dot, value)| Delta {
        dot: *dot,
        context: Dots::new(),
        value: Some(value.payload.clone()),
        timestamp: value.timestamp,
        expiry: value.expiry,
    });
    deltas.collect()
}

impl Plan<'_> {
    /// An update of the whole key.
    fn key(&mut self, update: &Update) -> Result<(), WriteError> {
        match (self.policy, update) {
            (_, Update::Delete) => {
                self.push(self.seen_whole(), None);
                Ok(())
            }
            (ConflictPolicy::Siblings | ConflictPolicy::LastWriteWins, Update::Put(value)) => {
                let context = self.seen_whole();
                let left = self.view.live().filter(|(dot, _)| !context.contains(*dot));
                self.check_siblings(left.count() + 1)?;
                self.push(context, Some(value.clone()));
                Ok(())
            }
            (ConflictPolicy::Counter, Update::Increment(_))
            | (ConflictPolicy::Set, Update::Add(_) | Update::Remove(_))
            | (ConflictPolicy::Map, Update::Fields(_)) => self.typed(&[], update),
            (
                ConflictPolicy::Siblings
                | ConflictPolicy::LastWriteWins
                | ConflictPolicy::Counter
                | ConflictPolicy::Set
                | ConflictPolicy::Map,
                Update::Put(_)
                | Update::PutLatest(_)
                | Update::Increment(_)
                | Update::Add(_)
                | Update::Remove(_)
                | Update::Fields(_),
            ) => Err(WriteError::Misfit {
                update: update.as_str(),
                holder: "a key",
                policy: self.policy,
            }),
        }
    }

    /// An update of what lies at a path of fields, or of the whole typed key at an empty one.
    fn typed(&mut self, path: &[Bytes], update: &Update) -> Result<(), WriteError> {
        match update {
            Update::Put(value) => self.register(path, Part::Register(value.clone())),
            Update::PutLatest(value) => self.register(path, Part::Latest(value.clone())),
            Update::Delete => {
                let context = self.scoped(|part| at_path(part, path).is_some());
                self.push(context, None);
                Ok(())
            }
            Update::Increment(amount) => self.increment(path, *amount),
            Update::Add(elements) => self.add(path, elements),
            Update::Remove(elements) => self.remove(path, elements),
            Update::Fields(fields) => self.fields(path, fields),
        }
    }

    fn fields(&mut self, path: &[Bytes], fields: &[(Bytes, Update)]) -> Result<(), WriteError> {
        if fields.is_empty() {
            return Err(WriteError::Empty("map update"));
        }
        if path.len() == MAP_DEPTH_MAX {
            return Err(WriteError::Depth);
        }
        let names: BTreeSet<&Bytes> = fields.iter().map(|(name, _)| name).collect();
        if names.len() < fields.len() {
            return Err(WriteError::Twice);
        }
        for (name, update) in fields {
            self.check_element(name)?;
            let mut inner = path.to_vec();
            inner.push(name.clone());
            self.typed(&inner, update)?;
        }
        Ok(())
    }

    /// A register replaces the values that were seen there, of either kind of register.
    fn register(&mut self, path: &[Bytes], part: Part) -> Result<(), WriteError> {
        let is_value = |part: &Part| {
            matches!(
                at_path(part, path),
                Some(Part::Register(_) | Part::Latest(_))
            )
        };
        let context = self.scoped(is_value);
        let left = self
            .parts
            .iter()
            .filter(|(dot, _, part)| is_value(part) && !context.contains(*dot));
        self.check_siblings(left.count() + 1)?;
        self.push_part(context, path, part);
        Ok(())
    }

    fn add(&mut self, path: &[Bytes], elements: &[Bytes]) -> Result<(), WriteError> {
        let elements: BTreeSet<&Bytes> = elements.iter().collect();
        if elements.is_empty() {
            return Err(WriteError::Empty("set add"));
        }
        for element in elements {
            self.check_element(element)?;
            let added = Part::Element(element.clone());
            let context = self.scoped(|part| at_path(part, path) == Some(&added));
            self.push_part(context, path, added);
        }
        Ok(())
    }

    fn remove(&mut self, path: &[Bytes], elements: &[Bytes]) -> Result<(), WriteError> {
        let elements: BTreeSet<&Bytes> = elements.iter().collect();
        if elements.is_empty() {
            return Err(WriteError::Empty("set remove"));
        }
        let context = self.scoped(|part| {
            matches!(at_path(part, path), Some(Part::Element(element)) if elements.contains(element))
        });
        self.push(context, None);
        Ok(())
    }

    /// An increment folds the actor's own amounts, so that a counter takes one dot an actor.
    /// Amounts of others are not replaced: they would be counted again where theirs grow. Nor are
    /// their earlier sums named, though they are known to be replaced: who takes this increment in
    /// may have to wait for what replaced them, and would miss all that they stand for.
    fn increment(&mut self, path: &[Bytes], amount: i64) -> Result<(), WriteError> {
        let amounts = self.parts.iter().filter_map(|(dot, value, part)| {
            let Some(Part::Amount(amount)) = at_path(part, path) else {
                return None;
            };
            Some((*dot, value.expiry, i128::from(*amount)))
        });
        let (mut total, mut own) = (i128::from(amount), i128::from(amount));
        let mut folded = Dots::new();
        for (dot, expiry, amount) in amounts {
            total += amount;
            if dot.actor == self.actor && expiry == self.expiry {
                own += amount;
                folded.insert(dot);
            }
        }
        if i64::try_from(total).is_err() {
            return Err(WriteError::Overflow(total));
        }
        let (context, amount) = match i64::try_from(own) {
            // With what was folded earlier: a late copy of an early sum must be known as one.
            Ok(own) if !folded.is_empty() => {
                let mine = self.view.context().of_actor(self.actor);
                (self.narrowed(&mine, folded), own)
            }
            Ok(own) => (Dots::new(), own),
            Err(_) => (Dots::new(), amount),
        };
        let folds = !context.is_empty();
        self.push_part(context, path, Part::Amount(amount));
        if let Some(planned) = self.planned.last_mut() {
            planned.folds = folds;
        }
        Ok(())
    }

    /// What a write of the whole key replaces.
    fn seen_whole(&self) -> Dots {
        match self.seen {
            Seen::Coordinator => self.view.context().clone(),
            Seen::Client(seen) => seen.clone(),
        }
    }

    /// What a write of some parts replaces: all that was seen, but for the live dots of other
    /// parts. Of a client's context only what the coordinator knows counts: of the rest it
    /// cannot tell whose parts they are.
    fn scoped(&self, is_mine: impl Fn(&Part) -> bool) -> Dots {
        let seen = match self.seen {
            Seen::Coordinator => self.view.context().clone(),
            Seen::Client(seen) => self.view.context().common(seen),
        };
        let mine = self.parts.iter().filter(|(_, _, part)| is_mine(part));
        let mine: Dots = mine
            .map(|(dot, _, _)| *dot)
            .filter(|dot| seen.contains(*dot))
            .collect();
        self.narrowed(&seen, mine)
    }

    /// What was seen, but for the live dots beside `mine`.
    fn narrowed(&self, seen: &Dots, mine: Dots) -> Dots {
        let live = self.view.live().map(|(dot, _)| *dot);
        let others: Vec<Dot> = live.filter(|dot| !mine.contains(*dot)).collect();
        if others.len() > CONTEXT_HOLES_MAX {
            return mine;
        }
        // What is closed goes: of it only live dots matter any more.
        let mut context = seen.without(&others.into_iter().collect());
        context.union(&mine);
        context
    }

    fn push(&mut self, context: Dots, value: Option<Bytes>) {
        self.planned.push(Planned {
            context,
            value,
            folds: false,
        });
    }

    fn push_part(&mut self, context: Dots, path: &[Bytes], part: Part) {
        let part = path
            .iter()
            .rev()
            .fold(part, |part, name| Part::Field(name.clone(), Box::new(part)));
        self.push(context, Some(part.encode()));
    }

    fn check_siblings(&self, found: usize) -> Result<(), WriteError> {
        match self.limits.siblings_max {
            max if found > max => Err(WriteError::Siblings { found, max }),
            _ => Ok(()),
        }
    }

    fn check_element(&self, element: &Bytes) -> Result<(), WriteError> {
        match (element.len(), self.limits.element_max_bytes) {
            (found, max) if found > max => Err(WriteError::ElementBytes { found, max }),
            (_, _) => Ok(()),
        }
    }

    /// Checks what the key would come to, and what its deltas carry.
    fn check_sizes(&self) -> Result<(), WriteError> {
        let max = self.limits.context_max_bytes;
        for planned in &self.planned {
            let mut encoded = Writer::default();
            planned.context.encode(&mut encoded);
            let found = encoded.finish().len();
            if found > max {
                return Err(WriteError::ContextBytes { found, max });
            }
        }
        let added = self
            .planned
            .iter()
            .filter(|planned| planned.value.is_some());
        let replaced = |dot: Dot| self.planned.iter().any(|plan| plan.context.contains(dot));
        let left = self.parts.iter().filter(|(dot, _, _)| !replaced(*dot));
        let (found, max) = (added.count() + left.count(), self.limits.parts_max);
        let grows = found > self.parts.len();
        if grows && found > max {
            return Err(WriteError::Parts { found, max });
        }
        Ok(())
    }
}

/// What a part is at a path of fields, if it lies there.
fn at_path<'p>(part: &'p Part, path: &[Bytes]) -> Option<&'p Part> {
    path.iter().try_fold(part, |part, name| match part {
        Part::Field(field, inner) if field == name => Some(&**inner),
        Part::Field(..)
        | Part::Amount(_)
        | Part::Element(_)
        | Part::Register(_)
        | Part::Latest(_) => None,
    })
}
