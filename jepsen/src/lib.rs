//! Histories of concurrent operations, and checkers that say whether a store kept its promise.
//!
//! [`history`] reads recordings; each [`Model`] has a [`Checker`] that takes their operations one
//! by one and ends with a [`Report`]. All of it is plain code over values: no async, no clock, no
//! randomness. Time comes in as a [`Budget`]'s closure, files as readers.
//!
//! What each checker proves, and what it does not, is in `docs/JEPSEN.md`.

pub mod budget;
pub mod causal;
pub mod checker;
pub mod hash;
pub mod history;
pub mod independent;
pub mod intern;
pub mod linear;
pub mod model;
pub mod picture;
pub mod report;
pub mod state;
pub mod txn;
pub mod value;

pub use budget::{Budget, Spent};
pub use checker::{Checker, Misfit};
pub use model::{CheckError, Model, Options, check};
pub use report::{Finding, Report, Verdict};
