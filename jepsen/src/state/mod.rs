//! Checkers of one promise each: what was added is there, sums add up, money is kept.
//!
//! They prove less than an order of all operations would, and need no search.

mod bank;
mod counter;
mod long_fork;
mod set;
mod set_full;
mod watch;

pub use bank::Bank;
pub use counter::Counter;
pub use long_fork::{GROUP_SIZE_DEFAULT_KEYS, LongFork};
pub use set::Set;
pub use set_full::SetFull;
pub use watch::Watch;
