//! Many requests in flight on few streams: one for each endpoint that is used.
//!
//! A request on a pipeline goes through the same attempts as one by itself: it is sent to
//! the leader's endpoint where that is known, and tried again elsewhere when its stream
//! ends. What is bounded is the whole pipeline: requests by [`PIPELINE_IN_FLIGHT_MAX`],
//! bytes by [`PIPELINE_IN_FLIGHT_MAX_KIB`]; whoever sends more waits.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_proto::v1::kv_client::KvClient;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::transport::Channel;

use crate::attempts::Call;
use crate::client::Client;
use crate::error::ClientError;
use crate::lane::Lane;
use crate::limits::{PIPELINE_IN_FLIGHT_MAX, PIPELINE_IN_FLIGHT_MAX_KIB};
use crate::request::{Request, Response, payload_bytes};

/// A client whose requests share streams. All operations of [`Client`] are here as well.
#[derive(Clone, Debug)]
pub struct Pipeline {
    client: Client,
}

impl Pipeline {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Sends one request as it travels, and returns its answer. An empty keyspace is filled
    /// in with the client's, a write without a name gets one. The request is sent when the
    /// future is first polled.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn send(&self, request: Request) -> Result<Response, ClientError> {
        self.client.run(request, Call::default()).await
    }
}

impl Deref for Pipeline {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// The streams of one pipeline, by endpoint.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Vec<Mutex<Option<Arc<Lane>>>>,
    requests: Semaphore,
    kib: Semaphore,
}

/// A place among what is in flight; given up when dropped.
pub(crate) struct Admission<'a> {
    _request: SemaphorePermit<'a>,
    _kib: SemaphorePermit<'a>,
}

impl Lanes {
    pub(crate) fn new(endpoints: usize) -> Self {
        Self {
            lanes: (0..endpoints).map(|_| Mutex::new(None)).collect(),
            requests: Semaphore::new(PIPELINE_IN_FLIGHT_MAX),
            kib: Semaphore::new(PIPELINE_IN_FLIGHT_MAX_KIB as usize),
        }
    }

    /// Waits for a place in flight. None: there was none in time.
    pub(crate) async fn admit(
        &self,
        request: &Request,
        timeout: Duration,
    ) -> Option<Admission<'_>> {
        let kib = u32::try_from(payload_bytes(request) >> 10)
            .unwrap_or(u32::MAX)
            .clamp(1, PIPELINE_IN_FLIGHT_MAX_KIB);
        if let (Ok(request), Ok(kib)) =
            (self.requests.try_acquire(), self.kib.try_acquire_many(kib))
        {
            return Some(Admission {
                _request: request,
                _kib: kib,
            });
        }
        let places = async {
            let request = self.requests.acquire().await.ok()?;
            let kib = self.kib.acquire_many(kib).await.ok()?;
            Some(Admission {
                _request: request,
                _kib: kib,
            })
        };
        tokio::time::timeout(timeout, places).await.ok().flatten()
    }

    /// The endpoint's stream; a new one if there is none, or the last one has ended.
    pub(crate) fn lane(&self, index: usize, kv: impl FnOnce() -> KvClient<Channel>) -> Arc<Lane> {
        let mut slot = self.lanes[index].lock();
        match &*slot {
            Some(lane) if !lane.has_ended() => Arc::clone(lane),
            _ => Arc::clone(slot.insert(Arc::new(Lane::open(kv())))),
        }
    }
}
