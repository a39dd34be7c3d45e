//! Bits that flip in the files of a node that does not run. It must say data loss, or serve what
//! is right; said so, another node takes its place, as an operator would have it.
//!
//! The node is stopped in order first, so that its log is sealed: after a kill the last batch that
//! is damaged cannot be told from one that was never whole, in any log. One node of a run has
//! damage at a time, since two might hold the only copies of a write.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disturb::{Actor, CUT};
use crate::error::LabError;
use crate::random::Random;

/// Flips of one fault.
const FLIPS_MAX: usize = 3;
/// Where nobody has written yet, nothing can be damaged: so many files are tried.
const TRIES_MAX: usize = 50;
/// A node that has neither ended nor served after this is not waited for: it may be cut off.
const SAYS_MAX: Duration = Duration::from_secs(8);

impl Actor {
    pub(super) async fn flip_bits(&mut self) -> Result<(), LabError> {
        let cluster = self.scene.cluster.clone();
        cluster.replace_lost().await?;
        let victim = match cluster.damaged().await {
            Some(node) => node,
            None if cluster.spares_left() == 0 => {
                self.waited(CUT).await;
                return Ok(());
            }
            None => self.any()[0],
        };
        let what = format!("node {victim}");
        let begin = self.begin(&what);
        cluster.set_damaged(victim).await;
        cluster.node(victim).await.stop().await?;
        let flips = 1 + self.random.below(FLIPS_MAX);
        let dir = cluster.folder(victim);
        let flipped: Vec<String> = (0..flips)
            .filter_map(|_| flip(&dir, &mut self.random))
            .collect();
        cluster.start_node(victim).await?;
        let served = cluster.serves(victim, SAYS_MAX).await;
        let exit = cluster.exit_of(victim).await;
        let (said, breach) = match (&served, exit) {
            (Ok(_), _) => ("it serves".to_owned(), None),
            (Err(_), Some(DATA_LOSS)) => ("it says data loss".to_owned(), None),
            (Err(_), Some(code)) => {
                let breach = format!("node {victim} with flipped bits ended with exit {code}");
                (format!("it ended with exit {code}"), Some(breach))
            }
            (Err(problem), None) => (format!("it does not serve yet: {problem}"), None),
        };
        cluster.replace_lost().await?;
        let proof = (!flipped.is_empty()).then(|| format!("{}: {said}", flipped.join(", ")));
        self.end_with(begin, what, proof, breach);
        Ok(())
    }
}

/// How a node that has lost data ends.
pub(crate) const DATA_LOSS: i32 = 7;

/// Flips a bit of a byte that somebody has written, and says where.
fn flip(dir: &Path, random: &mut Random) -> Option<String> {
    let files: Vec<PathBuf> = files(dir);
    for _ in 0..TRIES_MAX.min(files.len() * 4) {
        let path = random.pick(&files);
        let mut bytes = fs::read(path).ok()?;
        let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else {
            continue;
        };
        let from = random.below(last + 1);
        let written = bytes[from..].iter().position(|byte| *byte != 0);
        let at = from + written.expect("the last byte that was written is one");
        bytes[at] ^= 1 << random.below(8);
        fs::write(path, bytes).ok()?;
        let name = path.strip_prefix(dir).unwrap_or(path);
        return Some(format!("a bit at {at} of {}", name.display()));
    }
    None
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => files.push(path),
            }
        }
    }
    // Folders list in any order; the seed decides.
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn one_bit_of_what_was_written_is_flipped() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        let path = dir.path().join("log/segment");
        let before = [vec![0; 500], vec![7; 500]].concat();
        fs::write(&path, &before).unwrap();
        let said = flip(dir.path(), &mut Random::of(1, 0)).unwrap();
        assert!(said.contains("log/segment"), "{said}");
        let after = fs::read(&path).unwrap();
        let changed = before.iter().zip(&after).filter(|(a, b)| a != b);
        let changed: Vec<_> = changed.map(|(a, b)| (a ^ b).count_ones()).collect();
        assert_eq!(changed, [1]);
        assert_eq!(before[..500], after[..500], "where nobody has written");
    }
}
