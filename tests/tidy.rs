//! The repository's own rules, those that a reader relies on. Formatting and lints are rustfmt's
//! and clippy's; nothing here looks at how the program behaves.
//!
//! Each rule collects all offenders and names them, with what to do about it.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use walkdir::{DirEntry, WalkDir};

/// Longest source file. Aim at 250; what comes near this has two reasons to exist.
const FILE_MAX_LINES: usize = 800;
/// Most that is read of one text file.
const TEXT_MAX_BYTES: u64 = 4 << 20;

/// Which of our crates each one may name, for code that runs. Everything else points back.
const MAY_DEPEND_ON: [(&str, &[&str]); 10] = [
    ("quorate-types", &[]),
    ("quorate-proto", &["quorate-types"]),
    ("quorate-storage", &["quorate-types"]),
    (
        "quorate-raft",
        &["quorate-types", "quorate-proto", "quorate-storage"],
    ),
    (
        "quorate-eventual",
        &["quorate-types", "quorate-proto", "quorate-storage"],
    ),
    (
        "quorate-gateway",
        &[
            "quorate-types",
            "quorate-proto",
            "quorate-storage",
            "quorate-raft",
            "quorate-eventual",
        ],
    ),
    ("quorate-client", &["quorate-types", "quorate-proto"]),
    ("quorate-jepsen", &[]),
    (
        "quorate-lab",
        &[
            "quorate-types",
            "quorate-proto",
            "quorate-client",
            "quorate-jepsen",
        ],
    ),
    (
        "quorate",
        &[
            "quorate-types",
            "quorate-proto",
            "quorate-storage",
            "quorate-raft",
            "quorate-eventual",
            "quorate-gateway",
            "quorate-client",
            "quorate-jepsen",
            "quorate-lab",
        ],
    ),
];

/// Crates that only some of ours may name, and why.
const CONFINED: [(&str, &[&str], &str); 4] = [
    ("openraft", &["quorate-raft"], "consensus is behind `raft`"),
    (
        "openraft-rt-tokio",
        &["quorate-raft"],
        "consensus is behind `raft`",
    ),
    ("redb", &["quorate-storage"], "files are behind `storage`"),
    (
        "rand",
        &["quorate-raft"],
        "randomness is behind `raft::seam`",
    ),
];

/// Licences under which a dependency may be used. Of an `OR` one is enough, of an `AND` all count.
const LICENCES: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_source_file_says_what_it_is_for() {
    let offenders = rust_files().filter(|(_, text)| !text.starts_with("//! "));
    report(
        "open the file with `//!`: what this room is for and what it is not",
        offenders.map(|(path, _)| path),
    );
}

#[test]
fn no_source_file_is_too_long() {
    let long = rust_files().filter_map(|(path, text)| {
        let lines = text.lines().count();
        (lines > FILE_MAX_LINES).then(|| format!("{path}: {lines} lines"))
    });
    report(
        &format!("split the file: the cap is {FILE_MAX_LINES} lines"),
        long,
    );
}

#[test]
fn what_is_to_be_done_has_an_issue() {
    // Spelled in parts, so that this file passes.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    report(
        "write the issue's number behind it, as in `(#12)`, or do it now",
        lines_of(rust_files(), |line| {
            let marked = words(line).any(|word| marks.contains(&word));
            marked && !line.contains("(#")
        }),
    );
}

#[test]
fn no_room_is_generic() {
    let names = ["util", "utils", "common", "helper", "helpers", "misc"];
    let generic = rust_files().map(|(path, _)| path).filter(|path| {
        let path = Path::new(path);
        path.components()
            .map(|part| Path::new(part.as_os_str()).with_extension(""))
            .any(|part| names.iter().any(|name| part == Path::new(name)))
    });
    report(
        "a thing lives where its reason lives: name the room after that",
        generic,
    );
}

#[test]
fn integers_of_time_name_their_unit() {
    let kinds = ["TIMEOUT", "INTERVAL", "DELAY", "PAUSE", "AGE", "TTL"];
    let units = [
        "SECONDS",
        "MILLISECONDS",
        "MICROSECONDS",
        "NANOSECONDS",
        "DIGITS",
        "ENTRIES",
        "BYTES",
        "TICKS",
    ];
    let integers = ["u8", "u16", "u32", "u64", "usize", "i32", "i64"];
    report(
        "put the unit last in the name, or make it a `Duration`",
        lines_of(rust_files(), |line| {
            let Some((_, rest)) = line.split_once("const ") else {
                return false;
            };
            let Some((name, rest)) = rest.split_once(": ") else {
                return false;
            };
            let is_integer = words(rest)
                .next()
                .is_some_and(|word| integers.contains(&word));
            let parts: BTreeSet<&str> = name.split('_').collect();
            is_integer
                && kinds.iter().any(|kind| parts.contains(kind))
                && !units.iter().any(|unit| parts.contains(unit))
        }),
    );
}

#[test]
fn consensus_is_named_in_one_crate() {
    let paths = [concat!("openraft", "::"), concat!("openraft_", "rt")];
    let elsewhere = rust_files().filter(|(path, _)| !path.starts_with("raft/"));
    report(
        "use the types of `quorate-raft`: nothing else names the library under it",
        lines_of(elsewhere, |line| {
            // Between quotes it may be the name of a log's source.
            let code: String = line.split('"').step_by(2).collect();
            paths.iter().any(|path| code.contains(path))
        }),
    );
}

#[test]
fn no_text_names_one_machine_or_its_makers() {
    // Spelled in parts, so that this file passes.
    let words = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("assis", "tant"),
        concat!("language ", "model"),
        concat!("copi", "lot"),
        concat!("chat", "bot"),
    ];
    report(
        "the repository speaks of itself alone: no paths of one machine, no tools of its writers",
        lines_of(text_files(), |line| {
            let line = line.to_lowercase();
            words.iter().any(|word| line.contains(word))
        }),
    );
}

#[test]
fn dependencies_point_one_way() {
    let manifests = manifests();
    let ours: BTreeSet<&str> = MAY_DEPEND_ON.iter().map(|(name, _)| *name).collect();
    let mut offenders = Vec::new();
    for (name, may) in MAY_DEPEND_ON {
        let depends = manifests
            .get(name)
            .unwrap_or_else(|| panic!("the workspace has no package {name}"));
        let strangers = depends
            .iter()
            .filter(|to| ours.contains(to.as_str()) && !may.contains(&to.as_str()));
        offenders.extend(strangers.map(|to| format!("{name} -> {to}")));
    }
    report(
        "move what is needed down, or hand it in from above: see docs/ARCHITECTURE.md",
        offenders,
    );
}

#[test]
fn libraries_stay_behind_their_crate() {
    let mut offenders = Vec::new();
    for (name, depends) in manifests() {
        for (library, homes, reason) in CONFINED {
            if depends.contains(library) && !homes.contains(&name.as_str()) {
                offenders.push(format!("{name} -> {library}: {reason}"));
            }
        }
    }
    report("use our own types for it", offenders);
}

#[test]
fn every_member_takes_the_workspace_lints() {
    let without = manifest_paths().filter_map(|path| {
        let manifest = manifest(&path);
        let takes = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"));
        (takes.and_then(toml::Value::as_bool) != Some(true)).then(|| relative(&path))
    });
    report("add `[lints]` with `workspace = true`", without);
}

#[test]
fn every_dependency_has_a_licence_that_gives_freely() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    if !output.status.success() {
        let problem = String::from_utf8_lossy(&output.stderr);
        eprintln!("SKIPPED: licences were not looked at, `cargo metadata` says: {problem}");
        return;
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > MAY_DEPEND_ON.len(), "no dependencies seen");
    let refused = packages.iter().filter_map(|package| {
        let licence = package["license"].as_str().unwrap_or("none");
        (!is_permitted(licence)).then(|| format!("{}: {licence}", package["name"]))
    });
    report("take another crate, or none", refused);
}

#[test]
fn licences_are_read_as_written() {
    for (expression, permitted) in [
        ("MIT", true),
        ("MIT OR GPL-3.0-only", true),
        ("MIT/Apache-2.0", true),
        ("Apache-2.0 / MIT", true),
        ("MIT AND BSD-3-Clause", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("MIT AND GPL-3.0-only", false),
        ("(MIT OR Apache-2.0) AND GPL-2.0-only", false),
        ("MPL-2.0", false),
        ("none", false),
    ] {
        assert_eq!(is_permitted(expression), permitted, "{expression}");
    }
}

/// Whether an SPDX expression lets us. Nesting is looked into one level deep, which is all that
/// crates use: a deeper one is refused, and then this is the place to learn it.
fn is_permitted(expression: &str) -> bool {
    let all_of = expression.replace('/', " OR ");
    all_of.split(" AND ").all(|part| {
        let any_of = part.trim().trim_start_matches('(').trim_end_matches(')');
        any_of
            .split(" OR ")
            .any(|licence| LICENCES.contains(&licence.trim()))
    })
}

fn report(advice: &str, offenders: impl IntoIterator<Item = String>) {
    let offenders: Vec<String> = offenders.into_iter().collect();
    assert!(
        offenders.is_empty(),
        "{advice}:\n  {}",
        offenders.join("\n  ")
    );
}

/// `path:line: text` of all lines that offend.
fn lines_of(
    files: impl Iterator<Item = (String, String)>,
    offends: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            if offends(line) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn relative(path: &Path) -> String {
    let path = path.strip_prefix(root()).unwrap();
    path.to_str().unwrap().to_string()
}

/// What is ours: no build output, no version control.
fn is_ours(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    name != "target" && name != ".git"
}

fn files() -> impl Iterator<Item = PathBuf> {
    WalkDir::new(root())
        .sort_by_file_name()
        .into_iter()
        .filter_entry(is_ours)
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().is_file())
        .map(DirEntry::into_path)
}

/// Every file that is text, with its path from the root.
fn text_files() -> impl Iterator<Item = (String, String)> {
    files()
        .filter(|path| path.metadata().unwrap().len() <= TEXT_MAX_BYTES)
        .filter_map(|path| Some((relative(&path), std::fs::read_to_string(&path).ok()?)))
}

fn rust_files() -> impl Iterator<Item = (String, String)> {
    text_files().filter(|(path, _)| path.ends_with(".rs"))
}

fn manifest_paths() -> impl Iterator<Item = PathBuf> {
    let workspace = manifest(&root().join("Cargo.toml"));
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let folders: Vec<String> = members
        .iter()
        .map(|member| member.as_str().unwrap().to_string())
        .chain([String::new()])
        .collect();
    folders
        .into_iter()
        .map(|folder| root().join(folder).join("Cargo.toml"))
}

fn manifest(path: &Path) -> toml::Table {
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

/// What each package of the workspace depends on, to build and to run. Tests may reach further.
fn manifests() -> BTreeMap<String, BTreeSet<String>> {
    manifest_paths()
        .map(|path| {
            let manifest = manifest(&path);
            let name = manifest["package"]["name"].as_str().unwrap().to_string();
            let tables = ["dependencies", "build-dependencies"];
            let depends = tables
                .iter()
                .filter_map(|table| manifest.get(*table)?.as_table())
                .flat_map(|table| table.keys().cloned());
            (name, depends.collect())
        })
        .collect()
}
