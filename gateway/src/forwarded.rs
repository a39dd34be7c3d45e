//! Requests that other nodes' gateways send on: executed here, once, and answered with the error
//! inside the answer, and who may lead where this node does not.

use std::time::Duration;

use quorate_proto::internal::{
    EtcdAnswer, EtcdCall, EventsRequest, EventsResponse, Forward, ForwardResponse,
};
use quorate_proto::v1::{self, pipeline_response::Response};
use quorate_raft::ForwardHandler;
use quorate_types::{NodeId, RangeId};
use tokio::time::Instant;

use crate::context::{Context, Forwarded};
use crate::errors::GatewayError;
use crate::gateway::{Gateway, WeakGateway};

/// Serves what others send on. Holds its gateway weakly: the node that holds the handler is held
/// by the gateway.
pub struct Handler {
    gateway: WeakGateway,
}

impl Handler {
    /// A handler that serves as long as the gateway is there.
    pub fn new(gateway: &Gateway) -> Handler {
        Handler {
            gateway: gateway.downgrade(),
        }
    }
}

#[tonic::async_trait]
impl ForwardHandler for Handler {
    async fn handle(&self, from: NodeId, forward: Forward) -> ForwardResponse {
        let Some(gateway) = self.gateway.upgrade() else {
            return refused(GatewayError::Stopping);
        };
        let Some(v1::PipelineRequest {
            id,
            request: Some(request),
            ..
        }) = forward.request
        else {
            return refused(GatewayError::internal(
                "a forwarded request without a request",
            ));
        };
        let arrived = Instant::now();
        let context = Context {
            arrived,
            deadline: arrived + Duration::from_millis(u64::from(forward.timeout_ms)),
            forwarded: Some(Forwarded {
                from,
                range: RangeId(forward.range),
            }),
        };
        match gateway.serve(request, context).await {
            Ok(response) => answered(id, response),
            Err(error) => refused(error),
        }
    }

    async fn events(&self, range: RangeId, request: EventsRequest) -> EventsResponse {
        let Some(gateway) = self.gateway.upgrade() else {
            return EventsResponse {
                error: Some(GatewayError::Stopping.into()),
                ..EventsResponse::default()
            };
        };
        gateway.events_for_peer(range, request).await
    }

    async fn etcd(&self, range: RangeId, call: EtcdCall) -> EtcdAnswer {
        match self.gateway.upgrade() {
            Some(gateway) => gateway.etcd_for_peer(range, call).await,
            None => EtcdAnswer::default(),
        }
    }
}

fn answered(id: u64, response: Response) -> ForwardResponse {
    let response = v1::PipelineResponse {
        id,
        response: Some(response),
    };
    ForwardResponse {
        response: Some(response),
        leader_hint: 0,
    }
}

fn refused(error: GatewayError) -> ForwardResponse {
    let leader_hint = error.leader_hint().map_or(0, |hint| hint.0);
    let response = Some(Response::Error(v1::Error::from(error)));
    let response = v1::PipelineResponse { id: 0, response };
    ForwardResponse {
        response: Some(response),
        leader_hint,
    }
}
