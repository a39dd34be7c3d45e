//! Files that are no histories: each is refused with its line and the reason.

use std::path::Path;

use quorate_jepsen::history::operations;
use quorate_jepsen::{Budget, CheckError, Model, Options, Verdict, check};

fn checked(name: &str, bytes: &[u8]) -> Result<Verdict, CheckError> {
    let told = operations(bytes, Path::new(name));
    let options = Options::default();
    check(told, Model::CasRegister, &options, &mut Budget::unbounded()).map(|report| report.verdict)
}

/// A file must be refused in a line, for a reason that says this.
fn refused(name: &str, bytes: impl AsRef<[u8]>, line: u64, reason: &str) {
    let bytes = bytes.as_ref();
    let shown = String::from_utf8_lossy(bytes);
    let (found, problem) = match checked(name, bytes) {
        Ok(verdict) => panic!("{name} is {verdict}: {shown}"),
        Err(CheckError::Read(error)) => (error.line, error.problem.to_string()),
        Err(CheckError::Misfit(misfit)) => (misfit.line, misfit.what),
        Err(other) => panic!("{other:?}"),
    };
    assert!(
        problem.contains(reason),
        "wanted `{reason}`, found `{problem}` for {shown}"
    );
    assert_eq!(found, line, "{problem}: {shown}");
}

const INVOKE: &str = "{:process 0 :type :invoke :f :write :value 1}\n";
const OK: &str = "{:process 0 :type :ok :f :write :value 1}\n";

#[test]
fn all_formats_are_read() {
    let json = r#"{"process":0,"type":"invoke","f":"write","value":1,"time":5,"index":0}
{"process":0,"type":"ok","f":"write","value":1,"time":6,"index":1}"#;
    let array = format!("[{}]", json.replace('\n', ",\n"));
    let log = "INFO  jepsen.util - 0\t:invoke\t:write\t1\nINFO  jepsen.util - 0 :ok :write 1\n";
    let edn = format!("; a comment\n[{INVOKE} #_ignored {OK}]");
    for (name, text) in [
        ("h.edn", edn.as_str()),
        ("h.jsonl", json),
        ("h.json", &array),
        ("h.log", log),
        ("h", json),
        ("h", &array),
        ("h", log),
        ("h.txt", &format!("{INVOKE}{OK}")),
    ] {
        let verdict =
            checked(name, text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(verdict, Verdict::Valid, "{name}");
    }
}

#[test]
fn empty_files_are_no_histories() {
    for name in ["h.edn", "h.json", "h.jsonl", "h.log", "h"] {
        refused(name, "", 1, "empty");
        refused(name, "\n\n", 3, "empty");
    }
    refused("h.edn", "[]", 1, "empty");
    refused("h.json", "[]", 1, "empty");
}

#[test]
fn files_that_were_cut_off_say_where() {
    refused("h.edn", format!("{INVOKE}{{:process 0 :type"), 2, "cut off");
    refused("h.edn", format!("[{INVOKE}{OK}"), 3, "cut off");
    refused("h.json", r#"{"process":0,"type":"inv"#, 1, "cut off");
    refused("h.json", r#"[{"process":0,"type":"invoke"}"#, 1, "cut off");
    refused("h.edn", "{:process 0 :error \"never ends", 1, "cut off");
}

#[test]
fn lines_of_two_writers_in_one_are_refused() {
    refused(
        "h.jsonl",
        "{\"process\":0,\"type\":\"inv{\"process\":1}\noke\"}",
        1,
        "not expected",
    );
    refused(
        "h.edn",
        "{:process 0 :type {:process 1 :type :invoke}}",
        1,
        "`type` is",
    );
    refused(
        "h.log",
        "INFO  jepsen.util - 0 :invINFO  jepsen.util - 1 :invoke :read nil\n",
        1,
        "`type` is",
    );
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    refused(
        "h.edn",
        [INVOKE.as_bytes(), b"{:process 0 :type :ok :value \"\xff\"}"].concat(),
        2,
        "UTF-8",
    );
    refused("h.json", b"{\"process\":\"\xc3\x28\"}", 1, "UTF-8");
    refused("h.log", b"INFO \xff", 1, "UTF-8");
}

#[test]
fn foreign_files_are_refused() {
    refused("h.json", "hello", 1, "no JSON");
    refused("h.edn", "hello world", 1, "wanted the map of an event");
    refused("h.log", "GET / HTTP/1.1", 1, "wanted: INFO");
    refused("h.json", "{\"a\":1}", 1, "without `type`");
    refused("h.edn", "\u{1}\u{2}[", 1, "wanted the map");
    refused("h.edn", "[".repeat(1000), 1, "too deep");
    refused("h.json", format!("[{}", "[".repeat(1000)), 1, "too deep");
}

#[test]
fn completions_need_an_invocation() {
    refused("h.edn", OK, 1, "without having invoked");
    refused("h.edn", format!("{INVOKE}{OK}{OK}"), 3, "twice");
    refused("h.edn", format!("{INVOKE}{INVOKE}"), 2, "is open");
    let other = OK.replace(":write", ":read");
    refused(
        "h.edn",
        format!("{INVOKE}{other}"),
        2,
        "but line 1 invoked `write`",
    );
}

#[test]
fn time_goes_forward() {
    let event = |kind: &str, process: u32, time: i64| {
        format!("{{:process {process} :type :{kind} :f :read :time {time}}}\n")
    };
    let second = 1_000_000_000;
    let own = event("invoke", 0, 10) + &event("ok", 0, 9);
    refused("h.edn", own, 2, "out of time order");
    let far = event("invoke", 0, 5 * second) + &event("invoke", 1, second);
    refused("h.edn", far, 2, "out of time order");
    let near = event("invoke", 0, 5 * second) + &event("invoke", 1, 5 * second - 9);
    assert!(
        checked("h.edn", near.as_bytes()).is_ok(),
        "neighbours change places"
    );
    let index =
        "{:index 4 :process 0 :type :invoke :f :read}\n{:index 4 :process 0 :type :ok :f :read}";
    refused("h.edn", index, 2, "index 4 follows index 4");
}

#[test]
fn operations_must_fit_the_model() {
    refused(
        "h.edn",
        INVOKE.replace("write", "transfer"),
        1,
        "known are read, write, cas",
    );
    refused("h.edn", INVOKE.replace("write", "cas"), 1, "[OLD NEW]");
}

#[test]
fn a_deadline_makes_it_unknown() {
    let told = operations(INVOKE.as_bytes(), Path::new("h.edn"));
    let mut budget = Budget::new(&|| true, usize::MAX);
    let report = check(told, Model::ListAppend, &Options::default(), &mut budget);
    assert!(
        matches!(report, Err(CheckError::Misfit(_))),
        "a write is no transaction"
    );
    let text = "{:process 0 :type :invoke :f :txn :value [[:append :x 1]]}";
    let told = operations(text.as_bytes(), Path::new("h.edn"));
    let report =
        check(told, Model::ListAppend, &Options::default(), &mut budget).expect("a report");
    assert_eq!(report.verdict, Verdict::Unknown);
}
