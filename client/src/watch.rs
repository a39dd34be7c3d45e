//! Watches: what happens to keys, as a stream that comes back by itself. When the connection, the
//! gateway or a leader is lost, it goes on at another endpoint behind what it has got, so no event
//! is lost and none comes twice.
//!
//! Not here: what a server does with a watch, and what is remembered over the end of this process
//! (its positions, which the caller may keep).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use quorate_proto::v1;
use quorate_types::{FieldError, RangeId, Revision};
use tokio::time::Instant;
use tonic::Streaming;

use crate::answer::Entry;
use crate::client::Client;
use crate::endpoints::Visited;
use crate::environment;
use crate::error::{ClientError, Fate, LostError};
use crate::failure::Failure;
use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX, RETRY_AFTER_MAX};
use crate::retry::is_passing;
use crate::typed::{TypedValue, typed_value};

/// How often a server says how far a watch has come, unless it is told otherwise.
pub const PROGRESS_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
/// How much longer than three times that a stream may be silent before another endpoint is tried.
const SILENCE_GRACE: Duration = Duration::from_secs(5);

/// What is watched.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// One key; empty: a prefix or interval.
    pub key: Bytes,
    /// Keys that start with it.
    pub prefix: Bytes,
    /// First key, inclusive.
    pub start: Bytes,
    /// Last key, exclusive; empty: to the end.
    pub end: Bytes,
    /// The first revision of interest; none: what is decided from now on.
    pub from: Option<Revision>,
    /// Where an earlier watch of the same keys had come to: see [`Watch::positions`].
    pub positions: Vec<WatchPosition>,
    /// Leave out puts.
    pub no_puts: bool,
    /// Leave out deletes.
    pub no_deletes: bool,
    /// With each event what it replaced.
    pub previous: bool,
    /// Also writes as they become visible on the eventual plane, before the log has decided them.
    /// They come at best: each at most once from one server, none behind what the log made of it,
    /// and none that became visible before the watch began or while it was away. Keyspaces of mode
    /// `eventual`, which have no log, tell of nothing else.
    pub tentative: bool,
    /// How often to be told how far the watch has come; none: [`PROGRESS_INTERVAL_DEFAULT`].
    pub progress_interval: Option<Duration>,
    /// How long no server may answer before the watch fails, once it has begun; none: it tries for
    /// ever. To begin it has the client's timeout.
    pub patience: Option<Duration>,
}

impl WatchOptions {
    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self {
            key: key.into(),
            ..Self::default()
        }
    }

    /// All keys that start with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self {
            prefix: prefix.into(),
            ..Self::default()
        }
    }

    /// From this revision on.
    #[must_use]
    pub fn from(self, revision: Revision) -> Self {
        Self {
            from: Some(revision),
            ..self
        }
    }

    fn silence_max(&self) -> Duration {
        let interval = self.progress_interval.unwrap_or(PROGRESS_INTERVAL_DEFAULT);
        interval.saturating_mul(3).saturating_add(SILENCE_GRACE)
    }
}

/// How far a watch has come in one range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchPosition {
    /// The range.
    pub range: RangeId,
    /// All events up to it have come; with `key`, those of it up to that key.
    pub revision: Revision,
    /// As the range stores it.
    pub key: Option<Bytes>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    /// The key has a new value.
    Put,
    /// The key is gone.
    Delete,
}

/// Whether it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// The log has decided it.
    Committed,
    /// The log has not decided it yet.
    Tentative,
}

/// One put or delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// What happened.
    pub kind: WatchKind,
    /// Whether it stays.
    pub state: WatchState,
    /// The key as the event left it; of a delete the key and the revision alone.
    pub entry: Entry,
    /// More live values than one.
    pub siblings: Vec<Entry>,
    /// In keyspaces of counters, sets and maps.
    pub typed: Option<TypedValue>,
    /// What was there before, if it was asked for.
    pub previous: Option<Entry>,
    /// What was there before is collected, or too large to be sent.
    pub previous_omitted: bool,
    /// Where it happened.
    pub range: RangeId,
    /// Where tentative events were asked for: the names of the writes that it is; of a committed
    /// one, of those whose values the log shows with it for the first time.
    pub dots: Vec<String>,
}

/// Some events of one range, in order; or none, and how far the watch has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// In order: by revision, and those of one revision by key; tentative ones before them.
    pub events: Vec<WatchEvent>,
    /// All events up to it, of all ranges, have come.
    pub complete: Revision,
    /// Writes of tentative events that the log has taken in, and that no committed event names:
    /// deletes, and what was replaced before the log had it. What it made of their keys has come.
    pub settled: Vec<String>,
    /// Tentative events that were left out since the last batch, those of other keys of the ranges
    /// included: more became visible than was taken.
    pub skipped: u64,
}

/// A watch under way. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    options: WatchOptions,
    positions: BTreeMap<u64, v1::WatchPosition>,
    stream: Option<Streaming<v1::WatchResponse>>,
    /// The endpoint of the stream.
    index: usize,
    waiting: VecDeque<WatchEvent>,
    complete: Revision,
    trying: Trying,
}

/// How it goes with finding a server.
#[derive(Debug)]
struct Trying {
    /// Since when none has given anything.
    since: Instant,
    visited: Visited,
    attempts: u32,
}

impl Trying {
    fn begin() -> Self {
        Self {
            since: Instant::now(),
            visited: Visited::default(),
            attempts: 0,
        }
    }

    fn pause(&self) -> Duration {
        let doubled = 1_u32 << self.attempts.saturating_sub(1).min(16);
        BACKOFF_FIRST.saturating_mul(doubled).min(BACKOFF_MAX)
    }
}

impl Client {
    /// Watches keys, and waits until a server has taken it on: all that is acknowledged from then
    /// on is told of.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; reason `REVISION_COLLECTED` (its `first_revision` is the first that can
    /// be watched from), `REVISION_FUTURE`, `FIELD_INVALID`, `NOT_IMPLEMENTED`.
    pub async fn watch(&self, options: WatchOptions) -> Result<Watch, ClientError> {
        let positions = options.positions.iter().map(|position| {
            let wire = v1::WatchPosition {
                range: position.range.0,
                revision: position.revision.0,
                key: position.key.clone(),
            };
            (wire.range, wire)
        });
        let mut watch = Watch {
            client: self.clone(),
            positions: positions.collect(),
            options,
            stream: None,
            index: 0,
            waiting: VecDeque::new(),
            complete: Revision::ZERO,
            trying: Trying::begin(),
        };
        if watch
            .options
            .progress_interval
            .is_some_and(|it| it.as_millis() > u128::from(u32::MAX))
        {
            let problem = "longer than a server takes";
            return Err(FieldError::new("progress_interval", problem).into());
        }
        // The first message has the positions, and no events.
        let patience = self.timeout();
        watch.message(Some(patience)).await?;
        Ok(watch)
    }
}

impl Watch {
    /// The next events, or the next word on how far the watch has come. Waits for ever, and goes
    /// on at another endpoint where need be.
    ///
    /// # Errors
    ///
    /// What cannot pass by itself: after it the watch is over. `REVISION_COLLECTED`: it was away
    /// for longer than history is kept.
    pub async fn next_batch(&mut self) -> Result<WatchBatch, ClientError> {
        if !self.waiting.is_empty() {
            return Ok(WatchBatch {
                events: std::mem::take(&mut self.waiting).into(),
                complete: self.complete,
                settled: Vec::new(),
                skipped: 0,
            });
        }
        let patience = self.options.patience;
        self.message(patience).await
    }

    /// The next event. Which tentative ones are settled or were skipped only
    /// [`Watch::next_batch`] says.
    ///
    /// # Errors
    ///
    /// As [`Watch::next_batch`].
    pub async fn next(&mut self) -> Result<WatchEvent, ClientError> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(event);
            }
            let patience = self.options.patience;
            self.waiting = self.message(patience).await?.events.into();
        }
    }

    /// All events, one by one, until the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<WatchEvent, ClientError>> + Send {
        stream::try_unfold(self, |mut watch| async move {
            let event = watch.next().await?;
            Ok(Some((event, watch)))
        })
    }

    /// Where the watch has come to, behind the last batch: with it another watch of the same keys
    /// goes on there. Events of a batch that [`Watch::next`] has not given out yet lie before it.
    pub fn positions(&self) -> Vec<WatchPosition> {
        let position = |wire: &v1::WatchPosition| WatchPosition {
            range: RangeId(wire.range),
            revision: Revision(wire.revision),
            key: wire.key.clone(),
        };
        self.positions.values().map(position).collect()
    }

    /// The next message, from whichever endpoint.
    async fn message(&mut self, patience: Option<Duration>) -> Result<WatchBatch, ClientError> {
        self.trying = Trying::begin();
        loop {
            let failure = match self.attempt(patience).await {
                Ok(message) => return Ok(self.take(message)),
                Err(failure) => failure,
            };
            self.stream = None;
            self.trying.attempts += 1;
            let pause = match &failure {
                Failure::Refused(error) if !is_passing(error) => {
                    return Err(ClientError::Server(error.clone()));
                }
                Failure::Refused(error) => error.retry_after.unwrap_or(self.trying.pause()),
                Failure::NotSent { .. } | Failure::Lost { .. } => self.trying.pause(),
            };
            let endpoints = &self.client.shared.endpoints;
            endpoints.rest(self.index);
            self.trying.visited.add(self.index);
            let untried = self.trying.visited.leaves_any_of(endpoints.len());
            if !untried {
                self.trying.visited = Visited::default();
            }
            let pause = environment::jittered(pause.min(RETRY_AFTER_MAX));
            let waited = self.trying.since.elapsed();
            if patience.is_some_and(|patience| waited + pause >= patience) {
                return Err(self.given_up(failure, waited));
            }
            // Another endpoint may be well.
            if !untried || self.trying.attempts > 1 {
                tokio::time::sleep(pause).await;
            }
        }
    }

    async fn attempt(&mut self, patience: Option<Duration>) -> Result<v1::WatchResponse, Failure> {
        let left = patience.map(|patience| patience.saturating_sub(self.trying.since.elapsed()));
        let silence_max = self.options.silence_max();
        let time = left.map_or(silence_max, |left| left.min(silence_max));
        let silent = |_| Failure::Lost {
            problem: format!("nothing came within {time:?}"),
            timed_out: true,
        };
        let next = async {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let visited = self.trying.visited;
                    self.index = self.client.shared.endpoints.pick(None, visited);
                    let request = self.request();
                    let endpoint = self.client.shared.endpoints.get(self.index);
                    let opened = endpoint.watch().watch(request).await;
                    let opened = opened.map_err(|status| Failure::from_status(&status))?;
                    self.stream.insert(opened.into_inner())
                }
            };
            match stream.message().await {
                Ok(Some(message)) => Ok(message),
                Ok(None) => Err(Failure::Lost {
                    problem: "the stream has ended".to_owned(),
                    timed_out: false,
                }),
                Err(status) => Err(Failure::from_status(&status)),
            }
        };
        tokio::time::timeout(time, next).await.map_err(silent)?
    }

    fn request(&self) -> v1::WatchRequest {
        let options = &self.options;
        let interval = options.progress_interval.unwrap_or_default();
        v1::WatchRequest {
            keyspace: self.client.keyspace.to_string(),
            key: options.key.clone(),
            prefix: options.prefix.clone(),
            start: options.start.clone(),
            end: options.end.clone(),
            from_revision: options.from.map_or(0, |from| from.0),
            positions: self.positions.values().cloned().collect(),
            no_puts: options.no_puts,
            no_deletes: options.no_deletes,
            previous: options.previous,
            tentative: options.tentative,
            progress_interval_ms: u32::try_from(interval.as_millis()).unwrap_or(u32::MAX),
        }
    }

    fn take(&mut self, message: v1::WatchResponse) -> WatchBatch {
        self.client.shared.endpoints.is_well(self.index);
        for position in message.positions {
            self.positions.insert(position.range, position);
        }
        self.complete = Revision(message.complete_revision);
        WatchBatch {
            events: message.events.into_iter().map(event).collect(),
            complete: self.complete,
            settled: message.settled,
            skipped: message.tentative_skipped,
        }
    }

    fn given_up(&self, failure: Failure, waited: Duration) -> ClientError {
        if let Failure::Refused(error) = failure {
            return ClientError::Server(error);
        }
        ClientError::Lost(Box::new(LostError {
            timed_out: true,
            waited,
            problem: failure.problem(),
            endpoints: self.client.shared.endpoints.addresses(),
            fate: Fate {
                attempts: self.trying.attempts,
                ..Fate::UNTOUCHED
            },
        }))
    }
}

fn event(wire: v1::WatchEvent) -> WatchEvent {
    WatchEvent {
        kind: match wire.kind() {
            v1::watch_event::Kind::Delete => WatchKind::Delete,
            v1::watch_event::Kind::Put | v1::watch_event::Kind::Unspecified => WatchKind::Put,
        },
        state: match wire.state() {
            v1::watch_event::State::Tentative => WatchState::Tentative,
            v1::watch_event::State::Committed | v1::watch_event::State::Unspecified => {
                WatchState::Committed
            }
        },
        entry: wire.entry.unwrap_or_default().into(),
        siblings: wire.siblings.into_iter().map(Entry::from).collect(),
        typed: wire.typed.and_then(typed_value),
        previous: wire.previous.map(Entry::from),
        previous_omitted: wire.previous_omitted,
        range: RangeId(wire.range),
        dots: wire.dots,
    }
}
