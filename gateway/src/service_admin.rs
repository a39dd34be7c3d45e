//! The `Admin` service: from gRPC calls to the gateway and back, nothing else.

use std::pin::Pin;

use futures::Stream;
use quorate_proto::v1;
use quorate_proto::v1::admin_server::Admin;
use quorate_raft::{ReplaceError, ReplaceStep, UpdateError};
use quorate_types::{Effect, NodeId};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::deadline;
use crate::errors::GatewayError;
use crate::gateway::Gateway;

/// Steps of a replacement that wait for their reader.
const REPLACE_STEPS_MAX: usize = 64;

/// The service of one node.
#[derive(Clone, Debug)]
pub struct AdminService {
    gateway: Gateway,
}

impl AdminService {
    /// The service of a gateway.
    pub fn new(gateway: Gateway) -> AdminService {
        AdminService { gateway }
    }
}

fn deadline_of<T>(request: &Request<T>) -> Result<Instant, GatewayError> {
    deadline::of_call(request.metadata(), Instant::now())
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn create_keyspace(
        &self,
        request: Request<v1::CreateKeyspaceRequest>,
    ) -> Result<Response<v1::CreateKeyspaceResponse>, Status> {
        let deadline = deadline_of(&request)?;
        let answer = self
            .gateway
            .create_keyspace(request.into_inner(), deadline)
            .await?;
        Ok(Response::new(answer))
    }

    async fn alter_keyspace(
        &self,
        request: Request<v1::AlterKeyspaceRequest>,
    ) -> Result<Response<v1::AlterKeyspaceResponse>, Status> {
        let deadline = deadline_of(&request)?;
        let answer = self
            .gateway
            .alter_keyspace(request.into_inner(), deadline)
            .await?;
        Ok(Response::new(answer))
    }

    async fn drop_keyspace(
        &self,
        request: Request<v1::DropKeyspaceRequest>,
    ) -> Result<Response<v1::DropKeyspaceResponse>, Status> {
        let deadline = deadline_of(&request)?;
        let answer = self
            .gateway
            .drop_keyspace(request.into_inner(), deadline)
            .await?;
        Ok(Response::new(answer))
    }

    async fn list_keyspaces(
        &self,
        request: Request<v1::ListKeyspacesRequest>,
    ) -> Result<Response<v1::ListKeyspacesResponse>, Status> {
        Ok(Response::new(
            self.gateway.list_keyspaces(request.get_ref())?,
        ))
    }

    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(self.gateway.status().await))
    }

    async fn ranges(
        &self,
        request: Request<v1::RangesRequest>,
    ) -> Result<Response<v1::RangesResponse>, Status> {
        Ok(Response::new(self.gateway.ranges(request.get_ref()).await?))
    }

    async fn ring(
        &self,
        _request: Request<v1::RingRequest>,
    ) -> Result<Response<v1::RingResponse>, Status> {
        Ok(Response::new(self.gateway.ring()))
    }

    async fn hand_over(
        &self,
        _request: Request<v1::HandOverRequest>,
    ) -> Result<Response<v1::HandOverResponse>, Status> {
        let (led, handed_over) = self.gateway.node().hand_over().await;
        let count = |ranges: usize| u32::try_from(ranges).unwrap_or(u32::MAX);
        Ok(Response::new(v1::HandOverResponse {
            node: self.gateway.node_id().0,
            led: count(led),
            handed_over: count(handed_over),
        }))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        Ok(Response::new(self.gateway.explain(request.get_ref())?))
    }

    type RepairStream = Pin<Box<dyn Stream<Item = Result<v1::RepairProgress, Status>> + Send>>;

    async fn repair(
        &self,
        request: Request<v1::RepairRequest>,
    ) -> Result<Response<Self::RepairStream>, Status> {
        let ranges = self.gateway.ranges_to_repair(&request.get_ref().keyspace)?;
        let gateway = self.gateway.clone();
        // It ends when its reader leaves: the next range is not begun.
        let steps = futures::stream::unfold((gateway, ranges), |(gateway, mut ranges)| async {
            let step = gateway.repair_next(&mut ranges).await?;
            Some((Ok(step), (gateway, ranges)))
        });
        Ok(Response::new(Box::pin(steps)))
    }

    type ReplaceNodeStream =
        Pin<Box<dyn Stream<Item = Result<v1::ReplaceNodeProgress, Status>> + Send>>;

    async fn replace_node(
        &self,
        request: Request<v1::ReplaceNodeRequest>,
    ) -> Result<Response<Self::ReplaceNodeStream>, Status> {
        let request = request.into_inner();
        if request.node == 0 {
            return Err(GatewayError::field("node", "name the node that is gone").into());
        }
        let (old, with) = (NodeId(request.node), NodeId(request.with));
        let with = (request.with > 0).then_some(with);
        let (sender, steps) = mpsc::channel(REPLACE_STEPS_MAX);
        // The work goes on when its reader leaves: half a replacement helps nobody.
        tokio::spawn(replace(self.gateway.clone(), old, with, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(steps))))
    }
}

async fn replace(
    gateway: Gateway,
    old: NodeId,
    with: Option<NodeId>,
    told: mpsc::Sender<Result<v1::ReplaceNodeProgress, Status>>,
) {
    let (sender, mut steps) = mpsc::channel::<ReplaceStep>(REPLACE_STEPS_MAX);
    let replacing = gateway.node().replace_node(old, with, sender);
    tokio::pin!(replacing);
    let mut result = None;
    loop {
        tokio::select! {
            step = steps.recv() => match step {
                // Nobody need listen.
                Some(step) => { let _ = told.try_send(Ok(progress(step))); }
                None => break,
            },
            ended = &mut replacing, if result.is_none() => result = Some(ended),
        }
        // The sender lives inside the call: once that has ended, what is queued is the rest.
        if result.is_some() {
            while let Ok(step) = steps.try_recv() {
                let _ = told.try_send(Ok(progress(step)));
            }
            break;
        }
    }
    if let Some(Err(error)) = result {
        let _ = told.send(Err(refusal(error).into())).await;
    }
}

fn progress(step: ReplaceStep) -> v1::ReplaceNodeProgress {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::ReplaceNodeProgress {
        with: step.with.0,
        ranges_total: count(step.total),
        ranges_done: count(step.done),
        step: step.step,
    }
}

fn refusal(error: ReplaceError) -> GatewayError {
    match &error {
        ReplaceError::Unknown(_) | ReplaceError::Alive(_) => {
            GatewayError::field("node", error.to_string())
        }
        ReplaceError::NoSpare => GatewayError::field("with", error.to_string()),
        ReplaceError::Catalog(UpdateError::Refused(_)) => GatewayError::Internal {
            what: error.to_string(),
            effect: Effect::Unknown,
        },
        ReplaceError::Catalog(UpdateError::TimedOut) | ReplaceError::Range { .. } => {
            let what = format!("{error}; repeat it, and it goes on where it was");
            GatewayError::Interrupted { what }
        }
    }
}
