//! The named limits that several crates share. Limits of one crate live in that crate.
//!
//! A limit's unit is the last word of its name, unless its type already says it.

use std::time::Duration;

/// Longest user key. A keyspace may set its own limit below it.
pub const KEY_MAX_BYTES: usize = 4096;

/// Largest value of a keyspace that names no limit of its own.
pub const VALUE_MAX_BYTES_DEFAULT: usize = 1 << 20;

/// The highest limit for values that a keyspace can set.
pub const VALUE_MAX_BYTES_CAP: usize = 16 << 20;

/// Largest message between client and node and between nodes: one value at its cap
/// with its key, context and envelope, and room to spare.
pub const MESSAGE_MAX_BYTES: usize = 24 << 20;

/// Most rows in one page of a scan.
pub const SCAN_ROWS_MAX: usize = 10_000;

/// Most bytes of keys and values in one page of a scan; the row that crosses it is the last.
pub const SCAN_BYTES_MAX: usize = 4 << 20;

/// Most operations in one batch.
pub const BATCH_OPERATIONS_MAX: usize = 4096;

/// Most operations in one branch of a transaction, and most compares in it: a folder of
/// configuration with thousands of files changes in one step. What it may carry in bytes is
/// limited by the message.
pub const TXN_OPERATIONS_MAX: usize = 10_000;

/// Longest time that a request may ask to be given.
pub const TIMEOUT_MAX_SECONDS: u64 = 3600;

/// Time given to a request that names none.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// How far a clock may be from ours (`max_clock_offset`) before its time is not adopted.
pub const CLOCK_OFFSET_MAX: Duration = Duration::from_millis(500);

/// Most primaries of a range.
pub const REPLICATION_MAX: u8 = 9;

/// Primaries of a range in a keyspace that names no number.
pub const REPLICATION_DEFAULT: u8 = 3;

/// How long superseded versions stay readable in a keyspace that says nothing about it.
pub const HISTORY_DEFAULT: Duration = Duration::from_secs(300);

/// The longest history that a keyspace can ask for: thirty days.
pub const HISTORY_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The longest time to live: ten years. What should live longer has none.
pub const TTL_MAX: Duration = Duration::from_secs(3650 * 86_400);

/// The shortest time to live of a lease: below it the way of a keep-alive is most of its time.
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(1);

/// The longest time to live of a lease: thirty days. What should live longer has none.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Most leases that one range keeps.
pub const LEASES_MAX: usize = 262_144;

/// Most keys of one range that are attached to one lease: they go with one entry.
pub const LEASE_KEYS_MAX: usize = 10_000;

/// Most keep-alives in one request.
pub const KEEP_ALIVES_MAX: usize = 4096;

/// Most partitions of a keyspace with `hash(n)`.
pub const PARTITIONS_MAX: u16 = 4096;

/// Most schemas of one keyspace: the catalog, which all nodes hold, keeps them.
pub const SCHEMAS_MAX: usize = 64;

/// Longest schema.
pub const SCHEMA_MAX_BYTES: usize = 64 << 10;

/// Most prefixes of one keyspace that have a quota: each write is held against all of them.
pub const PREFIX_QUOTAS_MAX: usize = 64;

/// Longest keyspace name.
pub const KEYSPACE_NAME_MAX_BYTES: usize = 128;

/// Most rungs of a ladder.
pub const LADDER_RUNGS_MAX: usize = 8;

/// The longest duration that the command line takes: a hundred years. Each setting has a
/// lower limit of its own; this one keeps arithmetic in nanoseconds inside 64 bits.
pub const DURATION_MAX: Duration = Duration::from_secs(36_500 * 86_400);

/// Heaviest node of the ring; a larger weight counts as this one.
pub const NODE_WEIGHT_MAX: u32 = 1024;

/// Most characters of a refused input that an error repeats.
pub const ERROR_INPUT_MAX_CHARACTERS: usize = 80;
