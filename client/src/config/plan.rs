//! What a step would change: two states side by side. Plain code over values.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_types::Revision;

use super::error::ConfigError;
use super::store::{ConfigState, Held};
use super::{CONFIG_KEYS_MAX, CONFIG_STEP_MAX_BYTES};

/// What becomes of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Add {
        /// Its value.
        after: Bytes,
    },
    /// It had another value.
    Replace {
        /// Which one.
        before: Bytes,
        /// Its value from then on.
        after: Bytes,
    },
    /// It goes.
    Remove {
        /// What it was.
        before: Bytes,
    },
}

impl Change {
    /// The value before the step.
    pub fn before(&self) -> Option<&Bytes> {
        match self {
            Self::Add { .. } => None,
            Self::Replace { before, .. } | Self::Remove { before } => Some(before),
        }
    }

    /// The value after the step.
    pub fn after(&self) -> Option<&Bytes> {
        match self {
            Self::Add { after } | Self::Replace { after, .. } => Some(after),
            Self::Remove { .. } => None,
        }
    }
}

/// A step that could be made: what differs, and what it was made from.
#[derive(Clone, Debug)]
pub struct Plan {
    /// By key below the prefix.
    pub changes: BTreeMap<Bytes, Change>,
    /// Keys that are as they should be.
    pub unchanged: BTreeSet<Bytes>,
    /// Keys that are not in the bundle, and stay.
    pub kept: BTreeSet<Bytes>,
    /// The state that it was made from.
    pub(super) base: ConfigState,
}

/// What happens to keys that are there, and not in the bundle.
pub(super) enum Others<'a> {
    Keep,
    Prune,
    /// These go, the others stay.
    Remove(&'a BTreeSet<Bytes>),
}

impl Others<'_> {
    fn go(&self, key: &Bytes) -> bool {
        match self {
            Self::Keep => false,
            Self::Prune => true,
            Self::Remove(keys) => keys.contains(key),
        }
    }
}

impl Plan {
    /// The way from a state to a bundle.
    pub(super) fn new(
        base: ConfigState,
        wanted: BTreeMap<Bytes, Bytes>,
        others: &Others<'_>,
    ) -> Result<Self, ConfigError> {
        let mut plan = Plan {
            changes: BTreeMap::new(),
            unchanged: BTreeSet::new(),
            kept: BTreeSet::new(),
            base,
        };
        for (key, held) in &plan.base.entries {
            if wanted.contains_key(key) {
                continue;
            }
            if others.go(key) {
                let before = held.value.clone();
                plan.changes.insert(key.clone(), Change::Remove { before });
            } else {
                plan.kept.insert(key.clone());
            }
        }
        for (key, after) in wanted {
            let change = match plan.base.entries.get(&key) {
                Some(Held { value, .. }) if *value == after => {
                    plan.unchanged.insert(key);
                    continue;
                }
                Some(Held { value, .. }) => Change::Replace {
                    before: value.clone(),
                    after,
                },
                None => Change::Add { after },
            };
            plan.changes.insert(key, change);
        }
        plan.check_limits()?;
        Ok(plan)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether a step is to be made of it: something differs, or nothing was ever applied here, so
    /// that there is a state to go back to.
    pub fn is_worth_a_step(&self) -> bool {
        !self.is_empty() || self.base.head.is_none()
    }

    /// Keys that are added, changed, removed.
    pub fn counts(&self) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for change in self.changes.values() {
            match change {
                Change::Add { .. } => counts.0 += 1,
                Change::Replace { .. } => counts.1 += 1,
                Change::Remove { .. } => counts.2 += 1,
            }
        }
        counts
    }

    /// What each key of the bundle was when the plan was made; none: absent.
    pub(super) fn seen(&self) -> impl Iterator<Item = (&Bytes, Option<Revision>)> {
        let keys = self.changes.keys().chain(&self.unchanged);
        keys.map(|key| (key, self.base.entries.get(key).map(|held| held.revision)))
    }

    /// The values under the prefix after the step.
    pub(super) fn after(&self) -> BTreeMap<&Bytes, &Bytes> {
        let there = self.base.entries.iter();
        let mut after: BTreeMap<_, _> = there.map(|(key, held)| (key, &held.value)).collect();
        for (key, change) in &self.changes {
            match change.after() {
                Some(value) => after.insert(key, value),
                None => after.remove(key),
            };
        }
        after
    }

    fn check_limits(&self) -> Result<(), ConfigError> {
        let keys = self.changes.len() + self.unchanged.len();
        if keys > CONFIG_KEYS_MAX {
            return Err(ConfigError::TooLarge {
                what: "keys",
                found: keys,
                limit: CONFIG_KEYS_MAX,
            });
        }
        let prefix = self.base.prefix.as_str().len();
        let bytes = |(key, change): (&Bytes, &Change)| {
            prefix + key.len() + change.after().map_or(0, Bytes::len)
        };
        let found = self.changes.iter().map(bytes).sum();
        if found > CONFIG_STEP_MAX_BYTES {
            return Err(ConfigError::TooLarge {
                what: "bytes of keys and values that differ",
                found,
                limit: CONFIG_STEP_MAX_BYTES,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::layout::ConfigPrefix;
    use super::*;

    fn state(entries: &[(&'static str, &'static str)]) -> ConfigState {
        let held = |(at, (key, value)): (usize, &(&'static str, &'static str))| {
            let held = Held {
                value: Bytes::from_static(value.as_bytes()),
                revision: Revision(at as u64 + 1),
            };
            (Bytes::from_static(key.as_bytes()), held)
        };
        ConfigState {
            prefix: ConfigPrefix::new("p").unwrap(),
            entries: entries.iter().enumerate().map(held).collect(),
            head: None,
        }
    }

    fn bundle(entries: &[(&'static str, &'static str)]) -> BTreeMap<Bytes, Bytes> {
        let entries = entries.iter();
        entries.map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    /// `+added ~replaced -removed =unchanged ?kept`, in the order of keys.
    fn check(there: &[(&'static str, &'static str)], others: Others<'_>, expected: &str) {
        let wanted = bundle(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let plan = Plan::new(state(there), wanted, &others).unwrap();
        let changes = plan.changes.iter().map(|(key, change)| {
            let sign = match change {
                Change::Add { .. } => '+',
                Change::Replace { .. } => '~',
                Change::Remove { .. } => '-',
            };
            (key.clone(), sign)
        });
        let mut all: Vec<(Bytes, char)> = changes.collect();
        all.extend(plan.unchanged.iter().map(|key| (key.clone(), '=')));
        all.extend(plan.kept.iter().map(|key| (key.clone(), '?')));
        all.sort();
        let shown = all.iter().map(|(key, sign)| {
            let key = std::str::from_utf8(key).unwrap();
            format!("{sign}{key}")
        });
        assert_eq!(shown.collect::<Vec<_>>().join(" "), expected);
        let after = plan.after();
        for (key, value) in bundle(&[("a", "1"), ("b", "2"), ("c", "3")]) {
            assert_eq!(after.get(&key), Some(&&value));
        }
    }

    #[test]
    fn plans_say_what_differs() {
        check(&[], Others::Keep, "+a +b +c");
        let there = [("a", "1"), ("b", "x"), ("d", "4"), ("e", "5")];
        check(&there, Others::Keep, "=a ~b +c ?d ?e");
        check(&there, Others::Prune, "=a ~b +c -d -e");
        let some = BTreeSet::from([Bytes::from("e")]);
        check(&there, Others::Remove(&some), "=a ~b +c ?d -e");
    }

    #[test]
    fn all_of_a_bundle_is_compared_and_what_is_kept_is_not() {
        let there = state(&[("a", "1"), ("b", "x"), ("z", "")]);
        let plan = Plan::new(
            there,
            bundle(&[("a", "1"), ("b", "2"), ("c", "3")]),
            &Others::Keep,
        );
        let plan = plan.unwrap();
        let seen: BTreeMap<_, _> = plan.seen().collect();
        assert_eq!(seen[&Bytes::from("a")], Some(Revision(1)));
        assert_eq!(seen[&Bytes::from("b")], Some(Revision(2)));
        assert_eq!(seen[&Bytes::from("c")], None);
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn what_no_step_can_hold_is_refused_with_the_limit() {
        let many = (0..=CONFIG_KEYS_MAX).map(|n| (Bytes::from(n.to_string()), Bytes::new()));
        let refused = Plan::new(state(&[]), many.collect(), &Others::Keep).unwrap_err();
        assert!(
            refused.to_string().contains(&CONFIG_KEYS_MAX.to_string()),
            "{refused}"
        );
        let large = BTreeMap::from([("a".into(), vec![0; CONFIG_STEP_MAX_BYTES].into())]);
        let refused = Plan::new(state(&[]), large, &Others::Keep).unwrap_err();
        assert!(refused.to_string().contains("bytes"), "{refused}");
    }
}
