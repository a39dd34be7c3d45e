//! A target that counts what succeeds, the warm-up included: what a cost is divided by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate::bench::{BenchError, Connection, Operation, Target};

/// Counts successes.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Successes so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A target, counted.
#[derive(Debug)]
pub struct Counted<T> {
    target: T,
    counter: Counter,
}

/// One client of a counted target.
#[derive(Debug)]
pub struct CountedConnection<C> {
    connection: C,
    counter: Counter,
}

impl<T> Counted<T> {
    /// Counts the successes of `target` in `counter`.
    pub fn new(target: T, counter: Counter) -> Self {
        Self { target, counter }
    }
}

impl<T: Target> Target for Counted<T> {
    type Connection = CountedConnection<T::Connection>;

    async fn connect(&self, client: usize, depth: usize) -> Result<Self::Connection, BenchError> {
        Ok(CountedConnection {
            connection: self.target.connect(client, depth).await?,
            counter: self.counter.clone(),
        })
    }
}

impl<C: Connection> Connection for CountedConnection<C> {
    async fn perform(&self, operation: Operation) -> Result<(), String> {
        let result = self.connection.perform(operation).await;
        if result.is_ok() {
            self.counter.0.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}
