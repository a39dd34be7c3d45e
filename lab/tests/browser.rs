//! The report of a comparison in a real browser: Chromium draws it, says nothing of errors, and what
//! it drew has the colours that the pictures are made of, in light and in dark.
//!
//! The report is made of recorded results, so no cluster runs here. Without Chromium the tests are
//! skipped, and say so; QUORATE_CHROMIUM names the program, and makes it an error if it is not there.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quorate_lab::compare::{Comparison, html};
use tempfile::TempDir;

/// As `quorate jepsen compare` wrote it.
const RECORDED: &str = include_str!("recorded/compare.json");
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// A browser that takes longer hangs.
const BROWSER_MAX: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// The page as it is tall.
const WINDOW: (usize, usize) = (1160, 5200);
/// The page's own colours: served, refused. Light, then dark.
const DONE: [&str; 2] = ["0,114,178", "74,168,232"];
const REFUSED: [&str; 2] = ["230,159,0", "240,178,60"];

/// The browser, if there is one.
fn chromium() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("QUORATE_CHROMIUM") {
        let named = PathBuf::from(named);
        assert!(named.is_file(), "there is no {}", named.display());
        return Some(named);
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&folders).collect();
    let programs = PROGRAMS.iter().flat_map(|name| {
        let folders = folders.iter();
        folders.map(move |folder| folder.join(name))
    });
    let found = programs.into_iter().find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: no Chromium, so no browser looks at the report (Debian: chromium)");
    }
    found
}

/// What a browser said, on its two ways out.
struct Said {
    out: String,
    log: String,
}

impl Said {
    /// What the page's console has of errors, and of what was to be loaded and could not be.
    fn complaints(&self) -> Vec<&str> {
        let lines = self.log.lines();
        lines.filter(|line| line.contains(":CONSOLE")).collect()
    }
}

/// Has a page drawn by a browser of its own.
fn browse(chromium: &Path, page: &Path, arguments: &[&str]) -> Said {
    let profile = TempDir::new().unwrap();
    let log = profile.path().join("log");
    let out = profile.path().join("out");
    let mut browser = Command::new(chromium)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .args(["--virtual-time-budget=5000", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={},{}", WINDOW.0, WINDOW.1))
        .args(arguments)
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let ended = loop {
        if let Some(status) = browser.try_wait().unwrap() {
            break Some(status);
        }
        if begin.elapsed() > BROWSER_MAX {
            browser.kill().unwrap();
            browser.wait().unwrap();
            break None;
        }
        std::thread::sleep(LOOK_PAUSE);
    };
    let read = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let said = Said {
        out: read(&out),
        log: read(&log),
    };
    let status = ended.unwrap_or_else(|| panic!("the browser hangs: {}", said.log));
    assert!(status.success(), "{status}: {}", said.log);
    said
}

/// Takes a picture of a page.
fn photograph(chromium: &Path, folder: &Path, page: &str, arguments: &[&str]) -> (Vec<u8>, Said) {
    let (path, picture) = (folder.join("page.html"), folder.join("page.png"));
    std::fs::write(&path, page).unwrap();
    let screenshot = format!("--screenshot={}", picture.display());
    let said = browse(
        chromium,
        &path,
        &[&[screenshot.as_str()], arguments].concat(),
    );
    (std::fs::read(picture).unwrap(), said)
}

/// How often each colour is there, by a page that looks at the picture: no decoder is needed here.
fn colours(chromium: &Path, folder: &Path, png: &[u8]) -> Vec<(String, usize)> {
    let mut page = "<!doctype html><meta charset=\"utf-8\"><pre id=\"told\"></pre><script>\
        const image=new Image();image.onload=()=>{const canvas=document.createElement('canvas');\
        canvas.width=image.width;canvas.height=image.height;const context=canvas.getContext('2d');\
        context.drawImage(image,0,0);\
        const data=context.getImageData(0,0,image.width,image.height).data;const seen=new Map();\
        for(let at=0;at<data.length;at+=4){const colour=(data[at]<<16)|(data[at+1]<<8)|data[at+2];\
        seen.set(colour,(seen.get(colour)||0)+1)}\
        const lines=[...seen].map(([c,n])=>`${c>>16},${(c>>8)&255},${c&255} ${n}`);\
        document.getElementById('told').textContent='BEGIN\\n'+lines.join('\\n')+'\\nEND'};"
        .to_owned();
    let encoded = STANDARD.encode(png);
    write!(page, "image.src='data:image/png;base64,{encoded}'</script>").unwrap();
    let path = folder.join("colours.html");
    std::fs::write(&path, page).unwrap();
    let said = browse(chromium, &path, &["--dump-dom"]);
    let (_, rest) = said
        .out
        .split_once("BEGIN\n")
        .unwrap_or_else(|| panic!("{}", said.log));
    let lines = rest.split_once("\nEND").unwrap().0.lines();
    let counted = lines.map(|line| {
        let (colour, count) = line.rsplit_once(' ').unwrap();
        (colour.to_owned(), count.parse().unwrap())
    });
    counted.collect()
}

fn report() -> String {
    let comparison = Comparison::parse(RECORDED).unwrap();
    html(&comparison, std::slice::from_ref(&comparison))
}

#[test]
fn a_browser_draws_the_report_without_a_complaint() {
    let Some(chromium) = chromium() else { return };
    let page = report();
    for (place, dark) in [false, true].into_iter().enumerate() {
        let folder = TempDir::new().unwrap();
        let arguments: &[&str] = match dark {
            false => &[],
            true => &["--blink-settings=preferredColorScheme=0"],
        };
        let (png, said) = photograph(&chromium, folder.path(), &page, arguments);
        assert_eq!(said.complaints(), [""; 0]);
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"), "{} bytes", png.len());
        let colours = colours(&chromium, folder.path(), &png);
        let total: usize = colours.iter().map(|(_, count)| count).sum();
        assert_eq!(total, WINDOW.0 * WINDOW.1);
        assert!(colours.len() > 50, "{} colours", colours.len());
        // The pictures are there: what was served, and what was not.
        for colour in [DONE[place], REFUSED[place]] {
            let count = colours
                .iter()
                .find(|(name, _)| name == colour)
                .map(|(_, count)| *count);
            assert!(count > Some(2_000), "dark: {dark}, {colour}: {count:?}");
        }
    }
}

/// What is looked for would be seen.
#[test]
fn a_page_with_an_error_is_noticed() {
    let Some(chromium) = chromium() else { return };
    let folder = TempDir::new().unwrap();
    let page = "<!doctype html><script>noSuchFunction()</script>";
    let (png, said) = photograph(&chromium, folder.path(), page, &[]);
    assert_eq!(said.complaints().len(), 1, "{}", said.log);
    let empty = colours(&chromium, folder.path(), &png);
    assert_eq!(empty.len(), 1, "{empty:?}");
}
