//! Batches: many independent operations with a result each. What belongs to one range goes there
//! together: as one entry if it writes, as one read if it does not. Ranges are served side by side,
//! and one that fails does not keep the others from their results.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use quorate_proto::internal::{WriteBatch, command};
use quorate_proto::v1::{self, pipeline_request::Request};
use quorate_raft::{Group, KeyspaceView, RangeView};
use quorate_types::{Effect, Operation, Revision};

use crate::answer::Answer;
use crate::context::Context;
use crate::errors::GatewayError;
use crate::gateway::{Gateway, keyspace, range_of};
use crate::lease::Attach;
use crate::level::{self, ReadPlan};
use crate::names::WriteName;
use crate::operations::{Prepared, results};
use crate::read::{consistency_of, preference};
use crate::receipt;
use crate::route::{Errand, Tried};
use crate::session::{Saw, Session};
use crate::validate;
use crate::write::{Decided, Write};

/// Ranges that one batch is sent to at the same time.
const RANGES_SENT_MAX: usize = 64;

/// The operations of one range, with their places in the request.
struct Part<'a> {
    range: &'a RangeView,
    places: Vec<usize>,
    operations: Vec<Prepared>,
}

/// What all parts share.
struct Batch<'a> {
    keyspace: &'a KeyspaceView,
    session: &'a Session,
    name: WriteName,
    context: Context,
}

impl Gateway {
    /// Runs many independent operations.
    ///
    /// # Errors
    ///
    /// A request that is not valid, or of which no part succeeded; else see each result.
    pub(crate) async fn batch(
        &self,
        request: v1::BatchRequest,
        context: Context,
    ) -> Result<v1::BatchResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = keyspace(&catalog, &request.keyspace)?;
        validate::batch(&request.operations, &keyspace.options)?;
        self.schemas()
            .check_operations("operations", &request.operations, &keyspace.options)?;
        let (mode, leveled) = (keyspace.options.mode, request.consistency.as_ref());
        if level::is_eventual(mode, leveled) {
            return self.eventual_batch(keyspace, &request, context).await;
        }
        let count = request.operations.len();
        let consistency = request.consistency;
        let parts = parts_of(keyspace, request.operations, &context)?;
        let writes = parts
            .iter()
            .any(|part| part.operations.iter().any(Prepared::is_write));
        let (plan, context) = if writes {
            let leveled = consistency.as_ref();
            (
                None,
                Self::write_context(keyspace, Operation::Write, leveled, context)?,
            )
        } else {
            let mode = keyspace.options.mode;
            let leveled = consistency.as_ref();
            (
                Some(level::read_plan(
                    &keyspace.name,
                    mode,
                    Operation::Read,
                    leveled,
                )?),
                context,
            )
        };
        let name = self.name_of(request.request_id.as_ref())?;
        let session = self.session(keyspace, consistency.as_ref())?;
        let batch = Batch {
            keyspace,
            session: &session,
            name,
            context,
        };
        let (batch, plan) = (&batch, plan.as_ref());
        let mut sent = Vec::with_capacity(parts.len());
        for mut part in parts {
            sent.push(async move {
                let answer = self.part(batch, plan, &mut part).await;
                (part.places, answer)
            });
        }
        let served = stream::iter(sent)
            .buffer_unordered(RANGES_SENT_MAX)
            .collect()
            .await;
        assembled(count, served, &session, context.forwarded.is_some())
    }

    async fn part(
        &self,
        batch: &Batch<'_>,
        plan: Option<&ReadPlan>,
        part: &mut Part<'_>,
    ) -> Result<v1::BatchResponse, GatewayError> {
        // Reads beside writes are part of the entry: they see the writes before them in the list.
        match plan {
            Some(plan) => self.read_part(batch, plan, part).await,
            None => self.write_part(batch, part).await,
        }
    }

    async fn write_part(
        &self,
        batch: &Batch<'_>,
        part: &mut Part<'_>,
    ) -> Result<v1::BatchResponse, GatewayError> {
        let mut write = Write {
            range: part.range,
            key: Bytes::new(),
            name: batch.name,
            session: batch.session.clone(),
            looks: true,
            leases: Vec::new(),
            context: batch.context,
        };
        let operations = part.operations.iter_mut();
        self.attach_all(batch.keyspace, &mut write, operations)
            .await?;
        let operation = || {
            let operations = part
                .operations
                .iter()
                .map(|one| one.command(batch.keyspace));
            command::Operation::Batch(WriteBatch {
                operations: operations.collect(),
            })
        };
        let answer = |decided: Decided<'_>| {
            let revision = Revision(decided.receipt.revision);
            let outcome = decided.proposed.applied.outcome;
            Ok(v1::BatchResponse {
                results: results(outcome, revision, &part.operations, decided.group)?,
                receipt: Some(decided.receipt),
            })
        };
        let resend = || part.request(batch, write.consistency(), write.request_id());
        self.decide(&write, operation, answer, resend).await
    }

    async fn read_part(
        &self,
        batch: &Batch<'_>,
        plan: &ReadPlan,
        part: &Part<'_>,
    ) -> Result<v1::BatchResponse, GatewayError> {
        let session = batch.session;
        self.climb(plan, &batch.context, |rung, context| async move {
            let level = rung.level;
            let want = session.want(level, part.range.id);
            let here = |group: Arc<Group>| async move {
                let stood = self.stand_in_session(&group, None, want, session, context.deadline);
                match stood.await {
                    Ok(standing) => {
                        let read = part.operations.iter().map(|one| one.read(&group)).collect();
                        let standing = (standing, Saw::Values);
                        let receipt =
                            || self.read_receipt(session, &group, standing, level, &context);
                        Tried::Done(read_results(read, receipt))
                    }
                    Err(unmet) => unmet.into(),
                }
            };
            let resend = || part.request(batch, Some(consistency_of(level, session)), None);
            let prefer = preference(level);
            let errand = Errand {
                range: part.range,
                prefer,
                handle: None,
                context: &context,
            };
            self.route(&errand, here, resend).await
        })
        .await
    }
}

fn read_results(
    results: Result<Vec<v1::OperationResult>, GatewayError>,
    receipt: impl FnOnce() -> v1::Receipt,
) -> Result<v1::BatchResponse, GatewayError> {
    Ok(v1::BatchResponse {
        results: results?,
        receipt: Some(receipt()),
    })
}

impl Part<'_> {
    fn request(
        &self,
        batch: &Batch<'_>,
        consistency: Option<v1::Consistency>,
        request_id: Option<v1::RequestId>,
    ) -> Request {
        Request::Batch(v1::BatchRequest {
            keyspace: batch.keyspace.name.clone(),
            operations: self
                .operations
                .iter()
                .map(|one| one.operation.clone())
                .collect(),
            consistency,
            request_id,
        })
    }
}

/// The operations by range, ranges in the order of their first operation.
fn parts_of<'a>(
    keyspace: &'a KeyspaceView,
    operations: Vec<v1::Operation>,
    context: &Context,
) -> Result<Vec<Part<'a>>, GatewayError> {
    let mut parts: Vec<Part<'a>> = Vec::new();
    let mut of_range = std::collections::HashMap::new();
    for (place, operation) in operations.into_iter().enumerate() {
        let (range, key) = range_of(keyspace, &validate::operation_key(&operation), context)?;
        let part = *of_range.entry(range.id).or_insert_with(|| {
            parts.push(Part {
                range,
                places: Vec::new(),
                operations: Vec::new(),
            });
            parts.len() - 1
        });
        parts[part].places.push(place);
        parts[part].operations.push(Prepared {
            key,
            operation,
            attach: Attach::default(),
        });
    }
    Ok(parts)
}

type Served = (Vec<usize>, Result<v1::BatchResponse, GatewayError>);

/// The results in the order of the operations.
fn assembled(
    count: usize,
    served: Vec<Served>,
    session: &Session,
    forwarded: bool,
) -> Result<v1::BatchResponse, GatewayError> {
    let mut results = vec![v1::OperationResult::default(); count];
    let mut receipts: Vec<v1::Receipt> = Vec::new();
    let mut failed: Option<GatewayError> = None;
    for (places, answer) in served {
        match answer {
            Ok(mut answer) => {
                receipts.push(std::mem::take(answer.receipt()));
                for (place, result) in places.into_iter().zip(answer.results) {
                    results[place] = result;
                }
            }
            Err(error) => {
                let wire = v1::Error::from(error.clone());
                for place in places {
                    results[place].error = Some(wire.clone());
                }
                if failed.is_none() || error.effect() != Effect::None {
                    failed = Some(error);
                }
            }
        }
    }
    if let Some(error) = failed.filter(|_| forwarded || receipts.is_empty()) {
        return Err(error);
    }
    let token = session.joined(receipts.iter().map(|receipt| &receipt.session_token));
    let mut receipt = receipts
        .into_iter()
        .reduce(receipt::joined)
        .unwrap_or_default();
    receipt.session_token = token;
    Ok(v1::BatchResponse {
        results,
        receipt: Some(receipt),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::seal::ClusterTag;
    use crate::token::KeyspaceTag;

    fn session() -> Session {
        Session::none((ClusterTag::of(b"c"), KeyspaceTag::of(b"k")))
    }

    fn found(revision: u64) -> v1::BatchResponse {
        let result = v1::OperationResult {
            found: true,
            revision,
            ..Default::default()
        };
        let receipt = v1::Receipt {
            revision,
            ..Default::default()
        };
        v1::BatchResponse {
            results: vec![result],
            receipt: Some(receipt),
        }
    }

    #[test]
    fn one_part_that_fails_leaves_the_others_their_results() {
        let served = vec![
            (vec![1], Ok(found(7))),
            (vec![0, 2], Err(GatewayError::TimedOut)),
        ];
        let answer = assembled(3, served, &session(), false).unwrap();
        assert_eq!(answer.results[1].revision, 7);
        assert!(answer.results[1].error.is_none());
        for failed in [0, 2] {
            assert_eq!(
                answer.results[failed].error.as_ref().unwrap().reason,
                "TIMED_OUT"
            );
        }
        assert_eq!(answer.receipt.unwrap().revision, 7);
    }

    #[test]
    fn nothing_but_failures_is_an_error_and_the_worst_is_told() {
        let unknown = GatewayError::Internal {
            what: "x".to_owned(),
            effect: Effect::Unknown,
        };
        let served = vec![
            (vec![0], Err(unknown)),
            (vec![1], Err(GatewayError::TimedOut)),
        ];
        let error = assembled(2, served, &session(), false).unwrap_err();
        assert_eq!(error.effect(), Effect::Unknown);
    }
}
