//! Watches against servers that break off: the client goes on behind what it has got.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use quorate_client::{Client, ClientOptions, Code, WatchKind, WatchOptions};
use quorate_proto::v1;
use quorate_proto::v1::watch_server::{Watch, WatchServer};
use quorate_types::{Reason, Revision};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

const RANGE: u64 = 7;
const PROGRESS: Duration = Duration::from_millis(100);
/// No test waits longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How one stream ends, after so many events.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It never does; when all events are told there is nothing more.
    Never,
    /// The server ends it.
    After(usize),
    /// An error of this reason.
    Refused(usize, &'static str),
    /// Nothing comes any more, not even progress.
    Silent(usize),
}

/// What all servers share: a log of one key's revisions, and how the next streams end.
#[derive(Default)]
struct Script {
    ends: VecDeque<End>,
    requests: Vec<v1::WatchRequest>,
}

#[derive(Clone)]
struct Server {
    last: u64,
    script: Arc<Mutex<Script>>,
}

type Messages = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

fn position(revision: u64) -> v1::WatchPosition {
    v1::WatchPosition {
        range: RANGE,
        revision,
        // Within a revision, so that it must be sent back as it is.
        key: Some(Bytes::from_static(b"stored key")),
    }
}

fn message(revision: u64, events: Vec<v1::WatchEvent>) -> v1::WatchResponse {
    v1::WatchResponse {
        events,
        positions: vec![position(revision)],
        complete_revision: revision,
        ..v1::WatchResponse::default()
    }
}

fn event(revision: u64) -> v1::WatchEvent {
    let kind = match revision.is_multiple_of(5) {
        true => v1::watch_event::Kind::Delete,
        false => v1::watch_event::Kind::Put,
    };
    v1::WatchEvent {
        kind: kind.into(),
        state: v1::watch_event::State::Committed.into(),
        entry: Some(v1::KeyValue {
            key: Bytes::from_static(b"k"),
            revision,
            ..v1::KeyValue::default()
        }),
        range: RANGE,
        ..v1::WatchEvent::default()
    }
}

fn refusal(reason: &str) -> Status {
    let mut details = ErrorDetails::new();
    let metadata = [("effect", "none"), ("first_revision", "90")];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned()));
    details.set_error_info(reason, "quorate", metadata);
    let code = match reason {
        "REVISION_COLLECTED" => Code::OutOfRange,
        _ => Code::Unavailable,
    };
    Status::with_error_details(code, reason, details)
}

#[tonic::async_trait]
impl Watch for Server {
    type WatchStream = Messages;

    async fn watch(
        &self,
        request: tonic::Request<v1::WatchRequest>,
    ) -> Result<tonic::Response<Messages>, Status> {
        let request = request.into_inner();
        let begin = match request.positions.first() {
            Some(shown) => shown.revision,
            None => request.from_revision.saturating_sub(1),
        };
        let end = {
            let mut script = self.script.lock();
            script.requests.push(request);
            script.ends.pop_front().unwrap_or(End::Never)
        };
        let all = begin + 1..=self.last;
        let told =
            |count| stream::iter(all.clone().take(count)).map(|at| message(at, vec![event(at)]));
        let opened = stream::iter([message(begin, Vec::new())]);
        let messages: Messages = match end {
            End::Never => Box::pin(
                opened
                    .chain(told(usize::MAX))
                    .map(Ok)
                    .chain(stream::pending()),
            ),
            End::After(count) => Box::pin(opened.chain(told(count)).map(Ok)),
            End::Silent(count) => {
                Box::pin(opened.chain(told(count)).map(Ok).chain(stream::pending()))
            }
            End::Refused(count, reason) => {
                let refused = stream::iter([Err(refusal(reason))]);
                Box::pin(opened.chain(told(count)).map(Ok).chain(refused))
            }
        };
        Ok(tonic::Response::new(messages))
    }
}

async fn start(last: u64, ends: &[End]) -> (Client, Arc<Mutex<Script>>) {
    let script = Arc::new(Mutex::new(Script {
        ends: ends.iter().copied().collect(),
        requests: Vec::new(),
    }));
    let mut endpoints = Vec::new();
    for _ in 0..3 {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = tokio::net::TcpListener::bind(any).await.unwrap();
        endpoints.push(listener.local_addr().unwrap().to_string());
        let script = Arc::clone(&script);
        let server = tonic::transport::Server::builder()
            .add_service(WatchServer::new(Server { last, script }))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
    }
    let options = ClientOptions {
        endpoints,
        ..ClientOptions::default()
    };
    (Client::connect(options).unwrap(), script)
}

fn options() -> WatchOptions {
    WatchOptions {
        progress_interval: Some(PROGRESS),
        ..WatchOptions::prefix("k").from(Revision(1))
    }
}

#[tokio::test]
async fn each_event_comes_once_however_often_streams_break() {
    let ends = [
        End::After(0),
        End::After(3),
        End::Refused(2, "NODE_STOPPING"),
        End::After(1),
        End::Refused(0, "NO_LEADER"),
        End::Silent(4),
        End::After(7),
    ];
    let (client, script) = start(40, &ends).await;
    let told = async {
        let mut watch = client.watch(options()).await.unwrap();
        let mut told = Vec::new();
        while told.len() < 40 {
            let event = watch.next().await.unwrap();
            let is_delete = event.kind == WatchKind::Delete;
            assert_eq!(is_delete, event.entry.revision.0 % 5 == 0);
            told.push(event.entry.revision.0);
        }
        told
    };
    let told = tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert_eq!(told, (1..=40).collect::<Vec<u64>>());
    let requests = &script.lock().requests;
    assert_eq!(requests.len(), ends.len() + 1);
    // Where it had come to, word for word.
    assert_eq!(requests[2].positions, [position(3)]);
    assert!(
        requests
            .iter()
            .all(|it| it.from_revision == 1 && it.prefix == "k")
    );
}

#[tokio::test]
async fn what_cannot_pass_ends_the_watch_and_names_the_way_on() {
    let (client, script) = start(9, &[End::Refused(2, "REVISION_COLLECTED")]).await;
    let mut watch = client.watch(options()).await.unwrap();
    for revision in 1..=2 {
        assert_eq!(watch.next().await.unwrap().entry.revision.0, revision);
    }
    let error = watch.next().await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::RevisionCollected));
    assert_eq!(error.metadata("first_revision"), Some("90"));
    assert_eq!(script.lock().requests.len(), 1, "it was not tried again");
    // Who keeps the positions goes on in another watch.
    let positions = watch.positions();
    assert_eq!(positions[0].revision, Revision(2));
    let resumed = WatchOptions {
        positions,
        ..options()
    };
    let mut watch = client.watch(resumed).await.unwrap();
    assert_eq!(watch.next().await.unwrap().entry.revision.0, 3);
}

#[tokio::test]
async fn a_watch_that_nobody_serves_says_so_in_time() {
    let options_of = |timeout| ClientOptions {
        endpoints: vec!["127.0.0.1:1".to_owned()],
        timeout,
        ..ClientOptions::default()
    };
    let client = Client::connect(options_of(Duration::from_millis(300))).unwrap();
    let error = client.watch(options()).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    // One that has begun gives up when it is told to.
    let ends = [End::After(1); 1000];
    let (client, _script) = start(0, &ends).await;
    let patient = WatchOptions {
        patience: Some(Duration::from_millis(200)),
        ..options()
    };
    let mut watch = client.watch(patient).await.unwrap();
    // Each stream says where it is, so somebody answers: that is no silence.
    let batch = watch.next_batch().await.unwrap();
    assert!(batch.events.is_empty());
}
