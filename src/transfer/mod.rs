//! Import and export: trees of files, or lines of JSON, as keys and back.
//!
//! A folder becomes one key a file, the relative path is the key, byte for byte. What is
//! already stored is not written again, so an import can be stopped at any point and repeated.
//! How progress and remarks look is the command line's part (`Observer`).

mod error;
mod export;
mod import;
mod jsonl;
mod path;
mod source;
mod target;

pub use error::TransferError;
pub use export::{ExportSummary, export};
pub use import::{ImportSummary, Store, import};
pub use jsonl::{LineError, field};
pub use path::{Unfit, shown};
pub use source::{ImportOptions, SkipKind, count_items};
pub use target::Target;

/// Who is told about single files and keys while a transfer goes on.
pub trait Observer {
    /// Something that is no file was passed over.
    fn skipped(&mut self, kind: SkipKind, name: &str);
    /// One file or key failed; the others go on.
    fn failed(&mut self, name: &str, problem: &str);
    /// So many keys and bytes have been dealt with since the last call.
    fn advanced(&mut self, keys: u64, bytes: u64);
}
