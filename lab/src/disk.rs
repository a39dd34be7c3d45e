//! What a node's disk is told to do wrong, and what it tells: two files beside the node's data, by
//! which a server that was started with `--disk-fault-file` has its faults. Killed, such a server
//! loses what it had not synced.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::LabError;

/// The files of one node's disk.
#[derive(Clone, Debug)]
pub(crate) struct DiskFiles {
    orders: PathBuf,
}

/// What a disk has done since its process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Bytes written and not synced, now: what a kill drops.
    pub(crate) held_bytes: u64,
    /// Syncs that took longer.
    pub(crate) slowed: u64,
    /// Writes for which there was no room.
    pub(crate) refused: u64,
    /// Syncs that failed.
    pub(crate) failed: u64,
}

impl DiskFiles {
    pub(crate) fn of(node: usize, data: &Path) -> Self {
        Self {
            orders: data.join(format!("disk-{node}")),
        }
    }

    /// What the server is to be told.
    pub(crate) fn path(&self) -> &Path {
        &self.orders
    }

    /// Tells the disk what is wrong with it from now on; nothing: it is well.
    pub(crate) fn order(&self, text: &str) -> Result<(), LabError> {
        // As a whole: half an order would be another one.
        let unfinished = self.orders.with_extension("new");
        fs::write(&unfinished, text)
            .and_then(|()| fs::rename(&unfinished, &self.orders))
            .map_err(|error| LabError::file(&self.orders, error))
    }

    /// What the process that runs, or ran last, has told.
    pub(crate) fn tally(&self) -> Tally {
        let mut path = self.orders.clone().into_os_string();
        path.push(".tally");
        // A process that has not come so far has done nothing.
        let text = fs::read_to_string(path).unwrap_or_default();
        Tally::read(&text)
    }
}

impl Tally {
    fn read(text: &str) -> Self {
        let number = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            let found = lines.find(|(word, _)| *word == name);
            found
                .and_then(|(_, number)| number.parse().ok())
                .unwrap_or(0)
        };
        Self {
            held_bytes: number("held"),
            slowed: number("slowed"),
            refused: number("refused"),
            failed: number("failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_are_words_and_numbers() {
        let tally = Tally::read("held 512\nslowed 3\nrefused 0\nfailed 2\n\n\n");
        let wanted = Tally {
            held_bytes: 512,
            slowed: 3,
            refused: 0,
            failed: 2,
        };
        assert_eq!(tally, wanted);
        assert_eq!(Tally::read(""), Tally::default());
    }
}
