//! The availability lab: the same clients on both sides of one cut, at every level at once.
//!
//! [`compare`] is one run: whole for a while, cut in two, whole again. Each level has its own
//! stream of calls on each side ([`probe`]), and each call is a [`sample`]. What they come to is
//! plain code over these values: `ledger` (what was lost, how old a read was), `tally`
//! (the numbers), `page` (the pictures). Stores are behind `target`; nothing else knows which one
//! it is. Correctness through arbitrary faults is not looked at here: that is `quorate jepsen run`.

mod etcd;
mod http;
mod ledger;
mod load;
mod options;
mod page;
mod probe;
mod quorate;
mod results;
mod run;
mod sample;
mod sides;
mod table;
mod tally;
mod target;

pub use options::{CompareOptions, ComparePlan, CutShape, LeaderSide, TargetKind};
pub use page::html;
pub use results::Comparison;
pub use run::{Stage, compare};
pub use table::{HEADS, LEGEND};
