//! The export itself: pages of one snapshot, written out in a thread of their own.
//!
//! Where they are written is in `target`; how they are read is the caller's stream.

use futures::{Stream, StreamExt};
use quorate_client::{ClientError, Entry};
use tokio::sync::mpsc;

use super::Observer;
use super::error::TransferError;
use super::path::{self, Unfit};
use super::target::Target;

/// Entries handed over at a time; with a page's bytes in work on either side of the channel.
const CHUNK_ENTRIES: usize = 256;
/// Bytes of values after which a chunk is handed over.
const CHUNK_BYTES: usize = 4 << 20;
/// Chunks that wait for the disk.
const CHUNKS_AHEAD_MAX: usize = 2;

/// What an export came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportSummary {
    /// Keys that were written.
    pub keys: u64,
    /// Bytes of their values.
    pub bytes: u64,
}

/// Keys without a place that are named; the others are counted.
const REFUSED_NAMED_MAX: usize = 100;

type Chunk = Vec<Entry>;

/// Writes all entries of a stream into `target`, and gives it its name at the end.
///
/// # Errors
///
/// [`TransferError`]; the target then leaves nothing behind. Keys that cannot be files are told
/// to the observer first.
pub async fn export(
    mut target: Target,
    entries: impl Stream<Item = Result<Entry, ClientError>>,
    observer: &mut impl Observer,
) -> Result<ExportSummary, TransferError> {
    let (chunks, mut waiting) = mpsc::channel::<Chunk>(CHUNKS_AHEAD_MAX);
    let writer = tokio::task::spawn_blocking(move || {
        let mut refused = Refused::default();
        while let Some(chunk) = waiting.blocking_recv() {
            for entry in chunk {
                if let Err(unfit) = target.put(&entry.key, &entry.value)? {
                    refused.note(&entry.key, unfit);
                }
            }
        }
        Ok((target, refused))
    });
    let read = send_chunks(entries, chunks, observer).await;
    let (target, refused) = writer.await.map_err(|error| {
        let source = std::io::Error::other(error);
        TransferError::file("write", "the export", source)
    })??;
    for (name, problem) in &refused.named {
        observer.failed(name, &problem.to_string());
    }
    let summary = read?;
    if refused.count > 0 {
        return Err(TransferError::KeysUnfit {
            count: refused.count,
        });
    }
    target.finish()?;
    Ok(summary)
}

/// Keys that cannot be files.
#[derive(Default)]
struct Refused {
    count: u64,
    named: Vec<(String, Unfit)>,
}

impl Refused {
    fn note(&mut self, key: &[u8], unfit: Unfit) {
        self.count += 1;
        if self.named.len() < REFUSED_NAMED_MAX {
            self.named.push((path::shown(key), unfit));
        }
    }
}

/// Ends early when the writer is gone; its own error is then the one to tell.
async fn send_chunks(
    entries: impl Stream<Item = Result<Entry, ClientError>>,
    chunks: mpsc::Sender<Chunk>,
    observer: &mut impl Observer,
) -> Result<ExportSummary, TransferError> {
    let mut entries = std::pin::pin!(entries);
    let mut summary = ExportSummary::default();
    let mut chunk = Chunk::new();
    let mut chunk_bytes = 0;
    let mut last = String::from("the first key");
    while let Some(entry) = entries.next().await {
        let entry = entry.map_err(|source| TransferError::Stopped {
            name: last.clone(),
            source,
        })?;
        summary.keys += 1;
        summary.bytes += entry.value.len() as u64;
        chunk_bytes += entry.value.len();
        observer.advanced(1, entry.value.len() as u64);
        chunk.push(entry);
        if chunk.len() >= CHUNK_ENTRIES || chunk_bytes >= CHUNK_BYTES {
            last = chunk.last().map_or(last, |entry| path::shown(&entry.key));
            chunk_bytes = 0;
            if chunks.send(std::mem::take(&mut chunk)).await.is_err() {
                return Ok(summary);
            }
        }
    }
    // A writer that is gone tells why by itself.
    let _ = chunks.send(chunk).await;
    Ok(summary)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::SkipKind;
    use super::*;
    use bytes::Bytes;
    use quorate_types::{FieldError, Revision};

    #[derive(Default)]
    struct Heard(Vec<String>);

    impl Observer for Heard {
        fn skipped(&mut self, _kind: SkipKind, _name: &str) {}

        fn failed(&mut self, name: &str, problem: &str) {
            self.0.push(format!("{name}: {problem}"));
        }

        fn advanced(&mut self, _keys: u64, _bytes: u64) {}
    }

    fn entry(key: &str) -> Result<Entry, ClientError> {
        Ok(Entry {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::from_static(b"value"),
            revision: Revision(1),
            expires_at: None,
            dot: String::new(),
            siblings: 0,
        })
    }

    #[tokio::test]
    async fn all_keys_become_files() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("out");
        let target = Target::create(&wanted, b"").unwrap();
        let keys: Vec<_> = (0..1000)
            .map(|n| entry(&format!("d{}/{n}", n % 7)))
            .collect();
        let summary = export(target, futures::stream::iter(keys), &mut Heard::default())
            .await
            .unwrap();
        assert_eq!((summary.keys, summary.bytes), (1000, 5000));
        assert_eq!(std::fs::read(wanted.join("d6/6")).unwrap(), b"value");
    }

    #[tokio::test]
    async fn unfit_keys_are_all_named_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::create(&folder.path().join("out"), b"").unwrap();
        let keys = ["../up", "a", "a/b", "ok"].map(entry);
        let mut heard = Heard::default();
        let error = export(target, futures::stream::iter(keys), &mut heard)
            .await
            .unwrap_err();
        assert!(matches!(error, TransferError::KeysUnfit { count: 2 }));
        assert!(heard.0[0].starts_with("../up: "), "{:?}", heard.0);
        assert!(heard.0[1].starts_with("a/b: "), "{:?}", heard.0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_lost_cluster_in_the_middle_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::create(&folder.path().join("out.jsonl"), b"").unwrap();
        let broken = Err(ClientError::Invalid(FieldError::new("page_token", "old")));
        let result = export(
            target,
            futures::stream::iter([entry("a"), broken]),
            &mut Heard::default(),
        )
        .await;
        assert!(matches!(result, Err(TransferError::Stopped { .. })));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
