//! The stories, played: what is seen must be what they say.
//!
//! `UPDATE_GOLDEN=1` writes what was seen into them instead.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use quorate_simulate::{STORIES, play};

fn path(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("stories");
    dir.join(format!("{name}.txt"))
}

/// The first line in which two texts differ.
fn difference(expected: &str, seen: &str) -> String {
    let longest = expected.lines().count().max(seen.lines().count());
    let line = |text: &str, at: usize| text.lines().nth(at).unwrap_or("(nothing)").to_owned();
    let lines = (0..longest).map(|at| (at, line(expected, at), line(seen, at)));
    let mut differ = lines.filter(|(_, expected, seen)| expected != seen);
    let told = differ.next().map(|(at, expected, seen)| {
        format!("line {}\n  expected {expected}\n  seen     {seen}", at + 1)
    });
    told.unwrap_or_else(|| "the ends of lines".to_owned())
}

#[test]
fn stories_come_to_pass_as_they_are_told() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for story in STORIES {
        let path = path(story.name);
        // As it is now: a changed story needs no new build.
        let text = fs::read_to_string(&path).unwrap();
        match play(&text) {
            Ok(seen) if update => fs::write(&path, seen).unwrap(),
            Ok(seen) if seen == text => {}
            Ok(seen) => wrong.push(format!("{}: {}", story.name, difference(&text, &seen))),
            Err(problem) => wrong.push(format!("{}: {problem}", story.name)),
        }
    }
    let how =
        "`UPDATE_GOLDEN=1 cargo test -p quorate-simulate --test stories` takes over what is seen";
    assert!(wrong.is_empty(), "{}\n{how}", wrong.join("\n"));
}

#[test]
fn every_story_opens_with_what_it_tells() {
    for story in STORIES {
        let comment = story.text.lines().take_while(|line| line.starts_with('#'));
        let words: Vec<&str> = comment.collect();
        let sentences = words.join(" ").matches(['.', ':']).count();
        assert!(sentences >= 3, "{} tells too little", story.name);
        assert!(
            story.text.contains("\n---\n"),
            "{} shows nothing",
            story.name
        );
    }
}
