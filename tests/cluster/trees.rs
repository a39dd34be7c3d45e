//! A real tree of files goes in, comes out, and is the same byte for byte.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::{Cluster, Ran, finish, wait_until};

/// Files of the default tree; `QUORATE_TREE=PATH` takes all of another one.
const FILES_MAX: usize = 2500;
const FILE_MAX_BYTES: u64 = 1 << 20;
const LARGE_FILE_BYTES: usize = 900 << 10;
/// What any Debian has, and others may have.
const TREES: [&str; 3] = ["/etc", "/usr/share/doc", "/usr/include"];
const SKIPPED_LINKS: u64 = 1;

/// A copy of real files and names that are hard to carry.
fn build_tree(dir: &Path) {
    let files = TREES
        .iter()
        .flat_map(|tree| walkdir::WalkDir::new(tree).into_iter().flatten())
        .filter(|entry| entry.file_type().is_file())
        .filter(|entry| entry.metadata().is_ok_and(|m| m.len() <= FILE_MAX_BYTES))
        // What only root reads, others skip.
        .filter_map(|entry| Some((std::fs::read(entry.path()).ok()?, entry)));
    for (bytes, entry) in files.take(FILES_MAX) {
        write(&dir.join(entry.path().strip_prefix("/").unwrap()), &bytes);
    }
    write(&dir.join("with space/a file"), b"spaces");
    write(&dir.join("ünïcödé/日本語.conf"), "größe=1".as_bytes());
    write(&dir.join(OsStr::from_bytes(b"not-\xff\xfe-text")), b"bytes");
    write(&dir.join("empty"), b"");
    write(&dir.join("new\nline\tand \"quotes\" 'too'"), b"names");
    write(&dir.join("large"), &vec![7; LARGE_FILE_BYTES]);
    write(&dir.join("binary"), &(0..=255).collect::<Vec<u8>>());
    std::os::unix::fs::symlink("empty", dir.join("link")).unwrap();
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// All regular files below a folder.
fn files_of(dir: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let files = walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| {
            let name = entry.path().strip_prefix(dir).unwrap().into();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn assert_equal(one: &Path, other: &Path) {
    let (one, other) = (files_of(one), files_of(other));
    for (name, bytes) in &one {
        assert!(
            other.get(name) == Some(bytes),
            "{name:?} differs or is missing"
        );
    }
    assert_eq!(
        one.len(),
        other.len(),
        "there are more files than there were"
    );
}

fn count(ran: &Ran, name: &str) -> u64 {
    ran.json()[name].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_comes_out_as_it_went_in() {
    let cluster = Cluster::start(3).await;
    let tree = match std::env::var_os("QUORATE_TREE") {
        Some(path) => PathBuf::from(path),
        None => {
            let tree = cluster.dir().join("tree");
            build_tree(&tree);
            tree
        }
    };
    let path = tree.to_str().unwrap();
    let begun = Instant::now();
    let first = cluster.expect(0, &["import", path, "-o", "json"]).await;
    let (written, imported) = (count(&first, "written"), begun.elapsed());
    assert!(written > 0 && count(&first, "failed") == 0, "{first:?}");
    assert!(count(&first, "skipped") >= SKIPPED_LINKS, "{first:?}");
    let again = cluster.expect(0, &["import", path, "-o", "json"]).await;
    assert_eq!(count(&again, "written"), 0, "{again:?}");
    assert_eq!(count(&again, "unchanged"), written, "{again:?}");

    let begun = Instant::now();
    let out = cluster.dir().join("out");
    // The harness's own key is not of the tree.
    cluster.expect(0, &["delete", "ready"]).await;
    cluster
        .expect(0, &["export", "--to", out.to_str().unwrap()])
        .await;
    assert_equal(&tree, &out);
    eprintln!(
        "{written} files imported in {imported:.1?}, exported in {:.1?}",
        begun.elapsed()
    );
    lines(&cluster, &tree).await;
}

/// The same by lines of JSON, under a prefix.
async fn lines(cluster: &Cluster, tree: &Path) {
    let lines = cluster.dir().join("keys.jsonl");
    let out = cluster.dir().join("out-of-lines");
    let lines = lines.to_str().unwrap();
    cluster.expect(0, &["export", "--to", lines]).await;
    cluster
        .expect(0, &["import", lines, "--prefix", "copy/"])
        .await;
    cluster
        .expect(0, &["export", "copy/", "--to", out.to_str().unwrap()])
        .await;
    assert_equal(tree, &out);
    let there = ["export", "copy/", "--to", out.to_str().unwrap()];
    let there = cluster.expect(2, &there).await;
    assert!(there.stderr.contains("out-of-lines"), "{there:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_was_interrupted_is_completed_by_the_next() {
    let cluster = Cluster::start(3).await;
    let tree = cluster.dir().join("tree");
    build_tree(&tree);
    let path = tree.to_str().unwrap();
    let mut command = cluster.command();
    command
        .args(["import", path, "-o", "json"])
        .stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    let client = cluster.client();
    wait_until("the first keys", Duration::from_secs(10), async || {
        let page = client
            .scan(quorate_client::ScanOptions::prefix("etc/"))
            .await;
        !page.unwrap().entries.is_empty()
    })
    .await;
    crate::harness::signal(child.id().unwrap(), "INT");
    let output = child.wait_with_output().await.unwrap();
    let first: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    eprintln!("interrupted with {}: {first}", output.status);
    if first["interrupted"] == true {
        assert_eq!(output.status.code(), Some(1));
    }
    let second = cluster.expect(0, &["import", path, "-o", "json"]).await;
    assert_eq!(count(&second, "failed"), 0, "{second:?}");
    assert!(count(&second, "unchanged") >= first["written"].as_u64().unwrap());
    cluster.expect(0, &["delete", "ready"]).await;
    let out = cluster.dir().join("out");
    cluster
        .expect(0, &["export", "--to", out.to_str().unwrap()])
        .await;
    assert_equal(&tree, &out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_that_is_not_there_is_named() {
    let cluster = Cluster::start(1).await;
    let mut command = cluster.command();
    command.args(["import", "/no/such/tree"]);
    let ran = finish(command, b"").await;
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("/no/such/tree"), "{ran:?}");
}
