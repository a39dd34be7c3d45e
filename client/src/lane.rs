//! One bidirectional stream to one endpoint: requests go out as they come, answers come back
//! in any order and find their callers by id.
//!
//! Not here: choosing the endpoint and trying again (see `attempts`), bounding what is in
//! flight (see `pipeline`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_proto::v1;
use quorate_proto::v1::kv_client::KvClient;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::failure::Failure;
use crate::limits::{ATTEMPT_GRACE, PIPELINE_IN_FLIGHT_MAX};
use crate::request::{Request, Response};

type Answer = Result<Response, Failure>;

/// A stream, open or opening. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Lane {
    outgoing: mpsc::Sender<v1::PipelineRequest>,
    callers: Arc<Callers>,
    reader: JoinHandle<()>,
}

/// Who waits for which answer.
#[derive(Debug, Default)]
struct Callers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    /// The stream has ended: nobody else may wait.
    ended: bool,
}

/// A caller's place; given up when dropped, so that a late answer finds nobody.
struct Place<'a> {
    callers: &'a Callers,
    id: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.callers.0.lock().waiting.remove(&self.id);
    }
}

impl Callers {
    fn join(&self) -> Result<(Place<'_>, oneshot::Receiver<Answer>), Failure> {
        let mut state = self.0.lock();
        if state.ended {
            return Err(ended_before_sending());
        }
        let (caller, answer) = oneshot::channel();
        state.next_id += 1;
        let id = state.next_id;
        state.waiting.insert(id, caller);
        Ok((Place { callers: self, id }, answer))
    }

    fn answer(&self, id: u64, answer: Answer) {
        let caller = self.0.lock().waiting.remove(&id);
        if let Some(caller) = caller {
            // An error here is a caller that has just left.
            let _ = caller.send(answer);
        }
    }

    fn end(&self, failure: &Failure) {
        let waiting = {
            let mut state = self.0.lock();
            state.ended = true;
            std::mem::take(&mut state.waiting)
        };
        for caller in waiting.into_values() {
            let _ = caller.send(Err(failure.clone()));
        }
    }
}

impl Lane {
    /// Begins to open a stream; requests may be sent at once.
    pub(crate) fn open(kv: KvClient<Channel>) -> Self {
        let (outgoing, requests) = mpsc::channel(PIPELINE_IN_FLIGHT_MAX);
        let callers = Arc::new(Callers::default());
        let reader = tokio::spawn(run(kv, requests, Arc::clone(&callers)));
        Self {
            outgoing,
            callers,
            reader,
        }
    }

    /// Whether the stream takes requests no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.callers.0.lock().ended
    }

    /// Sends the request, and waits for its answer for `timeout`.
    pub(crate) async fn call(&self, request: Request, timeout: Duration) -> Answer {
        let (place, answer) = self.callers.join()?;
        let message = v1::PipelineRequest {
            id: place.id,
            request: Some(request),
            timeout_ms: u32::try_from(timeout.as_millis())
                .unwrap_or(u32::MAX)
                .max(1),
        };
        let exchange = async {
            if self.outgoing.send(message).await.is_err() {
                return Err(ended_before_sending());
            }
            answer.await.unwrap_or_else(|_| Err(ended()))
        };
        match tokio::time::timeout(timeout + ATTEMPT_GRACE, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Lost {
                problem: format!("no answer within {timeout:?}"),
                timed_out: true,
            }),
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Opens the stream, and hands out answers until it ends.
async fn run(
    mut kv: KvClient<Channel>,
    requests: mpsc::Receiver<v1::PipelineRequest>,
    callers: Arc<Callers>,
) {
    let mut answers = match kv.pipeline(ReceiverStream::new(requests)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return callers.end(&stream_failure(&status)),
    };
    loop {
        match answers.message().await {
            Ok(Some(message)) => callers.answer(message.id, read(message.response)),
            Ok(None) => return callers.end(&ended()),
            Err(status) => return callers.end(&stream_failure(&status)),
        }
    }
}

fn read(response: Option<Response>) -> Answer {
    match response {
        Some(Response::Error(error)) => Err(Failure::from_wire(error)),
        Some(response) => Ok(response),
        None => Err(Failure::Lost {
            problem: "an answer without content".to_owned(),
            timed_out: false,
        }),
    }
}

/// What ends a stream is said of the stream, not of the requests on it: each of them may
/// have been done, unless no connection was ever made.
fn stream_failure(status: &tonic::Status) -> Failure {
    match Failure::from_status(status) {
        Failure::Refused(error) => Failure::Lost {
            problem: error.message,
            timed_out: false,
        },
        failure @ (Failure::NotSent { .. } | Failure::Lost { .. }) => failure,
    }
}

fn ended() -> Failure {
    Failure::Lost {
        problem: "the stream has ended".to_owned(),
        timed_out: false,
    }
}

fn ended_before_sending() -> Failure {
    Failure::NotSent {
        problem: "the stream has ended".to_owned(),
    }
}
