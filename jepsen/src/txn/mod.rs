//! Transactions: from what they read and wrote to the order that they must have had, and to what
//! no such order explains.
//!
//! [`list_append`](ListAppend) and [`register`](RwRegister) infer from values which version of a
//! key came before which; `graph` holds who must then come before whom, `cycles` finds where that
//! contradicts itself, `lattice` says which consistency models that rules out. (Kingsbury and
//! Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", 2020.)

mod components;
mod cycles;
mod graph;
mod lattice;
mod list_append;
mod list_versions;
mod order;
mod register;
mod register_order;
mod store;
mod verdict;

pub use lattice::{STRICT, parse as parse_consistency};
pub use list_append::ListAppend;
pub use register::RwRegister;
