//! One client of a run: does one thing at a time, and has each call recorded.
//!
//! After an unknown outcome it takes up a new process number and new connections: the old call may
//! still take effect, and a process does one thing at a time.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_client::{Client, ClientError, ClientOptions, Got, SESSION_BEGIN};
use quorate_types::Effect;
use serde_json::{Value as Json, json};

use crate::error::LabError;
use crate::random::Random;
use crate::record::{End, Line, Recorder};

/// A call that is not answered within this has an unknown outcome.
const CALL_MAX: Duration = Duration::from_millis(1500);
/// After this the next attempt is made, where attempts are repeated.
const ATTEMPT_MAX: Duration = Duration::from_millis(500);

/// How callers reach the nodes.
#[derive(Clone, Debug)]
pub(crate) struct Ways {
    /// By node.
    pub(crate) endpoints: Vec<String>,
    pub(crate) keyspace: String,
    /// Failed attempts are made again, where that is safe.
    pub(crate) retries: bool,
}

impl Ways {
    /// A client of its own connections to one node.
    pub(crate) fn client(&self, place: usize) -> Result<Client, LabError> {
        self.client_at(vec![self.endpoints[place].clone()])
    }

    /// A client of its own connections to all nodes, which begins at one of them.
    fn client_from(&self, place: usize) -> Result<Client, LabError> {
        let mut endpoints = self.endpoints.clone();
        endpoints.rotate_left(place);
        self.client_at(endpoints)
    }

    fn client_at(&self, endpoints: Vec<String>) -> Result<Client, LabError> {
        Client::connect(ClientOptions {
            endpoints,
            keyspace: self.keyspace.clone(),
            timeout: CALL_MAX,
            attempt_timeout: ATTEMPT_MAX,
            retries: self.retries,
            ..ClientOptions::default()
        })
        .map_err(LabError::Prepare)
    }
}

/// What a caller has seen of a key: the values, and the context that stands for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) values: Vec<i64>,
    pub(crate) context: Bytes,
}

/// What a call is, as it is recorded.
pub(crate) struct Ask<'a> {
    pub(crate) f: &'a str,
    pub(crate) key: Option<i64>,
    pub(crate) value: Json,
}

/// How the store answered.
pub(crate) enum Told<T> {
    /// It is done; what the answer is in the recording, and what the caller makes of it.
    Done(Json, T),
    /// A condition did not hold: nothing was changed.
    Refused,
}

/// What came of a call, whoever was called.
pub(crate) enum Came<T> {
    /// It is done; what is recorded as its answer, and what the caller makes of it.
    Done(Json, T),
    /// A condition did not hold: nothing was changed.
    Refused,
    /// It was not served; why.
    Failed(String),
    /// Nobody knows; why.
    Unknown(String),
}

/// One client.
pub(crate) struct Caller {
    pub(crate) number: usize,
    pub(crate) random: Random,
    /// What was seen of keys lately.
    pub(crate) seen: HashMap<i64, Seen>,
    /// Of the session that the process is.
    pub(crate) token: Bytes,
    /// How many processes this caller has been.
    pub(crate) lives: i64,
    stride: i64,
    home: usize,
    ways: Ways,
    clients: Vec<Option<Client>>,
    recorder: Arc<Recorder>,
}

impl Caller {
    /// The client of a number among `stride` ones, at home at one node.
    pub(crate) fn new(
        number: usize,
        stride: usize,
        ways: Ways,
        random: Random,
        recorder: Arc<Recorder>,
    ) -> Self {
        Self {
            number,
            random,
            seen: HashMap::new(),
            token: SESSION_BEGIN,
            lives: 0,
            stride: i64::try_from(stride).expect("callers are few"),
            home: number % ways.endpoints.len(),
            clients: vec![None; ways.endpoints.len()],
            ways,
            recorder,
        }
    }

    /// The process that it is now.
    pub(crate) fn process(&self) -> i64 {
        i64::try_from(self.number).expect("callers are few") + self.lives * self.stride
    }

    /// A client of the node where this caller is at home, or, in so many of a hundred cases, of
    /// any node.
    pub(crate) fn client(&mut self, strays_percent: usize) -> Client {
        let place = if self.random.percent(strays_percent) {
            self.random.below(self.clients.len())
        } else {
            self.home
        };
        self.client_of(place)
    }

    fn client_of(&mut self, place: usize) -> Client {
        if let Some(client) = &self.clients[place] {
            return client.clone();
        }
        let client = self.ways.client(place);
        let client = client.expect("the same options made the first client of the run");
        self.clients[place] = Some(client.clone());
        client
    }

    /// A client of connections of its own, which goes to any other node where the one is lost at
    /// which this caller is at home.
    pub(crate) fn roaming_client(&self) -> Client {
        let client = self.ways.client_from(self.home);
        client.expect("the same options made the first client of the run")
    }

    /// Where the node is reached where this caller is at home.
    pub(crate) fn home(&self) -> &str {
        &self.ways.endpoints[self.home]
    }

    /// Where all nodes are reached.
    pub(crate) fn endpoints(&self) -> &[String] {
        &self.ways.endpoints
    }

    /// Does one call and records it; what it gave, if it was done.
    pub(crate) async fn call<T>(
        &mut self,
        ask: Ask<'_>,
        work: impl Future<Output = Result<Told<T>, ClientError>>,
    ) -> Option<T> {
        let work = async {
            match work.await {
                Ok(Told::Done(value, told)) => Came::Done(value, told),
                Ok(Told::Refused) => Came::Refused,
                Err(error) => match error.effect() {
                    Effect::None => Came::Failed(problem(&error)),
                    // What was applied in part may yet be applied, or go.
                    Effect::Applied | Effect::Unknown => Came::Unknown(problem(&error)),
                },
            }
        };
        self.record(ask, work).await
    }

    /// Records one call of anything; what it gave, if it was done.
    pub(crate) async fn record<T>(
        &mut self,
        ask: Ask<'_>,
        work: impl Future<Output = Came<T>>,
    ) -> Option<T> {
        let line = |value| Line {
            process: json!(self.process()),
            f: ask.f,
            key: ask.key,
            value,
        };
        self.recorder.invoke(&line(&ask.value));
        match work.await {
            Came::Done(value, told) => {
                self.recorder.end(&line(&value), End::Ok, None);
                return Some(told);
            }
            Came::Refused => self.recorder.end(&line(&ask.value), End::Refused, None),
            Came::Failed(problem) => {
                let line = line(&ask.value);
                self.recorder.end(&line, End::Failed, Some(&problem));
            }
            Came::Unknown(problem) => {
                let line = line(&ask.value);
                self.recorder.end(&line, End::Unknown, Some(&problem));
                self.be_somebody_else();
            }
        }
        None
    }

    fn be_somebody_else(&mut self) {
        self.lives += 1;
        self.clients.fill(None);
        self.seen.clear();
        self.token = SESSION_BEGIN;
    }

    /// Takes note of a session's new token.
    pub(crate) fn remember(&mut self, token: &Bytes) {
        if !token.is_empty() {
            self.token = token.clone();
        }
    }
}

/// What a failed call says, without what differs from call to call.
pub(crate) fn problem(error: &ClientError) -> String {
    match error.reason() {
        Some(reason) => reason.as_str().to_owned(),
        None => format!("{:?}", error.code()),
    }
}

/// The whole numbers that a key's values are, lowest first; other bytes are told as they are
/// damaged: as a number that nobody writes.
pub(crate) fn numbers(got: &Got) -> Vec<i64> {
    let entries = got.entry.iter().chain(&got.siblings);
    let mut numbers: Vec<i64> = entries.map(|entry| number(&entry.value)).collect();
    numbers.sort_unstable();
    numbers
}

/// The whole number that a value is.
pub(crate) fn number(value: &[u8]) -> i64 {
    let text = std::str::from_utf8(value).unwrap_or_default();
    text.parse().unwrap_or(i64::MIN)
}
