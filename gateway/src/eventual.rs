//! The eventual plane's requests: which node coordinates, what its answer means for the client,
//! and contexts in their sealed form. Holding, spreading and joining are `quorate_eventual`'s.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use quorate_eventual::{EventualError, ReadDone, ReadRequest, WriteDone, WriteRequest, WriteRung};
use quorate_proto::changes;
use quorate_proto::v1::{self, pipeline_request::Request};
use quorate_raft::{KeyspaceView, RangeView};
use quorate_types::causal::{Binding, Context as Seen, Dots, KeyState, Update};
use quorate_types::{Copies, Mode, NodeId, Operation, ReadLevel, Revision, Timestamp};
use tokio::time::Instant;

use crate::answer::Answer;
use crate::context::Context;
use crate::coordinators::{Again, after_lost};
use crate::errors::GatewayError;
use crate::gateway::{Gateway, keyspace, range_of};
use crate::level::{self, EventualPlan, WritePlan};
use crate::names::WriteName;
use crate::range_page::{Bounds, MORE, PageLimit, Scan};
use crate::receipt::as_micros;
use crate::session::{Session, in_words};
use crate::token::Seen as SessionSeen;
use crate::write::wire_name;
use crate::{metrics, typed, validate};

/// Operations of one batch that are in work at once.
const BATCH_OPERATIONS_SERVED_MAX: usize = 64;
/// A batch has room for the names of so many operations.
const BATCH_NAMES: u64 = 1 << 16;
/// What tells the names of a batch's operations from those that its client gives itself.
const BATCH_CLIENT: u64 = 0xba7c_4000_0000_0000;

/// A key of the eventual plane, and where it lives.
pub(crate) struct Place<'a> {
    pub(crate) keyspace: &'a KeyspaceView,
    pub(crate) range: &'a RangeView,
    /// As its client names it.
    pub(crate) user_key: &'a Bytes,
    /// As it is stored.
    pub(crate) key: Bytes,
}

/// A read of views.
pub(crate) struct Views<'a> {
    /// What the receipt names.
    pub(crate) level: ReadLevel,
    /// How many.
    pub(crate) copies: Copies,
    pub(crate) session: &'a Session,
}

/// A write of the eventual plane.
pub(crate) struct EventualWrite<'a> {
    pub(crate) place: Place<'a>,
    pub(crate) session: Session,
    pub(crate) plan: &'a EventualPlan,
    pub(crate) update: Update,
    /// Sealed, if the client sent one.
    pub(crate) context: Option<&'a Bytes>,
    /// Microseconds; zero: none.
    pub(crate) ttl: u64,
    pub(crate) name: WriteName,
    /// The client has named it, and so wants it made once or to hear that nobody knows.
    pub(crate) once: bool,
}

/// What the client asked, for the node that coordinates instead.
type Asked<R> = (Option<v1::Consistency>, R);

/// What a write came to, with what clients are told of it.
pub(crate) struct EventualWritten {
    pub(crate) dot: String,
    pub(crate) state: KeyState,
    pub(crate) receipt: v1::Receipt,
}

/// What a session has seen once a write is answered. A change of a typed key is answered by what
/// the key has come to.
fn seen_by_writer(update: &Update, done: &WriteDone) -> SessionSeen {
    let mut seen = SessionSeen {
        revision: done.decided.unwrap_or(Revision::ZERO),
        dots: done.dots.clone(),
        is_coarse: false,
    };
    match update {
        Update::Put(_) | Update::Delete => {}
        Update::PutLatest(_)
        | Update::Increment(_)
        | Update::Add(_)
        | Update::Remove(_)
        | Update::Fields(_) => seen.join(&SessionSeen::of_context(done.state.context())),
    }
    seen
}

/// What tells a keyspace from others, and from itself before a restore.
pub(crate) fn identity_of(keyspace: &KeyspaceView) -> [u8; 12] {
    let mut identity = [0; 12];
    identity[..4].copy_from_slice(&keyspace.id.0.to_be_bytes());
    identity[4..].copy_from_slice(&keyspace.incarnation.to_be_bytes());
    identity
}

impl Place<'_> {
    pub(crate) fn with_binding<T>(&self, cluster: &str, then: impl FnOnce(&Binding<'_>) -> T) -> T {
        then(&Binding {
            cluster: cluster.as_bytes(),
            keyspace: &identity_of(self.keyspace),
            key: self.user_key,
        })
    }
}

impl Gateway {
    /// The dots of a context that a client sent.
    pub(crate) fn seen(
        &self,
        place: &Place<'_>,
        sealed: Option<&Bytes>,
    ) -> Result<Option<Dots>, GatewayError> {
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        if sealed.is_empty() {
            return Ok(Some(Dots::new()));
        }
        let seen = place.with_binding(self.node().cluster(), |binding| {
            Seen(sealed.clone()).open(binding)
        });
        Ok(Some(seen.map_err(EventualError::from)?))
    }

    fn eventual_receipt(
        &self,
        range: &RangeView,
        rung: v1::Rung,
        (primaries, stand_ins): (&[NodeId], &[NodeId]),
        context: &Context,
    ) -> v1::Receipt {
        let here = self.node_id();
        let role = if range.replicas.contains(&here) {
            v1::Role::Primary
        } else {
            v1::Role::StandIn
        };
        v1::Receipt {
            level: Some(rung),
            node: here.0,
            role: role as i32,
            replicas: primaries.iter().map(|node| node.0).collect(),
            stand_ins: stand_ins.iter().map(|node| node.0).collect(),
            range: range.id.0,
            micros: Some(v1::Micros {
                total: as_micros(context.arrived.elapsed()),
                ..v1::Micros::default()
            }),
            ..v1::Receipt::default()
        }
    }

    /// Writes one key on the eventual plane.
    pub(crate) async fn eventual_write<T: Answer>(
        &self,
        write: EventualWrite<'_>,
        context: &Context,
        request: impl Fn() -> Request,
        answer: impl FnOnce(EventualWritten) -> Result<T, GatewayError>,
    ) -> Result<T, GatewayError> {
        let lost = AtomicBool::new(false);
        let written = self.attempt_write((write, &lost), context, request, answer);
        after_lost(written.await, &lost)
    }

    async fn attempt_write<T: Answer>(
        &self,
        (write, lost): (EventualWrite<'_>, &AtomicBool),
        context: &Context,
        request: impl Fn() -> Request,
        answer: impl FnOnce(EventualWritten) -> Result<T, GatewayError>,
    ) -> Result<T, GatewayError> {
        let place = &write.place;
        // Another coordinator would give it another dot, which nobody who has seen the first one
        // replaces.
        let again = match write.update.is_repeatable() && !write.once {
            true => Again::WhenLost,
            false => Again::Never,
        };
        let is_here = self.climbs_here(&write, context);
        if !is_here
            && let Some(done) = self
                .elsewhere(place.range, context, (again, lost), request)
                .await?
        {
            return Ok(done);
        }
        let mut seen = self.seen(place, write.context)?;
        if is_here && seen.is_none() {
            seen = Some(self.look_around(&write, context).await?);
        }
        let now = self.node().clock();
        let expiry = (write.ttl > 0).then(|| Timestamp(now.0.saturating_add(write.ttl)));
        let mut deadline = context.arrived;
        let mut until = |budget: Option<Duration>| {
            let next = budget.map_or(context.deadline, |budget| deadline + budget);
            deadline = next.min(context.deadline);
            deadline
        };
        let strong: Vec<Instant> = write.plan.strong.iter().copied().map(&mut until).collect();
        let rungs = write.plan.rungs.iter().map(|rung| WriteRung {
            copies: rung.copies,
            strict: rung.strict,
            ack: rung.ack,
            deadline: until(rung.budget),
        });
        let request = WriteRequest {
            range: place.range.id,
            key: place.key.clone(),
            update: write.update.clone(),
            seen,
            session: write.session.seen_before(place.range.id),
            expiry,
            timestamp: now,
            name: Some((write.name.id, write.name.first_tried)),
            strong,
            rungs: rungs.collect(),
        };
        let done = self.eventual().write(request).await?;
        answer(self.written(&write, &done, context)?)
    }

    fn written(
        &self,
        write: &EventualWrite<'_>,
        done: &WriteDone,
        context: &Context,
    ) -> Result<EventualWritten, GatewayError> {
        let place = &write.place;
        let rung = write.plan.rung_to_wire(done.rung);
        let rung = rung.ok_or_else(|| GatewayError::internal("a rung that was not asked for"))?;
        let holders = (&done.tally.primaries[..], &done.tally.stand_ins[..]);
        let mut receipt = self.eventual_receipt(place.range, rung, holders, context);
        receipt.revision = done.decided.map_or(0, |revision| revision.0);
        receipt.failed = done.failed.iter().map(|why| (*why).to_owned()).collect();
        receipt.rung = u32::try_from(done.rung).unwrap_or(u32::MAX);
        receipt.replayed = done.replayed;
        receipt.tentative = place.keyspace.options.mode == Mode::Mixed && done.decided.is_none();
        let siblings = done.state.live().len().saturating_sub(1);
        receipt.siblings = u32::try_from(siblings).unwrap_or(u32::MAX);
        if !place.keyspace.options.conflict.is_typed() && siblings > 0 {
            metrics::conflict_made(place.keyspace);
        }
        receipt.context = place.with_binding(self.node().cluster(), |binding| {
            Seen::seal(&self.faults().context(&done.state), binding).0
        });
        let group = self.node().group(place.range.id);
        let seen = seen_by_writer(&write.update, done);
        receipt.session_token = write.session.after(place.range.id, &seen, group.as_deref());
        if let Some(micros) = &mut receipt.micros {
            micros.disk = as_micros(done.stored_after);
        }
        Ok(EventualWritten {
            dot: done.dot.to_string(),
            state: done.state.clone(),
            receipt,
        })
    }

    fn eventual_place<'a>(
        keyspace: &'a KeyspaceView,
        user_key: &'a Bytes,
        context: &Context,
    ) -> Result<Place<'a>, GatewayError> {
        let (range, key) = range_of(keyspace, user_key, context)?;
        Ok(Place {
            keyspace,
            range,
            user_key,
            key,
        })
    }

    /// Puts a key on the eventual plane.
    pub(crate) async fn eventual_put(
        &self,
        keyspace: &KeyspaceView,
        plan: &EventualPlan,
        ttl: u64,
        (consistency, request): Asked<v1::PutRequest>,
        context: Context,
    ) -> Result<v1::PutResponse, GatewayError> {
        let write = EventualWrite {
            place: Self::eventual_place(keyspace, &request.key, &context)?,
            session: self.session(keyspace, consistency.as_ref())?,
            plan,
            update: Update::Put(request.value.clone()),
            context: request.context.as_ref(),
            ttl,
            name: self.name_of(request.request_id.as_ref())?,
            once: request.request_id.is_some(),
        };
        let name = wire_name(&write.name);
        let resend = || {
            Request::Put(v1::PutRequest {
                consistency: consistency.clone(),
                request_id: name,
                ..request.clone()
            })
        };
        let answer = |written: EventualWritten| {
            Ok(v1::PutResponse {
                revision: written.receipt.revision,
                receipt: Some(written.receipt),
                dot: written.dot,
            })
        };
        self.eventual_write(write, &context, resend, answer).await
    }

    /// Deletes a key on the eventual plane.
    pub(crate) async fn eventual_delete(
        &self,
        keyspace: &KeyspaceView,
        plan: &EventualPlan,
        (consistency, request): Asked<v1::DeleteRequest>,
        context: Context,
    ) -> Result<v1::DeleteResponse, GatewayError> {
        let write = EventualWrite {
            place: Self::eventual_place(keyspace, &request.key, &context)?,
            session: self.session(keyspace, consistency.as_ref())?,
            plan,
            update: Update::Delete,
            context: request.context.as_ref(),
            ttl: 0,
            name: self.name_of(request.request_id.as_ref())?,
            once: request.request_id.is_some(),
        };
        let name = wire_name(&write.name);
        let resend = || {
            Request::Delete(v1::DeleteRequest {
                consistency: consistency.clone(),
                request_id: name,
                ..request.clone()
            })
        };
        let answer = |written: EventualWritten| {
            Ok(v1::DeleteResponse {
                deleted: u64::from(written.state.live().len() == 0),
                receipt: Some(written.receipt),
                dot: written.dot,
                ..v1::DeleteResponse::default()
            })
        };
        self.eventual_write(write, &context, resend, answer).await
    }

    /// Changes a counter, set or map.
    ///
    /// # Errors
    ///
    /// See [`GatewayError`]; the outcome is unknown only where the error says so.
    pub(crate) async fn update(
        &self,
        mut request: v1::UpdateRequest,
        context: Context,
    ) -> Result<v1::UpdateResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = keyspace(&catalog, &request.keyspace)?;
        validate::key("key", &request.key, &keyspace.options)?;
        let update = changes::from_wire(request.change.as_ref())?;
        let consistency = request.consistency.take();
        let mode = keyspace.options.mode;
        let plan = level::write_plan(&keyspace.name, mode, Operation::Write, consistency.as_ref())?;
        let plan = match plan {
            WritePlan::Eventual(plan) => plan,
            // A name is needed all the same: the log decides on deltas.
            WritePlan::Strong(budget) if mode == Mode::Mixed => EventualPlan {
                strong: vec![budget],
                rungs: Vec::new(),
            },
            WritePlan::Strong(_) => {
                return Err(GatewayError::NotImplemented {
                    what: "a change of a counter, set or map in a keyspace of mode strong"
                        .to_owned(),
                    instead: "modes mixed and eventual have them",
                });
            }
        };
        let write = EventualWrite {
            place: Self::eventual_place(keyspace, &request.key, &context)?,
            session: self.session(keyspace, consistency.as_ref())?,
            plan: &plan,
            update,
            context: request.context.as_ref(),
            ttl: validate::ttl("ttl_ms", 0, &keyspace.options)?,
            name: self.name_of(request.request_id.as_ref())?,
            once: request.request_id.is_some(),
        };
        let name = wire_name(&write.name);
        let resend = || {
            Request::Update(v1::UpdateRequest {
                consistency: consistency.clone(),
                request_id: name,
                ..request.clone()
            })
        };
        let answer = |written: EventualWritten| {
            Ok(v1::UpdateResponse {
                typed: self.typed_after(keyspace, &written.state)?,
                receipt: Some(written.receipt),
                dot: written.dot,
            })
        };
        self.eventual_write(write, &context, resend, answer).await
    }

    /// What a typed key has come to, where its coordinator knows.
    pub(crate) fn typed_after(
        &self,
        keyspace: &KeyspaceView,
        state: &KeyState,
    ) -> Result<Option<v1::TypedValue>, GatewayError> {
        let policy = keyspace.options.conflict;
        let reading = quorate_types::causal::evaluate(policy, state, self.node().now());
        Ok(typed::value(&reading.map_err(EventualError::from)?))
    }

    /// Reads one key on the eventual plane.
    pub(crate) async fn eventual_get(
        &self,
        place: &Place<'_>,
        views: &Views<'_>,
        context: &Context,
        request: impl Fn() -> Request,
    ) -> Result<v1::GetResponse, GatewayError> {
        // A read changes nothing: what became of an earlier attempt is all one.
        let lost = AtomicBool::new(false);
        if let Some(got) = self
            .elsewhere(place.range, context, (Again::WhenSlow, &lost), request)
            .await?
        {
            return Ok(got);
        }
        let request = ReadRequest {
            range: place.range.id,
            key: place.key.clone(),
            copies: views.copies,
            wanted: views
                .session
                .wanted_of_views(place.range.id, context.deadline),
            deadline: context.deadline,
        };
        let done = self.eventual().read(request).await?;
        self.eventual_got(place, views, &done, context)
    }

    fn eventual_got(
        &self,
        place: &Place<'_>,
        views: &Views<'_>,
        done: &ReadDone,
        context: &Context,
    ) -> Result<v1::GetResponse, GatewayError> {
        let mut shown = self.shown(place, &done.state)?;
        shown.context = place.with_binding(self.node().cluster(), |binding| {
            Seen::seal(&self.faults().context(&done.state), binding).0
        });
        let rung = level::read_rung_to_wire(views.level);
        let holders = (&done.tally.primaries[..], &done.tally.stand_ins[..]);
        let mut receipt = self.eventual_receipt(place.range, rung, holders, context);
        let group = self.node().group(place.range.id);
        let seen = SessionSeen::of_context(done.state.context());
        receipt.session_token = views.session.after(place.range.id, &seen, group.as_deref());
        receipt.session_missing = in_words(&done.missing);
        receipt.visible_after_us = done.visible_after.map(as_micros);
        receipt.tentative = self.is_tentative(place, &done.state)?;
        let mut answer = shown.answer(receipt);
        if answer
            .receipt
            .as_ref()
            .is_some_and(|receipt| receipt.siblings > 0)
        {
            metrics::conflict_seen(place.keyspace);
        }
        answer.partial = done.partial;
        Ok(answer)
    }

    /// One page of one range on the eventual plane. A page of nothing but deleted keys is not
    /// shown: the next one is read.
    pub(crate) async fn eventual_page(
        &self,
        scan: &Scan<'_>,
        range: &RangeView,
        bounds: &Bounds,
        copies: Copies,
        limit: PageLimit,
    ) -> Result<v1::ScanResponse, GatewayError> {
        let asked = scan.request(range, bounds, None, limit);
        let (mut start, mut end) = (asked.start, asked.end);
        loop {
            let page = quorate_eventual::ScanRequest {
                range: range.id,
                start: start.clone(),
                end: end.clone(),
                reverse: bounds.reverse,
                rows_max: limit.rows,
                bytes_max: limit.bytes,
                copies,
                wanted: scan
                    .session
                    .wanted_of_views(range.id, scan.context.deadline),
                deadline: scan.context.deadline,
            };
            let done = self.eventual().scan(page).await?;
            let mut entries = Vec::with_capacity(done.rows.len());
            for (key, state) in &done.rows {
                entries.extend(self.eventual_row(scan, key, state)?);
            }
            // Nodes that hold different keys come to more than each was asked for.
            let more = done.resume.is_some() || entries.len() > limit.rows;
            entries.truncate(limit.rows);
            if entries.is_empty()
                && let Some(resume) = done.resume
            {
                if bounds.reverse {
                    end = resume;
                } else {
                    start = resume;
                }
                continue;
            }
            let rung = level::read_rung_to_wire(scan.level);
            let holders = (&done.replicas[..], &[][..]);
            let mut receipt = self.eventual_receipt(range, rung, holders, &scan.context);
            let seen = SessionSeen::of_context(&done.context);
            let group = self.node().group(range.id);
            receipt.session_token = scan.session.after(range.id, &seen, group.as_deref());
            receipt.tentative = done.tentative;
            receipt.siblings = entries.iter().map(|row| row.siblings).sum();
            receipt.session_missing = in_words(&done.missing);
            receipt.visible_after_us = done.visible_after.map(as_micros);
            return Ok(v1::ScanResponse {
                entries,
                next_page_token: if more {
                    Bytes::from_static(MORE)
                } else {
                    Bytes::new()
                },
                at_revision: 0,
                receipt: Some(receipt),
            });
        }
    }

    /// A row of a scan: the value that a get shows first. Of a typed key, the key alone.
    fn eventual_row(
        &self,
        scan: &Scan<'_>,
        key: &Bytes,
        state: &KeyState,
    ) -> Result<Option<v1::KeyValue>, GatewayError> {
        let options = &scan.keyspace.options;
        let decoded = quorate_types::decode_key(&options.partitioning, key);
        let Some((_, user_key)) = decoded else {
            return Err(GatewayError::internal("a stored key that is none"));
        };
        let reading = quorate_types::causal::evaluate(options.conflict, state, self.node().now());
        let reading = reading.map_err(EventualError::from)?;
        let mut row = typed::values(&user_key, &reading).into_iter().next();
        if let Some(row) = &mut row {
            let others = reading.siblings().saturating_sub(1);
            row.siblings = u32::try_from(others).unwrap_or(u32::MAX);
        }
        if row.is_none() && typed::value(&reading).is_some() {
            row = Some(v1::KeyValue {
                key: user_key,
                ..v1::KeyValue::default()
            });
        }
        if let Some(row) = row.as_mut().filter(|_| scan.keys_only) {
            row.value = Bytes::new();
        }
        Ok(row)
    }

    /// The operations of a batch on the eventual plane, each on its own.
    pub(crate) async fn eventual_batch(
        &self,
        keyspace: &KeyspaceView,
        request: &v1::BatchRequest,
        context: Context,
    ) -> Result<v1::BatchResponse, GatewayError> {
        let session = self.session(keyspace, request.consistency.as_ref())?;
        let mut served = Vec::with_capacity(request.operations.len());
        for (place, operation) in request.operations.iter().enumerate() {
            let name = request.request_id.map(|id| v1::RequestId {
                // Each operation is a write of its own, under a name of its own.
                client: id.client ^ BATCH_CLIENT,
                sequence: id
                    .sequence
                    .wrapping_mul(BATCH_NAMES)
                    .wrapping_add(place as u64),
                ..id
            });
            served.push(self.batched(request, operation, name, context));
        }
        let results: Vec<_> = futures::stream::iter(served)
            .buffered(BATCH_OPERATIONS_SERVED_MAX)
            .collect()
            .await;
        if let Some(error) = results.iter().find_map(|one| one.as_ref().err())
            && results.iter().all(Result::is_err)
        {
            return Err(error.clone());
        }
        let mut receipts = Vec::new();
        let results = results.into_iter().map(|result| match result {
            Ok((result, of)) => {
                receipts.extend(of);
                result
            }
            Err(error) => v1::OperationResult {
                error: Some(error.into()),
                ..v1::OperationResult::default()
            },
        });
        let results = results.collect();
        let tokens = receipts.iter().map(|receipt| &receipt.session_token);
        let token = session.joined(tokens);
        let receipt = receipts.into_iter().next().map(|receipt| v1::Receipt {
            session_token: token,
            ..receipt
        });
        Ok(v1::BatchResponse { results, receipt })
    }

    async fn batched(
        &self,
        request: &v1::BatchRequest,
        operation: &v1::Operation,
        request_id: Option<v1::RequestId>,
        context: Context,
    ) -> Result<(v1::OperationResult, Option<v1::Receipt>), GatewayError> {
        use v1::operation::Operation as Op;
        let keyspace = request.keyspace.clone();
        let consistency = request.consistency.clone();
        match operation.operation.clone() {
            Some(Op::Put(put)) => {
                let put = v1::PutRequest {
                    keyspace,
                    key: put.key,
                    value: put.value,
                    ttl_ms: put.ttl_ms,
                    consistency,
                    request_id,
                    context: None,
                    lease: put.lease,
                };
                let done = Box::pin(self.put(put, context)).await?;
                Ok((v1::OperationResult::default(), done.receipt))
            }
            Some(Op::Delete(delete)) => {
                let delete = v1::DeleteRequest {
                    keyspace,
                    key: delete.key,
                    consistency,
                    request_id,
                    ..v1::DeleteRequest::default()
                };
                let done = Box::pin(self.delete(delete, context)).await?;
                Ok((v1::OperationResult::default(), done.receipt))
            }
            Some(Op::Get(get)) => {
                let get = v1::GetRequest {
                    keyspace,
                    key: get.key,
                    consistency,
                    at_revision: 0,
                };
                let got = Box::pin(self.get(get, context)).await?;
                let result = v1::OperationResult {
                    found: got.found,
                    entry: got.entry,
                    ..v1::OperationResult::default()
                };
                Ok((result, got.receipt))
            }
            None => Err(GatewayError::field(
                "operations",
                "say one of put, delete, get",
            )),
        }
    }
}
