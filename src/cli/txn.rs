//! `quorate txn`: a transaction from a file.
//!
//! The file's form is checked here, field by field; what the transaction does is the cluster's
//! part.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use quorate_client::{Compare, Expect, Operation, Txn, TxnOutcome};
use quorate_types::{LeaseId, Revision, parse_duration};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::consistency::LevelArgs;
use super::error::CliError;
use super::exit::Exit;
use super::global::Session;
use super::output::Output;
use super::{input, json};
use crate::transfer::{field, shown};

/// Largest file that is read, bytes: what fits one request, in base64.
const TXN_FILE_MAX_BYTES: u64 = 48 << 20;

#[derive(Args, Debug)]
#[command(after_help = r#"Example:
  quorate txn move.json
with move.json:
  {"compare": [{"key": "a", "revision": 1762000000000000}, {"key": "b", "absent": true}],
   "then":    [{"delete": {"key": "a"}}, {"put": {"key": "b", "value": "1"}}],
   "else":    [{"get": {"key": "a"}}]}

A compare has one of "revision", "value", "absent": true, "present": true. Bytes that are not
UTF-8 stand as key_base64 and value_base64. Exit code 4: the compares did not hold, and "else"
was done."#)]
pub(super) struct TxnArgs {
    /// The transaction as JSON; `-`: standard input
    file: PathBuf,
    #[command(flatten)]
    level: LevelArgs,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TxnFile {
    #[serde(default)]
    compare: Vec<CompareLine>,
    #[serde(default)]
    then: Vec<OperationLine>,
    #[serde(default, rename = "else")]
    otherwise: Vec<OperationLine>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareLine {
    key: Option<String>,
    key_base64: Option<String>,
    revision: Option<u64>,
    value: Option<String>,
    value_base64: Option<String>,
    absent: Option<bool>,
    present: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum OperationLine {
    Put(PutLine),
    Delete(KeyLine),
    Get(KeyLine),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutLine {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    ttl: Option<String>,
    lease: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyLine {
    key: Option<String>,
    key_base64: Option<String>,
}

/// Parses a transaction. The error says where and what.
fn parse(text: &[u8]) -> Result<Txn, String> {
    let file: TxnFile = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let all = |lines: Vec<OperationLine>, name: &str| {
        let parsed = lines.into_iter().enumerate().map(|(place, line)| {
            operation(line).map_err(|problem| format!("{name}[{place}]: {problem}"))
        });
        parsed.collect::<Result<Vec<_>, String>>()
    };
    let compare = file.compare.into_iter().enumerate().map(|(place, line)| {
        compare(line).map_err(|problem| format!("compare[{place}]: {problem}"))
    });
    Ok(Txn {
        compare: compare.collect::<Result<_, String>>()?,
        then: all(file.then, "then")?,
        otherwise: all(file.otherwise, "else")?,
    })
}

fn bytes(
    name: &'static str,
    text: Option<String>,
    encoded: Option<String>,
) -> Result<Bytes, String> {
    field(name, text, encoded).map_err(|error| error.to_string())
}

fn compare(line: CompareLine) -> Result<Compare, String> {
    const WANTED: &str = "one of \"revision\", \"value\", \"absent\": true, \"present\": true";
    let key = bytes("key", line.key, line.key_base64)?;
    let by_value = line.value.is_some() || line.value_base64.is_some();
    let (absent, present) = (line.absent.is_some(), line.present.is_some());
    let states = [line.revision.is_some(), by_value, absent, present];
    if states.into_iter().filter(|given| *given).count() != 1 {
        return Err(format!("wanted: {WANTED}"));
    }
    let expect = match (line.revision, line.absent, line.present) {
        (Some(revision), ..) => Expect::Revision(Revision(revision)),
        // "absent": false says the same as "present": true.
        (_, Some(absent), _) if absent => Expect::Absent,
        (_, _, Some(present)) if !present => Expect::Absent,
        (_, Some(_), _) | (_, _, Some(_)) => Expect::Present,
        (None, None, None) => Expect::Value(bytes("value", line.value, line.value_base64)?),
    };
    Ok(Compare { key, expect })
}

fn operation(line: OperationLine) -> Result<Operation, String> {
    Ok(match line {
        OperationLine::Put(put) => Operation::Put {
            key: bytes("key", put.key, put.key_base64)?,
            value: bytes("value", put.value, put.value_base64)?,
            ttl: put.ttl.as_deref().map(ttl).transpose()?,
            lease: put.lease.as_deref().map(lease).transpose()?,
        },
        OperationLine::Delete(line) => Operation::Delete {
            key: bytes("key", line.key, line.key_base64)?,
        },
        OperationLine::Get(line) => Operation::Get {
            key: bytes("key", line.key, line.key_base64)?,
        },
    })
}

fn ttl(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| format!("ttl: {error}"))
}

fn lease(text: &str) -> Result<LeaseId, String> {
    text.parse().map_err(|error| format!("lease: {error}"))
}

pub(super) async fn run(args: TxnArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let text = input::read_file_or_stdin(&args.file, TXN_FILE_MAX_BYTES)?;
    let txn = parse(&text).map_err(|problem| {
        CliError::usage(
            format!("{}: {problem}", args.file.display()),
            "`quorate txn --help` shows the form",
        )
    })?;
    let outcome = client.txn(txn, args.level.write()?).await?;
    args.level.remember(&outcome.receipt)?;
    print(&mut output, &outcome)?;
    output.flush()?;
    if outcome.succeeded {
        return Ok(());
    }
    Err(CliError::refused(
        Exit::Condition,
        "the compares did not all hold, so \"else\" was done",
        "",
    ))
}

fn print(output: &mut Output, outcome: &TxnOutcome) -> Result<(), CliError> {
    if output.is_json() {
        let mut object = Map::new();
        object.insert("succeeded".to_owned(), json!(outcome.succeeded));
        object.insert("revision".to_owned(), json!(outcome.revision.0));
        let results: Value = outcome.results.iter().map(json::operation).collect();
        object.insert("results".to_owned(), results);
        return output.object(object, &outcome.receipt);
    }
    for result in &outcome.results {
        match &result.entry {
            Some(entry) => {
                output.bytes(shown(&entry.key).as_bytes())?;
                output.bytes(b"\t")?;
                output.bytes(&entry.value)?;
                output.bytes(b"\n")?;
            }
            None if result.revision.0 > 0 => output.line(result.revision.0)?,
            None => output.line("(not there)")?,
        }
    }
    output.remark_receipt(&outcome.receipt);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_form_of_the_interface_parses() {
        let txn = parse(
            br#"{"compare":[{"key":"a","revision":7},{"key":"b","absent":true},
                            {"key_base64":"/w==","value":"x"},{"key":"c","absent":false}],
                 "then":[{"put":{"key":"a","value":"1","ttl":"5s"}},{"delete":{"key":"b"}},
                         {"get":{"key":"c"}}],
                 "else":[]}"#,
        )
        .unwrap();
        assert_eq!(txn.compare[0].expect, Expect::Revision(Revision(7)));
        assert_eq!(txn.compare[1].expect, Expect::Absent);
        assert_eq!(&txn.compare[2].key[..], b"\xff");
        assert_eq!(txn.compare[3].expect, Expect::Present);
        assert_eq!(txn.then.len(), 3);
        assert!(txn.otherwise.is_empty());
    }

    #[test]
    fn wrong_files_say_where() {
        for (text, expected) in [
            (r#"{"compare":[{"key":"a"}]}"#, "compare[0]: wanted: one of"),
            (
                r#"{"compare":[{"key":"a","absent":true,"revision":1}]}"#,
                "compare[0]: wanted: one of",
            ),
            (r#"{"then":[{"get":{}}]}"#, "then[0]: neither `key`"),
            (
                r#"{"else":[{"put":{"key":"a"}}]}"#,
                "else[0]: neither `value`",
            ),
            (r#"{"then":[{"increment":{"key":"a"}}]}"#, "unknown variant"),
            (r#"{"otherwise":[]}"#, "unknown field"),
            ("", "EOF"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
