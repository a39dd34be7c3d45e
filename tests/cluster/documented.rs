//! Every command of `docs/CONFIGURATION.md`, in the page's order and against one cluster, as its
//! reader would type them; what the page shows is what must come.
//!
//! A command with `&` runs on, prints what the page shows, and must not end with a failure. A program that is not installed is
//! skipped, by name. What a reader has of his own (a server, a proxy) is made up here.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::harness::{BINARY, Cluster, READY_MAX, finish, program};
use crate::page::{Shown, Step, masked, named_commands, steps};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIGURATION.md");
/// No command of the page takes longer, on a busy machine.
const STEP_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
/// What a command that was killed ends with: the shell's way to say it, and `finish`'s.
const KILLED: [i32; 2] = [137, -1];
/// Remarks that do something.
const CUT: &str = "no node answers from here on";
const HEALED: &str = "they answer again";
/// What the page takes for granted, beside `quorate`: programs of the reader's own.
const PROGRAMS: [(&str, &str); 3] = [
    (
        "server",
        "echo \"listening, database $DB_HOST\"; exec sleep 600",
    ),
    ("backup.sh", "echo saved"),
    ("bin/nginx", "echo \"nginx $*\""),
];

/// A reader at a terminal: a folder, a cluster, and what runs in the background.
struct Reader<'a> {
    cluster: &'a mut Cluster,
    folder: PathBuf,
    patience: Duration,
    running: Vec<Running>,
    ran: usize,
    skipped: Vec<String>,
}

/// A command that runs on.
struct Running {
    shown: Shown,
    child: Child,
    output: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        // With all that it has started.
        if let Some(pid) = self.child.id() {
            let group = format!("-{pid}");
            let kill = ["-KILL", "--", &group];
            let _ = std::process::Command::new("kill").args(kill).status();
        }
    }
}

impl<'a> Reader<'a> {
    fn new(cluster: &'a mut Cluster, name: &str, patience: Duration) -> Reader<'a> {
        let folder = cluster.dir().join(name);
        std::fs::create_dir_all(folder.join("bin")).unwrap();
        std::os::unix::fs::symlink(BINARY, folder.join("bin/quorate")).unwrap();
        for (name, script) in PROGRAMS {
            script_at(&folder.join(name), script);
        }
        Reader {
            cluster,
            folder,
            patience,
            running: Vec::new(),
            ran: 0,
            skipped: Vec::new(),
        }
    }

    /// Runs all that a page shows; the first thing that is not as it says.
    async fn read(&mut self, page: &str) -> Result<(), String> {
        for step in steps(page)? {
            match step {
                Step::Remark(remark) if remark == CUT => self.signal_all("STOP"),
                Step::Remark(remark) if remark == HEALED => {
                    self.signal_all("CONT");
                    self.cluster.ready().await;
                }
                Step::Remark(_) => {}
                Step::Command(shown) => self.step(shown).await?,
            }
        }
        self.look_at_what_runs().await
    }

    fn signal_all(&mut self, name: &str) {
        for id in self.cluster.ids() {
            self.cluster.node(id).signal(name);
        }
    }

    async fn step(&mut self, shown: Shown) -> Result<(), String> {
        if let Some(missing) = self.missing_program(&shown).await {
            eprintln!("SKIPPED: line {}: no {missing}: {}", shown.line, shown.text);
            self.skipped.push(missing);
            return Ok(());
        }
        self.ran += 1;
        if let Some(file) = shown.file()
            && !self.folder.join(file).exists()
        {
            // The page shows what the reader's file says.
            let text = shown.output.join("\n") + "\n";
            std::fs::write(self.folder.join(file), text).unwrap();
        }
        if shown.runs_on && shown.output.is_empty() {
            let Shown { line, text, .. } = shown;
            return Err(format!("line {line}: what does it print? {text}"));
        }
        if shown.runs_on {
            self.start(shown);
            return Ok(());
        }
        let deadline = Instant::now() + self.patience;
        loop {
            let wrong = match self.run(&shown).await {
                Ok(()) => return Ok(()),
                Err(wrong) => wrong,
            };
            // What is refused from now on is so at each node within moments.
            if !shown.is_refused() || Instant::now() > deadline {
                return Err(wrong);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn missing_program(&self, shown: &Shown) -> Option<String> {
        let word = shown.text.split_whitespace().next()?.to_owned();
        let mut look = self.shell("command -v \"$1\"");
        look.args(["sh", &word]);
        (finish(look, b"").await.code != 0).then_some(word)
    }

    /// Runs a command to its end, and compares.
    async fn run(&self, shown: &Shown) -> Result<(), String> {
        let Shown { line, text, .. } = shown;
        // A shell that is killed leaves what it has started; `timeout` ends all of it.
        let mut command = self.shell("exec timeout --signal=KILL \"$1\" sh -c \"$2\" 2>&1");
        let seconds = self.patience.as_secs().max(1).to_string();
        command.args(["sh", &seconds, text]);
        let ran = finish(command, b"").await;
        if KILLED.contains(&ran.code) {
            return Err(format!("line {line}: does not end: {text}"));
        }
        if (ran.code != 0) != shown.is_refused() {
            let (code, said) = (ran.code, ran.text());
            return Err(format!("line {line}: exit code {code}: {text}\n{said}"));
        }
        compare(shown, &ran.text())
    }

    fn start(&mut self, shown: Shown) {
        let output = self.folder.join(format!("line-{}.out", shown.line));
        let file = File::create(&output).unwrap();
        let mut command = self.shell(&format!("exec 2>&1; {}", shown.text));
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        self.running.push(Running {
            shown,
            child,
            output,
        });
    }

    /// Waits until each has printed what the page shows; none may have failed.
    async fn look_at_what_runs(&mut self) -> Result<(), String> {
        for running in &mut self.running {
            let deadline = Instant::now() + self.patience;
            loop {
                let said = std::fs::read_to_string(&running.output).unwrap();
                let compared = compare(&running.shown, &said);
                let (line, text) = (running.shown.line, &running.shown.text);
                if let Some(status) = running.child.try_wait().unwrap()
                    && !status.success()
                {
                    return Err(format!("line {line}: {status}: {text}\n{said}"));
                }
                match compared {
                    Ok(()) => break,
                    Err(wrong) if Instant::now() > deadline => return Err(wrong),
                    Err(_) => tokio::time::sleep(POLL).await,
                }
            }
        }
        Ok(())
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = self.cluster.command();
        let mut shell = Command::new("sh");
        for (name, value) in command.as_std_mut().get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let path = std::env::var("PATH").unwrap_or_default();
        shell
            .args(["-c", script])
            .current_dir(&self.folder)
            .env("PATH", format!("{}/bin:{path}", self.folder.display()))
            .env("USER", "ann")
            .kill_on_drop(true);
        shell
    }
}

/// Whether a command has printed what the page shows.
fn compare(shown: &Shown, said: &str) -> Result<(), String> {
    let wanted = masked(&shown.output.join("\n"));
    let got = masked(said);
    if wanted.is_empty() || wanted == got {
        return Ok(());
    }
    let (wanted, got) = (wanted.join("\n"), got.join("\n"));
    Err(format!(
        "line {}: {}\nthe page shows:\n{wanted}\nit prints:\n{got}",
        shown.line, shown.text
    ))
}

fn page() -> String {
    std::fs::read_to_string(PAGE).unwrap()
}

fn script_at(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_page_does_what_the_page_shows() {
    let mut cluster = Cluster::start(3).await;
    let mut reader = Reader::new(&mut cluster, "reader", STEP_MAX);
    let read = reader.read(&page()).await;
    read.unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(reader.ran > 40, "{} commands were found", reader.ran);
    assert!(reader.skipped.is_empty(), "{:?}", reader.skipped);
    drop(reader);

    // What is wrong with a page is found.
    let wrong = [
        ("$ quorate get none", "exit code 3"),
        ("$ quorate scan ready\nready 1", "the page shows"),
        ("$ quorate put a b\nerror: no", "exit code 0"),
        ("$ quorate watch --from 1 &\nput a b", "line 2: exit status"),
        ("$ quorate watch &", "what does it print?"),
        ("$ quorate watch", "does not end"),
    ];
    for (at, (text, words)) in wrong.into_iter().enumerate() {
        let patience = Duration::from_secs(2);
        let mut reader = Reader::new(&mut cluster, &format!("wrong-{at}"), patience);
        let found = reader.read(&format!("```\n{text}\n```\n")).await;
        let found = found.expect_err(text);
        assert!(found.contains(words), "`{found}` lacks `{words}`");
    }
    let mut reader = Reader::new(&mut cluster, "missing", READY_MAX);
    reader
        .read("```\n$ etcdctl-of-nobody get a\n```\n")
        .await
        .unwrap();
    assert_eq!(reader.skipped, ["etcdctl-of-nobody"]);
}

/// The help of the longest command that the words begin with, and how many words it takes.
async fn help_of(words: &[&str]) -> Result<(String, usize), String> {
    let mut taken = 0;
    let mut help = String::new();
    loop {
        if let Some(word) = words.get(taken)
            && (taken == 0 || lists(&help, word))
        {
            taken += 1;
            let mut command = program();
            command.args(&words[..taken]).arg("--help");
            let ran = finish(command, b"").await;
            if ran.code != 0 {
                return Err(format!("no command `{}`", words[..taken].join(" ")));
            }
            help = ran.text();
            continue;
        }
        return Ok((help, taken));
    }
}

/// Whether a help lists a command.
fn lists(help: &str, command: &str) -> bool {
    let listed = help.split_once("\nCommands:\n").map_or("", |(_, rest)| {
        rest.split_once("\n\n").map_or(rest, |it| it.0)
    });
    listed
        .lines()
        .any(|line| line.split_whitespace().next() == Some(command))
}

async fn check_named(span: &str) -> Result<(), String> {
    let words: Vec<_> = span.split_whitespace().skip(1).collect();
    let (help, taken) = help_of(&words).await?;
    let more = &words[taken..];
    if let (true, Some(word)) = (help.contains("\nCommands:\n"), more.first()) {
        return Err(format!("no command `{word}` in `{span}`"));
    }
    let flags = more.iter().take_while(|word| **word != "--");
    for flag in flags.filter(|word| word.starts_with("--")) {
        let flag = flag.split('=').next().unwrap_or(flag);
        if !help.contains(flag) {
            return Err(format!("no flag `{flag}` in `{span}`"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_command_that_the_page_names_is_one() {
    let named = named_commands(&page());
    assert!(named.len() > 15, "{named:?}");
    for (line, span) in named {
        check_named(&span)
            .await
            .unwrap_or_else(|wrong| panic!("line {line}: {wrong}"));
    }
    for wrong in [
        "quorate flog",
        "quorate config shew P",
        "quorate put K V --leese",
    ] {
        check_named(wrong).await.expect_err(wrong);
    }
}
