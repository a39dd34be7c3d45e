//! Standard output of a command: text for people, JSON for programs, bytes as they are.
//!
//! Results only. Errors, hints and remarks go to standard error (see `error`), so that a
//! pipe carries nothing but the answer.

use std::fmt::Display;
use std::io::{BufWriter, IsTerminal, Stdout, Write};

use clap::ValueEnum;
use quorate_client::Receipt;
use serde_json::{Map, Value};

use super::error::CliError;
use super::json;

/// Bytes of output that are gathered before they are written.
const OUTPUT_BUFFER_BYTES: usize = 64 << 10;

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON value a line.
    Json,
}

/// Where a command's results go.
pub struct Output {
    /// How results are written.
    pub format: Format,
    /// Receipts are wanted.
    pub receipt: bool,
    writer: BufWriter<Box<dyn Write + Send>>,
    terminal: bool,
}

impl Output {
    /// Results go to standard output.
    pub fn stdout(format: Format, receipt: bool) -> Self {
        let stdout: Stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        Self::to(Box::new(stdout), terminal, format, receipt)
    }

    fn to(writer: Box<dyn Write + Send>, terminal: bool, format: Format, receipt: bool) -> Self {
        Self {
            format,
            receipt,
            writer: BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, writer),
            terminal,
        }
    }

    /// Whether results are wanted as JSON.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether a person looks at the results as they come.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes one line of text.
    ///
    /// # Errors
    ///
    /// [`CliError::Output`] when nobody takes the output.
    pub fn line(&mut self, text: impl Display) -> Result<(), CliError> {
        writeln!(self.writer, "{text}").map_err(CliError::Output)
    }

    /// Writes one JSON value and a newline.
    ///
    /// # Errors
    ///
    /// As [`Output::line`].
    pub fn json(&mut self, value: &Value) -> Result<(), CliError> {
        self.line(value)
    }

    /// Writes a JSON object, with the receipt if receipts are wanted.
    ///
    /// # Errors
    ///
    /// As [`Output::line`].
    pub fn object(
        &mut self,
        mut object: Map<String, Value>,
        receipt: &Receipt,
    ) -> Result<(), CliError> {
        if self.receipt {
            object.insert("receipt".to_owned(), json::receipt(receipt));
        }
        self.line(Value::Object(object))
    }

    /// Tells people what was delivered, beside the results, if they want to know.
    pub fn remark_receipt(&self, receipt: &Receipt) {
        if self.receipt && !self.is_json() {
            self.remark(&json::receipt_line(receipt));
        }
    }

    /// Says something beside the results, on standard error.
    pub fn remark(&self, text: &str) {
        // Without a standard error there is nobody left to tell.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Writes bytes exactly as they are.
    ///
    /// # Errors
    ///
    /// As [`Output::line`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.writer.write_all(bytes).map_err(CliError::Output)
    }

    /// Hands over what was gathered.
    ///
    /// # Errors
    ///
    /// As [`Output::line`].
    pub fn flush(&mut self) -> Result<(), CliError> {
        self.writer.flush().map_err(CliError::Output)
    }
}
