//! The Rust client of Quorate, a key-value store in which every request picks its own
//! consistency.

mod admin;
mod answer;
mod attempts;
mod client;
mod endpoints;
mod environment;
mod error;
mod failure;
mod identity;
mod lane;
mod level;
pub mod limits;
mod operation;
mod options;
mod pipeline;
mod reads;
mod request;
mod retry;
mod routes;
mod scans;
mod session;
mod unary;
mod writes;

pub use admin::{Admin, KeyspaceChange};
pub use answer::{
    BatchDone, CasOutcome, Deleted, Entry, Got, History, HistoryEntry, Micros, OperationDone,
    Outcome, OutcomeState, Receipt, Role, ScanPage, TxnOutcome, Written,
};
pub use client::Client;
pub use error::{ClientError, Fate, FieldViolation, LostError, ServerError};
pub use operation::{Compare, Expect, Operation, Txn};
pub use options::{ClientOptions, ReadOptions, ScanOptions, WriteOptions};
pub use pipeline::Pipeline;
pub use request::{Request, Response};
pub use session::{SESSION_BEGIN, Session};
pub use tonic::Code;
pub use writes::PrefixDelete;
