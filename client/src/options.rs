//! What a caller can choose: for a client, for one read, one write, one scan.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1;
use quorate_types::limits::{TIMEOUT_DEFAULT, TIMEOUT_MAX_SECONDS};
use quorate_types::{
    ClientId, FieldError, Ladder, LeaseId, RequestId, Revision, Timestamp, validate_keyspace_name,
};

use crate::level::consistency;
use crate::limits::{ATTEMPT_TIMEOUT, CONNECTIONS_PER_ENDPOINT_MAX, ENDPOINTS_MAX};

/// How a [`Client`](crate::Client) is set up.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `HOST:PORT` of nodes; any node takes any request, several survive the loss of one.
    /// At most [`ENDPOINTS_MAX`].
    pub endpoints: Vec<String>,
    /// The keyspace that requests go to; see [`Client::keyspace`](crate::Client::keyspace).
    pub keyspace: String,
    /// How long a request may take in all, with its retries. At most an hour.
    pub timeout: Duration,
    /// How long the first attempt may take before another endpoint is tried.
    pub attempt_timeout: Duration,
    /// Whether what failed is tried again until the time is up (only what is safe).
    pub retries: bool,
    /// TCP connections to each endpoint, 1 to [`CONNECTIONS_PER_ENDPOINT_MAX`].
    pub connections_per_endpoint: usize,
    /// The name that writes carry; none: drawn at random, which is nearly always right. A
    /// name must not be in use by two clients at once.
    pub client_id: Option<ClientId>,
    /// The sequence number of the first write. A client that takes up an earlier client's
    /// id must begin above that one's last number.
    pub first_sequence: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:7450".to_owned()],
            keyspace: "default".to_owned(),
            timeout: TIMEOUT_DEFAULT,
            attempt_timeout: ATTEMPT_TIMEOUT,
            retries: true,
            connections_per_endpoint: 1,
            client_id: None,
            first_sequence: 1,
        }
    }
}

impl ClientOptions {
    /// Checks what can be checked without a connection.
    ///
    /// # Errors
    ///
    /// The first field that is not valid.
    pub fn validate(&self) -> Result<(), FieldError> {
        if self.endpoints.is_empty() || self.endpoints.len() > ENDPOINTS_MAX {
            let problem = format!(
                "{} given; allowed: 1 to {ENDPOINTS_MAX}",
                self.endpoints.len()
            );
            return Err(FieldError::new("endpoints", problem));
        }
        validate_keyspace_name(&self.keyspace)?;
        check_timeout("timeout", self.timeout)?;
        check_timeout("attempt_timeout", self.attempt_timeout)?;
        if !(1..=CONNECTIONS_PER_ENDPOINT_MAX).contains(&self.connections_per_endpoint) {
            let problem = format!("allowed: 1 to {CONNECTIONS_PER_ENDPOINT_MAX}");
            return Err(FieldError::new("connections_per_endpoint", problem));
        }
        if self.first_sequence == 0 {
            return Err(FieldError::new("first_sequence", "0; allowed: 1 and more"));
        }
        Ok(())
    }
}

/// Refuses times that are zero, or longer than servers take.
pub(crate) fn check_timeout(field: &'static str, timeout: Duration) -> Result<(), FieldError> {
    let longest = Duration::from_secs(TIMEOUT_MAX_SECONDS);
    if timeout < Duration::from_millis(1) || timeout > longest {
        let problem = format!("{timeout:?}; allowed: 1ms to {longest:?}");
        return Err(FieldError::new(field, problem));
    }
    Ok(())
}

/// How one read is served.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// Levels in order of preference; none: the keyspace's default.
    pub ladder: Option<Ladder>,
    /// Read as of this revision; none: the newest.
    pub at: Option<Revision>,
    /// A session token from an earlier receipt; empty: none.
    pub token: Bytes,
    /// Where what the session has seen cannot be shown in time: the best that is there, instead of
    /// an error; the receipt says what is missing.
    pub best_available: bool,
    /// Linearizable requests of one key, in keyspaces of mode mixed: see every eventual write that
    /// a majority of the key's primaries had acknowledged before.
    pub fence: bool,
    /// Instead of the client's.
    pub timeout: Option<Duration>,
}

impl ReadOptions {
    /// On the wire.
    pub(crate) fn consistency(&self) -> Result<Option<v1::Consistency>, FieldError> {
        let flags = (self.fence, self.best_available);
        consistency(self.ladder.as_ref(), &self.token, flags)
    }
}

/// How one write is served.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Levels in order of preference; none: the keyspace's default.
    pub ladder: Option<Ladder>,
    /// The key goes after this time; none: the keyspace's default. Whole milliseconds.
    pub ttl: Option<Duration>,
    /// A session token from an earlier receipt; empty: none.
    pub token: Bytes,
    /// Where what the session has seen cannot be shown in time: the best that is there, instead of
    /// an error; the receipt says what is missing.
    pub best_available: bool,
    /// Linearizable requests of one key, in keyspaces of mode mixed: see every eventual write that
    /// a majority of the key's primaries had acknowledged before.
    pub fence: bool,
    /// Puts and compare-and-sets: the key goes with this lease; none: it goes with no lease.
    pub lease: Option<LeaseId>,
    /// Instead of the client's.
    pub timeout: Option<Duration>,
    /// Take up a write of this id, which was tried before: it is applied once over all
    /// attempts. None: a new id.
    pub request_id: Option<RequestId>,
    /// When the first attempt under `request_id` was made; none: now.
    pub first_tried: Option<Timestamp>,
    /// Give up the name: a retry after a lost answer may apply the write a second time. At
    /// eventual levels that is so in any case, but for increments, which are never repeated.
    pub at_least_once: bool,
    /// Deletes only: delete if the key's revision is this one.
    pub if_revision: Option<Revision>,
    /// Eventual levels: what the write replaces, from the receipt of a read of the key. None:
    /// what the coordinator sees; empty: nothing.
    pub context: Option<Bytes>,
}

impl WriteOptions {
    /// On the wire.
    pub(crate) fn consistency(&self) -> Result<Option<v1::Consistency>, FieldError> {
        let flags = (self.fence, self.best_available);
        consistency(self.ladder.as_ref(), &self.token, flags)
    }
}

/// What one scan reads.
#[derive(Clone, Debug, Default)]
pub struct ScanOptions {
    /// Keys that start with it; or give `start` and `end`.
    pub prefix: Bytes,
    /// First key, inclusive.
    pub start: Bytes,
    /// Last key, exclusive; empty: to the end.
    pub end: Bytes,
    /// Against the order of keys.
    pub reverse: bool,
    /// Leave the values away.
    pub keys_only: bool,
    /// Rows in one page; 0: the server's limit.
    pub limit: u32,
    /// Bytes of keys and values in one page; 0: the server's limit.
    pub bytes_max: u32,
    /// From the page before; everything else must be as there. Empty: the first page.
    pub page_token: Bytes,
    /// Level, revision, token, timeout (of each page).
    pub read: ReadOptions,
}

impl ScanOptions {
    /// All keys that start with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self {
            prefix: prefix.into(),
            ..Self::default()
        }
    }
}
