//! Keyspace options between the wire and the types.

use std::time::Duration;

use quorate_types::{FieldError, KeyspaceOptions, ParseError, PrefixQuota};

use crate::v1;

/// Why options from the wire are not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// A text that is not one of the allowed ones.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A number out of its limits.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A number that does not fit at all.
    #[error("{0} is too large")]
    TooLarge(&'static str),
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Options as they travel, all fields set.
pub fn to_wire(options: &KeyspaceOptions) -> v1::KeyspaceOptions {
    v1::KeyspaceOptions {
        mode: options.mode.to_string(),
        conflict: options.conflict.to_string(),
        partitioning: options.partitioning.to_string(),
        replication: u32::from(options.replication),
        history_ms: Some(millis(options.history)),
        ttl_ms: Some(options.ttl_default.map_or(0, millis)),
        key_max_bytes: Some(options.key_max_bytes),
        value_max_bytes: Some(options.value_max_bytes),
        quota_bytes: Some(options.quota_bytes.unwrap_or(0)),
        api: options.api.to_string(),
        schemas: options.schemas.iter().map(schema_to_wire).collect(),
        quotas: options.quotas.iter().map(quota_to_wire).collect(),
    }
}

fn schema_to_wire((prefix, schema): (&String, &String)) -> v1::PrefixSchema {
    v1::PrefixSchema {
        prefix: prefix.clone(),
        schema: schema.clone(),
    }
}

/// A prefix's quota as it travels.
pub fn quota_to_wire((prefix, quota): (&String, &PrefixQuota)) -> v1::PrefixQuota {
    v1::PrefixQuota {
        prefix: prefix.clone(),
        max_keys: quota.max_keys,
        max_bytes: quota.max_bytes,
    }
}

/// What is set in `wire`, over `base`.
pub fn from_wire(
    wire: &v1::KeyspaceOptions,
    base: KeyspaceOptions,
) -> Result<KeyspaceOptions, OptionsError> {
    let mut options = base;
    if !wire.mode.is_empty() {
        options.mode = wire.mode.parse()?;
    }
    if !wire.conflict.is_empty() {
        options.conflict = wire.conflict.parse()?;
    }
    if !wire.partitioning.is_empty() {
        options.partitioning = wire.partitioning.parse()?;
    }
    if !wire.api.is_empty() {
        options.api = wire.api.parse()?;
    }
    if wire.replication != 0 {
        options.replication =
            u8::try_from(wire.replication).map_err(|_| OptionsError::TooLarge("replication"))?;
    }
    if let Some(history) = wire.history_ms {
        options.history = Duration::from_millis(history);
    }
    if let Some(ttl) = wire.ttl_ms {
        options.ttl_default = (ttl > 0).then(|| Duration::from_millis(ttl));
    }
    if let Some(bytes) = wire.key_max_bytes {
        options.key_max_bytes = bytes;
    }
    if let Some(bytes) = wire.value_max_bytes {
        options.value_max_bytes = bytes;
    }
    if let Some(bytes) = wire.quota_bytes {
        options.quota_bytes = (bytes > 0).then_some(bytes);
    }
    for schema in &wire.schemas {
        if schema.schema.is_empty() {
            options.schemas.remove(&schema.prefix);
        } else {
            options
                .schemas
                .insert(schema.prefix.clone(), schema.schema.clone());
        }
    }
    for quota in &wire.quotas {
        let limits = PrefixQuota {
            max_keys: quota.max_keys,
            max_bytes: quota.max_bytes,
        };
        if limits == PrefixQuota::default() {
            options.quotas.remove(&quota.prefix);
        } else {
            options.quotas.insert(quota.prefix.clone(), limits);
        }
    }
    options.validate()?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_the_wire() {
        let quota = PrefixQuota {
            max_keys: 7,
            max_bytes: 0,
        };
        let options = KeyspaceOptions {
            history: Duration::from_secs(7),
            schemas: [("app/".to_owned(), "{}".to_owned())].into(),
            quotas: [("app/".to_owned(), quota)].into(),
            ..Default::default()
        };
        let back = from_wire(&to_wire(&options), KeyspaceOptions::default());
        assert_eq!(back, Ok(options));
    }
}
