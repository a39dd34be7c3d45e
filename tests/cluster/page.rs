//! A page of the documentation as what it shows: commands, what they print, and remarks between
//! them. Pure; who runs them is in `documented`.
//!
//! A plain fenced block is a terminal: `$ ` begins a command, `# ` a remark, and lines behind a
//! command are what it prints. A block with the name of a language is none.

use std::collections::BTreeSet;

/// From so many digits on a number is a revision, which no two runs share.
const REVISION_DIGITS_MIN: usize = 10;
/// Hexadecimal digits of a lease's id.
const LEASE_ID_DIGITS: usize = 16;

/// One line that a page shows, with what belongs to it.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Command(Shown),
    /// Words of a comment; some say what happens to the cluster.
    Remark(String),
}

/// A command as a page shows it.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    /// Of the page.
    pub line: usize,
    pub text: String,
    /// It ends with `&`: it runs on.
    pub runs_on: bool,
    /// What it prints; none: the page does not say.
    pub output: Vec<String>,
}

impl Shown {
    /// Whether the page shows it being refused.
    pub fn is_refused(&self) -> bool {
        self.output.iter().any(|line| line.starts_with("error: "))
    }

    /// The file that `cat` shows, if that is all it does.
    pub fn file(&self) -> Option<&str> {
        self.text
            .strip_prefix("cat ")
            .filter(|name| !name.contains(' '))
    }
}

/// What a page's terminals show, in its order.
pub fn steps(page: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut fence: Option<bool> = None;
    for (at, line) in page.lines().enumerate() {
        let number = at + 1;
        if let Some(language) = line.strip_prefix("```") {
            fence = match fence {
                Some(_) => None,
                None => Some(language.is_empty()),
            };
            continue;
        }
        if fence != Some(true) {
            continue;
        }
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step::Command(command_of(number, command)));
        } else if let Some(remark) = line.strip_prefix("# ") {
            steps.push(Step::Remark(remark.to_owned()));
        } else if let Some(Step::Command(shown)) = steps.last_mut() {
            shown.output.push(line.to_owned());
        } else {
            return Err(format!(
                "line {number}: a block without a language begins with a command"
            ));
        }
    }
    Ok(steps)
}

fn command_of(line: usize, text: &str) -> Shown {
    let (text, runs_on) = match text.strip_suffix(" &") {
        Some(text) => (text, true),
        None => (text, false),
    };
    Shown {
        line,
        text: text.to_owned(),
        runs_on,
        output: Vec::new(),
    }
}

/// Commands of this program that are named between backquotes outside of blocks, with their lines.
pub fn named_commands(page: &str) -> BTreeSet<(usize, String)> {
    let mut found = BTreeSet::new();
    let mut in_block = false;
    for (at, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            continue;
        }
        let spans = line.split('`').skip(1).step_by(2);
        let ours = spans.filter(|span| span.starts_with("quorate "));
        found.extend(ours.map(|span| (at + 1, span.replace('\\', ""))));
    }
    found
}

/// Lines without what differs from run to run: revisions, ids of leases, times, ages, widths.
pub fn masked(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| {
        let words = line.split_whitespace().map(masked_word);
        let words: Vec<_> = words.collect();
        words.join(" ").replace("…s old", "… s old")
    });
    lines.filter(|line| !line.is_empty()).collect()
}

fn masked_word(word: &str) -> String {
    if is_time(word) {
        return "<time>".to_owned();
    }
    let mut masked = String::new();
    let mut run = String::new();
    for letter in word.chars().chain(['\n']) {
        if letter.is_ascii_hexdigit() {
            run.push(letter);
            continue;
        }
        masked.push_str(&masked_run(&run));
        run.clear();
        masked.push(letter);
    }
    masked.pop();
    // An age, as "42.0 s" is one.
    match word.split_once('.') {
        Some((whole, tenth)) if is_number(whole) && tenth.len() == 1 && is_number(tenth) => {
            "<seconds>".to_owned()
        }
        _ => masked,
    }
}

fn masked_run(run: &str) -> String {
    if run.len() >= REVISION_DIGITS_MIN && is_number(run) {
        return "<revision>".to_owned();
    }
    match run.len() {
        LEASE_ID_DIGITS => "<lease>".to_owned(),
        _ => run.to_owned(),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// As RFC 3339 writes them.
fn is_time(word: &str) -> bool {
    word.len() >= "2026-01-01T00:00:00Z".len()
        && word.as_bytes()[4] == b'-'
        && word.as_bytes()[10] == b'T'
        && word.ends_with('Z')
}

#[test]
fn a_page_is_read_as_a_terminal() {
    let page = "Words.\n```\n$ cat a.yaml\na: 1\n$ quorate watch a &\n# no node answers\n```\n\
                `quorate get \\| x` and `put`\n```rust\n$ no command\n```\n";
    let shown = |line, text: &str, runs_on, output: &[&str]| {
        Step::Command(Shown {
            line,
            text: text.to_owned(),
            runs_on,
            output: output.iter().map(|it| (*it).to_owned()).collect(),
        })
    };
    let expected = [
        shown(3, "cat a.yaml", false, &["a: 1"]),
        shown(5, "quorate watch a", true, &[]),
        Step::Remark("no node answers".to_owned()),
    ];
    assert_eq!(steps(page).unwrap(), expected);
    let named = named_commands(page);
    assert_eq!(
        named.into_iter().collect::<Vec<_>>(),
        [(8, "quorate get | x".to_owned())]
    );
    assert!(steps("```\nno command\n```\n").is_err());
}

#[test]
fn what_differs_from_run_to_run_is_masked_and_nothing_else() {
    for (text, expected) in [
        (
            "step 2 at revision 1762000000000000",
            "step 2 at revision <revision>",
        ),
        ("put  app/a = 70000", "put app/a = 70000"),
        ("00000000000000c7", "<lease>"),
        ("backup=1762000000000000", "backup=<revision>"),
        ("1 2026-11-29T03:49:49.120Z ann", "1 <time> ann"),
        ("copy, 42.0 s old", "copy, <seconds> s old"),
        ("decade 12.34", "decade 12.34"),
    ] {
        assert_eq!(masked(text), [expected], "{text}");
    }
}
