//! The eventual path: any reachable holder of a range takes a write, stand-ins keep hints for
//! holders that are away, and repair brings all of them to the same bytes.
//!
//! Start at [`EventualNode`] (a node's part of it). `replica` is what a node holds of a range, in
//! the node log and the engine; `coordinator` serves writes and `read` reads, `spread` and `lanes` bring a
//! write's copies to its holders; `hand_over` brings hints
//! home; `repair` compares hash trees (`tree`); `closing` forgets the gaps of starts that are over. `quorum`, `hints` and `tree` are pure code. The
//! rules of causality are `quorate_types::causal`'s.
//!
//! Not here: consensus, and the transport: what this crate sees of other nodes and of the catalog
//! are the traits of `seam`.

mod absorb;
mod closing;
mod coordinator;
mod decide;
mod error;
mod estimates;
mod faults;
mod fence;
mod hand_over;
pub mod hints;
mod lanes;
mod latency;
mod names;
mod node;
pub mod outlook;
pub mod quorum;
mod read;
mod repair;
mod replica;
mod report;
mod rows;
mod scan;
mod seam;
mod spread;
mod step;
pub mod tree;

pub use coordinator::{SeenBefore, WriteDone, WriteRequest, WriteRung};
pub use error::EventualError;
#[doc(hidden)]
pub use faults::{Faults, Witness};
pub use node::{Answer, EventualNode, EventualOptions, WeakEventualNode};
pub use read::{ReadDone, ReadRequest, Wanted};
pub use repair::Repaired;
pub use replica::{FoundVisible, VisibleFollower, VisiblePlace, VisibleWrite};
pub use report::{BackgroundWork, RangeReport};
pub use scan::{ScanDone, ScanRequest};
pub use seam::{Decisions, KeysPage, NoLogs, PeerFailure, Peers, Place, Places, Proposal};
