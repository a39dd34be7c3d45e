//! Pipelines: one bidirectional stream with many requests in flight, answered out of order by id.
//!
//! A task for each stream reads requests, runs them all, and queues their answers. What one stream
//! can hold is bounded twice: by requests that were read and whose answers were not taken, and by
//! the bytes of those answers. At the first limit nothing more is read, so the client feels it as
//! flow control; at the second, reads are answered with `RESOURCE_EXHAUSTED`. A client that reads
//! nothing therefore holds some memory of its own stream and nothing of anybody else's.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};

use futures::StreamExt;
use futures::stream::{FuturesUnordered, Stream};
use quorate_proto::v1::{self, pipeline_response::Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tonic::Status;

use crate::answer::{effect_of, payload_bytes};
use crate::context::Context;
use crate::deadline;
use crate::errors::GatewayError;
use crate::gateway::Gateway;
use crate::serve::named;

/// Requests of one stream that were read and whose answers were not taken.
pub const PIPELINE_IN_FLIGHT_MAX: usize = 1024;
/// Bytes of keys and values in one stream's answers that were not taken.
pub const PIPELINE_ANSWER_BYTES_MAX: usize = 16 << 20;

/// An answer in the queue, with what it holds of the stream's limits.
struct Queued {
    response: v1::PipelineResponse,
    _place: OwnedSemaphorePermit,
    _bytes: Untaken,
}

/// Bytes of an answer that waits for its reader.
struct Untaken {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Untaken {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The answers of one pipeline.
pub struct Answers {
    queue: mpsc::Receiver<Result<Queued, Status>>,
}

impl Stream for Answers {
    type Item = Result<v1::PipelineResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        // Taking an answer gives back its place and its bytes.
        self.queue
            .poll_recv(task)
            .map(|next| next.map(|item| item.map(|queued| queued.response)))
    }
}

/// Runs a pipeline until its client has sent all, or is gone.
pub fn run<Requests>(gateway: Gateway, requests: Requests) -> Answers
where
    Requests: Stream<Item = Result<v1::PipelineRequest, Status>> + Send + Unpin + 'static,
{
    // One more for the error that ends a stream.
    let (sender, queue) = mpsc::channel(PIPELINE_IN_FLIGHT_MAX + 1);
    tokio::spawn(drive(gateway, requests, sender));
    Answers { queue }
}

async fn drive<Requests>(
    gateway: Gateway,
    mut requests: Requests,
    queue: mpsc::Sender<Result<Queued, Status>>,
) where
    Requests: Stream<Item = Result<v1::PipelineRequest, Status>> + Unpin,
{
    let places = Arc::new(Semaphore::new(PIPELINE_IN_FLIGHT_MAX));
    let untaken = Arc::new(AtomicUsize::new(0));
    let mut running = FuturesUnordered::new();
    let mut place: Option<OwnedSemaphorePermit> = None;
    let mut open = true;
    let mut stopping = gateway.watch_stop();
    while open || !running.is_empty() {
        tokio::select! {
            biased;
            acquired = Arc::clone(&places).acquire_owned(), if open && place.is_none() => {
                place = Some(acquired.expect("the semaphore is never closed"));
            }
            request = requests.next(), if open && place.is_some() => match (request, place.take()) {
                (Some(Ok(request)), Some(place)) => running.push(answer(&gateway, request, place)),
                (Some(Err(status)), _) => {
                    // What cannot be read ends the stream, after the answers that are due.
                    open = false;
                    let _ = queue.try_send(Err(named(status)));
                }
                (None, _) | (_, None) => open = false,
            },
            Some((response, place)) = running.next() => {
                let queued = queued(response, place, &untaken);
                // There is a place in the queue for each place in flight: only a closed queue fails.
                if queue.try_send(Ok(queued)).is_err() {
                    return;
                }
            }
            () = queue.closed() => return,
            // The answers that are due still go out; the client goes on with another node.
            _ = stopping.wait_for(|stop| *stop), if open => open = false,
        }
    }
}

async fn answer(
    gateway: &Gateway,
    request: v1::PipelineRequest,
    place: OwnedSemaphorePermit,
) -> (v1::PipelineResponse, OwnedSemaphorePermit) {
    let id = request.id;
    let response = match served(gateway, request).await {
        Ok(response) => response,
        Err(error) => Response::Error(error.into()),
    };
    (
        v1::PipelineResponse {
            id,
            response: Some(response),
        },
        place,
    )
}

async fn served(gateway: &Gateway, request: v1::PipelineRequest) -> Result<Response, GatewayError> {
    let now = Instant::now();
    let deadline = deadline::of_pipelined(request.timeout_ms, now)?;
    let wanted = "say one of get, put, delete, scan, batch, compare_and_set, txn, history, outcome";
    let request = request
        .request
        .ok_or_else(|| GatewayError::field("request", wanted))?;
    gateway.serve(request, Context::new(now, deadline)).await
}

/// Queues an answer, or in its place that its stream is full of answers.
fn queued(
    mut response: v1::PipelineResponse,
    place: OwnedSemaphorePermit,
    untaken: &Arc<AtomicUsize>,
) -> Queued {
    let mut bytes = response.response.as_ref().map_or(0, payload_bytes);
    let waiting = untaken.load(Ordering::Relaxed);
    if bytes > 0 && waiting > 0 && waiting + bytes > PIPELINE_ANSWER_BYTES_MAX {
        let error = GatewayError::Overloaded {
            what: "the size of this stream's answers that were not taken",
            limit: format!("{PIPELINE_ANSWER_BYTES_MAX} bytes").into(),
            effect: response
                .response
                .as_ref()
                .map_or(quorate_types::Effect::None, effect_of),
        };
        response.response = Some(Response::Error(error.into()));
        bytes = 0;
    }
    untaken.fetch_add(bytes, Ordering::Relaxed);
    Queued {
        response,
        _place: place,
        _bytes: Untaken {
            all: Arc::clone(untaken),
            bytes,
        },
    }
}
