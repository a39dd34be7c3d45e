//! Reads of one key: its value, and its history. Any replica that may stand at the level serves
//! them; the rungs of a ladder are tried in order.

use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::v1::{self, pipeline_request::Request};
use quorate_raft::{Group, KeyspaceView, RangeView};
use quorate_storage::engine::HistoryEntry;
use quorate_types::{Copies, Effect, Mode, Operation, ReadLevel, Revision};
use tokio::time::Instant;
use tonic::Code;

use crate::answer::Answer;
use crate::context::Context;
use crate::errors::GatewayError;
use crate::eventual::{Place, Views};
use crate::gateway::{Gateway, keyspace, range_of};
use crate::level::{self, ReadPlan, ReadRung};
use crate::receipt::receipt;
use crate::route::{Errand, Prefer, Tried};
use crate::session::{Saw, Session};
use crate::stand::{Standing, Want};
use crate::validate;
use crate::write::{key_value, stored};

/// What reads of one key share.
struct Read<'a> {
    range: &'a RangeView,
    key: Bytes,
    mode: Mode,
    plan: ReadPlan,
    session: Session,
    at: Revision,
}

impl Read<'_> {
    fn want(&self, level: ReadLevel) -> Want {
        if self.at.is_none() {
            self.session.want(level, self.range.id)
        } else {
            Want::At(self.at)
        }
    }

    /// How many views it joins; `None`: the log's state answers. A session of which the log has not
    /// decided all yet, as far as is known here, is shown the view.
    fn views(&self, gateway: &Gateway, level: ReadLevel) -> Option<Copies> {
        if !self.at.is_none() {
            return None;
        }
        let has_more = || {
            let dots = self.session.wanted(self.range.id).dots;
            let group = gateway.node().group(self.range.id);
            let knows_all = |group: &Group| group.undecided(Some(&self.key), &dots).is_empty();
            !dots.is_empty() && !group.as_deref().is_some_and(knows_all)
        };
        match level {
            ReadLevel::Eventual(copies) => Some(copies),
            ReadLevel::Session => match self.mode {
                Mode::Eventual => Some(Copies::One),
                Mode::Mixed => has_more().then_some(Copies::One),
                Mode::Strong => None,
            },
            ReadLevel::Linearizable | ReadLevel::Bounded(_) | ReadLevel::Stale => None,
        }
    }

    /// What a peer is asked for: this rung alone.
    fn consistency(&self, level: ReadLevel) -> Option<v1::Consistency> {
        Some(consistency_of(level, &self.session))
    }
}

/// One level and a session, on the wire.
pub(crate) fn consistency_of(level: ReadLevel, session: &Session) -> v1::Consistency {
    session.consistency(vec![level::read_rung_to_wire(level)])
}

/// Where the search for a replica begins, by level.
pub(crate) fn preference(level: ReadLevel) -> Prefer {
    match level {
        ReadLevel::Linearizable | ReadLevel::Session => Prefer::Here,
        ReadLevel::Bounded(_) | ReadLevel::Stale | ReadLevel::Eventual(_) => Prefer::AnyReplica,
    }
}

/// Whether the next rung may be tried after this error: the level could not be met now.
fn is_unmet(error: &GatewayError) -> bool {
    matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded)
        && error.effect() == Effect::None
}

impl Gateway {
    /// Reads one key.
    ///
    /// # Errors
    ///
    /// See [`GatewayError`]. A key that is not there is no error.
    pub(crate) async fn get(
        &self,
        request: v1::GetRequest,
        context: Context,
    ) -> Result<v1::GetResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = keyspace(&catalog, &request.keyspace)?;
        validate::key("key", &request.key, &keyspace.options)?;
        let at = Revision(request.at_revision);
        let fence = request.consistency.as_ref();
        self.fence(keyspace, &request.key, fence, &context).await?;
        let read = self.read_of(keyspace, &request.key, at, request.consistency, &context)?;
        let (request, read) = (&request.key, &read);
        let name = &keyspace.name;
        self.climb(&read.plan, &context, |rung, context| async move {
            let level = rung.level;
            if let Some(copies) = read.views(self, level) {
                let place = Place {
                    keyspace,
                    range: read.range,
                    user_key: request,
                    key: read.key.clone(),
                };
                let resend = || {
                    Request::Get(v1::GetRequest {
                        keyspace: name.clone(),
                        key: request.clone(),
                        consistency: read.consistency(level),
                        at_revision: 0,
                    })
                };
                let views = Views {
                    level,
                    copies,
                    session: &read.session,
                };
                return self.eventual_get(&place, &views, &context, resend).await;
            }
            let here = |group: Arc<Group>| async move {
                let key = Some(&read.key[..]);
                let (want, deadline) = (read.want(level), context.deadline);
                let stood = self.stand_in_session(&group, key, want, &read.session, deadline);
                match stood.await {
                    Ok(standing) => {
                        let place = Place {
                            keyspace,
                            range: read.range,
                            user_key: request,
                            key: read.key.clone(),
                        };
                        Tried::Done(self.got(read, &place, &group, standing, level, &context))
                    }
                    Err(unmet) => unmet.into(),
                }
            };
            let resend = || {
                Request::Get(v1::GetRequest {
                    keyspace: name.clone(),
                    key: request.clone(),
                    consistency: read.consistency(level),
                    at_revision: read.at.0,
                })
            };
            let errand = Errand {
                range: read.range,
                prefer: preference(level),
                handle: None,
                context: &context,
            };
            self.route(&errand, here, resend).await
        })
        .await
    }

    fn read_of<'a>(
        &self,
        keyspace: &'a KeyspaceView,
        key: &[u8],
        at: Revision,
        consistency: Option<v1::Consistency>,
        context: &Context,
    ) -> Result<Read<'a>, GatewayError> {
        let operation = if at.is_none() {
            Operation::Read
        } else {
            Operation::Snapshot
        };
        let mode = keyspace.options.mode;
        let plan = level::read_plan(&keyspace.name, mode, operation, consistency.as_ref())?;
        let session = self.session(keyspace, consistency.as_ref())?;
        let (range, key) = range_of(keyspace, key, context)?;
        Ok(Read {
            range,
            key,
            mode,
            plan,
            session,
            at,
        })
    }

    fn got(
        &self,
        read: &Read<'_>,
        place: &Place<'_>,
        group: &Group,
        standing: Standing,
        level: ReadLevel,
        context: &Context,
    ) -> Result<v1::GetResponse, GatewayError> {
        let table = group.table();
        let at = standing.at;
        let shown = match at {
            None if place.keyspace.options.mode == Mode::Mixed => self.decided_key(place, group)?,
            None => self.shown_version(place, table.get(&read.key).map_err(stored)?)?,
            Some(at) => {
                let version = table.get_at(&read.key, at.0).map_err(stored)?;
                self.shown_version(place, version)?
            }
        };
        // After the table was read.
        let saw = shown.seen.as_ref().map_or(Saw::Values, Saw::Key);
        let standing = (standing, saw);
        let mut receipt = self.read_receipt(&read.session, group, standing, level, context);
        if at.is_none() && place.keyspace.options.mode == Mode::Mixed {
            let range = place.range.id;
            receipt.tentative = self.eventual().is_tentative(range, &place.key)?;
        }
        Ok(shown.answer(receipt))
    }

    /// The receipt of a read, made after the table was read: the state that was seen may be newer
    /// than the one that was stood on, and a session must not fall behind it.
    pub(crate) fn read_receipt(
        &self,
        session: &Session,
        group: &Group,
        (standing, saw): (Standing, Saw<'_>),
        level: ReadLevel,
        context: &Context,
    ) -> v1::Receipt {
        let revision = match standing.at {
            Some(at) => at,
            None => standing
                .revision
                .max(Revision(group.table().last_revision())),
        };
        let rung = level::read_rung_to_wire(level);
        let mut receipt = receipt(
            self.node_id(),
            group,
            rung,
            revision,
            standing.spent,
            context,
        );
        receipt.staleness_ms = standing
            .staleness
            .map(|staleness| u64::try_from(staleness.as_millis()).unwrap_or(u64::MAX));
        receipt.session_missing = standing.missing;
        receipt.session_token = session.after_log(group, revision, saw);
        receipt
    }

    /// Tries the rungs of a ladder in order, each within its budget; the receipt says why those
    /// above the one that was met were not.
    pub(crate) async fn climb<T, Attempt, Attempted>(
        &self,
        plan: &ReadPlan,
        context: &Context,
        attempt: Attempt,
    ) -> Result<T, GatewayError>
    where
        T: Answer,
        Attempt: Fn(ReadRung, Context) -> Attempted,
        Attempted: Future<Output = Result<T, GatewayError>>,
    {
        let last = plan.len() - 1;
        let mut failed = Vec::new();
        for (at, rung) in plan.rungs().enumerate() {
            let limit = level::rung_deadline(rung, Instant::now(), context.deadline);
            match attempt(rung, context.until(limit)).await {
                Ok(mut answer) => {
                    let receipt = answer.receipt();
                    receipt.rung = u32::try_from(at).unwrap_or(u32::MAX);
                    receipt.failed = failed;
                    return Ok(answer);
                }
                Err(error) if at == last || !is_unmet(&error) => return Err(error),
                Err(error) => failed.push(error.to_string()),
            }
        }
        Err(GatewayError::internal("a ladder without rungs"))
    }

    /// The committed versions of one key, newest first.
    ///
    /// # Errors
    ///
    /// See [`GatewayError`].
    pub(crate) async fn history(
        &self,
        request: v1::HistoryRequest,
        context: Context,
    ) -> Result<v1::HistoryResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = keyspace(&catalog, &request.keyspace)?;
        validate::key("key", &request.key, &keyspace.options)?;
        let limit = validate::history_limit(request.limit)?;
        let consistency = request.consistency;
        if level::is_eventual(keyspace.options.mode, consistency.as_ref()) {
            return Err(GatewayError::NotImplemented {
                what: "the history of a key on the eventual plane".to_owned(),
                instead: "keyspaces of mode strong and mixed keep one of what the log decides",
            });
        }
        let read = self.read_of(
            keyspace,
            &request.key,
            Revision::ZERO,
            consistency,
            &context,
        )?;
        let (user_key, read) = (&request.key, &read);
        let name = &keyspace.name;
        self.climb(&read.plan, &context, |rung, context| async move {
            let level = rung.level;
            let here = |group: Arc<Group>| async move {
                let key = Some(&read.key[..]);
                let (want, deadline) = (read.want(level), context.deadline);
                let stood = self.stand_in_session(&group, key, want, &read.session, deadline);
                match stood.await {
                    Ok(standing) => {
                        let (session, standing) = (&read.session, (standing, Saw::Values));
                        let receipt =
                            || self.read_receipt(session, &group, standing, level, &context);
                        Tried::Done(told(read, user_key, &group, limit, receipt))
                    }
                    Err(unmet) => unmet.into(),
                }
            };
            let resend = || {
                Request::History(v1::HistoryRequest {
                    keyspace: name.clone(),
                    key: user_key.clone(),
                    limit: request.limit,
                    consistency: read.consistency(level),
                })
            };
            let errand = Errand {
                range: read.range,
                prefer: preference(level),
                handle: None,
                context: &context,
            };
            self.route(&errand, here, resend).await
        })
        .await
    }
}

fn told(
    read: &Read<'_>,
    user_key: &Bytes,
    group: &Group,
    limit: usize,
    receipt: impl FnOnce() -> v1::Receipt,
) -> Result<v1::HistoryResponse, GatewayError> {
    let entries = group.table().history(&read.key, limit).map_err(stored)?;
    let entries = entries
        .into_iter()
        .map(|entry| entry_of(user_key, entry))
        .collect();
    let floor = group.table().floor();
    Ok(v1::HistoryResponse {
        entries,
        floor,
        receipt: Some(receipt()),
    })
}

fn entry_of(user_key: &Bytes, entry: HistoryEntry) -> v1::history_response::Entry {
    let deleted = entry.value.is_none();
    let version = match entry.value {
        Some(version) => key_value(user_key.clone(), version),
        None => v1::KeyValue {
            key: user_key.clone(),
            revision: entry.revision,
            ..v1::KeyValue::default()
        },
    };
    v1::history_response::Entry {
        version: Some(version),
        deleted,
    }
}
