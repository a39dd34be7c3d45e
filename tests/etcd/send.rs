//! Sends an operation to one store, and says what it answered as text without the masked fields
//! (which: `differential`).

use std::fmt::Debug;
use std::time::Duration;

use quorate_proto::etcd::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcd::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcd::etcdserverpb::response_op::Response;
use quorate_proto::etcd::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcd::etcdserverpb::{
    CompactionRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, ResponseHeader, TxnResponse, WatchCancelRequest,
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::follow::Follower;
use crate::generate::Operation;

/// A store that does not answer for so long hangs.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How often a watch is asked how far it is: etcd leaves the question unanswered while it lags.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(25);
/// A lease that was granted for less does not live through a sequence on a busy machine: it is
/// revoked at once.
const SHORT_TTL_SECONDS: i64 = 60;
/// Of a response that is of no watch.
const NO_WATCH: i64 = -1;

/// A connection to one store.
#[derive(Clone, Debug)]
pub struct Store {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    watch: WatchClient<Channel>,
}

/// What a store answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub text: String,
    /// Of the store, where the answer says it.
    pub revision: i64,
}

/// Only the revision of a header is compared.
fn mask(header: &mut Option<ResponseHeader>) -> i64 {
    let revision = header.as_ref().map_or(0, |header| header.revision);
    if let Some(header) = header {
        *header = ResponseHeader {
            revision,
            ..ResponseHeader::default()
        };
    }
    revision
}

fn mask_inner(txn: &mut TxnResponse) {
    for operation in &mut txn.responses {
        match operation.response.as_mut() {
            Some(Response::ResponseRange(range)) => mask(&mut range.header),
            Some(Response::ResponsePut(put)) => mask(&mut put.header),
            Some(Response::ResponseDeleteRange(delete)) => mask(&mut delete.header),
            Some(Response::ResponseTxn(inner)) => {
                mask_inner(inner);
                mask(&mut inner.header)
            }
            None => 0,
        };
    }
}

fn told<T: Debug>(
    answer: Result<tonic::Response<T>, Status>,
    header: impl Fn(&mut T) -> i64,
) -> Told {
    match answer {
        Ok(answer) => {
            let mut answer = answer.into_inner();
            let revision = header(&mut answer);
            Told {
                text: format!("{answer:?}"),
                revision,
            }
        }
        Err(status) => Told {
            text: format!("{:?}: {}", status.code(), status.message()),
            revision: 0,
        },
    }
}

impl Store {
    pub async fn connect(endpoint: &str) -> Store {
        let endpoint = Endpoint::from_shared(endpoint.to_owned()).unwrap();
        let channel = endpoint.clone().timeout(ANSWER_MAX).connect_lazy();
        let store = Store {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            watch: WatchClient::new(channel),
        };
        let over = tokio::time::Instant::now() + ANSWER_MAX;
        while store.send(Operation::Range(all())).await.revision == 0 {
            assert!(
                tokio::time::Instant::now() < over,
                "{endpoint:?} does not serve"
            );
            tokio::time::sleep(PROGRESS_INTERVAL).await;
        }
        store
    }

    /// Watches all keys with a prefix from now on.
    pub async fn follow(&self, prefix: &str) -> Follower {
        self.know_all().await;
        let following = Follower::new(self.watch.clone(), prefix);
        let follower = tokio::time::timeout(ANSWER_MAX, following).await;
        follower.expect("a watch begins in time").unwrap()
    }

    /// Has the node that is asked know everything: what it answers of itself is the newest.
    async fn know_all(&self) {
        drop(self.kv.clone().range(all()).await);
    }

    pub async fn send(&self, operation: Operation) -> Told {
        let mut kv = self.kv.clone();
        match operation {
            Operation::Range(range) => {
                if range.serializable {
                    self.know_all().await;
                }
                told(kv.range(range).await, |a| mask(&mut a.header))
            }
            Operation::Put(put) => told(kv.put(put).await, |a| mask(&mut a.header)),
            Operation::Delete(delete) => {
                told(kv.delete_range(delete).await, |a| mask(&mut a.header))
            }
            Operation::Txn(txn) => told(kv.txn(txn).await, |a| {
                mask_inner(a);
                mask(&mut a.header)
            }),
            Operation::Compact { revision, physical } => {
                let request = CompactionRequest { revision, physical };
                told(kv.compact(request).await, |a| mask(&mut a.header))
            }
            Operation::Watch(create) => {
                self.know_all().await;
                self.watch(create).await
            }
            lease => self.lease(lease).await,
        }
    }

    async fn lease(&self, operation: Operation) -> Told {
        let mut client = self.lease.clone();
        match operation {
            Operation::Grant { lease, ttl } => {
                let request = LeaseGrantRequest { ttl, id: lease };
                let answer = client.lease_grant(request).await;
                // One that would end by itself meanwhile would do so at a moment of each store's own.
                let is_over = |granted: i64| lease == 0 || granted < SHORT_TTL_SECONDS;
                if let Ok(answer) = &answer
                    && is_over(answer.get_ref().ttl)
                {
                    let id = answer.get_ref().id;
                    let request = LeaseRevokeRequest { id };
                    client.lease_revoke(request).await.unwrap();
                }
                told(answer, |a| {
                    if lease == 0 {
                        a.id = 0;
                    }
                    mask(&mut a.header)
                })
            }
            Operation::Revoke { lease } => {
                let request = LeaseRevokeRequest { id: lease };
                told(client.lease_revoke(request).await, |a| mask(&mut a.header))
            }
            Operation::TimeToLive { lease, keys } => {
                let request = LeaseTimeToLiveRequest { id: lease, keys };
                told(client.lease_time_to_live(request).await, |a| {
                    a.ttl = a.ttl.min(1);
                    a.keys.sort();
                    mask(&mut a.header)
                })
            }
            Operation::KeepAlive { lease } => {
                let request = LeaseKeepAliveRequest { id: lease };
                let stream = client.lease_keep_alive(tokio_stream::once(request)).await;
                let answer = match stream {
                    Ok(mut stream) => match stream.get_mut().message().await {
                        Ok(first) => Ok(tonic::Response::new(first)),
                        Err(status) => Err(status),
                    },
                    Err(status) => Err(status),
                };
                told(answer, |a| a.as_mut().map_or(0, |a| mask(&mut a.header)))
            }
            _ => told(client.lease_leases(LeaseLeasesRequest {}).await, |a| {
                a.leases.sort_by_key(|lease| lease.id);
                mask(&mut a.header)
            }),
        }
    }

    /// All that a watch brings until it has caught up; then it is cancelled.
    async fn watch(&self, create: WatchCreateRequest) -> Told {
        match tokio::time::timeout(ANSWER_MAX, self.watch_whole(create)).await {
            Ok(Ok(text)) => Told { text, revision: 0 },
            Ok(Err(status)) => told::<()>(Err(status), |()| 0),
            Err(_) => Told {
                text: "hangs".to_owned(),
                revision: 0,
            },
        }
    }

    async fn watch_whole(&self, create: WatchCreateRequest) -> Result<String, Status> {
        let (requests, receiver) = mpsc::unbounded_channel();
        let ask = |union| {
            let request_union = Some(union);
            // The other end lives as long as the answers, which are read next.
            let _ = requests.send(WatchRequest { request_union });
        };
        let from = create.start_revision;
        ask(RequestUnion::CreateRequest(create));
        let requested = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
        let mut answers = self.watch.clone().watch(requested).await?.into_inner();
        let mut text = String::new();
        let created = next(&mut answers).await?;
        let id = created.watch_id;
        let now = created.header.as_ref().map_or(0, |header| header.revision);
        note(&mut text, created.clone());
        if created.canceled {
            return Ok(text);
        }
        // While a watch waits for a revision to come, etcd is silent about progress.
        let was_cancelled = from <= now && self.catch_up(&ask, &mut answers, &mut text).await?;
        ask(RequestUnion::CancelRequest(WatchCancelRequest {
            watch_id: id,
        }));
        if was_cancelled {
            return Ok(text);
        }
        loop {
            let answer = next(&mut answers).await?;
            if answer.watch_id != NO_WATCH {
                let over = answer.canceled;
                note(&mut text, answer);
                if over {
                    return Ok(text);
                }
            }
        }
    }

    /// Reads until the watch has caught up; whether it is over.
    async fn catch_up(
        &self,
        ask: &impl Fn(RequestUnion),
        answers: &mut Streaming<WatchResponse>,
        text: &mut String,
    ) -> Result<bool, Status> {
        let mut events = Vec::new();
        let over = loop {
            ask(RequestUnion::ProgressRequest(WatchProgressRequest {}));
            let answer = tokio::time::timeout(PROGRESS_INTERVAL, next(answers)).await;
            let Ok(answer) = answer else { continue };
            let mut answer = answer?;
            events.append(&mut answer.events);
            if answer.watch_id == NO_WATCH || answer.canceled {
                break answer;
            }
        };
        // etcd tells events of one revision in the order of their operations, we by key.
        events.sort_by_key(|event| {
            let kv = event.kv.clone().unwrap_or_default();
            (kv.mod_revision, kv.key)
        });
        text.push_str(&format!("{events:?}; "));
        let is_over = over.canceled;
        note(text, over);
        Ok(is_over)
    }
}

fn all() -> quorate_proto::etcd::etcdserverpb::RangeRequest {
    quorate_proto::etcd::etcdserverpb::RangeRequest {
        key: bytes::Bytes::from_static(b"ready"),
        ..Default::default()
    }
}

fn note(text: &mut String, mut answer: WatchResponse) {
    mask(&mut answer.header);
    text.push_str(&format!("{answer:?}; "));
}

async fn next(answers: &mut Streaming<WatchResponse>) -> Result<WatchResponse, Status> {
    let ended = || Status::unknown("the stream ended");
    answers.message().await?.ok_or_else(ended)
}
