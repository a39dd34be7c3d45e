//! Keyspaces: made, changed, dropped by changes of the catalog, which the meta range decides.
//!
//! What a change means for placement and ranges is the catalog's business; here a request becomes
//! such a change, and the answer waits until it can be used.

use std::time::Duration;

use quorate_proto::options::{OptionsError, from_wire, to_wire};
use quorate_proto::v1;
use quorate_raft::catalog::{with_keyspace, with_options, without_keyspace};
use quorate_raft::{CatalogError, CatalogView, KeyspaceView, UpdateError};
use quorate_types::{Effect, KeyspaceOptions, validate_keyspace_name};
use tokio::time::Instant;

use crate::errors::GatewayError;
use crate::gateway::{Gateway, any_keyspace};

/// How long a new keyspace's answer waits for its ranges to have leaders.
const LEADERS_WAIT_MAX: Duration = Duration::from_secs(3);
/// How often it looks.
const LEADERS_WAIT_INTERVAL: Duration = Duration::from_millis(20);

impl Gateway {
    /// Makes a keyspace, and waits a little until its ranges that live here have leaders.
    ///
    /// # Errors
    ///
    /// `KEYSPACE_EXISTS`, a field; else see [`GatewayError`].
    pub async fn create_keyspace(
        &self,
        request: v1::CreateKeyspaceRequest,
        deadline: Instant,
    ) -> Result<v1::CreateKeyspaceResponse, GatewayError> {
        validate_keyspace_name(&request.name)?;
        let catalog = self.node().catalog();
        let wire = request.options.unwrap_or_default();
        let options = from_wire(&wire, defaults(&catalog)).map_err(bad_options)?;
        self.schemas().check_all(&options)?;
        let name = request.name.as_str();
        let catalog = self
            .change(deadline, name, |base| with_keyspace(base, name, &options))
            .await?;
        let made = any_keyspace(&catalog, name)?;
        self.await_leaders(made, deadline.min(Instant::now() + LEADERS_WAIT_MAX))
            .await;
        Ok(v1::CreateKeyspaceResponse {
            keyspace: Some(shown(made)),
        })
    }

    /// Changes a keyspace's times and limits.
    ///
    /// # Errors
    ///
    /// An option that cannot be changed; else see [`GatewayError`].
    pub async fn alter_keyspace(
        &self,
        request: v1::AlterKeyspaceRequest,
        deadline: Instant,
    ) -> Result<v1::AlterKeyspaceResponse, GatewayError> {
        let catalog = self.node().catalog();
        let present = any_keyspace(&catalog, &request.name)?;
        let wire = request.options.unwrap_or_default();
        let next = from_wire(&wire, present.options.clone()).map_err(bad_options)?;
        unchangeable(&present.options, &next)?;
        self.schemas().check_all(&next)?;
        let name = request.name.as_str();
        let catalog = self
            .change(deadline, name, |base| {
                // From what is there then: somebody else may have changed another option.
                let view = CatalogView::new(base.clone())?;
                let missing = || CatalogError::KeyspaceMissing(name.to_owned());
                let present = view.keyspace(name).ok_or_else(missing)?.options.clone();
                with_options(base, name, &from_wire(&wire, present)?)
            })
            .await?;
        let keyspace = any_keyspace(&catalog, name)?;
        Ok(v1::AlterKeyspaceResponse {
            keyspace: Some(shown(keyspace)),
        })
    }

    /// Drops a keyspace with all its keys.
    ///
    /// # Errors
    ///
    /// `KEYSPACE_NOT_FOUND`; else see [`GatewayError`].
    pub async fn drop_keyspace(
        &self,
        request: v1::DropKeyspaceRequest,
        deadline: Instant,
    ) -> Result<v1::DropKeyspaceResponse, GatewayError> {
        let catalog = self.node().catalog();
        let name = any_keyspace(&catalog, &request.name)?.name.as_str();
        self.change(deadline, name, |base| without_keyspace(base, name))
            .await?;
        Ok(v1::DropKeyspaceResponse {})
    }

    /// All keyspaces, or the one that is named.
    ///
    /// # Errors
    ///
    /// `KEYSPACE_NOT_FOUND`.
    pub fn list_keyspaces(
        &self,
        request: &v1::ListKeyspacesRequest,
    ) -> Result<v1::ListKeyspacesResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspaces = if request.name.is_empty() {
            catalog.keyspaces().iter().map(shown).collect()
        } else {
            vec![shown(any_keyspace(&catalog, &request.name)?)]
        };
        Ok(v1::ListKeyspacesResponse { keyspaces })
    }

    async fn change(
        &self,
        deadline: Instant,
        name: &str,
        change: impl Fn(
            &quorate_proto::internal::Catalog,
        ) -> Result<quorate_proto::internal::Catalog, CatalogError>
        + Send
        + Sync,
    ) -> Result<std::sync::Arc<CatalogView>, GatewayError> {
        self.node()
            .update_catalog(deadline, change)
            .await
            .map_err(|error| match error {
                UpdateError::Refused(refused) => refusal(refused),
                UpdateError::TimedOut => GatewayError::ChangeUnknown {
                    name: name.to_owned(),
                },
            })
    }

    async fn await_leaders(&self, keyspace: &KeyspaceView, until: Instant) {
        while Instant::now() < until {
            let led = keyspace
                .ranges
                .iter()
                .filter(|range| range.replicas.contains(&self.node_id()));
            let leaders = led.map(|range| self.node().group(range.id)?.leader());
            if leaders.into_iter().all(|leader| leader.is_some()) {
                return;
            }
            tokio::time::sleep(LEADERS_WAIT_INTERVAL).await;
        }
    }
}

/// The options of a keyspace whose maker names none: as many replicas as there are nodes, up to
/// the usual number.
fn defaults(catalog: &CatalogView) -> KeyspaceOptions {
    let options = KeyspaceOptions::default();
    let nodes = catalog.nodes().iter().filter(|node| !node.removed).count();
    let replication = u8::try_from(nodes)
        .unwrap_or(u8::MAX)
        .clamp(1, options.replication);
    KeyspaceOptions {
        replication,
        ..options
    }
}

fn bad_options(error: OptionsError) -> GatewayError {
    match error {
        OptionsError::Field(field) => {
            GatewayError::field(format!("options.{}", field.field), field.problem)
        }
        OptionsError::Parse(parse) => {
            GatewayError::field(format!("options.{}", parse.what), parse.to_string())
        }
        OptionsError::TooLarge(field) => {
            GatewayError::field(format!("options.{field}"), error.to_string())
        }
    }
}

fn refusal(error: CatalogError) -> GatewayError {
    match error {
        CatalogError::KeyspaceExists(name) => GatewayError::KeyspaceExists { name },
        CatalogError::KeyspaceMissing(name) => GatewayError::KeyspaceNotFound { name },
        CatalogError::Options(error) => bad_options(error),
        CatalogError::TooFewNodes { .. } => {
            GatewayError::field("options.replication", error.to_string())
        }
        CatalogError::TooManyRanges => {
            GatewayError::field("options.partitioning", error.to_string())
        }
        CatalogError::Refused(_) => GatewayError::field("name", error.to_string()),
        CatalogError::Corrupt(_) => GatewayError::Internal {
            what: error.to_string(),
            effect: Effect::None,
        },
    }
}

/// What is fixed at a keyspace's creation.
fn unchangeable(present: &KeyspaceOptions, next: &KeyspaceOptions) -> Result<(), GatewayError> {
    let fixed = [
        ("mode", present.mode == next.mode),
        ("conflict", present.conflict == next.conflict),
        ("partitioning", present.partitioning == next.partitioning),
        ("api", present.api == next.api),
        ("replication", present.replication == next.replication),
    ];
    match fixed.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((field, _)) => {
            let problem = "is fixed when a keyspace is created; make a new one and copy the keys; \
                           what can change: history, ttl, key_max_bytes, value_max_bytes, quota_bytes, quotas, schemas";
            Err(GatewayError::field(format!("options.{field}"), problem))
        }
    }
}

fn shown(keyspace: &KeyspaceView) -> v1::Keyspace {
    v1::Keyspace {
        name: keyspace.name.clone(),
        id: keyspace.id.0,
        options: Some(to_wire(&keyspace.options)),
        ranges: keyspace.ranges.iter().map(|range| range.id.0).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::Mode;

    #[test]
    fn what_is_fixed_is_named() {
        let present = KeyspaceOptions::default();
        let other = KeyspaceOptions {
            mode: Mode::Strong,
            ..present.clone()
        };
        let error = unchangeable(&present, &other).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.starts_with("options.mode")));
        let shorter = KeyspaceOptions {
            history: Duration::ZERO,
            ..present.clone()
        };
        assert!(unchangeable(&present, &shorter).is_ok());
    }
}
