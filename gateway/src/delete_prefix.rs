//! Removing all keys of a prefix, in bounded steps: each call removes up to [`STEP_KEYS_MAX`] keys
//! of a few ranges, says how many, and where the next step goes on.
//!
//! Each range's part of a step is one entry. A step that fails after it has removed something
//! answers with what it did; the next one meets the failure.

use bytes::Bytes;
use quorate_proto::internal::{DeleteInterval, command};
use quorate_proto::v1::{self, pipeline_request::Request};
use quorate_raft::machine::ApplyOutcome;
use quorate_raft::{KeyspaceView, RangeView};
use quorate_types::{Operation, Partitioning, Revision, prefix_end, user_interval};

use crate::context::Context;
use crate::errors::GatewayError;
use crate::gateway::{Gateway, keyspace};
use crate::page_token::{Fingerprint, PageToken};
use crate::seal::Kind;
use crate::validate;
use crate::write::{Decided, Write, strange};

/// Keys that one call removes at the most.
pub const STEP_KEYS_MAX: u32 = 1000;
/// Ranges that one call asks at the most.
const STEP_RANGES_MAX: usize = 16;

impl Gateway {
    pub(crate) async fn delete_prefix(
        &self,
        request: v1::DeleteRequest,
        context: Context,
    ) -> Result<v1::DeleteResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = keyspace(&catalog, &request.keyspace)?;
        validate::bound("key", &request.key, &keyspace.options)?;
        if request.if_revision > 0 {
            let problem = "only the deletion of one key has a condition";
            return Err(GatewayError::field("if_revision", problem));
        }
        let leveled = request.consistency.as_ref();
        let context = Self::write_context(keyspace, Operation::Write, leveled, context)?;
        let ranges = self.ranges_left(keyspace, &request)?;
        if let Some(forwarded) = context.forwarded {
            let moved = GatewayError::RangeMoved {
                range: forwarded.range,
            };
            let range = ranges
                .iter()
                .find(|range| range.id == forwarded.range)
                .ok_or(moved)?;
            return self.delete_within(keyspace, range, &request, context).await;
        }
        self.delete_step(keyspace, &ranges, &request, context).await
    }

    /// The ranges that a step may still find keys in, in the order of the steps.
    fn ranges_left<'a>(
        &self,
        keyspace: &'a KeyspaceView,
        request: &v1::DeleteRequest,
    ) -> Result<Vec<&'a RangeView>, GatewayError> {
        let mut start = request.key.clone();
        let mut bucket = 0;
        if !request.page_token.is_empty() {
            let fingerprint = fingerprint_of(keyspace, &request.key);
            let (kind, cluster) = (Kind::DeletePrefix, self.cluster());
            let token = PageToken::decode(kind, cluster, fingerprint, &request.page_token)?;
            (start, bucket) = (start.max(token.key), token.bucket);
        }
        let end = prefix_end(&request.key);
        Ok(match keyspace.options.partitioning {
            Partitioning::Hash(_) => keyspace
                .ranges
                .iter()
                .filter(|range| range.bucket >= u32::from(bucket))
                .collect(),
            Partitioning::Ordered => {
                let asked = user_interval(keyspace.id, None, &start, &end);
                keyspace
                    .ranges
                    .iter()
                    .filter(|range| range.interval.overlaps(&asked))
                    .collect()
            }
        })
    }

    async fn delete_step(
        &self,
        keyspace: &KeyspaceView,
        ranges: &[&RangeView],
        request: &v1::DeleteRequest,
        context: Context,
    ) -> Result<v1::DeleteResponse, GatewayError> {
        let session = self.session(keyspace, request.consistency.as_ref())?;
        let mut step = v1::DeleteResponse::default();
        let mut tokens = Vec::new();
        for (asked, range) in ranges.iter().enumerate() {
            let full = step.deleted >= u64::from(STEP_KEYS_MAX) || asked >= STEP_RANGES_MAX;
            if full {
                step.next_page_token = self.step_token(keyspace, range, request);
                break;
            }
            match self.delete_within(keyspace, range, request, context).await {
                Ok(part) => {
                    step.deleted += part.deleted;
                    step.revision = step.revision.max(part.revision);
                    tokens.extend(part.receipt.iter().map(|of| of.session_token.clone()));
                    step.receipt = part.receipt.or(step.receipt);
                    if part.deleted >= u64::from(STEP_KEYS_MAX) {
                        step.next_page_token = self.step_token(keyspace, range, request);
                        break;
                    }
                }
                Err(error) if step.deleted == 0 => return Err(error),
                Err(_) => {
                    step.next_page_token = self.step_token(keyspace, range, request);
                    break;
                }
            }
        }
        if let Some(receipt) = &mut step.receipt {
            receipt.session_token = session.joined(tokens.iter());
        }
        Ok(step)
    }

    /// The next step begins with this range.
    fn step_token(
        &self,
        keyspace: &KeyspaceView,
        range: &RangeView,
        request: &v1::DeleteRequest,
    ) -> Bytes {
        let prefix_bytes = keyspace.options.partitioning.prefix_bytes();
        let start = &range.interval.start;
        let token = PageToken {
            fingerprint: fingerprint_of(keyspace, &request.key),
            at: Revision::ZERO,
            bucket: u16::try_from(range.bucket).unwrap_or(0),
            key: start.slice(prefix_bytes.min(start.len())..),
        };
        token.encode(Kind::DeletePrefix, self.cluster())
    }

    /// One range's part of a step.
    async fn delete_within(
        &self,
        keyspace: &KeyspaceView,
        range: &RangeView,
        request: &v1::DeleteRequest,
        context: Context,
    ) -> Result<v1::DeleteResponse, GatewayError> {
        let consistency = request.consistency.as_ref();
        let write = Write {
            range,
            key: Bytes::new(),
            name: self.name_of(request.request_id.as_ref())?,
            session: self.session(keyspace, consistency)?,
            looks: true,
            leases: Vec::new(),
            context,
        };
        let bucket = match keyspace.options.partitioning {
            Partitioning::Ordered => None,
            Partitioning::Hash(_) => u16::try_from(range.bucket).ok(),
        };
        let asked = user_interval(keyspace.id, bucket, &request.key, &prefix_end(&request.key));
        let interval = asked.intersect(&range.interval);
        let operation = || {
            command::Operation::DeleteInterval(DeleteInterval {
                start: interval.start.clone(),
                end: interval.end.clone(),
                limit: STEP_KEYS_MAX,
            })
        };
        let resend = || {
            Request::Delete(v1::DeleteRequest {
                keyspace: request.keyspace.clone(),
                key: request.key.clone(),
                consistency: write.consistency(),
                prefix: true,
                request_id: write.request_id(),
                ..v1::DeleteRequest::default()
            })
        };
        self.decide(&write, operation, removed, resend).await
    }
}

fn removed(decided: Decided<'_>) -> Result<v1::DeleteResponse, GatewayError> {
    let deleted = match &decided.proposed.applied.outcome {
        ApplyOutcome::Written { deleted, .. } | ApplyOutcome::Remembered { deleted, .. } => {
            *deleted
        }
        ApplyOutcome::Compared { .. }
        | ApplyOutcome::Transacted { .. }
        | ApplyOutcome::Renewed(_)
        | ApplyOutcome::Etcd(_)
        | ApplyOutcome::Refused(_)
        | ApplyOutcome::Nothing => return Err(strange(&decided.proposed)),
    };
    Ok(v1::DeleteResponse {
        deleted,
        revision: decided.receipt.revision,
        next_page_token: Bytes::new(),
        receipt: Some(decided.receipt),
        dot: String::new(),
    })
}

fn fingerprint_of(keyspace: &KeyspaceView, prefix: &[u8]) -> u64 {
    Fingerprint::new(keyspace.id).bytes(prefix).finish()
}
