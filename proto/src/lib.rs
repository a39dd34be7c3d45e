//! The wire and log messages of Quorate: generated code, and conversions to the types of
//! `quorate-types`. No logic lives here.

pub mod changes;
mod generated;
pub mod options;

pub use generated::quorate::{internal::v1 as internal, v1};

/// Encoded descriptors of the public surface (`quorate.v1`), for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quorate_v1.bin"));
