//! The `Lease` service: from gRPC calls to the gateway and back, nothing else.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use quorate_proto::v1::lease_server::Lease;
use quorate_proto::v1::{self, pipeline_request::Request};
use tokio::time::Instant;
use tonic::{Response, Status, Streaming};

use crate::context::Context;
use crate::deadline;
use crate::gateway::Gateway;
use crate::unary::{served, unary};

/// Keep-alives of one stream in work at the same time; more are not read.
const KEEP_ALIVES_IN_WORK_MAX: usize = 64;

/// The service of one node.
#[derive(Clone, Debug)]
pub struct LeaseService {
    gateway: Gateway,
}

/// The answers of a stream of keep-alives, in the order in which they come.
type Kept = Pin<Box<dyn Stream<Item = Result<v1::LeaseKeepAliveResponse, Status>> + Send>>;

impl LeaseService {
    /// The service of a gateway.
    pub fn new(gateway: Gateway) -> LeaseService {
        LeaseService { gateway }
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn grant(
        &self,
        request: tonic::Request<v1::LeaseGrantRequest>,
    ) -> Result<Response<v1::LeaseGrantResponse>, Status> {
        unary(&self.gateway, request, Request::LeaseGrant).await
    }

    type KeepAliveStream = Kept;

    async fn keep_alive(
        &self,
        request: tonic::Request<Streaming<v1::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Kept>, Status> {
        let gateway = self.gateway.clone();
        let mut stopping = gateway.watch_stop();
        let stopped = async move {
            // The client goes on with another node.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let requests = request.into_inner().take_until(stopped);
        let answers = requests.map(move |request| {
            let gateway = gateway.clone();
            async move {
                let now = Instant::now();
                let context = Context::new(now, deadline::of_pipelined(0, now)?);
                served(&gateway, Request::LeaseKeepAlive(request?), context).await
            }
        });
        let answers = answers.buffer_unordered(KEEP_ALIVES_IN_WORK_MAX);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn renew(
        &self,
        request: tonic::Request<v1::LeaseKeepAliveRequest>,
    ) -> Result<Response<v1::LeaseKeepAliveResponse>, Status> {
        unary(&self.gateway, request, Request::LeaseKeepAlive).await
    }

    async fn revoke(
        &self,
        request: tonic::Request<v1::LeaseRevokeRequest>,
    ) -> Result<Response<v1::LeaseRevokeResponse>, Status> {
        unary(&self.gateway, request, Request::LeaseRevoke).await
    }

    async fn show(
        &self,
        request: tonic::Request<v1::LeaseShowRequest>,
    ) -> Result<Response<v1::LeaseShowResponse>, Status> {
        unary(&self.gateway, request, Request::LeaseShow).await
    }
}
