//! The client's own named limits; those of the surface are in `quorate_types::limits`.

use std::time::Duration;

/// Requests of one pipeline that may be in flight; more wait their turn.
pub const PIPELINE_IN_FLIGHT_MAX: usize = 512;

/// Bytes of keys and values of one pipeline that may be in flight, in KiB; more wait. One
/// request that is larger goes alone.
pub const PIPELINE_IN_FLIGHT_MAX_KIB: u32 = 64 << 10;

/// Longest time to make a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a connection may be silent before it is asked for a sign of life, and how long
/// that may take: a hung or cut-off server is noticed after the sum.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Time of the first attempt of a request; each attempt that runs out of time doubles it for
/// the next, so that what is merely slow gets done.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Shortest time that a further attempt is worth. A shorter one would only be cut off, and
/// put an unknown outcome in the place of a clear refusal.
pub const RETRY_TIME_MIN: Duration = Duration::from_millis(50);

/// How much longer the client waits for an attempt than it gives the server: the server's
/// own account of what failed says more than silence.
pub const ATTEMPT_GRACE: Duration = Duration::from_millis(50);

/// Longest pause between two attempts of which nothing better is known.
pub const BACKOFF_MAX: Duration = Duration::from_millis(200);

/// First pause; each further one doubles up to [`BACKOFF_MAX`].
pub const BACKOFF_FIRST: Duration = Duration::from_millis(5);

/// Longest pause that a server's suggestion is followed for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);

/// How long an endpoint that failed is passed over while others are well.
pub const ENDPOINT_REST: Duration = Duration::from_secs(1);

/// Most numbers from a client's oldest unfinished write to its newest. No more than the
/// results that a range remembers of one client (1024).
pub const SEQUENCE_SPREAD_MAX: usize = 1024;

/// How often a write that came too late for the exactly-once window is named anew.
pub const RENAMES_MAX: u32 = 2;

/// Most endpoints of one client.
pub const ENDPOINTS_MAX: usize = 64;

/// Most connections to one endpoint.
pub const CONNECTIONS_PER_ENDPOINT_MAX: usize = 16;

/// Requests to a keyspace before the client learns where its keys live: a client that asks
/// once and ends does not pay for it.
pub const LEARN_AFTER_REQUESTS: u64 = 16;

/// Shortest time between two lessons about where keys live.
pub const LEARN_PAUSE: Duration = Duration::from_secs(2);

/// HTTP/2 flow control windows, bytes: of one stream, of one connection.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// See [`STREAM_WINDOW_BYTES`].
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
