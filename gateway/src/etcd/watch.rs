//! `etcdserverpb.Watch`: many watches on one stream, each a task that asks for the next events
//! behind its place, as our own watches do (`crate::watch`).
//!
//! Events of one revision go out together, in fragments only where the client takes these. What a
//! slow client has not taken stays where it is: a watch holds one page of events.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message;
use quorate_proto::etcd::etcdserverpb::watch_create_request::FilterType;
use quorate_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcd::etcdserverpb::watch_server::Watch;
use quorate_proto::etcd::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use quorate_proto::etcd::mvccpb::event::EventType;
use quorate_proto::etcd::mvccpb::{Event, KeyValue};
use quorate_proto::internal::EtcdLook;
use quorate_proto::v1;
use quorate_raft::Place;
use quorate_raft::machine::etcd::Span;
use quorate_types::{RangeId, Reason, Revision};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::streams::{Answers, Sender, received};
use super::{EtcdStore, TIMEOUT_DEFAULT, errors, find};
use crate::errors::GatewayError;
use crate::watch::{Asked, MESSAGE_BYTES_MAX, Opened, Page, Watched};

/// Messages of all watches of one stream that wait for its client.
const QUEUE_MESSAGES: usize = 16;
/// The id of a watch that could not be made.
const NO_WATCH: i64 = -1;
/// How often a watch without events says how far it has come, if its client wants that.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Longest wait for the first event of a page.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// A response is cut at about so many bytes, where the client takes fragments.
const FRAGMENT_BYTES: usize = 1 << 20;
/// The client's wish to be told when there is no leader.
const REQUIRE_LEADER: &str = "hasleader";

/// The service.
#[derive(Clone, Debug)]
pub(super) struct WatchService(pub(super) EtcdStore);

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = Answers<WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, receiver) = mpsc::channel(QUEUE_MESSAGES);
        let session = Session {
            store: self.0.clone(),
            connection: request.remote_addr(),
            requires_leader: request.metadata().contains_key(REQUIRE_LEADER),
            answers,
            watches: HashMap::new(),
            next: 0,
        };
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(received(receiver)))
    }
}

/// One watch as its stream knows it. Ends when dropped.
struct Running {
    task: AbortHandle,
    nudge: Arc<Notify>,
    /// Everything up to it has gone out.
    told: watch::Receiver<Revision>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All watches of one stream.
struct Session {
    store: EtcdStore,
    connection: Option<std::net::SocketAddr>,
    requires_leader: bool,
    answers: Sender<WatchResponse>,
    watches: HashMap<i64, Running>,
    next: i64,
}

impl Session {
    async fn run<S>(mut self, mut requests: S)
    where
        S: Stream<Item = Result<WatchRequest, Status>> + Send + Unpin,
    {
        let mut stopping = self.store.gateway.watch_stop();
        loop {
            let answers = self.answers.clone();
            let request = tokio::select! {
                // Who asks for nothing more still listens.
                Some(request) = requests.next() => request,
                () = answers.closed() => return,
                () = stops(&mut stopping) => Err(errors::stopped()),
            };
            let request = match request {
                Ok(request) => request,
                Err(status) => {
                    // A client that has gone needs no word.
                    let _ = self.answers.send(Err(status)).await;
                    return;
                }
            };
            let answered = match request.request_union {
                Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
                Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id).await,
                Some(RequestUnion::ProgressRequest(_)) => self.progress().await,
                None => Ok(()),
            };
            if let Err(status) = answered {
                // As above.
                let _ = self.answers.send(Err(status)).await;
                return;
            }
        }
    }

    async fn answer(&self, response: WatchResponse) {
        // The loop ends when the client has gone.
        let _ = self.answers.send(Ok(response)).await;
    }

    async fn create(&mut self, create: WatchCreateRequest) -> Result<(), Status> {
        let deadline = Instant::now() + TIMEOUT_DEFAULT;
        let look = EtcdLook {
            linearizable: self.requires_leader,
            moment: 0,
            revision: create.start_revision,
        };
        let (answered, looked) = self.store.look(look, deadline).await?;
        let mut response = WatchResponse {
            header: Some(self.store.header(answered.revision, answered.term)),
            watch_id: NO_WATCH,
            created: true,
            ..WatchResponse::default()
        };
        let mut refuse = |reason: &str| {
            response.canceled = true;
            response.cancel_reason = reason.to_owned();
            response.clone()
        };
        let key = match create.key.is_empty() {
            true => Bytes::from_static(&[0]),
            false => create.key.clone(),
        };
        let span = Span::of(&key, &create.range_end);
        if create.start_revision < 0 {
            let response = refuse(errors::compacted().message());
            self.answer(response).await;
            return Ok(());
        }
        if span.is_empty() {
            let response = refuse("mvcc: watcher range is empty");
            self.answer(response).await;
            return Ok(());
        }
        if create.watch_id != 0 && self.watches.contains_key(&create.watch_id) {
            let response = refuse("mvcc: duplicate watch ID provided on the WatchStream");
            self.answer(response).await;
            return Ok(());
        }
        let opened = match self.store.gateway.watches().open(self.connection) {
            Ok(opened) => opened,
            Err(error) => {
                let response = refuse(&format!("etcdserver: {error}"));
                self.answer(response).await;
                return Ok(());
            }
        };
        let id = match create.watch_id {
            0 => self.free_id(),
            id => id,
        };
        response.watch_id = id;
        self.answer(response.clone()).await;
        if create.start_revision > 0 && create.start_revision < looked.compacted {
            let canceled = WatchResponse {
                // As etcd has it: of no revision.
                header: Some(self.store.header(0, answered.term)),
                created: false,
                canceled: true,
                compact_revision: looked.compacted,
                ..response
            };
            self.answer(canceled).await;
            return Ok(());
        }
        let place = match create.start_revision {
            1.. if create.start_revision <= answered.revision => {
                Place::behind(Revision(looked.moment.saturating_sub(1)))
            }
            _ => Place::behind(Revision(looked.moment)),
        };
        let running = self.start(id, &create, span, place, opened)?;
        self.watches.insert(id, running);
        Ok(())
    }

    fn free_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next) {
            self.next += 1;
        }
        self.next += 1;
        self.next - 1
    }

    fn start(
        &self,
        id: i64,
        create: &WatchCreateRequest,
        span: Span,
        place: Place,
        opened: Opened,
    ) -> Result<Running, Status> {
        let catalog = self.store.gateway.node().catalog();
        let (keyspace, range) = find(&catalog, &self.store.keyspace)?;
        let filters = |filter: FilterType| create.filters.contains(&filter.into());
        let asked = Asked {
            start: span.start.clone(),
            end: span.end.clone().unwrap_or_default(),
            after: Some(place.clone()),
            events_max: self.store.gateway.admission().watch_events_max(),
            bytes_max: MESSAGE_BYTES_MAX,
            no_puts: filters(FilterType::Noput),
            no_deletes: filters(FilterType::Nodelete),
            previous: create.prev_kv,
            tentative: None,
            wait: WAIT_MAX,
        };
        let (told, receiver) = watch::channel(Revision::ZERO);
        let nudge = Arc::new(Notify::new());
        let one = One {
            store: self.store.clone(),
            watched: Watched::keys(keyspace, &asked),
            range: range.id,
            id,
            from: create.start_revision,
            asked,
            place,
            held: Vec::new(),
            told,
            nudge: nudge.clone(),
            answers: self.answers.clone(),
            fragments: create.fragment,
            notifies: create.progress_notify,
            requires_leader: self.requires_leader,
            said_at: Instant::now(),
        };
        let task = tokio::spawn(async move {
            let _opened = opened;
            one.run().await;
        });
        Ok(Running {
            task: task.abort_handle(),
            nudge,
            told: receiver,
        })
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Status> {
        if self.watches.remove(&id).is_none() {
            return Ok(());
        }
        let deadline = Instant::now() + TIMEOUT_DEFAULT;
        let (answered, _) = self.store.look(EtcdLook::default(), deadline).await?;
        self.answer(WatchResponse {
            header: Some(self.store.header(answered.revision, answered.term)),
            watch_id: id,
            canceled: true,
            ..WatchResponse::default()
        })
        .await;
        Ok(())
    }

    /// Says how far all watches of the stream have come, once all have told all up to now.
    async fn progress(&mut self) -> Result<(), Status> {
        let deadline = Instant::now() + TIMEOUT_DEFAULT;
        let look = EtcdLook {
            linearizable: true,
            ..EtcdLook::default()
        };
        let (answered, looked) = self.store.look(look, deadline).await?;
        let now = Revision(looked.moment);
        for running in self.watches.values_mut() {
            while *running.told.borrow_and_update() < now {
                running.nudge.notify_one();
                // One that is over tells no more.
                if running.told.changed().await.is_err() {
                    break;
                }
            }
        }
        self.answer(WatchResponse {
            header: Some(self.store.header(answered.revision, answered.term)),
            watch_id: NO_WATCH,
            ..WatchResponse::default()
        })
        .await;
        Ok(())
    }
}

/// One watch while it runs.
struct One {
    store: EtcdStore,
    watched: Watched,
    range: RangeId,
    id: i64,
    /// Events of earlier revisions are not wanted.
    from: i64,
    asked: Asked,
    place: Place,
    /// Events whose revision may have more.
    held: Vec<Event>,
    told: watch::Sender<Revision>,
    nudge: Arc<Notify>,
    answers: Sender<WatchResponse>,
    fragments: bool,
    notifies: bool,
    requires_leader: bool,
    said_at: Instant,
}

impl One {
    async fn run(mut self) {
        loop {
            self.asked.after = Some(self.place.clone());
            let asking = self
                .store
                .gateway
                .next_page(&self.watched, self.range, &self.asked);
            let page = tokio::select! {
                page = asking => page,
                () = self.nudge.notified() => {
                    self.asked.wait = Duration::ZERO;
                    continue;
                }
            };
            self.asked.wait = WAIT_MAX;
            let over = match page {
                Ok(page) if page.is_cut_off && self.requires_leader && page.events.is_empty() => {
                    Some(Err(errors::no_leader()))
                }
                Ok(page) => self.take(page).await.err().map(Err),
                Err(error) => self.missed(error).await,
            };
            if let Some(last) = over {
                // A client that has gone needs no word.
                let _ = self.answers.send(last).await;
                return;
            }
        }
    }

    /// Sends what a page brings, and moves on behind it.
    async fn take(&mut self, page: Page) -> Result<(), Status> {
        for event in page.events {
            let event = told(event)?;
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            if revision >= self.from {
                self.held.push(event);
            }
        }
        self.place = page.place;
        let events = match self.place.key {
            None => std::mem::take(&mut self.held),
            // The revision goes on in the next page.
            Some(_) => {
                let last = self.held.last().map_or(0, revision_of);
                let whole = self.held.partition_point(|event| revision_of(event) < last);
                self.held.drain(..whole).collect()
            }
        };
        let is_due = self.notifies && self.said_at.elapsed() >= PROGRESS_INTERVAL;
        if !events.is_empty() || is_due {
            self.say(events).await?;
        }
        self.told.send_replace(self.place.whole());
        Ok(())
    }

    async fn say(&mut self, events: Vec<Event>) -> Result<(), Status> {
        let look = EtcdLook {
            moment: self.place.whole().0,
            ..EtcdLook::default()
        };
        let deadline = Instant::now() + TIMEOUT_DEFAULT;
        let (answered, looked) = self.store.look(look, deadline).await?;
        let least = events.last().map_or(0, revision_of);
        let response = WatchResponse {
            header: Some(self.store.header(looked.revision.max(least), answered.term)),
            watch_id: self.id,
            ..WatchResponse::default()
        };
        self.said_at = Instant::now();
        for (fragment, events) in self.cut(events) {
            let part = WatchResponse {
                fragment,
                events,
                ..response.clone()
            };
            // The stream's loop sees that its client has gone.
            let _ = self.answers.send(Ok(part)).await;
        }
        Ok(())
    }

    /// The messages of some events; true: more fragments follow.
    fn cut(&self, events: Vec<Event>) -> Vec<(bool, Vec<Event>)> {
        if !self.fragments {
            return vec![(false, events)];
        }
        let mut parts = vec![Vec::new()];
        let mut bytes = 0;
        for event in events {
            let size = event.encoded_len();
            if bytes > 0 && bytes + size > FRAGMENT_BYTES {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            if let Some(part) = parts.last_mut() {
                part.push(event);
            }
        }
        let last = parts.len() - 1;
        let marked = parts.into_iter().enumerate();
        marked.map(|(at, part)| (at < last, part)).collect()
    }

    /// What a failed page means: the end of the watch, or another try.
    async fn missed(&self, error: GatewayError) -> Option<Result<WatchResponse, Status>> {
        let deadline = Instant::now() + TIMEOUT_DEFAULT;
        let over = |revision: i64, term: u64| WatchResponse {
            header: Some(self.store.header(revision, term)),
            watch_id: self.id,
            canceled: true,
            ..WatchResponse::default()
        };
        match error.reason() {
            Some(Reason::RevisionCollected) => {
                let looked = self.store.look(EtcdLook::default(), deadline).await;
                Some(looked.map(|(answered, looked)| WatchResponse {
                    compact_revision: looked.compacted,
                    ..over(0, answered.term)
                }))
            }
            Some(Reason::KeyspaceNotFound) => Some(Ok(WatchResponse {
                cancel_reason: format!("etcdserver: {error}"),
                ..over(0, 0)
            })),
            Some(Reason::NodeStopping) => Some(Err(errors::stopped())),
            _ if self.requires_leader => Some(Err(errors::no_leader())),
            _ => None,
        }
    }
}

/// Waits until the node is about to stop.
async fn stops(stopping: &mut watch::Receiver<bool>) {
    // An error means that it is gone.
    let _ = stopping.wait_for(|stop| *stop).await;
}

fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// An event of ours, as etcd's clients know it.
fn told(event: v1::WatchEvent) -> Result<Event, Status> {
    let row = |entry: v1::KeyValue| {
        let decoded = KeyValue::decode(entry.value);
        let decoded =
            decoded.map_err(|_| Status::data_loss("etcdserver: an event does not decode"));
        Ok::<_, Status>(KeyValue {
            key: entry.key,
            ..decoded?
        })
    };
    let is_delete = event.kind == i32::from(v1::watch_event::Kind::Delete);
    Ok(Event {
        r#type: match is_delete {
            true => EventType::Delete.into(),
            false => EventType::Put.into(),
        },
        kv: event.entry.map(row).transpose()?,
        prev_kv: event.previous.map(row).transpose()?,
    })
}
