//! The node's hybrid clock: the seam's clock, made strictly increasing.

use std::sync::Arc;

use parking_lot::Mutex;
use quorate_types::limits::CLOCK_OFFSET_MAX;
use quorate_types::{HybridClock, Timestamp};

use crate::seam::Clock;

/// One hybrid clock for all groups of a node.
#[derive(Debug)]
pub struct NodeClock {
    clock: Arc<dyn Clock>,
    hybrid: Mutex<HybridClock>,
}

impl NodeClock {
    /// A hybrid clock over `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> NodeClock {
        NodeClock {
            clock,
            hybrid: Mutex::new(HybridClock::new(CLOCK_OFFSET_MAX)),
        }
    }

    /// The wall clock, as the seam has it.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A timestamp above all earlier ones of this node.
    pub fn tick(&self) -> Timestamp {
        let now = self.clock.now();
        self.hybrid.lock().tick(now)
    }
}
