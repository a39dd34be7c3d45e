//! Transactions: compare, then one of two lists of operations, atomically, as one entry of one
//! range's log. Keys of several ranges are refused by name, until there is two-phase commit.

use bytes::Bytes;
use quorate_proto::internal::{Transaction, command};
use quorate_proto::v1::{self, pipeline_request::Request};
use quorate_raft::machine::ApplyOutcome;
use quorate_raft::{KeyspaceView, RangeView};
use quorate_types::{Operation, RangeId, Revision};

use crate::context::Context;
use crate::errors::GatewayError;
use crate::gateway::{Gateway, keyspace, range_of};
use crate::lease::Attach;
use crate::operations::{Prepared, results};
use crate::validate;
use crate::write::{Decided, Write, strange};

/// A transaction with its keys as they are stored, all of one range.
struct Ready {
    compare: Vec<v1::Compare>,
    then: Vec<Prepared>,
    otherwise: Vec<Prepared>,
}

impl Gateway {
    /// Runs a transaction.
    ///
    /// # Errors
    ///
    /// `RANGES_SPANNED`; else see [`GatewayError`]. A compare that fails is no error.
    pub(crate) async fn txn(
        &self,
        request: v1::TxnRequest,
        context: Context,
    ) -> Result<v1::TxnResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = keyspace(&catalog, &request.keyspace)?;
        validate::transaction(&request, &keyspace.options)?;
        for (list, operations) in [("then", &request.then), ("otherwise", &request.otherwise)] {
            self.schemas()
                .check_operations(list, operations, &keyspace.options)?;
        }
        let consistency = request.consistency.as_ref();
        let context = Self::write_context(keyspace, Operation::Transaction, consistency, context)?;
        let session = self.session(keyspace, consistency)?;
        let range = one_range(keyspace, &request, &context)?;
        let mut ready = ready(keyspace, &request);
        let mut write = Write {
            range,
            key: Bytes::new(),
            name: self.name_of(request.request_id.as_ref())?,
            session,
            looks: true,
            leases: Vec::new(),
            context,
        };
        let operations = ready.then.iter_mut().chain(&mut ready.otherwise);
        self.attach_all(keyspace, &mut write, operations).await?;
        let operation = || command::Operation::Transaction(ready.command(keyspace));
        let answer = |decided: Decided<'_>| transacted(&ready, decided);
        let resend = || {
            Request::Txn(v1::TxnRequest {
                consistency: write.consistency(),
                request_id: write.request_id(),
                ..request.clone()
            })
        };
        self.decide(&write, operation, answer, resend).await
    }
}

impl Ready {
    fn command(&self, keyspace: &KeyspaceView) -> Transaction {
        let list = |operations: &[Prepared]| {
            operations
                .iter()
                .map(|operation| operation.command(keyspace))
                .collect()
        };
        Transaction {
            compare: self.compare.clone(),
            then: list(&self.then),
            otherwise: list(&self.otherwise),
        }
    }
}

fn ready(keyspace: &KeyspaceView, request: &v1::TxnRequest) -> Ready {
    let prepare = |operation: &v1::Operation| {
        let (_, key) = keyspace.route(&validate::operation_key(operation));
        Prepared {
            key,
            operation: operation.clone(),
            attach: Attach::default(),
        }
    };
    let compare = request.compare.iter().map(|compare| {
        let (_, key) = keyspace.route(&compare.key);
        v1::Compare {
            key,
            expect: compare.expect.clone(),
        }
    });
    Ready {
        compare: compare.collect(),
        then: request.then.iter().map(prepare).collect(),
        otherwise: request.otherwise.iter().map(prepare).collect(),
    }
}

/// The one range of all keys.
fn one_range<'a>(
    keyspace: &'a KeyspaceView,
    request: &v1::TxnRequest,
    context: &Context,
) -> Result<&'a RangeView, GatewayError> {
    let compared = request.compare.iter().map(|compare| compare.key.clone());
    let operated = request
        .then
        .iter()
        .chain(&request.otherwise)
        .map(validate::operation_key);
    let mut found: Option<&RangeView> = None;
    let mut ranges: Vec<RangeId> = Vec::new();
    for key in compared.chain(operated) {
        let (range, _) = range_of(keyspace, &key, context)?;
        found = Some(range);
        if !ranges.contains(&range.id) {
            ranges.push(range.id);
        }
    }
    if ranges.len() > 1 {
        return Err(GatewayError::RangesSpanned { ranges });
    }
    found.ok_or_else(|| GatewayError::field("then", "a transaction names at least one key"))
}

fn transacted(ready: &Ready, decided: Decided<'_>) -> Result<v1::TxnResponse, GatewayError> {
    let succeeded = match &decided.proposed.applied.outcome {
        ApplyOutcome::Transacted { succeeded, .. } | ApplyOutcome::Remembered { succeeded, .. } => {
            *succeeded
        }
        ApplyOutcome::Written { .. }
        | ApplyOutcome::Compared { .. }
        | ApplyOutcome::Renewed(_)
        | ApplyOutcome::Etcd(_)
        | ApplyOutcome::Refused(_)
        | ApplyOutcome::Nothing => return Err(strange(&decided.proposed)),
    };
    let ran = if succeeded {
        &ready.then
    } else {
        &ready.otherwise
    };
    let revision = Revision(decided.receipt.revision);
    let outcome = decided.proposed.applied.outcome;
    Ok(v1::TxnResponse {
        succeeded,
        results: results(outcome, revision, ran, decided.group)?,
        revision: revision.0,
        receipt: Some(decided.receipt),
    })
}
