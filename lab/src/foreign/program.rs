//! A client as a program: a call is a line of JSON on its standard input, what came of it a line
//! on its standard output.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::error::LabError;

/// A program that has not answered within this is ended, and its call's outcome is unknown.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// A program that has just been started is given more: interpreters take their time.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(20);

/// What came of a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// It is done; with what.
    Ok(Json),
    /// It was not done, and will not be; why, where it says so.
    Fail(Option<String>),
    /// Nobody knows.
    Info(String),
}

/// A program that runs.
pub(crate) struct Program {
    // Killed when it is dropped.
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    has_answered: bool,
}

impl Program {
    pub(super) fn start(mut command: Command, shown: &str) -> Result<Self, LabError> {
        let failed = |problem: String| LabError::Command {
            command: shown.to_owned(),
            problem,
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stdin = stdin.expect("standard input was asked for as a pipe");
        let stdout = stdout.expect("standard output was asked for as a pipe");
        Ok(Self {
            _child: child,
            stdin,
            lines: BufReader::new(stdout).lines(),
            has_answered: false,
        })
    }

    /// Makes one call. The second is false if the program is of no use any more.
    pub(crate) async fn call(&mut self, f: &str, key: i64, value: &Json) -> (Answer, bool) {
        let mut line = json!({"f": f, "key": key, "value": value}).to_string();
        line.push('\n');
        let ask = async {
            self.stdin.write_all(line.as_bytes()).await?;
            self.stdin.flush().await?;
            self.lines.next_line().await
        };
        let lost = |what: String| (Answer::Info(what), false);
        let patience = match self.has_answered {
            true => ANSWER_MAX,
            false => FIRST_ANSWER_MAX,
        };
        let asked = tokio::time::timeout(patience, ask).await;
        self.has_answered = true;
        match asked {
            Err(_) => lost("the client does not answer".to_owned()),
            Ok(Err(error)) => lost(format!("the client: {error}")),
            Ok(Ok(None)) => lost("the client has ended".to_owned()),
            Ok(Ok(Some(line))) => match answer(&line) {
                Some(answer) => (answer, true),
                None => lost(format!("the client says {line:?}")),
            },
        }
    }
}

/// What a line says; none: nothing that is known.
fn answer(line: &str) -> Option<Answer> {
    let said: Json = serde_json::from_str(line).ok()?;
    let error = said.get("error").map(|error| match error {
        Json::String(error) => error.clone(),
        other => other.to_string(),
    });
    Some(match said.get("type")?.as_str()? {
        "ok" => Answer::Ok(said.get("value").cloned().unwrap_or(Json::Null)),
        "fail" => Answer::Fail(error),
        "info" => Answer::Info(error.unwrap_or_else(|| "unknown".to_owned())),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn answers_are_lines() {
        let ok = Answer::Ok(json!(4));
        assert_eq!(answer(r#"{"type":"ok","value":4}"#), Some(ok));
        assert_eq!(answer(r#"{"type":"fail"}"#), Some(Answer::Fail(None)));
        let info = Answer::Info("timed out".to_owned());
        let said = r#"{"type":"info","error":"timed out"}"#;
        assert_eq!(answer(said), Some(info));
        assert_eq!(answer("hello"), None);
        assert_eq!(answer(r#"{"type":"maybe"}"#), None);
    }

    fn program(script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program::start(command, script).unwrap()
    }

    #[tokio::test]
    async fn a_program_answers_line_by_line() {
        let mut echo = program(r#"while read line; do echo '{"type":"ok","value":7}'; done"#);
        for _ in 0..2 {
            let told = echo.call("read", 1, &Json::Null).await;
            assert_eq!(told, (Answer::Ok(json!(7)), true));
        }
    }

    #[tokio::test]
    async fn what_a_program_that_ends_was_asked_is_unknown() {
        for script in ["exit 0", "read line; echo nonsense"] {
            let (answer, is_of_use) = program(script).call("write", 1, &json!(2)).await;
            assert!(matches!(answer, Answer::Info(_)), "{script}: {answer:?}");
            assert!(!is_of_use);
        }
    }
}
