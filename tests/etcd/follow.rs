//! A watch that lives as long as a sequence of operations, and hears of each as it happens.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcd::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcd::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use quorate_proto::etcd::mvccpb::Event;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::send::Told;

/// What has happened is told by then.
const TOLD_MAX: Duration = Duration::from_secs(20);

/// A watch of all keys with one prefix.
pub struct Follower {
    /// The stream ends when it is dropped.
    _requests: mpsc::UnboundedSender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    events: Vec<Event>,
}

impl Follower {
    /// Begins once the store has said that it is there.
    pub async fn new(mut client: WatchClient<Channel>, prefix: &str) -> Result<Follower, Status> {
        let (requests, receiver) = mpsc::unbounded_channel();
        let create = WatchCreateRequest {
            key: Bytes::from(prefix.to_owned()),
            range_end: quorate_types::prefix_end(prefix.as_bytes()),
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        let request_union = Some(RequestUnion::CreateRequest(create));
        // The other end lives: it is just above.
        let _ = requests.send(WatchRequest { request_union });
        let asked = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
        let mut answers = client.watch(asked).await?.into_inner();
        let created = answers.message().await?;
        assert!(created.is_some_and(|created| created.created));
        Ok(Follower {
            _requests: requests,
            answers,
            events: Vec::new(),
        })
    }

    /// All that was told up to the put of a key at a revision.
    pub async fn until(&mut self, key: &[u8], revision: i64) -> Told {
        let hearing = tokio::time::timeout(TOLD_MAX, self.hear(key, revision));
        let end = match hearing.await {
            Ok(Ok(())) => String::new(),
            Ok(Err(status)) => format!("{:?}: {}", status.code(), status.message()),
            Err(_) => "hangs".to_owned(),
        };
        // etcd tells events of one revision in the order of their operations, we by key.
        self.events.sort_by_key(|event| {
            let kv = event.kv.clone().unwrap_or_default();
            (kv.mod_revision, kv.key)
        });
        let text = format!("{:?} {end}", std::mem::take(&mut self.events));
        Told { text, revision }
    }

    async fn hear(&mut self, key: &[u8], revision: i64) -> Result<(), Status> {
        loop {
            let answer = self.answers.message().await?;
            let answer = answer.ok_or_else(|| Status::unknown("the stream ended"))?;
            if answer.canceled {
                return Err(Status::unknown(answer.cancel_reason));
            }
            let is_last = answer.events.iter().any(|event| {
                let kv = event.kv.as_ref();
                kv.is_some_and(|kv| kv.key == key && kv.mod_revision >= revision)
            });
            self.events.extend(answer.events);
            if is_last {
                return Ok(());
            }
        }
    }
}
