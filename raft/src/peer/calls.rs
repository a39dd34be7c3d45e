//! Calls with an answer over one-way messages: pairs responses with requests by id.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_proto::internal::{Envelope, envelope::Body};
use quorate_types::NodeId;
use tokio::sync::oneshot;

use super::{Class, SendError, SharedTransport};

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It was never sent: the peer has done nothing.
    #[error("not sent: {0}")]
    NotSent(#[from] SendError),
    /// The connection broke: the peer may have done it.
    #[error("the connection broke before an answer came")]
    Lost,
    /// No answer in time: the peer may have done it.
    #[error("no answer in time")]
    TimedOut,
    /// The peer cannot answer it.
    #[error("the peer says: {0}")]
    Refused(String),
}

#[derive(Debug)]
struct Pending {
    to: NodeId,
    class: Class,
    answer: oneshot::Sender<Result<Body, CallError>>,
}

/// All calls of a node that wait for an answer.
#[derive(Debug)]
pub struct Calls {
    transport: SharedTransport,
    pending: Mutex<HashMap<u64, Pending>>,
    next: AtomicU64,
}

impl Calls {
    /// Calls over a transport. `first_id` is drawn at random at each start of the process: an
    /// answer to a call of the process before must not be taken for one to a call of this one.
    pub fn new(transport: SharedTransport, first_id: u64) -> Calls {
        Calls {
            transport,
            pending: Mutex::default(),
            next: AtomicU64::new(first_id),
        }
    }

    /// The transport below.
    pub fn transport(&self) -> &SharedTransport {
        &self.transport
    }

    /// A number that no other call to this, of this process or one before it, has given.
    pub fn unique(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a message that expects no answer.
    pub fn tell(&self, to: NodeId, class: Class, group: u64, body: Body) -> Result<(), SendError> {
        let envelope = Envelope {
            group,
            id: 0,
            response: false,
            body: Some(body),
        };
        self.transport.send(to, class, envelope)
    }

    /// Answers a call.
    pub fn answer(&self, to: NodeId, class: Class, group: u64, id: u64, body: Body) {
        let envelope = Envelope {
            group,
            id,
            response: true,
            body: Some(body),
        };
        if let Err(error) = self.transport.send(to, class, envelope) {
            tracing::debug!(%to, %error, "an answer was dropped");
        }
    }

    /// Sends a request at once (when first polled) and waits for its answer.
    pub async fn call(
        &self,
        to: NodeId,
        class: Class,
        group: u64,
        body: Body,
        timeout: Duration,
    ) -> Result<Body, CallError> {
        let id = self.unique();
        let (answer, receiver) = oneshot::channel();
        self.pending
            .lock()
            .insert(id, Pending { to, class, answer });
        let _forget = Forget { calls: self, id };
        let envelope = Envelope {
            group,
            id,
            response: false,
            body: Some(body),
        };
        self.transport.send(to, class, envelope)?;
        match tokio::time::timeout(timeout, receiver).await {
            Ok(Ok(Ok(Body::Failure(failure)))) => Err(CallError::Refused(failure.problem)),
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(CallError::Lost),
            Err(_) => Err(CallError::TimedOut),
        }
    }

    /// Hands an answer to the call that waits for it. Late answers are dropped.
    pub fn complete(&self, from: NodeId, id: u64, body: Body) {
        let Some(pending) = self.pending.lock().remove(&id) else {
            return;
        };
        if pending.to == from {
            // The caller may have given up just now.
            let _ = pending.answer.send(Ok(body));
        }
    }

    /// Fails all calls to a peer whose connection broke.
    pub fn lost(&self, peer: NodeId, class: Class) {
        let mut pending = self.pending.lock();
        let lost = |_: &u64, p: &mut Pending| p.to == peer && p.class == class;
        let mut lost: Vec<_> = pending.extract_if(lost).collect();
        lost.sort_unstable_by_key(|(id, _)| *id);
        for (_, call) in lost {
            let _ = call.answer.send(Err(CallError::Lost));
        }
    }
}

/// Removes a call that is not waited for any more.
struct Forget<'a> {
    calls: &'a Calls,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.calls.pending.lock().remove(&self.id);
    }
}
