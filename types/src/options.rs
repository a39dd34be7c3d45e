//! A keyspace's options, and which values they take.
//!
//! Not here: which levels a mode serves (see `served`), and where options are kept (the
//! catalog).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration::format_duration;
use crate::error::{FieldError, ParseError};
use crate::key::Partitioning;
use crate::limits::{
    HISTORY_DEFAULT, HISTORY_MAX, KEY_MAX_BYTES, KEYSPACE_NAME_MAX_BYTES, PARTITIONS_MAX,
    PREFIX_QUOTAS_MAX, REPLICATION_DEFAULT, REPLICATION_MAX, SCHEMA_MAX_BYTES, SCHEMAS_MAX,
    TTL_MAX, VALUE_MAX_BYTES_CAP, VALUE_MAX_BYTES_DEFAULT,
};

/// Gives an enum of plain words its text form, in both directions.
macro_rules! words {
    ($name:ident, $what:literal, $($variant:ident = $text:literal),+) => {
        impl $name {
            /// All values, in the order of their declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word on the command line and on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $text),+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|value| value.as_str() == text)
                    .ok_or_else(|| ParseError::new($what, text, [$($text),+].join(", ")))
            }
        }
    };
}

/// Which of the two paths a keyspace has. Fixed at its creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Consensus only: eventual requests are refused.
    Strong,
    /// Both paths on the same keys.
    #[default]
    Mixed,
    /// No consensus: linearizable requests are refused.
    Eventual,
}

words!(
    Mode,
    "mode",
    Strong = "strong",
    Mixed = "mixed",
    Eventual = "eventual"
);

/// Which clients a keyspace serves. Fixed at its creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// Quorate's own.
    #[default]
    Quorate,
    /// etcd's, and no others: one range, one counter of revisions.
    Etcd,
}

words!(Api, "api", Quorate = "quorate", Etcd = "etcd");

/// What happens to values written concurrently. Fixed at the keyspace's creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictPolicy {
    /// All are kept until a write that saw them replaces them.
    #[default]
    Siblings,
    /// Reads show the one with the latest timestamp among the concurrent ones.
    LastWriteWins,
    /// Amounts are summed.
    Counter,
    /// Elements are joined; an add wins over a concurrent remove.
    Set,
    /// Fields are joined one by one.
    Map,
}

impl ConflictPolicy {
    /// Whether a key is the sum of many writes, of which each stands for a part.
    pub const fn is_typed(self) -> bool {
        match self {
            Self::Siblings | Self::LastWriteWins => false,
            Self::Counter | Self::Set | Self::Map => true,
        }
    }
}

words!(
    ConflictPolicy,
    "conflict policy",
    Siblings = "siblings",
    LastWriteWins = "last_write_wins",
    Counter = "counter",
    Set = "set",
    Map = "map"
);

/// What the keys of a prefix may take. Neither: no quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrefixQuota {
    /// Most keys; 0: any number.
    pub max_keys: u64,
    /// Most bytes of keys and values; 0: any number.
    pub max_bytes: u64,
}

/// What a keyspace's creator may choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyspaceOptions {
    /// Which paths it has.
    pub mode: Mode,
    /// What happens to concurrent values.
    pub conflict: ConflictPolicy,
    /// How its keys are laid out over ranges.
    pub partitioning: Partitioning,
    /// Primaries of each range.
    pub replication: u8,
    /// How long superseded committed versions stay readable; zero for not at all.
    #[serde(with = "crate::duration::as_text")]
    pub history: Duration,
    /// Time to live of values that are put without one.
    #[serde(with = "crate::duration::as_optional_text")]
    pub ttl_default: Option<Duration>,
    /// Longest user key.
    pub key_max_bytes: u32,
    /// Largest value.
    pub value_max_bytes: u32,
    /// Most bytes of keys and values in all; none: no limit.
    pub quota_bytes: Option<u64>,
    /// By prefix, the JSON Schema that values of its keys must fit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub schemas: BTreeMap<String, String>,
    /// What the keys of a prefix may take.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub quotas: BTreeMap<String, PrefixQuota>,
    /// Which clients it serves.
    pub api: Api,
}

impl Default for KeyspaceOptions {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            conflict: ConflictPolicy::default(),
            partitioning: Partitioning::default(),
            replication: REPLICATION_DEFAULT,
            history: HISTORY_DEFAULT,
            ttl_default: None,
            key_max_bytes: KEY_MAX_BYTES as u32,
            value_max_bytes: VALUE_MAX_BYTES_DEFAULT as u32,
            quota_bytes: None,
            schemas: BTreeMap::new(),
            quotas: BTreeMap::new(),
            api: Api::default(),
        }
    }
}

impl KeyspaceOptions {
    /// Whether every option is within its limits.
    ///
    /// # Errors
    ///
    /// [`FieldError`] naming the first option that is not, and its limits.
    pub fn validate(&self) -> Result<(), FieldError> {
        in_limits(
            "partitioning",
            u64::from(match self.partitioning {
                Partitioning::Ordered => 1,
                Partitioning::Hash(buckets) => buckets,
            }),
            u64::from(PARTITIONS_MAX),
        )?;
        in_limits(
            "replication",
            u64::from(self.replication),
            u64::from(REPLICATION_MAX),
        )?;
        in_limits(
            "key_max_bytes",
            u64::from(self.key_max_bytes),
            KEY_MAX_BYTES as u64,
        )?;
        in_limits(
            "value_max_bytes",
            u64::from(self.value_max_bytes),
            VALUE_MAX_BYTES_CAP as u64,
        )?;
        if let Some(quota) = self.quota_bytes {
            in_limits("quota_bytes", quota, u64::MAX)?;
        }
        self.validate_schemas()?;
        self.validate_quotas()?;
        self.validate_api()?;
        self.validate_times()
    }

    /// Their number and size; what they say is for whoever checks values by them.
    fn validate_schemas(&self) -> Result<(), FieldError> {
        if self.schemas.is_empty() {
            return Ok(());
        }
        let count = self.schemas.len();
        let longest = self.schemas.values().map(String::len).max().unwrap_or(0);
        let problem = if self.conflict.is_typed() {
            format!(
                "a keyspace of {}s has no values that a schema could fit",
                self.conflict
            )
        } else if count > SCHEMAS_MAX {
            format!("{count} are more than {SCHEMAS_MAX}")
        } else if longest > SCHEMA_MAX_BYTES {
            format!("one of {longest} bytes; at most {SCHEMA_MAX_BYTES}")
        } else {
            return Ok(());
        };
        Err(FieldError::new("schemas", problem))
    }

    /// One log must decide what a quota counts.
    fn validate_quotas(&self) -> Result<(), FieldError> {
        let problem = if self.quotas.is_empty() {
            return Ok(());
        } else if self.mode == Mode::Eventual {
            "a keyspace of mode eventual has no log that could count".to_owned()
        } else if self.partitioning != Partitioning::Ordered {
            format!(
                "keys of a prefix lie in many ranges of {}, which decide each for themselves: quotas of prefixes are of ordered keyspaces",
                self.partitioning
            )
        } else if self.quotas.keys().any(String::is_empty) {
            "the quota of all keys is the keyspace's own, `quota_bytes`".to_owned()
        } else if self.quotas.len() > PREFIX_QUOTAS_MAX {
            format!("{} are more than {PREFIX_QUOTAS_MAX}", self.quotas.len())
        } else {
            return Ok(());
        };
        Err(FieldError::new("quotas", problem))
    }

    /// etcd's clients count revisions over all keys, and read old ones until they are compacted.
    fn validate_api(&self) -> Result<(), FieldError> {
        let problem = match self.api {
            Api::Quorate => return Ok(()),
            Api::Etcd if self.mode != Mode::Strong => "etcd's API needs mode strong",
            Api::Etcd if self.partitioning != Partitioning::Ordered => {
                "etcd's API needs ordered partitioning: its revisions count over all keys"
            }
            Api::Etcd if self.history.is_zero() => {
                "etcd's API needs history: old revisions are read until they are compacted"
            }
            Api::Etcd if self.ttl_default.is_some() => {
                "keys of etcd's API expire with leases; leave out the ttl"
            }
            Api::Etcd if self.quota_bytes.is_some() => {
                "a keyspace of etcd's API has no quota as a whole; leave it out, and give its prefixes some"
            }
            Api::Etcd => return Ok(()),
        };
        Err(FieldError::new("api", problem))
    }

    fn validate_times(&self) -> Result<(), FieldError> {
        if self.history > HISTORY_MAX {
            let problem = format!(
                "{} is too long; at most {}, and 0 for no history",
                format_duration(self.history),
                format_duration(HISTORY_MAX)
            );
            return Err(FieldError::new("history", problem));
        }
        match self.ttl_default {
            Some(ttl) if ttl.is_zero() || ttl > TTL_MAX => {
                let problem = format!(
                    "{} is not above 0 and at most {}",
                    format_duration(ttl),
                    format_duration(TTL_MAX)
                );
                Err(FieldError::new("ttl_default", problem))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether a number lies between 1 and `max`.
fn in_limits(field: &'static str, value: u64, max: u64) -> Result<(), FieldError> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(FieldError::new(
        field,
        format!("{value} is not from 1 to {max}"),
    ))
}

/// Whether a keyspace may be called `name`: 1 to 128 of `a-z 0-9 . _ -`, and no dot first.
///
/// # Errors
///
/// [`FieldError`] on `keyspace`, saying what is wrong with the name.
pub fn validate_keyspace_name(name: &str) -> Result<(), FieldError> {
    let strange = name
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-'));
    let problem = if name.is_empty() {
        "the name is empty".to_owned()
    } else if name.len() > KEYSPACE_NAME_MAX_BYTES {
        format!("the name has {} bytes", name.len())
    } else if let Some(strange) = strange {
        format!("{strange:?} cannot be in a name")
    } else if name.starts_with('.') {
        "a name does not start with a dot".to_owned()
    } else {
        return Ok(());
    };
    Err(FieldError::new(
        "keyspace",
        format!("{problem}; allowed: 1 to {KEYSPACE_NAME_MAX_BYTES} of a-z 0-9 . _ -"),
    ))
}
