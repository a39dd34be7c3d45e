//! The wire and log messages of Quorate: generated code, and conversions to the types of
//! `quorate-types`. No logic lives here.

pub mod changes;
mod generated;
pub mod options;

pub use generated::quorate::{internal::v1 as internal, v1};

/// etcd's v3 API.
pub mod etcd {
    pub use crate::generated::{etcdserverpb, mvccpb, v3electionpb, v3lockpb};
}

/// Encoded descriptors of etcd's v3 API, for reflection and for JSON.
pub const ETCD_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/etcd_v3.bin"));

/// Encoded descriptors of the public surface (`quorate.v1`), for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quorate_v1.bin"));
