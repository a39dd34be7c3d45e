//! The words of Quorate as types: ids, encoded keys, the hybrid clock, levels,
//! keyspace options, the ring, and the vocabulary of errors.
//!
//! Everything here is a plain value or a pure function of its arguments. What is
//! *not* here, by rule: input and output, reading a clock, drawing a random number,
//! async. Time is always an argument.

pub mod causal;
pub mod duration;
pub mod error;
pub mod ids;
pub mod key;
pub mod ladder;
pub mod level;
pub mod limits;
pub mod options;
pub mod percentile;
pub mod ring;
pub mod served;
pub mod stable_hash;
pub mod time;

mod hex;

pub use causal::{Actor, Context, Dot};
pub use duration::{format_duration, parse_duration};
pub use error::{Effect, FieldError, ParseError, Reason, chain};
pub use ids::{ClientId, KeyspaceId, LeaseId, NodeId, RangeId, RequestHandle, RequestId};
pub use key::{
    KeyInterval, Partitioning, RESERVED_PREFIX, decode_key, encode_key, keyspace_interval,
    partition_interval, prefix_end, user_interval,
};
pub use ladder::{Ladder, Rung};
pub use level::{Ack, Copies, Level, LevelError, ReadLevel, WriteLevel};
pub use options::{
    Api, ConflictPolicy, KeyspaceOptions, Mode, PrefixQuota, validate_keyspace_name,
};
pub use percentile::per_mille;
pub use ring::{Placement, Ring, RingNode};
pub use served::{Operation, Refusal, default_level, served, served_ladder};
pub use stable_hash::{stable_hash, stable_hash_both};
pub use time::{ClockOffsetError, HybridClock, Revision, Timestamp};
