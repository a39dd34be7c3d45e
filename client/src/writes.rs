//! The operations that change data.

use bytes::Bytes;
use quorate_proto::v1;
use quorate_types::Revision;

use crate::answer::{BatchDone, CasOutcome, Deleted, OperationDone, TxnOutcome, Written, receipt};
use crate::attempts::Call;
use crate::client::Client;
use crate::error::ClientError;
use crate::failure::error_from_wire;
use crate::operation::{Expect, Operation, Txn, operations_into_wire, ttl_millis};
use crate::options::WriteOptions;
use crate::request::{Request, Response};

impl Client {
    /// Writes a key at the keyspace's default level.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; its [`effect`](ClientError::effect) says whether the write may
    /// have been applied.
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Written, ClientError> {
        self.put_with(key, value, WriteOptions::default()).await
    }

    /// Writes a key.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn put_with(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        options: WriteOptions,
    ) -> Result<Written, ClientError> {
        let request = Request::Put(v1::PutRequest {
            keyspace: self.keyspace.to_string(),
            key: key.into(),
            value: value.into(),
            consistency: options.consistency()?,
            ttl_ms: ttl_millis(options.ttl)?,
            request_id: None,
            context: options.context.clone(),
            lease: options.lease.map_or(0, |id| id.0),
        });
        match self.run(request, Call::write(&options)).await? {
            Response::Put(answer) => Ok(answer.into()),
            _ => Err(ClientError::malformed("that of a put")),
        }
    }

    /// Removes a key at the keyspace's default level. Removing what is not there succeeds.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Deleted, ClientError> {
        self.delete_with(key, WriteOptions::default()).await
    }

    /// Removes a key, if [`if_revision`](WriteOptions::if_revision) is given only at that
    /// revision.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put); reason `COMPARE_FAILED` if the revision is another one.
    pub async fn delete_with(
        &self,
        key: impl Into<Bytes>,
        options: WriteOptions,
    ) -> Result<Deleted, ClientError> {
        let mut request = self.delete_request(key.into(), &options)?;
        request.if_revision = options.if_revision.unwrap_or(Revision::ZERO).0;
        self.run_delete(request, &options).await
    }

    fn delete_request(
        &self,
        key: Bytes,
        options: &WriteOptions,
    ) -> Result<v1::DeleteRequest, ClientError> {
        Ok(v1::DeleteRequest {
            keyspace: self.keyspace.to_string(),
            key,
            consistency: options.consistency()?,
            context: options.context.clone(),
            ..v1::DeleteRequest::default()
        })
    }

    async fn run_delete(
        &self,
        request: v1::DeleteRequest,
        options: &WriteOptions,
    ) -> Result<Deleted, ClientError> {
        match self
            .run(Request::Delete(request), Call::write(options))
            .await?
        {
            Response::Delete(answer) => Ok(answer.into()),
            _ => Err(ClientError::malformed("that of a delete")),
        }
    }

    /// Removes all keys that start with `prefix`, in bounded steps that the caller drives.
    /// Not atomic: keys written meanwhile may stay.
    pub fn delete_prefix(&self, prefix: impl Into<Bytes>, options: WriteOptions) -> PrefixDelete {
        PrefixDelete {
            client: self.clone(),
            prefix: prefix.into(),
            options,
            page_token: Bytes::new(),
            deleted: 0,
            done: false,
        }
    }

    /// Writes a key if its present state is as expected.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put). A state other than expected is no error, but
    /// [`CasOutcome::Refused`].
    pub async fn compare_and_set(
        &self,
        key: impl Into<Bytes>,
        expect: Expect,
        value: impl Into<Bytes>,
        options: WriteOptions,
    ) -> Result<CasOutcome, ClientError> {
        let request = Request::CompareAndSet(v1::CompareAndSetRequest {
            keyspace: self.keyspace.to_string(),
            key: key.into(),
            expect: Some(expect.into_wire()),
            value: value.into(),
            ttl_ms: ttl_millis(options.ttl)?,
            consistency: options.consistency()?,
            request_id: None,
            lease: options.lease.map_or(0, |id| id.0),
        });
        match self.run(request, Call::write(&options)).await? {
            Response::CompareAndSet(answer) => Ok(answer.into()),
            _ => Err(ClientError::malformed("that of a compare-and-set")),
        }
    }

    /// Runs a transaction; all its keys must lie in one range.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put); reason `RANGES_SPANNED` if the keys lie in several ranges.
    pub async fn txn(&self, txn: Txn, options: WriteOptions) -> Result<TxnOutcome, ClientError> {
        let compare = txn.compare.into_iter().map(|compare| v1::Compare {
            key: compare.key,
            expect: Some(compare.expect.into_wire()),
        });
        let request = Request::Txn(v1::TxnRequest {
            keyspace: self.keyspace.to_string(),
            compare: compare.collect(),
            then: operations_into_wire(txn.then)?,
            otherwise: operations_into_wire(txn.otherwise)?,
            consistency: options.consistency()?,
            request_id: None,
        });
        match self.run(request, Call::write(&options)).await? {
            Response::Txn(answer) => Ok(answer.into()),
            _ => Err(ClientError::malformed("that of a transaction")),
        }
    }

    /// Runs many independent operations at the keyspace's default level. Each succeeds or
    /// fails by itself.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), if the batch failed as a whole.
    pub async fn batch(&self, operations: Vec<Operation>) -> Result<BatchDone, ClientError> {
        self.batch_with(operations, WriteOptions::default()).await
    }

    /// Runs many independent operations.
    ///
    /// # Errors
    ///
    /// As [`batch`](Self::batch).
    pub async fn batch_with(
        &self,
        operations: Vec<Operation>,
        options: WriteOptions,
    ) -> Result<BatchDone, ClientError> {
        let request = Request::Batch(v1::BatchRequest {
            keyspace: self.keyspace.to_string(),
            operations: operations_into_wire(operations)?,
            consistency: options.consistency()?,
            request_id: None,
        });
        match self.run(request, Call::write(&options)).await? {
            Response::Batch(answer) => Ok(BatchDone {
                results: answer.results.into_iter().map(operation_done).collect(),
                receipt: receipt(answer.receipt),
            }),
            _ => Err(ClientError::malformed("that of a batch")),
        }
    }
}

fn operation_done(mut wire: v1::OperationResult) -> Result<OperationDone, ClientError> {
    match wire.error.take() {
        Some(error) => Err(ClientError::Server(Box::new(error_from_wire(error)))),
        None => Ok(wire.into()),
    }
}

/// A prefix delete under way. Dropping it between two steps leaves the rest in place.
#[derive(Debug)]
pub struct PrefixDelete {
    client: Client,
    prefix: Bytes,
    options: WriteOptions,
    page_token: Bytes,
    deleted: u64,
    done: bool,
}

impl PrefixDelete {
    /// Keys deleted so far.
    pub fn deleted(&self) -> u64 {
        self.deleted
    }

    /// Deletes the next bounded lot. None: all are gone. After an error the same step can be
    /// tried again.
    ///
    /// # Errors
    ///
    /// As [`Client::put`].
    pub async fn step(&mut self) -> Result<Option<Deleted>, ClientError> {
        if self.done {
            return Ok(None);
        }
        let mut request = self
            .client
            .delete_request(self.prefix.clone(), &self.options)?;
        request.prefix = true;
        request.page_token = self.page_token.clone();
        let step = self.client.run_delete(request, &self.options).await?;
        self.deleted += step.deleted;
        self.page_token = step.next_page_token.clone();
        self.done = self.page_token.is_empty();
        Ok(Some(step))
    }

    /// Deletes all that is left; tells `progress` the number of keys deleted after each step.
    /// Returns that number in the end.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    pub async fn finish(&mut self, mut progress: impl FnMut(u64)) -> Result<u64, ClientError> {
        while self.step().await?.is_some() {
            progress(self.deleted);
        }
        Ok(self.deleted)
    }
}
