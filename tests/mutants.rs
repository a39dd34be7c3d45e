//! That hunts for mistakes can begin: each mistake that can be planted has cells and a row in the
//! document, and the sample patches still apply. The hunts themselves are `tests/mutants/run`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use quorate::planted::TABLE;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn planted() -> BTreeSet<&'static str> {
    TABLE.iter().map(|plant| plant.name).collect()
}

#[test]
fn every_mistake_has_cells() {
    let cells = read("tests/mutants/cells.txt");
    let lines = cells.lines().map(|line| line.split('#').next().unwrap());
    let named: BTreeSet<&str> = lines
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(named, planted());
}

#[test]
fn every_mistake_has_a_row_in_the_document() {
    let document = read("docs/MUTANTS.md");
    let without: Vec<&str> = planted()
        .into_iter()
        .filter(|name| !document.contains(&format!("| `{name}` |")))
        .collect();
    assert!(without.is_empty(), "no row of {without:?}");
}

#[test]
fn the_sample_patches_still_apply() {
    let folder = std::fs::read_dir(root().join("tests/mutants/patches")).unwrap();
    let patches: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    assert!(patches.len() >= 3, "{patches:?}");
    for patch in patches {
        let mut check = Command::new("git");
        check.args(["apply", "--check", "-p1"]).arg(&patch);
        let checked = check.current_dir(root()).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{}: {said}", patch.display());
    }
}
