//! The `Kv` service: from gRPC calls to the gateway and back, nothing else.

use futures::Stream;
use quorate_proto::v1::kv_server::Kv;
use quorate_proto::v1::{self, pipeline_request::Request};
use tonic::{Response, Status, Streaming};

use crate::gateway::Gateway;
use crate::pipeline::{self, Answers};
use crate::unary::unary;

/// The service of one node.
#[derive(Clone, Debug)]
pub struct KvService {
    gateway: Gateway,
}

impl KvService {
    /// The service of a gateway.
    pub fn new(gateway: Gateway) -> KvService {
        KvService { gateway }
    }

    /// Runs a pipeline over any stream of requests: a gRPC call's, or one within the process.
    pub fn run_pipeline<Requests>(&self, requests: Requests) -> Answers
    where
        Requests: Stream<Item = Result<v1::PipelineRequest, Status>> + Send + Unpin + 'static,
    {
        pipeline::run(self.gateway.clone(), requests)
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn get(
        &self,
        request: tonic::Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        unary(&self.gateway, request, Request::Get).await
    }

    async fn put(
        &self,
        request: tonic::Request<v1::PutRequest>,
    ) -> Result<Response<v1::PutResponse>, Status> {
        unary(&self.gateway, request, Request::Put).await
    }

    async fn delete(
        &self,
        request: tonic::Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        unary(&self.gateway, request, Request::Delete).await
    }

    async fn scan(
        &self,
        request: tonic::Request<v1::ScanRequest>,
    ) -> Result<Response<v1::ScanResponse>, Status> {
        unary(&self.gateway, request, Request::Scan).await
    }

    async fn batch(
        &self,
        request: tonic::Request<v1::BatchRequest>,
    ) -> Result<Response<v1::BatchResponse>, Status> {
        unary(&self.gateway, request, Request::Batch).await
    }

    async fn compare_and_set(
        &self,
        request: tonic::Request<v1::CompareAndSetRequest>,
    ) -> Result<Response<v1::CompareAndSetResponse>, Status> {
        unary(&self.gateway, request, Request::CompareAndSet).await
    }

    async fn txn(
        &self,
        request: tonic::Request<v1::TxnRequest>,
    ) -> Result<Response<v1::TxnResponse>, Status> {
        unary(&self.gateway, request, Request::Txn).await
    }

    async fn update(
        &self,
        request: tonic::Request<v1::UpdateRequest>,
    ) -> Result<Response<v1::UpdateResponse>, Status> {
        unary(&self.gateway, request, Request::Update).await
    }

    async fn history(
        &self,
        request: tonic::Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        unary(&self.gateway, request, Request::History).await
    }

    async fn outcome(
        &self,
        request: tonic::Request<v1::OutcomeRequest>,
    ) -> Result<Response<v1::OutcomeResponse>, Status> {
        unary(&self.gateway, request, Request::Outcome).await
    }

    async fn await_converged(
        &self,
        request: tonic::Request<v1::AwaitConvergedRequest>,
    ) -> Result<Response<v1::AwaitConvergedResponse>, Status> {
        unary(&self.gateway, request, Request::AwaitConverged).await
    }

    type PipelineStream = Answers;

    async fn pipeline(
        &self,
        request: tonic::Request<Streaming<v1::PipelineRequest>>,
    ) -> Result<Response<Answers>, Status> {
        Ok(Response::new(pipeline::run(
            self.gateway.clone(),
            request.into_inner(),
        )))
    }
}
