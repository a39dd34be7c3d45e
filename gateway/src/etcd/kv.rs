//! `etcdserverpb.KV`, and the same for the other services here.

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use quorate_proto::etcd::etcdserverpb::kv_server::Kv;
use quorate_proto::etcd::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcd::etcdserverpb::response_op::Response as Done;
use quorate_proto::etcd::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use quorate_proto::internal::etcd_answer::Answer;
use quorate_proto::internal::etcd_call::Call;
use quorate_proto::internal::etcd_command::Request as Change;
use quorate_proto::internal::{Command, EtcdCommand, command};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Answered, EtcdStore, deadline_of, find, prefix, strange, validate};

/// Rows of one message of a streamed range.
const STREAM_ROWS: i64 = 1_000;

impl EtcdStore {
    /// Reads keys.
    ///
    /// # Errors
    ///
    /// As etcd's `Range`.
    pub(crate) async fn range(
        &self,
        request: RangeRequest,
        deadline: Instant,
    ) -> Result<RangeResponse, Status> {
        validate::range(&request)?;
        let answered = self.call(Call::Range(request), deadline).await?;
        match self.done(answered)? {
            (Some(Done::ResponseRange(response)), _) => Ok(response),
            _ => Err(strange()),
        }
    }

    /// Writes a key.
    ///
    /// # Errors
    ///
    /// As etcd's `Put`.
    pub(crate) async fn put(
        &self,
        request: PutRequest,
        deadline: Instant,
    ) -> Result<PutResponse, Status> {
        validate::put(&request)?;
        validate::size(&request)?;
        match self.change(Change::Put(request), deadline).await? {
            (Some(Done::ResponsePut(response)), _) => Ok(response),
            _ => Err(strange()),
        }
    }

    /// Deletes keys.
    ///
    /// # Errors
    ///
    /// As etcd's `DeleteRange`.
    pub(crate) async fn delete_range(
        &self,
        request: DeleteRangeRequest,
        deadline: Instant,
    ) -> Result<DeleteRangeResponse, Status> {
        validate::delete_range(&request)?;
        validate::size(&request)?;
        match self.change(Change::DeleteRange(request), deadline).await? {
            (Some(Done::ResponseDeleteRange(response)), _) => Ok(response),
            _ => Err(strange()),
        }
    }

    /// Runs a transaction.
    ///
    /// # Errors
    ///
    /// As etcd's `Txn`.
    pub(crate) async fn txn(
        &self,
        request: TxnRequest,
        deadline: Instant,
    ) -> Result<TxnResponse, Status> {
        validate::txn(&request)?;
        validate::size(&request)?;
        match self.change(Change::Txn(request), deadline).await? {
            (Some(Done::ResponseTxn(response)), _) => Ok(response),
            _ => Err(strange()),
        }
    }

    async fn compact(
        &self,
        request: CompactionRequest,
        deadline: Instant,
    ) -> Result<CompactionResponse, Status> {
        let (_, header) = self.change(Change::Compact(request), deadline).await?;
        Ok(CompactionResponse {
            header: Some(header),
        })
    }

    async fn change(
        &self,
        request: Change,
        deadline: Instant,
    ) -> Result<(Option<Done>, super::ResponseHeader), Status> {
        let prefix = {
            let catalog = self.gateway.node().catalog();
            prefix(find(&catalog, &self.keyspace)?.0)
        };
        let operation = command::Operation::Etcd(EtcdCommand {
            prefix,
            request: Some(request),
        });
        let answered = self.decide(operation, deadline).await?;
        self.done(answered)
    }

    /// Has the log decide an operation.
    pub(super) async fn decide(
        &self,
        operation: command::Operation,
        deadline: Instant,
    ) -> Result<Answered, Status> {
        let command = Command {
            operation: Some(operation),
            ..Command::default()
        };
        self.call(Call::Command(command), deadline).await
    }

    /// The response, with a whole header: of the outermost message only, as etcd has it.
    fn done(&self, answered: Answered) -> Result<(Option<Done>, super::ResponseHeader), Status> {
        let Some(Answer::Done(operation)) = answered.answer else {
            return Err(strange());
        };
        let whole = self.header(answered.revision, answered.term);
        let mut response = operation.response;
        let header = match &mut response {
            Some(Done::ResponseRange(response)) => &mut response.header,
            Some(Done::ResponsePut(response)) => &mut response.header,
            Some(Done::ResponseDeleteRange(response)) => &mut response.header,
            Some(Done::ResponseTxn(response)) => &mut response.header,
            None => return Ok((None, whole)),
        };
        // The response knows of which revision it is; others may have come since.
        let revision = header
            .as_ref()
            .map_or(whole.revision, |header| header.revision);
        *header = Some(super::ResponseHeader { revision, ..whole });
        Ok((response, whole))
    }

    /// Reads a range in parts: each is asked for when its forerunner has gone out.
    async fn range_in_parts(
        self,
        mut request: RangeRequest,
        deadline: Instant,
        parts: mpsc::Sender<Result<RangeStreamResponse, Status>>,
    ) {
        let limit = request.limit;
        let mut sent = 0;
        loop {
            let left = if limit > 0 { limit - sent } else { i64::MAX };
            request.limit = left.min(STREAM_ROWS);
            let mut part = match self.range(request.clone(), deadline).await {
                Ok(part) => part,
                Err(status) => {
                    // Who asked may have gone.
                    let _ = parts.send(Err(status)).await;
                    return;
                }
            };
            sent += part.kvs.len() as i64;
            let is_last = !part.more || sent == limit;
            if let (false, Some(last)) = (is_last, part.kvs.last()) {
                request.key = Bytes::from([&last.key[..], &[0]].concat());
            }
            if request.revision <= 0 {
                // The others are read as of the same moment.
                request.revision = part.header.as_ref().map_or(0, |header| header.revision);
            }
            if is_last {
                // Rows of earlier parts are not counted in the last one's.
                part.count += sent - part.kvs.len() as i64;
            } else {
                part.header = None;
                part.more = false;
                part.count = 0;
            }
            let part = RangeStreamResponse {
                range_response: Some(part),
            };
            if parts.send(Ok(part)).await.is_err() || is_last {
                return;
            }
        }
    }
}

/// The service.
#[derive(Clone, Debug)]
pub(super) struct KvService(pub(super) EtcdStore);

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let response = self.0.range(request.into_inner(), deadline).await?;
        Ok(Response::new(response))
    }

    type RangeStreamStream =
        Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let request = request.into_inner();
        validate::range(&request)?;
        let is_sorted = request.sort_order == i32::from(SortOrder::Ascend)
            || request.sort_order == i32::from(SortOrder::None);
        if request.sort_target != i32::from(SortTarget::Key) || !is_sorted {
            return Err(Status::unimplemented(
                "RangeStream does not support custom sort orders",
            ));
        }
        let filters = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        if filters.into_iter().any(|filter| filter != 0) {
            return Err(Status::unimplemented(
                "RangeStream does not support revision filters",
            ));
        }
        let (parts, receiver) = mpsc::channel(1);
        tokio::spawn(self.0.clone().range_in_parts(request, deadline, parts));
        let stream = futures::stream::unfold(receiver, |mut receiver| async {
            Some((receiver.recv().await?, receiver))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let response = self.0.put(request.into_inner(), deadline).await?;
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let response = self.0.delete_range(request.into_inner(), deadline).await?;
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let response = self.0.txn(request.into_inner(), deadline).await?;
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let response = self.0.compact(request.into_inner(), deadline).await?;
        Ok(Response::new(response))
    }
}
