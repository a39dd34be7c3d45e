//! What can be measured: the narrow seam between the load and a store.
//!
//! Not here: when and how often (see `load`).

use std::future::Future;

use bytes::Bytes;

use super::BenchError;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Write a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// Read a key that is there.
    Get {
        /// The key.
        key: Bytes,
    },
    /// Read so many rows from a key on.
    Scan {
        /// The first key.
        start: Bytes,
        /// At most so many.
        rows: u32,
    },
}

/// A store under load.
pub trait Target: Send + Sync + 'static {
    /// What one client holds.
    type Connection: Connection;

    /// Sets up one client that will have up to `depth` requests in flight.
    fn connect(
        &self,
        client: usize,
        depth: usize,
    ) -> impl Future<Output = Result<Self::Connection, BenchError>> + Send;
}

/// One client's way to the store. Its requests may be in flight together.
pub trait Connection: Send + Sync + 'static {
    /// Does one request; the error is its message.
    fn perform(&self, operation: Operation) -> impl Future<Output = Result<(), String>> + Send;
}
