//! The import itself: compares each key with what is stored, and writes what differs, many at
//! a time.
//!
//! Where the input comes from is in `source`; how requests travel is the `Store`'s business.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quorate_client::ClientError;
use quorate_types::{Effect, Reason};

use super::Observer;
use super::error::TransferError;
use super::source::{self, Found, ImportOptions, Item, SkipKind};

/// Keys that are compared or written at a time.
const IMPORT_IN_FLIGHT_MAX: usize = 256;

/// What an import reads and writes.
pub trait Store {
    /// The value of a key, as an earlier import has left it; none: no such key.
    fn get(&self, key: Bytes) -> impl Future<Output = Result<Option<Bytes>, ClientError>>;
    /// Writes a key.
    fn put(&self, key: Bytes, value: Bytes) -> impl Future<Output = Result<(), ClientError>>;
}

/// What an import came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// Keys that were written.
    pub written: u64,
    /// Keys that had their value already.
    pub unchanged: u64,
    /// What is no file, by kind.
    pub skipped: BTreeMap<SkipKind, u64>,
    /// Files or lines that failed.
    pub failed: u64,
    /// Bytes of the values that were written.
    pub bytes_written: u64,
    /// Stopped before the end of the input.
    pub interrupted: bool,
}

enum Done {
    Written(u64),
    Unchanged(u64),
}

/// Imports until the input ends, `stop` completes, or the cluster cannot go on.
///
/// The summary is of what was done, also beside an error that ended it early.
pub async fn import<S: Store>(
    store: &S,
    options: ImportOptions,
    observer: &mut impl Observer,
    stop: impl Future<Output = ()>,
) -> (ImportSummary, Result<(), TransferError>) {
    let mut summary = ImportSummary::default();
    let mut found = match source::open(options) {
        Ok(found) => found,
        Err(error) => return (summary, Err(error)),
    };
    let mut stop = pin!(stop);
    let mut in_flight = FuturesUnordered::new();
    let mut open = true;
    let mut broken = None;
    while open || !in_flight.is_empty() {
        tokio::select! {
            biased;
            () = &mut stop, if open => {
                summary.interrupted = true;
                open = false;
            }
            Some((name, result)) = in_flight.next(), if !in_flight.is_empty() => {
                if let Err(error) = settle(&mut summary, observer, name, result) {
                    open = false;
                    broken.get_or_insert(error);
                }
            }
            next = found.recv(), if open && in_flight.len() < IMPORT_IN_FLIGHT_MAX => match next {
                Some(Found::Item(item)) => in_flight.push(transfer(store, item)),
                Some(Found::Skipped { kind, name }) => {
                    *summary.skipped.entry(kind).or_default() += 1;
                    observer.skipped(kind, &name);
                }
                Some(Found::Failed { name, problem }) => {
                    book_failure(&mut summary, observer, &name, &problem);
                }
                None => open = false,
            },
        }
    }
    let result = verdict(&summary, broken);
    (summary, result)
}

fn verdict(summary: &ImportSummary, broken: Option<TransferError>) -> Result<(), TransferError> {
    match broken {
        Some(error) => Err(error),
        None if summary.interrupted => Err(TransferError::Interrupted),
        None if summary.failed > 0 => Err(TransferError::Incomplete {
            failed: summary.failed,
        }),
        None => Ok(()),
    }
}

async fn transfer<S: Store>(store: &S, item: Item) -> (String, Result<Done, ClientError>) {
    let Item {
        key,
        value,
        name,
        share,
    } = item;
    let size_bytes = value.len() as u64;
    let result = async {
        if store.get(key.clone()).await?.as_ref() == Some(&value) {
            return Ok(Done::Unchanged(size_bytes));
        }
        store.put(key, value).await?;
        Ok(Done::Written(size_bytes))
    }
    .await;
    drop(share);
    (name, result)
}

/// Books one key. An error that the next key would meet as well ends the import.
fn settle(
    summary: &mut ImportSummary,
    observer: &mut impl Observer,
    name: String,
    result: Result<Done, ClientError>,
) -> Result<(), TransferError> {
    match result {
        Ok(Done::Written(bytes)) => {
            summary.written += 1;
            summary.bytes_written += bytes;
            observer.advanced(1, bytes);
        }
        Ok(Done::Unchanged(bytes)) => {
            summary.unchanged += 1;
            observer.advanced(1, bytes);
        }
        Err(source) if concerns_all(&source) => {
            return Err(TransferError::Stopped { name, source });
        }
        Err(error) => {
            book_failure(summary, observer, &name, &error.to_string());
        }
    }
    Ok(())
}

/// Whether the error is about the cluster or the keyspace, and not about one key.
fn concerns_all(error: &ClientError) -> bool {
    match error.reason() {
        // A key that is refused for what it is was refused on every attempt.
        Some(
            Reason::KeyEmpty
            | Reason::KeyTooLong
            | Reason::ValueTooLong
            | Reason::SchemaViolated
            | Reason::FieldInvalid,
        ) => false,
        Some(
            Reason::KeyspaceNotFound
            | Reason::LevelNotServed
            | Reason::NotImplemented
            | Reason::PolicyMismatch
            | Reason::QuotaExceeded,
        ) => true,
        Some(_) | None => error.effect() == Effect::Unknown || error.is_retryable(),
    }
}

fn book_failure(
    summary: &mut ImportSummary,
    observer: &mut impl Observer,
    name: &str,
    problem: &str,
) {
    summary.failed += 1;
    observer.advanced(1, 0);
    observer.failed(name, problem);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use quorate_types::FieldError;

    use super::*;

    /// A store in memory that refuses values over a limit.
    #[derive(Default)]
    struct Memory {
        values: RefCell<HashMap<Bytes, Bytes>>,
        puts: RefCell<u64>,
    }

    const MEMORY_VALUE_MAX_BYTES: usize = 100;

    impl Store for Memory {
        async fn get(&self, key: Bytes) -> Result<Option<Bytes>, ClientError> {
            Ok(self.values.borrow().get(&key).cloned())
        }

        async fn put(&self, key: Bytes, value: Bytes) -> Result<(), ClientError> {
            if value.len() > MEMORY_VALUE_MAX_BYTES {
                let problem = format!("at most {MEMORY_VALUE_MAX_BYTES} bytes");
                return Err(ClientError::Invalid(FieldError::new("value", problem)));
            }
            *self.puts.borrow_mut() += 1;
            self.values.borrow_mut().insert(key, value);
            Ok(())
        }
    }

    #[derive(Default)]
    struct Heard {
        failed: Vec<(String, String)>,
        skipped: Vec<(SkipKind, String)>,
        keys: u64,
    }

    impl Observer for Heard {
        fn skipped(&mut self, kind: SkipKind, name: &str) {
            self.skipped.push((kind, name.to_owned()));
        }

        fn failed(&mut self, name: &str, problem: &str) {
            self.failed.push((name.to_owned(), problem.to_owned()));
        }

        fn advanced(&mut self, keys: u64, _bytes: u64) {
            self.keys += keys;
        }
    }

    async fn run(store: &Memory, path: &Path, prefix: &str) -> (ImportSummary, Heard) {
        let options = ImportOptions {
            path: path.to_owned(),
            prefix: Bytes::copy_from_slice(prefix.as_bytes()),
            follow_links: false,
        };
        let mut heard = Heard::default();
        let (summary, _) = import(store, options, &mut heard, std::future::pending()).await;
        (summary, heard)
    }

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("sub/deep")).unwrap();
        std::fs::create_dir(at("bare")).unwrap();
        std::fs::write(at("sub/deep/größe"), b"12").unwrap();
        std::fs::write(at("sub/with space"), b"x").unwrap();
        std::fs::write(at("empty"), b"").unwrap();
        symlink("empty", at("link")).unwrap();
        folder
    }

    #[tokio::test]
    async fn a_tree_becomes_keys_and_a_second_import_writes_nothing() {
        let (folder, store) = (tree(), Memory::default());
        let (summary, heard) = run(&store, folder.path(), "p/").await;
        assert_eq!(
            (summary.written, summary.unchanged, summary.failed),
            (3, 0, 0)
        );
        assert_eq!(
            heard.skipped,
            [
                (SkipKind::EmptyFolder, "bare".to_owned()),
                (SkipKind::SymbolicLink, "link".to_owned()),
            ]
        );
        let mut keys: Vec<Bytes> = store.values.borrow().keys().cloned().collect();
        keys.sort();
        assert_eq!(keys, ["p/empty", "p/sub/deep/größe", "p/sub/with space"]);

        let (again, _) = run(&store, folder.path(), "p/").await;
        assert_eq!((again.written, again.unchanged), (0, 3));
        assert_eq!(*store.puts.borrow(), 3);
    }

    #[tokio::test]
    async fn only_what_differs_is_written() {
        let (folder, store) = (tree(), Memory::default());
        run(&store, folder.path(), "").await;
        std::fs::write(folder.path().join("empty"), b"no more").unwrap();
        let (summary, _) = run(&store, folder.path(), "").await;
        assert_eq!((summary.written, summary.unchanged), (1, 2));
    }

    #[tokio::test]
    async fn a_file_that_fails_is_named_and_the_others_go_on() {
        let (folder, store) = (tree(), Memory::default());
        std::fs::write(folder.path().join("big"), vec![0; 101]).unwrap();
        let (summary, heard) = run(&store, folder.path(), "").await;
        assert_eq!((summary.written, summary.failed), (3, 1));
        assert_eq!(heard.failed[0].0, "big");
        assert!(heard.failed[0].1.contains("at most 100 bytes"));
        assert_eq!(heard.keys, 4);
    }

    #[tokio::test]
    async fn lines_are_imported_and_wrong_ones_named_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.jsonl");
        let lines = "{\"key\":\"a\",\"value\":\"1\"}\n\ngarbage\n\
                     {\"key\":\"a\",\"value\":\"2\"}\n{\"key_base64\":\"/w==\",\"value\":\"\"}";
        std::fs::write(&path, lines).unwrap();
        let store = Memory::default();
        let (summary, heard) = run(&store, &path, "").await;
        assert_eq!((summary.written, summary.failed), (2, 2));
        assert!(heard.failed[0].0.ends_with("line 3"), "{:?}", heard.failed);
        assert!(heard.failed[1].0.ends_with("line 4"), "{:?}", heard.failed);
        assert_eq!(store.values.borrow()[&b"a"[..]], "1");
    }

    #[tokio::test]
    async fn what_cannot_be_imported_is_refused() {
        let folder = tree();
        for (name, expected) in [("empty", "neither a folder nor"), ("none", "cannot import")] {
            let options = ImportOptions {
                path: folder.path().join(name),
                prefix: Bytes::new(),
                follow_links: false,
            };
            let mut heard = Heard::default();
            let store = Memory::default();
            let (_, result) = import(&store, options, &mut heard, std::future::pending()).await;
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[tokio::test]
    async fn a_stopped_import_says_so_and_can_be_repeated() {
        let (folder, store) = (tree(), Memory::default());
        let options = ImportOptions {
            path: folder.path().to_owned(),
            prefix: Bytes::new(),
            follow_links: false,
        };
        let mut heard = Heard::default();
        let (summary, result) = import(&store, options, &mut heard, std::future::ready(())).await;
        assert!(summary.interrupted);
        assert!(matches!(result, Err(TransferError::Interrupted)));
        let (summary, _) = run(&store, folder.path(), "").await;
        assert_eq!(summary.written + summary.unchanged, 3);
    }
}
