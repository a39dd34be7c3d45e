//! Leases: granting, keeping, revoking and showing them, and what a write that names one must
//! know of it. The log of the range that keeps a lease decides; nothing here ends one.
//!
//! A lease of a keyspace is kept in the range of its id taken as a key. Keys of other ranges may be
//! attached to it: `lease_watch` carries its end to them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use quorate_proto::internal::{LeaseGrant, LeaseRevoke, command};
use quorate_proto::v1::{self, pipeline_request::Request};
use quorate_raft::machine::ApplyOutcome;
use quorate_raft::machine::leases::LeaseName;
use quorate_raft::{Group, KeyspaceView, RangeView};
use quorate_types::limits::{KEEP_ALIVES_MAX, LEASE_KEYS_MAX, LEASE_TTL_MAX, LEASE_TTL_MIN};
use quorate_types::{LeaseId, Mode, RangeId, Reason, Revision, format_duration};

use crate::context::Context;
use crate::errors::GatewayError;
use crate::gateway::{Gateway, any_keyspace};
use crate::level;
use crate::names::WriteName;
use crate::operations::Prepared;
use crate::receipt::{Spent, receipt};
use crate::route::{Errand, Prefer, Tried};
use crate::write::{Decided, Write, strange};

/// Ranges asked at the same time for the keys of a lease, or to keep leases.
const RANGES_ASKED_MAX: usize = 16;

/// What a write says of the lease that its key goes with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attach {
    /// Zero: none.
    pub(crate) lease: u64,
    /// Zero: it is kept in the key's own range.
    pub(crate) granted: u64,
}

impl Gateway {
    /// Makes a lease.
    ///
    /// # Errors
    ///
    /// `ALREADY_EXISTS` where the id is in use; else see [`GatewayError`].
    pub(crate) async fn lease_grant(
        &self,
        request: v1::LeaseGrantRequest,
        context: Context,
    ) -> Result<v1::LeaseGrantResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = leased(&catalog, &request.keyspace)?;
        let ttl = lease_ttl(request.ttl_ms)?;
        let name = self.name_of(request.request_id.as_ref())?;
        let id = match request.id {
            0 => LeaseId::drawn(&name.id),
            id => lease_id("id", id)?,
        };
        let write = self.lease_write(keyspace, id, name, context)?;
        let operation = || command::Operation::LeaseGrant(LeaseGrant { id: id.0, ttl });
        let resend = || {
            Request::LeaseGrant(v1::LeaseGrantRequest {
                keyspace: request.keyspace.clone(),
                id: id.0,
                ttl_ms: request.ttl_ms,
                request_id: write.request_id(),
            })
        };
        let answer = |decided: Decided<'_>| match decided.proposed.applied.outcome {
            ApplyOutcome::Compared { succeeded, .. }
            | ApplyOutcome::Remembered { succeeded, .. } => match succeeded {
                true => Ok(v1::LeaseGrantResponse {
                    id: id.0,
                    ttl_ms: request.ttl_ms,
                    revision: decided.receipt.revision,
                    receipt: Some(decided.receipt),
                }),
                false => Err(GatewayError::LeaseExists { id }),
            },
            ApplyOutcome::Written { .. }
            | ApplyOutcome::Transacted { .. }
            | ApplyOutcome::Renewed(_)
            | ApplyOutcome::Etcd(_)
            | ApplyOutcome::Refused(_)
            | ApplyOutcome::Nothing => Err(strange(&decided.proposed)),
        };
        self.decide(&write, operation, answer, resend).await
    }

    /// Ends a lease.
    ///
    /// # Errors
    ///
    /// `LEASE_NOT_FOUND`; else see [`GatewayError`].
    pub(crate) async fn lease_revoke(
        &self,
        request: v1::LeaseRevokeRequest,
        context: Context,
    ) -> Result<v1::LeaseRevokeResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = leased(&catalog, &request.keyspace)?;
        let id = lease_id("id", request.id)?;
        let name = self.name_of(request.request_id.as_ref())?;
        let write = self.lease_write(keyspace, id, name, context)?;
        let operation = || command::Operation::LeaseRevoke(LeaseRevoke { id: id.0 });
        let resend = || {
            Request::LeaseRevoke(v1::LeaseRevokeRequest {
                keyspace: request.keyspace.clone(),
                id: id.0,
                request_id: write.request_id(),
            })
        };
        let answer = |decided: Decided<'_>| {
            let deleted = match decided.proposed.applied.outcome {
                ApplyOutcome::Written { deleted, .. }
                | ApplyOutcome::Remembered {
                    succeeded: true,
                    deleted,
                    ..
                } => deleted,
                ApplyOutcome::Compared { .. } | ApplyOutcome::Remembered { .. } => {
                    return Err(GatewayError::LeaseNotFound { ids: vec![id] });
                }
                ApplyOutcome::Transacted { .. }
                | ApplyOutcome::Renewed(_)
                | ApplyOutcome::Etcd(_)
                | ApplyOutcome::Refused(_)
                | ApplyOutcome::Nothing => return Err(strange(&decided.proposed)),
            };
            Ok(v1::LeaseRevokeResponse {
                deleted,
                revision: decided.receipt.revision,
                receipt: Some(decided.receipt),
            })
        };
        self.decide(&write, operation, answer, resend).await
    }

    /// Gives leases their whole time again. One that is not there is no error, but has no time.
    ///
    /// # Errors
    ///
    /// See [`GatewayError`].
    pub(crate) async fn lease_keep_alive(
        &self,
        request: v1::LeaseKeepAliveRequest,
        context: Context,
    ) -> Result<v1::LeaseKeepAliveResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = leased(&catalog, &request.keyspace)?;
        if request.ids.is_empty() || request.ids.len() > KEEP_ALIVES_MAX {
            let problem = format!(
                "{} leases; one request keeps 1 to {KEEP_ALIVES_MAX}",
                request.ids.len()
            );
            return Err(GatewayError::field("ids", problem));
        }
        let mut parts: Vec<(&RangeView, Vec<LeaseId>)> = Vec::new();
        for id in &request.ids {
            let id = lease_id("ids", *id)?;
            let home = home_of(keyspace, id, &context)?;
            match parts.iter_mut().find(|(range, _)| range.id == home.id) {
                Some((_, ids)) => ids.push(id),
                None => parts.push((home, vec![id])),
            }
        }
        let mut asked = Vec::with_capacity(parts.len());
        for (range, ids) in parts {
            asked.push(self.keep_in(keyspace, range, ids, context));
        }
        let answers: Vec<_> = stream::iter(asked)
            .buffer_unordered(RANGES_ASKED_MAX)
            .try_collect()
            .await?;
        Ok(assembled(&request.ids, answers))
    }

    async fn keep_in(
        &self,
        keyspace: &KeyspaceView,
        range: &RangeView,
        ids: Vec<LeaseId>,
        context: Context,
    ) -> Result<v1::LeaseKeepAliveResponse, GatewayError> {
        let errand = Errand {
            range,
            prefer: Prefer::Leader,
            handle: None,
            context: &context,
        };
        let ids = &ids;
        let here = |group: Arc<Group>| async move {
            let spent = Spent::begin();
            match group.keep_alive(ids.clone(), context.deadline).await {
                Ok(ttls) => Tried::Done(Ok(self.kept(&group, ids, &ttls, spent, &context))),
                Err(error) => error.into(),
            }
        };
        let resend = || {
            Request::LeaseKeepAlive(v1::LeaseKeepAliveRequest {
                keyspace: keyspace.name.clone(),
                ids: ids.iter().map(|id| id.0).collect(),
            })
        };
        let kept = self.route(&errand, here, resend).await;
        kept.map_err(|error| match error.reason() {
            // A lost attempt may have been decided.
            Some(Reason::TimedOut) => GatewayError::Interrupted {
                what: "whether the leases were kept is unknown; keep them again".to_owned(),
            },
            _ => error,
        })
    }

    fn kept(
        &self,
        group: &Group,
        ids: &[LeaseId],
        ttls: &[u64],
        spent: Spent,
        context: &Context,
    ) -> v1::LeaseKeepAliveResponse {
        let kept = ids.iter().zip(ttls).map(|(id, ttl)| v1::LeaseKept {
            id: id.0,
            ttl_ms: ttl / 1_000,
        });
        v1::LeaseKeepAliveResponse {
            kept: kept.collect(),
            receipt: Some(self.lease_receipt(group, spent.confirmed(), context)),
        }
    }

    fn lease_receipt(&self, group: &Group, spent: Spent, context: &Context) -> v1::Receipt {
        let rung = level::write_rung_to_wire();
        let revision = group.applied_revision();
        receipt(self.node_id(), group, rung, revision, spent, context)
    }

    /// What is left of a lease, and its keys.
    ///
    /// # Errors
    ///
    /// `LEASE_NOT_FOUND`; else see [`GatewayError`].
    pub(crate) async fn lease_show(
        &self,
        request: v1::LeaseShowRequest,
        context: Context,
    ) -> Result<v1::LeaseShowResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = leased(&catalog, &request.keyspace)?;
        if request.range != 0 {
            let range = range_named(keyspace, RangeId(request.range), &context)?;
            return self.show_in(keyspace, range, request, context).await;
        }
        let id = lease_id("id", request.id)?;
        let home = home_of(keyspace, id, &context)?;
        let wants_keys = request.keys;
        let mut shown = self.show_in(keyspace, home, request, context).await?;
        if !wants_keys || context.forwarded.is_some() {
            return Ok(shown);
        }
        let mut asked = Vec::with_capacity(keyspace.ranges.len());
        for range in &keyspace.ranges {
            let part = v1::LeaseShowRequest {
                keyspace: keyspace.name.clone(),
                id: id.0,
                keys: true,
                range: range.id.0,
                granted: shown.granted,
                named: Vec::new(),
            };
            asked.push(self.show_in(keyspace, range, part, context));
        }
        let parts: Vec<_> = stream::iter(asked)
            .buffer_unordered(RANGES_ASKED_MAX)
            .try_collect()
            .await?;
        shown.keys = parts.into_iter().flat_map(|part| part.keys).collect();
        shown.keys.sort_unstable();
        shown.keys.truncate(LEASE_KEYS_MAX);
        Ok(shown)
    }

    /// Asks the leader of one range: for a lease that it keeps, for keys that are attached there,
    /// or for leases that are over.
    pub(crate) async fn show_in(
        &self,
        keyspace: &KeyspaceView,
        range: &RangeView,
        request: v1::LeaseShowRequest,
        context: Context,
    ) -> Result<v1::LeaseShowResponse, GatewayError> {
        let errand = Errand {
            range,
            prefer: Prefer::Leader,
            handle: None,
            context: &context,
        };
        let request = &request;
        let here = |group: Arc<Group>| async move {
            let spent = Spent::begin();
            match group.read_barrier(context.deadline).await {
                Ok(_) => {
                    let shown = shown(keyspace, &group, request);
                    Tried::Done(shown.map(|mut shown| {
                        let receipt = self.lease_receipt(&group, spent.confirmed(), &context);
                        shown.receipt = Some(receipt);
                        shown
                    }))
                }
                Err(error) => error.into(),
            }
        };
        let resend = || Request::LeaseShow(request.clone());
        Box::pin(self.route(&errand, here, resend)).await
    }

    fn lease_write<'a>(
        &self,
        keyspace: &'a KeyspaceView,
        id: LeaseId,
        name: WriteName,
        context: Context,
    ) -> Result<Write<'a>, GatewayError> {
        Ok(Write {
            range: home_of(keyspace, id, &context)?,
            key: Bytes::new(),
            name,
            session: self.session(keyspace, None)?,
            looks: false,
            leases: vec![id],
            context,
        })
    }

    /// The same for all puts among operations; each lease is asked for once.
    pub(crate) async fn attach_all(
        &self,
        keyspace: &KeyspaceView,
        write: &mut Write<'_>,
        operations: impl Iterator<Item = &mut Prepared>,
    ) -> Result<(), GatewayError> {
        let mut known: HashMap<u64, Attach> = HashMap::new();
        for prepared in operations {
            let lease = prepared.lease();
            prepared.attach = match known.get(&lease) {
                Some(attach) => *attach,
                None => self.attach(keyspace, write, lease).await?,
            };
            known.insert(lease, prepared.attach);
        }
        Ok(())
    }

    /// What a write must say of a lease that it names.
    ///
    /// # Errors
    ///
    /// `LEASE_NOT_FOUND` where another range should keep it and does not: the key's own range
    /// decides for itself.
    pub(crate) async fn attach(
        &self,
        keyspace: &KeyspaceView,
        write: &mut Write<'_>,
        lease: u64,
    ) -> Result<Attach, GatewayError> {
        if lease == 0 {
            return Ok(Attach::default());
        }
        check(keyspace, lease)?;
        let id = LeaseId(lease);
        write.leases.push(id);
        let (home, _) = keyspace.route(&id.home_key());
        if home.id == write.range.id {
            return Ok(Attach { lease, granted: 0 });
        }
        let request = v1::LeaseShowRequest {
            keyspace: keyspace.name.clone(),
            id: lease,
            ..v1::LeaseShowRequest::default()
        };
        // The lease's range is another one than that for which this was sent on.
        let context = Context {
            forwarded: None,
            ..write.context
        };
        let shown = Box::pin(self.show_in(keyspace, home, request, context)).await?;
        let granted = shown.granted;
        Ok(Attach { lease, granted })
    }
}

/// What the leader of a range says, once it knows that it leads.
fn shown(
    keyspace: &KeyspaceView,
    group: &Group,
    request: &v1::LeaseShowRequest,
) -> Result<v1::LeaseShowResponse, GatewayError> {
    let mut answer = v1::LeaseShowResponse {
        id: request.id,
        granted: request.granted,
        ..v1::LeaseShowResponse::default()
    };
    if request.range != 0 {
        let name = LeaseName {
            id: LeaseId(request.id),
            granted: Revision(request.granted),
        };
        answer.keys = match request.keys {
            true => user_keys(keyspace, group.lease_keys(name)),
            false => Vec::new(),
        };
        let is_over = |named: &&v1::LeaseNamed| {
            let lease = group.lease(LeaseId(named.id));
            lease.is_none_or(|(lease, _)| lease.granted.0 != named.granted)
        };
        answer.over = request.named.iter().filter(is_over).copied().collect();
        return Ok(answer);
    }
    let id = LeaseId(request.id);
    let (lease, left) = group
        .lease(id)
        .ok_or_else(|| GatewayError::LeaseNotFound { ids: vec![id] })?;
    answer.ttl_ms = lease.ttl / 1_000;
    answer.remaining_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    answer.granted = lease.granted.0;
    Ok(answer)
}

fn user_keys(keyspace: &KeyspaceView, keys: Vec<Bytes>) -> Vec<Bytes> {
    let prefix_bytes = keyspace.options.partitioning.prefix_bytes();
    let user_key = |key: Bytes| key.slice(prefix_bytes.min(key.len())..);
    keys.into_iter().map(user_key).collect()
}

/// The answers of several ranges, in the order of the request.
fn assembled(ids: &[u64], answers: Vec<v1::LeaseKeepAliveResponse>) -> v1::LeaseKeepAliveResponse {
    let mut receipt = None;
    let mut ttls = HashMap::new();
    for answer in answers {
        receipt = receipt.or(answer.receipt);
        ttls.extend(answer.kept.into_iter().map(|kept| (kept.id, kept.ttl_ms)));
    }
    let kept = ids.iter().map(|id| v1::LeaseKept {
        id: *id,
        ttl_ms: ttls.get(id).copied().unwrap_or(0),
    });
    v1::LeaseKeepAliveResponse {
        kept: kept.collect(),
        receipt,
    }
}

/// Whether a write in this keyspace may name such a lease; zero: none.
///
/// # Errors
///
/// [`GatewayError::Field`].
pub(crate) fn check(keyspace: &KeyspaceView, lease: u64) -> Result<(), GatewayError> {
    if lease == 0 {
        return Ok(());
    }
    lease_id("lease", lease)?;
    has_log(keyspace)
}

/// A write that the eventual plane takes, also on a later rung, names no lease.
///
/// # Errors
///
/// [`GatewayError::Field`], with the way out.
pub(crate) fn refuse_eventual(lease: u64) -> Result<(), GatewayError> {
    match lease {
        0 => Ok(()),
        _ => Err(GatewayError::field(
            "lease",
            "a write at an eventual level goes with no lease: the log alone knows which leases live; write it at level linearizable (`--level linearizable`), or without a lease",
        )),
    }
}

/// The range that keeps a lease.
fn home_of<'a>(
    keyspace: &'a KeyspaceView,
    id: LeaseId,
    context: &Context,
) -> Result<&'a RangeView, GatewayError> {
    crate::gateway::range_of(keyspace, &id.home_key(), context).map(|(range, _)| range)
}

fn range_named<'a>(
    keyspace: &'a KeyspaceView,
    id: RangeId,
    context: &Context,
) -> Result<&'a RangeView, GatewayError> {
    let range = keyspace.ranges.iter().find(|range| range.id == id);
    let meant = context.forwarded.is_none_or(|sent| sent.range == id);
    range
        .filter(|_| meant)
        .ok_or(GatewayError::RangeMoved { range: id })
}

/// The keyspace of a request, which must have leases.
fn leased<'a>(
    catalog: &'a quorate_raft::CatalogView,
    name: &str,
) -> Result<&'a KeyspaceView, GatewayError> {
    let keyspace = any_keyspace(catalog, name)?;
    has_log(keyspace)?;
    Ok(keyspace)
}

fn has_log(keyspace: &KeyspaceView) -> Result<(), GatewayError> {
    match keyspace.options.mode {
        Mode::Strong | Mode::Mixed => Ok(()),
        Mode::Eventual => {
            let problem = format!(
                "keyspace `{}` is of mode eventual: leases are of keyspaces of mode strong or mixed, whose log decides when one ends; `quorate keyspace create NAME --mode strong` makes one",
                keyspace.name
            );
            Err(GatewayError::field("lease", problem))
        }
    }
}

/// An id of a lease.
fn lease_id(field: &'static str, id: u64) -> Result<LeaseId, GatewayError> {
    match (1..=LeaseId::MAX.0).contains(&id) {
        true => Ok(LeaseId(id)),
        false => {
            let problem = format!(
                "{id} is no id of a lease; they go from 1 to {}",
                LeaseId::MAX.0
            );
            Err(GatewayError::field(field, problem))
        }
    }
}

/// The time to live of a lease, microseconds.
fn lease_ttl(ttl_ms: u64) -> Result<u64, GatewayError> {
    let ttl = Duration::from_millis(ttl_ms);
    if (LEASE_TTL_MIN..=LEASE_TTL_MAX).contains(&ttl) {
        return Ok(u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX));
    }
    let problem = format!(
        "{ttl_ms} ms; a lease lives from {} to {} after each keep-alive; what should live longer is put without one",
        format_duration(LEASE_TTL_MIN),
        format_duration(LEASE_TTL_MAX)
    );
    Err(GatewayError::field("ttl_ms", problem))
}
