//! Bytes of a file one by one, with the line they stand in. Knows no format.

use std::io::{ErrorKind, Read};

use super::error::{Problem, ReadError};

/// How much is read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// A place in a file.
pub(super) struct Cursor<R> {
    source: R,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    line: u64,
}

impl<R: Read> Cursor<R> {
    pub(super) fn new(source: R, line: u64) -> Self {
        Self {
            source,
            buffer: vec![0; BUFFER_BYTES],
            at: 0,
            end: 0,
            line,
        }
    }

    /// The line of the next byte, from 1 on.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The next byte, which stays; none at the end of the file.
    pub(super) fn peek(&mut self) -> Result<Option<u8>, ReadError> {
        if self.at == self.end && !self.fill()? {
            return Ok(None);
        }
        Ok(Some(self.buffer[self.at]))
    }

    /// Takes the byte that was peeked at.
    pub(super) fn skip(&mut self) {
        debug_assert!(self.at < self.end, "only what was peeked at is skipped");
        if self.buffer[self.at] == b'\n' {
            self.line += 1;
        }
        self.at += 1;
    }

    /// Takes the next byte.
    pub(super) fn next(&mut self) -> Result<Option<u8>, ReadError> {
        let byte = self.peek()?;
        if byte.is_some() {
            self.skip();
        }
        Ok(byte)
    }

    /// The next line without its end; none at the end of the file.
    pub(super) fn next_line(&mut self) -> Result<Option<String>, ReadError> {
        if self.peek()?.is_none() {
            return Ok(None);
        }
        let line = self.line;
        let mut bytes = Vec::new();
        while let Some(byte) = self.next()? {
            if byte == b'\n' {
                break;
            }
            bytes.push(byte);
        }
        text(bytes, line).map(Some)
    }

    /// Reads more; false at the end of the file.
    fn fill(&mut self) -> Result<bool, ReadError> {
        loop {
            match self.source.read(&mut self.buffer) {
                Ok(count) => {
                    self.at = 0;
                    self.end = count;
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::new(self.line, Problem::Io(error))),
            }
        }
    }
}

/// Bytes of a line as text.
pub(super) fn text(bytes: Vec<u8>, line: u64) -> Result<String, ReadError> {
    String::from_utf8(bytes).map_err(|_| ReadError::new(line, Problem::NotUtf8))
}
