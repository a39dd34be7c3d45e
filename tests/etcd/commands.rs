//! `etcdctl` against etcd and against Quorate: the same calls, exit codes and output compared.
//!
//! Masked: endpoints, numbers of ten and more hexadecimal digits (ids of leases, members,
//! clusters), the time that a lease has left, log lines. Of calls that show sizes, hashes, members
//! or how long they took, only the exit code is compared.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::servers::{find, start_etcd, start_quorate};

/// How a call ends, and what of it is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// By itself; exit code and output.
    Whole,
    /// By itself; exit code.
    Code,
    /// Interrupted after so many lines of output; these.
    Lines(usize),
    /// As `Whole`, with operations on its standard input.
    Input(&'static str),
}

use Kind::{Code, Input, Lines, Whole};

/// `LEASE` is the lease granted last, `DIR` a folder.
const CALLS: &[(&str, Kind)] = &[
    ("put a 1", Whole),
    ("put b 2", Whole),
    ("put a 3 --prev-kv", Whole),
    ("put c/x 4", Whole),
    ("put c/y 5", Whole),
    ("put a --ignore-value", Whole),
    ("put missing --ignore-value", Whole),
    ("put missing v --ignore-lease", Whole),
    ("put b 6 --lease=7b", Whole),
    ("get a", Whole),
    ("get missing", Whole),
    ("get a c", Whole),
    ("get c/ --prefix", Whole),
    ("get b --from-key", Whole),
    ("get --prefix c/ --keys-only", Whole),
    ("get --prefix c/ --print-value-only", Whole),
    ("get --prefix c/ --count-only --write-out=fields", Code),
    ("get --prefix c/ --limit=1", Whole),
    ("get --prefix c/ --order=DESCEND --sort-by=KEY", Whole),
    ("get --prefix c/ --order=DESCEND --sort-by=MODIFY", Whole),
    ("get a --rev=2", Whole),
    ("get a --rev=900", Whole),
    ("get a --consistency=s", Whole),
    ("get a --hex", Whole),
    ("get a z --sort-by=VERSION --order=ASCEND", Whole),
    ("get a z --min-mod-rev=4", Whole),
    ("get a z --max-create-rev=4", Whole),
    ("watch a --rev=1", Lines(9)),
    ("watch c/ --prefix --rev=1 --prev-kv", Lines(6)),
    (
        "txn",
        Input("mod(\"a\") > \"1\"\n\nput t 1\nget t\n\nput t 2\n\n"),
    ),
    (
        "txn",
        Input("value(\"a\") = \"no\"\n\nput t 1\n\nget t\ndel t\n\n"),
    ),
    ("txn", Input("\nput d 1\nput d 2\n\n\n")),
    ("del b --prev-kv", Whole),
    ("del c/ --prefix", Whole),
    ("del missing", Whole),
    ("lease grant 600", Whole),
    ("put l 1 --lease=LEASE", Whole),
    ("lease list", Whole),
    ("lease timetolive LEASE", Whole),
    ("lease timetolive LEASE --keys", Whole),
    ("lease keep-alive --once LEASE", Whole),
    ("lease revoke LEASE", Whole),
    ("lease revoke LEASE", Whole),
    ("lease timetolive LEASE", Whole),
    ("get l", Whole),
    ("lease grant 0", Whole),
    ("lock m echo held", Whole),
    ("lock m false", Whole),
    ("elect e me", Lines(2)),
    ("compaction 4", Whole),
    ("compaction 4", Whole),
    ("compaction 900", Whole),
    ("get a --rev=2", Whole),
    ("member list", Code),
    ("endpoint status", Code),
    ("endpoint health", Code),
    ("endpoint hashkv", Code),
    ("snapshot save DIR/copy", Code),
    ("alarm list", Whole),
    ("alarm disarm", Whole),
    ("defrag", Code),
    ("move-leader 1f", Code),
    ("auth status", Whole),
];

/// A server as etcdctl sees it.
struct Seen<'a> {
    program: &'a Path,
    endpoint: String,
    /// Of all nodes: only the leader moves its leadership.
    all: String,
    dir: tempfile::TempDir,
    lease: String,
}

impl Seen<'_> {
    fn call(&mut self, call: &str, kind: Kind) -> String {
        let call = call
            .replace("LEASE", &self.lease)
            .replace("DIR", &self.dir.path().display().to_string());
        let endpoints = match call.starts_with("move-leader") {
            true => &self.all,
            false => &self.endpoint,
        };
        let mut command = Command::new(self.program);
        command
            .args(["--endpoints", endpoints])
            .args(call.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        if let Input(text) = kind {
            input.write_all(text.as_bytes()).unwrap();
        }
        if let Lines(lines) = kind {
            let output = BufReader::new(child.stdout.take().unwrap());
            let read: Vec<String> = output.lines().take(lines).map(Result::unwrap).collect();
            // Not an interrupt: whoever was started in the background ignores those.
            child.kill().unwrap();
            child.wait().unwrap();
            return self.mask(&read.join("\n"));
        }
        drop(input);
        let output = child.wait_with_output().unwrap();
        let code = output.status.code();
        if kind == Code {
            return format!("exit code {code:?}");
        }
        let stdout = String::from_utf8_lossy(&output.stdout);
        if let Some(granted) = stdout.strip_prefix("lease ")
            && stdout.contains(" granted ")
        {
            self.lease = granted.split(' ').next().unwrap().to_owned();
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let text = format!("exit code {code:?}\n{stdout}\n{stderr}");
        self.mask(&text)
    }

    fn mask(&self, text: &str) -> String {
        let text = text.replace(&self.endpoint, "ENDPOINT");
        let host = self.endpoint.trim_start_matches("http://");
        let text = text.replace(host, "ENDPOINT");
        let lines = text.lines().filter(|line| !line.starts_with("{\"level\""));
        let lines: Vec<String> = lines.map(mask_line).collect();
        lines.join("\n")
    }
}

fn mask_line(line: &str) -> String {
    let mut masked = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric());
        let (word, behind) = match end {
            Some(0) => rest.split_at(first.len_utf8()),
            Some(end) => rest.split_at(end),
            None => (rest, ""),
        };
        let is_id = word.len() >= 10 && word.chars().all(|c| c.is_ascii_hexdigit());
        let is_left = masked.ends_with("remaining(");
        masked.push_str(if is_id || is_left { "MASKED" } else { word });
        rest = behind;
    }
    masked
}

#[test]
fn etcdctl_sees_no_difference() {
    let etcd = find("etcd", "QUORATE_ETCD");
    let etcdctl = find("etcdctl", "QUORATE_ETCDCTL");
    let (Some(etcd), Some(etcdctl)) = (etcd, etcdctl) else {
        return;
    };
    let (etcd, quorate) = (start_etcd(&etcd), start_quorate());
    let seen = |endpoints: &[String]| Seen {
        program: &etcdctl,
        endpoint: endpoints[0].clone(),
        all: endpoints.join(","),
        dir: tempfile::tempdir().unwrap(),
        lease: String::new(),
    };
    let mut sides = [seen(&etcd.endpoints), seen(&quorate.endpoints)];
    let mut different = 0;
    for (call, kind) in CALLS {
        let [first, second] = &mut sides;
        let (wanted, found) = (first.call(call, *kind), second.call(call, *kind));
        if wanted != found {
            different += 1;
            eprintln!("DIFFERENT: etcdctl {call}\netcd: {wanted}\nQuorate: {found}\n");
        }
    }
    assert_eq!(different, 0, "of {} calls, see above", CALLS.len());
    eprintln!("{} calls, no difference", CALLS.len());
}

/// The negative control of the masks: what they leave is still compared.
#[test]
fn masks_leave_what_counts() {
    assert_eq!(
        mask_line("lease 694d9d6c2a3b1f07 granted with TTL(600s), remaining(599s)"),
        "lease MASKED granted with TTL(600s), remaining(MASKED)"
    );
    assert_ne!(mask_line("deleted 1"), mask_line("deleted 2"));
}
