//! Stories: scripts of a cluster's life with what is seen of it, in the manner of toydb's tests. A
//! story is text: comments, then blocks of commands, each with its output beneath.
//!
//! ```text
//! # What is told, in three sentences.
//!
//! put mixed a=1 at 1 linearizable
//! ---
//! done: linearizable, by n1 as leader, revision r1
//! ```
//!
//! Not here: what commands do (`scene`).

use crate::alone::{hear_panics, heard_panics, seeded_runtime};
use crate::scene::Scene;

/// Ends a block's commands; its output follows, up to an empty line.
const MARK: &str = "---";
/// The seed of all stories.
const SEED: u64 = 1;

/// A story that this crate has.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    /// As it is asked for.
    pub name: &'static str,
    /// Its text, with what is expected.
    pub text: &'static str,
}

macro_rules! stories {
    ($($name:literal),* $(,)?) => {
        &[$(Story { name: $name, text: include_str!(concat!("../stories/", $name, ".txt")) }),*]
    };
}

/// All of them.
pub const STORIES: &[Story] = stories![
    "election",
    "deposed-leader",
    "log-conflict",
    "snapshot-catch-up",
    "sloppy-quorum",
    "merkle-repair",
    "absorption-during-fail-over",
    "ladder-with-lost-answer",
    "fence-during-partition",
    "power-cut-of-all",
];

impl Story {
    /// The story of a name.
    pub fn named(name: &str) -> Option<&'static Story> {
        STORIES.iter().find(|story| story.name == name)
    }
}

/// A part of a story.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// A comment, or an empty line.
    Aside(String),
    /// Commands.
    Block(Vec<String>),
}

/// The pieces of a story, without the output that it expects.
fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut commands: Vec<String> = Vec::new();
    let mut in_output = false;
    for line in text.lines() {
        match line {
            MARK => {
                pieces.push(Piece::Block(std::mem::take(&mut commands)));
                in_output = true;
            }
            "" => {
                in_output = false;
                pieces.push(Piece::Aside(String::new()));
            }
            _ if in_output => {}
            comment if comment.starts_with('#') => pieces.push(Piece::Aside(comment.to_owned())),
            command => commands.push(command.to_owned()),
        }
    }
    if !commands.is_empty() {
        pieces.push(Piece::Block(commands));
    }
    pieces
}

/// Plays a story on this thread, and tells it with what came of it: the same text, if all was as
/// it says.
///
/// # Errors
///
/// A command that is none, or cannot be done.
///
/// # Panics
///
/// Where a runtime cannot be made, or runs on this thread already.
pub fn play(text: &str) -> Result<String, String> {
    hear_panics();
    let runtime = seeded_runtime(SEED);
    let told = runtime.block_on(told(text));
    quorate_raft::seed_thread(None);
    match heard_panics().first() {
        Some(panic) => Err(panic.clone()),
        None => told,
    }
}

async fn told(text: &str) -> Result<String, String> {
    let mut scene = Scene::new(SEED);
    let mut told = String::new();
    for piece in pieces(text) {
        match piece {
            Piece::Aside(line) => told += &format!("{line}\n"),
            Piece::Block(commands) => {
                let mut output = Vec::new();
                for command in &commands {
                    let lines = scene.perform(command).await;
                    output.extend(lines.map_err(|problem| format!("`{command}`: {problem}"))?);
                }
                let lines = commands.iter().map(String::as_str);
                let output = output.iter().map(String::as_str);
                for line in lines.chain([MARK]).chain(output) {
                    told += &format!("{line}\n");
                }
            }
        }
    }
    scene.end();
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_no_command() {
        let text = "# A tale.\n\nput a\nget a\n---\ndone\n1\n\nheal\n---\n";
        let aside = |line: &str| Piece::Aside(line.to_owned());
        let block = |lines: &[&str]| Piece::Block(lines.iter().map(ToString::to_string).collect());
        let expected = [
            aside("# A tale."),
            aside(""),
            block(&["put a", "get a"]),
            aside(""),
            block(&["heal"]),
        ];
        assert_eq!(pieces(text), expected);
    }

    #[test]
    fn what_is_no_command_is_refused() {
        let problem = play("cluster nodes=3 keyspaces=registers\ndance\n---\n").unwrap_err();
        assert!(problem.contains("`dance`: known are"), "{problem}");
    }
}
