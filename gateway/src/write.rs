//! Writes of one key: put, delete, compare-and-set; and what all writes share, from the name to the
//! receipt. The log decides; nothing here looks at a key to decide on it.

use std::sync::Arc;

use bytes::Bytes;
use quorate_eventual::EventualError;
use quorate_proto::internal::{self, Command, command};
use quorate_proto::v1::{self, pipeline_request::Request};
use quorate_raft::machine::{ApplyOutcome, ApplyRefusal, PrefixFull};
use quorate_raft::{Group, KeyspaceView, ProposeError, Proposed, RangeView};
use quorate_storage::engine::Version;
use quorate_types::limits::{LEASE_KEYS_MAX, LEASES_MAX};
use quorate_types::{LeaseId, Operation, RangeId, RequestHandle, Revision};

use crate::answer::Answer;
use crate::context::Context;
use crate::errors::GatewayError;
use crate::eventual::Place;
use crate::gateway::{Gateway, keyspace, range_of};
use crate::lease;
use crate::level::{self, EventualPlan, WritePlan};
use crate::names::WriteName;
use crate::receipt::{Spent, receipt};
use crate::route::{Errand, Prefer, Tried};
use crate::session::{Saw, Session};
use crate::validate;

/// What a write needs besides its operation.
pub(crate) struct Write<'a> {
    pub(crate) range: &'a RangeView,
    pub(crate) key: Bytes,
    pub(crate) name: WriteName,
    pub(crate) session: Session,
    /// Whether it looks at what is committed, which must have what the session has seen.
    pub(crate) looks: bool,
    /// Leases that it names.
    pub(crate) leases: Vec<LeaseId>,
    pub(crate) context: Context,
}

/// A write that the log has decided, with its receipt.
pub(crate) struct Decided<'a> {
    pub(crate) group: &'a Group,
    pub(crate) proposed: Proposed,
    pub(crate) receipt: v1::Receipt,
}

impl Write<'_> {
    pub(crate) fn handle(&self) -> RequestHandle {
        handle(self.range.id, &self.name)
    }

    /// The name on the wire: the same on every attempt.
    pub(crate) fn request_id(&self) -> Option<v1::RequestId> {
        wire_name(&self.name)
    }

    /// What a peer is asked for: the one level that writes have, and the session.
    pub(crate) fn consistency(&self) -> Option<v1::Consistency> {
        self.session
            .is_some()
            .then(|| self.session.consistency(Vec::new()))
    }

    fn command(&self, operation: command::Operation) -> Command {
        command_of(&self.name, operation)
    }
}

/// A write's name with the range that remembers it.
pub(crate) fn handle(range: RangeId, name: &WriteName) -> RequestHandle {
    RequestHandle {
        range,
        request: name.id,
    }
}

/// A write's name on the wire.
pub(crate) fn wire_name(name: &WriteName) -> Option<v1::RequestId> {
    Some(v1::RequestId {
        client: name.id.client.0,
        sequence: name.id.sequence,
        first_tried: name.first_tried.0,
    })
}

/// A named command.
pub(crate) fn command_of(name: &WriteName, operation: command::Operation) -> Command {
    Command {
        client: name.id.client.0,
        sequence: name.id.sequence,
        first_tried: name.first_tried.0,
        proposed: 0,
        operation: Some(operation),
    }
}

impl Gateway {
    /// The name of a write: its client's, or one of ours.
    pub(crate) fn name_of(&self, id: Option<&v1::RequestId>) -> Result<WriteName, GatewayError> {
        Ok(match validate::request_id(id, self.node().now())? {
            Some((id, first_tried)) => WriteName {
                id,
                first_tried,
                ours: false,
            },
            None => self.names().next(self.node().clock()),
        })
    }

    /// Checks the level of a write, and limits its time to what the level gives it.
    pub(crate) fn write_context(
        keyspace: &KeyspaceView,
        operation: Operation,
        consistency: Option<&v1::Consistency>,
        context: Context,
    ) -> Result<Context, GatewayError> {
        let mode = keyspace.options.mode;
        let budget = level::write_budget(&keyspace.name, mode, operation, consistency)?;
        Ok(match budget {
            Some(budget) => context.until(context.arrived + budget),
            None => context,
        })
    }

    fn write_of<'a>(
        &self,
        keyspace: &'a KeyspaceView,
        key: &[u8],
        (operation, consistency): (Operation, Option<v1::Consistency>),
        id: Option<&v1::RequestId>,
        context: Context,
    ) -> Result<Write<'a>, GatewayError> {
        let context = Self::write_context(keyspace, operation, consistency.as_ref(), context)?;
        let session = self.session(keyspace, consistency.as_ref())?;
        let (range, key) = range_of(keyspace, key, &context)?;
        Ok(Write {
            range,
            key,
            name: self.name_of(id)?,
            session,
            looks: operation != Operation::Write,
            leases: Vec::new(),
            context,
        })
    }

    /// Has the range's log decide a write, wherever its leader is.
    pub(crate) async fn decide<T: Answer>(
        &self,
        write: &Write<'_>,
        operation: impl Fn() -> command::Operation,
        answer: impl Fn(Decided<'_>) -> Result<T, GatewayError>,
        request: impl Fn() -> Request,
    ) -> Result<T, GatewayError> {
        let errand = Errand {
            range: write.range,
            prefer: Prefer::Leader,
            handle: Some(write.handle()),
            context: &write.context,
        };
        let (operation, answer) = (&operation, &answer);
        let here = |group: Arc<Group>| async move {
            let spent = Spent::begin();
            let (session, until) = (&write.session, write.context.deadline);
            let key = (!write.key.is_empty()).then_some(&write.key[..]);
            let missing = match write.looks {
                true => match Box::pin(self.cover(&group, key, session, until)).await {
                    Ok(missing) => missing,
                    Err(error) => return Tried::NotNow(error),
                },
                false => String::new(),
            };
            let command = write.command(self.faults().compared_early(&group, operation()));
            match group.propose(command, write.context.deadline).await {
                Err(ProposeError::Unknown) if self.faults().unknown_as_failed => {
                    Tried::Done(Err(GatewayError::from(EventualError::Unreachable {
                        range: write.range.id,
                        wanted: 1,
                        reachable: 0,
                        missing: Vec::new(),
                    })))
                }
                Ok(proposed) => {
                    let decided = self.decided(write, &group, proposed, spent);
                    Tried::Done(decided.and_then(|mut decided| {
                        decided.receipt.session_missing = missing;
                        answer(decided)
                    }))
                }
                Err(error) => error.into(),
            }
        };
        self.route(&errand, here, request).await
    }

    /// None of a prefix: it is the keyspace's own quota.
    fn quota_exceeded(&self, range: RangeId, prefix: Option<&PrefixFull>) -> GatewayError {
        let catalog = self.node().catalog();
        let keyspace = catalog.range(range).map(|(keyspace, _)| keyspace);
        let name = keyspace.map_or(String::new(), |k| k.name.clone());
        let what = match (prefix, keyspace.and_then(|k| k.options.quota_bytes)) {
            (Some(full), _) => prefix_full(full),
            (None, Some(quota)) => format!(
                "the quota of keyspace `{name}` is used up: {quota} bytes, shared out evenly over its ranges"
            ),
            (None, None) => format!("the quota of keyspace `{name}` is used up"),
        };
        GatewayError::QuotaExceeded {
            keyspace: name,
            what,
        }
    }

    fn decided<'a>(
        &self,
        write: &Write<'_>,
        group: &'a Group,
        proposed: Proposed,
        spent: Spent,
    ) -> Result<Decided<'a>, GatewayError> {
        let applied = &proposed.applied;
        match &applied.outcome {
            ApplyOutcome::Refused(ApplyRefusal::BelowWindow) => {
                return Err(GatewayError::BelowWindow {
                    handle: write.handle(),
                });
            }
            ApplyOutcome::Refused(ApplyRefusal::QuotaExceeded) => {
                return Err(self.quota_exceeded(group.range_id(), None));
            }
            ApplyOutcome::Refused(ApplyRefusal::PrefixFull(full)) => {
                return Err(self.quota_exceeded(group.range_id(), Some(full)));
            }
            ApplyOutcome::Refused(ApplyRefusal::LeaseNotFound) => {
                let ids = write.leases.clone();
                return Err(GatewayError::LeaseNotFound { ids });
            }
            ApplyOutcome::Refused(ApplyRefusal::LeaseFull) => {
                let what = format!(
                    "{LEASE_KEYS_MAX} keys of one range are attached to a lease of this write: no more can be; attach the others to another lease"
                );
                return Err(GatewayError::LeaseLimit { what });
            }
            ApplyOutcome::Refused(ApplyRefusal::LeasesMany) => {
                let what = format!(
                    "range {} keeps {LEASES_MAX} leases, and no more; attach many keys to one lease",
                    group.range_id()
                );
                return Err(GatewayError::LeaseLimit { what });
            }
            ApplyOutcome::Remembered { closed: true, .. } => {
                return Err(GatewayError::Closed {
                    handle: write.handle(),
                });
            }
            _ => {}
        }
        let spent = Spent {
            consensus: proposed.consensus,
            ..spent
        };
        let rung = level::write_rung_to_wire();
        let mut receipt = receipt(
            self.node_id(),
            group,
            rung,
            applied.revision,
            spent,
            &write.context,
        );
        let followers = proposed.followers.iter().map(|node| node.0);
        receipt.replicas.extend(followers);
        receipt.replayed = applied.replayed;
        let saw = match write.looks {
            true => Saw::Values,
            false => Saw::Nothing,
        };
        receipt.session_token = write.session.after_log(group, applied.revision, saw);
        Ok(Decided {
            group,
            proposed,
            receipt,
        })
    }

    /// Writes one key.
    ///
    /// # Errors
    ///
    /// See [`GatewayError`]; the outcome is unknown only where the error says so.
    pub(crate) async fn put(
        &self,
        mut request: v1::PutRequest,
        context: Context,
    ) -> Result<v1::PutResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = keyspace(&catalog, &request.keyspace)?;
        let options = &keyspace.options;
        let leveled = (Operation::Write, request.consistency.take());
        validate::key("key", &request.key, options)?;
        validate::value("value", &request.value, options)?;
        self.schemas()
            .check("value", (&request.key, &request.value), options)?;
        let ttl = validate::ttl("ttl_ms", request.ttl_ms, options)?;
        self.fence(keyspace, &request.key, leveled.1.as_ref(), &context)
            .await?;
        lease::check(keyspace, request.lease)?;
        if let Some(plan) = eventual_plan(keyspace, leveled.1.as_ref())? {
            lease::refuse_eventual(request.lease)?;
            return self
                .eventual_put(keyspace, &plan, ttl, (leveled.1, request), context)
                .await;
        }
        let id = request.request_id.as_ref();
        let mut write = self.write_of(keyspace, &request.key, leveled, id, context)?;
        let attach = self.attach(keyspace, &mut write, request.lease).await?;
        let seen = self.seen_of(keyspace, &request.key, request.context.as_ref(), &write)?;
        let operation = || {
            command::Operation::Put(internal::Write {
                key: write.key.clone(),
                value: request.value.clone(),
                ttl,
                seen: seen.clone(),
                lease: attach.lease,
                lease_granted: attach.granted,
            })
        };
        let resend = || {
            Request::Put(v1::PutRequest {
                keyspace: request.keyspace.clone(),
                key: request.key.clone(),
                value: request.value.clone(),
                consistency: write.consistency(),
                ttl_ms: request.ttl_ms,
                request_id: write.request_id(),
                context: request.context.clone(),
                lease: request.lease,
            })
        };
        let answer = |mut decided: Decided<'_>| {
            let revision = decided.receipt.revision;
            decided.receipt.replaced_unseen = replaced_unseen(&decided.proposed);
            if request.context.is_some() {
                let place = Place {
                    keyspace,
                    range: write.range,
                    user_key: &request.key,
                    key: write.key.clone(),
                };
                decided.receipt.context = self.decided_key(&place, decided.group)?.context();
            }
            Ok(v1::PutResponse {
                revision,
                receipt: Some(decided.receipt),
                dot: String::new(),
            })
        };
        self.decide(&write, operation, answer, resend).await
    }

    /// Removes one key, or a step of a prefix.
    ///
    /// # Errors
    ///
    /// `COMPARE_FAILED` where `if_revision` is another one; else see [`GatewayError`].
    pub(crate) async fn delete(
        &self,
        mut request: v1::DeleteRequest,
        context: Context,
    ) -> Result<v1::DeleteResponse, GatewayError> {
        if request.prefix {
            return self.delete_prefix(request, context).await;
        }
        let catalog = self.node().catalog();
        let keyspace = keyspace(&catalog, &request.keyspace)?;
        let options = &keyspace.options;
        validate::key("key", &request.key, options)?;
        if !request.page_token.is_empty() {
            return Err(GatewayError::field(
                "page_token",
                "only deletions of a prefix have pages",
            ));
        }
        let expected = Revision(request.if_revision);
        let kind = if expected.is_none() {
            Operation::Write
        } else {
            Operation::CompareAndSet
        };
        let leveled = (kind, request.consistency.take());
        self.fence(keyspace, &request.key, leveled.1.as_ref(), &context)
            .await?;
        if expected.is_none()
            && let Some(plan) = eventual_plan(keyspace, leveled.1.as_ref())?
        {
            return self
                .eventual_delete(keyspace, &plan, (leveled.1, request), context)
                .await;
        }
        let id = request.request_id.as_ref();
        let write = self.write_of(keyspace, &request.key, leveled, id, context)?;
        let seen = self.seen_of(keyspace, &request.key, request.context.as_ref(), &write)?;
        let operation = || delete_operation(write.key.clone(), seen.clone(), expected);
        let resend = || {
            Request::Delete(v1::DeleteRequest {
                keyspace: request.keyspace.clone(),
                key: request.key.clone(),
                consistency: write.consistency(),
                if_revision: request.if_revision,
                request_id: write.request_id(),
                context: request.context.clone(),
                ..v1::DeleteRequest::default()
            })
        };
        let answer = |decided: Decided<'_>| deleted(decided, &write.key, expected);
        self.decide(&write, operation, answer, resend).await
    }

    /// Writes one key if its present state is the expected one.
    ///
    /// # Errors
    ///
    /// See [`GatewayError`]. A condition that does not hold is no error here.
    pub(crate) async fn compare_and_set(
        &self,
        request: v1::CompareAndSetRequest,
        context: Context,
    ) -> Result<v1::CompareAndSetResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = keyspace(&catalog, &request.keyspace)?;
        let options = &keyspace.options;
        validate::key("key", &request.key, options)?;
        validate::value("value", &request.value, options)?;
        self.schemas()
            .check("value", (&request.key, &request.value), options)?;
        validate::expect("expect", request.expect.as_ref())?;
        let ttl = validate::ttl("ttl_ms", request.ttl_ms, options)?;
        let fence = request.consistency.as_ref();
        self.fence(keyspace, &request.key, fence, &context).await?;
        let leveled = (Operation::CompareAndSet, request.consistency);
        let id = request.request_id.as_ref();
        let mut write = self.write_of(keyspace, &request.key, leveled, id, context)?;
        let attach = self.attach(keyspace, &mut write, request.lease).await?;
        let operation = || {
            let (key, value) = (write.key.clone(), request.value.clone());
            command::Operation::Conditional(internal::Conditional {
                write: Some(internal::Write {
                    key,
                    value,
                    ttl,
                    seen: Bytes::new(),
                    lease: attach.lease,
                    lease_granted: attach.granted,
                }),
                expect: request.expect.clone(),
                delete: false,
            })
        };
        let resend = || {
            Request::CompareAndSet(v1::CompareAndSetRequest {
                keyspace: request.keyspace.clone(),
                key: request.key.clone(),
                expect: request.expect.clone(),
                value: request.value.clone(),
                ttl_ms: request.ttl_ms,
                consistency: write.consistency(),
                request_id: write.request_id(),
                lease: request.lease,
            })
        };
        let answer = |decided: Decided<'_>| compared(decided, &write.key, &request.key);
        self.decide(&write, operation, answer, resend).await
    }
}

/// The rungs of a write that has a name of the eventual plane; `None`: the log alone takes it.
fn eventual_plan(
    keyspace: &KeyspaceView,
    consistency: Option<&v1::Consistency>,
) -> Result<Option<EventualPlan>, GatewayError> {
    let mode = keyspace.options.mode;
    match level::write_plan(&keyspace.name, mode, Operation::Write, consistency)? {
        WritePlan::Strong(_) => Ok(None),
        WritePlan::Eventual(plan) => Ok(Some(plan)),
    }
}

fn delete_operation(key: Bytes, seen: Bytes, expected: Revision) -> command::Operation {
    let write = internal::Write {
        key,
        seen,
        ..internal::Write::default()
    };
    if expected.is_none() {
        return command::Operation::Delete(write);
    }
    command::Operation::Conditional(internal::Conditional {
        write: Some(write),
        expect: Some(v1::Expect {
            state: Some(v1::expect::State::Revision(expected.0)),
        }),
        delete: true,
    })
}

/// How many values a put replaced that its client had not seen.
fn replaced_unseen(proposed: &Proposed) -> u32 {
    let count = match &proposed.applied.outcome {
        ApplyOutcome::Written { unseen, .. } => *unseen,
        ApplyOutcome::Remembered { deleted, .. } => *deleted,
        ApplyOutcome::Compared { .. }
        | ApplyOutcome::Transacted { .. }
        | ApplyOutcome::Renewed(_)
        | ApplyOutcome::Etcd(_)
        | ApplyOutcome::Refused(_)
        | ApplyOutcome::Nothing => 0,
    };
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn deleted(
    decided: Decided<'_>,
    key: &[u8],
    expected: Revision,
) -> Result<v1::DeleteResponse, GatewayError> {
    let deleted = match &decided.proposed.applied.outcome {
        ApplyOutcome::Written { deleted, .. } => *deleted,
        ApplyOutcome::Compared {
            succeeded: true, ..
        } => 1,
        ApplyOutcome::Compared {
            succeeded: false,
            current,
        } => {
            let current = current
                .as_ref()
                .map_or(Revision::ZERO, |version| Revision(version.revision));
            return Err(GatewayError::CompareFailed { expected, current });
        }
        ApplyOutcome::Remembered {
            succeeded: true,
            deleted,
            ..
        } => {
            if expected.is_none() {
                *deleted
            } else {
                1
            }
        }
        ApplyOutcome::Remembered {
            succeeded: false, ..
        } if !expected.is_none() => {
            // What was there then is not remembered: what is there now must do.
            let current = decided.group.table().get(key).map_err(stored)?;
            let current = current.map_or(Revision::ZERO, |version| Revision(version.revision));
            return Err(GatewayError::CompareFailed { expected, current });
        }
        ApplyOutcome::Remembered { deleted, .. } => *deleted,
        ApplyOutcome::Transacted { .. }
        | ApplyOutcome::Renewed(_)
        | ApplyOutcome::Etcd(_)
        | ApplyOutcome::Refused(_)
        | ApplyOutcome::Nothing => {
            return Err(strange(&decided.proposed));
        }
    };
    Ok(v1::DeleteResponse {
        deleted,
        revision: decided.receipt.revision,
        next_page_token: Bytes::new(),
        receipt: Some(decided.receipt),
        dot: String::new(),
    })
}

fn compared(
    decided: Decided<'_>,
    key: &[u8],
    user_key: &Bytes,
) -> Result<v1::CompareAndSetResponse, GatewayError> {
    let (succeeded, current) = match &decided.proposed.applied.outcome {
        ApplyOutcome::Compared { succeeded, current } => (*succeeded, current.clone()),
        ApplyOutcome::Remembered {
            succeeded: true, ..
        } => (true, None),
        ApplyOutcome::Remembered {
            succeeded: false, ..
        } => (false, decided.group.table().get(key).map_err(stored)?),
        ApplyOutcome::Written { .. }
        | ApplyOutcome::Transacted { .. }
        | ApplyOutcome::Renewed(_)
        | ApplyOutcome::Etcd(_)
        | ApplyOutcome::Refused(_)
        | ApplyOutcome::Nothing => return Err(strange(&decided.proposed)),
    };
    Ok(v1::CompareAndSetResponse {
        succeeded,
        revision: if succeeded {
            decided.receipt.revision
        } else {
            0
        },
        current: current.map(|version| key_value(user_key.clone(), version)),
        receipt: Some(decided.receipt),
    })
}

/// A version of a key as clients see it.
pub(crate) fn key_value(key: Bytes, version: Version) -> v1::KeyValue {
    v1::KeyValue {
        key,
        value: version.value,
        revision: version.revision,
        expires_at: version.expiry.unwrap_or(0),
        dot: String::new(),
        siblings: 0,
    }
}

/// What a write that a prefix has no room for is told.
pub(crate) fn prefix_full(full: &PrefixFull) -> String {
    let prefix = String::from_utf8_lossy(&full.prefix);
    let mut over = Vec::new();
    let kinds = [
        ("keys", full.keys, full.max_keys),
        ("bytes", full.bytes, full.max_bytes),
    ];
    for (kind, (now, then), limit) in kinds {
        if limit > 0 && then > now && then > limit {
            over.push(format!("{now} of {limit} {kind}, {then} with this write"));
        }
    }
    format!(
        "the quota of `{prefix}` is used up: {}; delete some of its keys, or raise its quota",
        over.join(", and ")
    )
}

/// What the table could not do.
pub(crate) fn stored(error: quorate_storage::engine::EngineError) -> GatewayError {
    use quorate_storage::engine::EngineError;
    match error {
        EngineError::BelowFloor { asked, floor } => GatewayError::RevisionCollected {
            at: Revision(asked),
            floor: Revision(floor),
        },
        EngineError::Corrupt { .. } | EngineError::Damaged { .. } => GatewayError::DataLoss {
            what: error.to_string(),
        },
        other => GatewayError::internal(other.to_string()),
    }
}

/// An outcome that this kind of command cannot have.
pub(crate) fn strange(proposed: &Proposed) -> GatewayError {
    GatewayError::Internal {
        what: format!("the range answered with {:?}", proposed.applied.outcome),
        effect: quorate_types::Effect::Applied,
    }
}
