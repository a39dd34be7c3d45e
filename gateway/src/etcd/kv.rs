//! `etcdserverpb.KV`, and the same for the other services here.

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
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::pages::{Page, Pages};
use super::schemas;
use super::streams::{Answers, Sender, sent_by};
use super::{Answered, EtcdStore, deadline_of, find, prefix, strange, validate};

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
        self.read(Call::Range(request), deadline).await
    }

    /// Has a replica read.
    pub(super) async fn read(
        &self,
        call: Call,
        deadline: Instant,
    ) -> Result<RangeResponse, Status> {
        let answered = self.call(call, deadline).await?;
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
        self.fits(|schemas, options| schemas::put(schemas, &request, options))?;
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
        self.fits(|schemas, options| schemas::txn(schemas, &request, options))?;
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
        request: RangeRequest,
        deadline: Instant,
        parts: Sender<RangeStreamResponse>,
    ) -> Result<(), Status> {
        let mut pages = Pages::new(request);
        while let Some(Page { response, is_last }) = pages.next(&self, deadline).await? {
            let part = match is_last {
                true => response,
                // What is true of the whole is said by the last part.
                false => RangeResponse {
                    kvs: response.kvs,
                    ..RangeResponse::default()
                },
            };
            let range_response = Some(part);
            if parts
                .send(Ok(RangeStreamResponse { range_response }))
                .await
                .is_err()
            {
                return Ok(());
            }
        }
        Ok(())
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

    type RangeStreamStream = Answers<RangeStreamResponse>;

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
        let store = self.0.clone();
        Ok(Response::new(sent_by(move |parts| {
            store.range_in_parts(request, deadline, parts)
        })))
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
