//! What a faulty disk is told to do, by a file that is looked at before each write and sync, and
//! what it tells of itself, in a file beside that one: the process may be killed at any time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::disk::sim::Dice;

/// Longer than a tally ever is: a shorter one leaves nothing of a longer one behind.
const TALLY_BYTES: usize = 128;

/// What is wrong with the disk now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    /// Each sync takes so much longer.
    pub(super) sync_slower: Duration,
    /// Nothing more fits.
    pub(super) full: bool,
    /// Syncs fail.
    pub(super) sync_error: bool,
    /// So many of a hundred sectors reach the disk before any sync.
    pub(super) write_back_percent: u64,
}

impl Orders {
    /// Words that nobody knows are passed over: whoever writes them looks at the tally.
    fn read(text: &str) -> Self {
        let mut orders = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let word = words.next().unwrap_or_default();
            let number = words.next().and_then(|word| word.parse().ok());
            match word {
                "sync-ms" => orders.sync_slower = Duration::from_millis(number.unwrap_or(0)),
                "write-back" => orders.write_back_percent = number.unwrap_or(0),
                "full" => orders.full = true,
                "sync-error" => orders.sync_error = true,
                _ => {}
            }
        }
        orders
    }
}

/// The two files.
#[derive(Debug)]
pub(super) struct Desk {
    path: PathBuf,
    tally: File,
    dice: Mutex<Dice>,
    pub(super) held_bytes: AtomicU64,
    pub(super) slowed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Desk {
    pub(super) fn open(path: &Path, seed: u64) -> io::Result<Self> {
        let desk = Self {
            tally: File::create(super::tally_path(path))?,
            path: path.to_owned(),
            dice: Mutex::new(Dice::new(seed)),
            held_bytes: AtomicU64::new(0),
            slowed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        desk.tell();
        Ok(desk)
    }

    /// What holds now. A file that is not there orders nothing.
    pub(super) fn orders(&self) -> Orders {
        Orders::read(&std::fs::read_to_string(&self.path).unwrap_or_default())
    }

    /// True in so many of a hundred cases.
    pub(super) fn percent(&self, percent: u64) -> bool {
        self.dice.lock().percent(percent)
    }

    pub(super) fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    /// A file's held bytes were so many before, and are so many now.
    pub(super) fn holds(&self, before: u64, now: u64) {
        if before == now {
            return;
        }
        self.held_bytes.fetch_add(now, Ordering::Relaxed);
        self.held_bytes.fetch_sub(before, Ordering::Relaxed);
        self.tell();
    }

    /// The tally is for whoever makes the faults; a disk that cannot tell is still one.
    fn tell(&self) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut text = format!(
            "held {}\nslowed {}\nrefused {}\nfailed {}\n",
            get(&self.held_bytes),
            get(&self.slowed),
            get(&self.refused),
            get(&self.failed)
        );
        while text.len() < TALLY_BYTES {
            text.push('\n');
        }
        drop(self.tally.write_all_at(text.as_bytes(), 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_words_on_lines() {
        let orders = Orders::read("sync-ms 40\nwrite-back 30\nfull\n");
        let wanted = Orders {
            sync_slower: Duration::from_millis(40),
            full: true,
            sync_error: false,
            write_back_percent: 30,
        };
        assert_eq!(orders, wanted);
        assert_eq!(Orders::read(""), Orders::default());
        assert!(Orders::read("sync-error").sync_error);
    }
}
