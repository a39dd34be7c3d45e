//! Files as streams of events and operations, whatever their format.

use std::io::{BufRead, Read};
use std::iter::FusedIterator;
use std::path::Path;

use super::cursor::Cursor;
use super::error::{Problem, ReadError};
use super::event::Builder;
use super::pairing::{Open, Pairing};
use super::{Event, Operation, edn, json, log};
use crate::value::Value;

/// How a history is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Maps of EDN, one after the other or in one vector or list.
    Edn,
    /// Objects of JSON, one after the other (JSON lines) or in one array.
    Json,
    /// Jepsen's console log.
    Log,
}

impl Format {
    /// The format of a file, by its name and, where that says nothing, by how it begins.
    pub fn of(path: &Path, beginning: &[u8]) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("edn") => Self::Edn,
            Some("json" | "jsonl" | "ndjson") => Self::Json,
            _ if beginning.trim_ascii_start().starts_with(b"INFO") => Self::Log,
            Some("log") => Self::Log,
            _ if looks_like_json(beginning) => Self::Json,
            _ => Self::Edn,
        }
    }
}

/// An object's first key stands in quotes; EDN's keywords do not.
fn looks_like_json(beginning: &[u8]) -> bool {
    let mut bytes = beginning.iter().filter(|byte| !byte.is_ascii_whitespace());
    let first = bytes.find(|byte| **byte != b'[');
    first == Some(&b'{') && bytes.next() == Some(&b'"')
}

/// The events of a file, in its order. Ends after the first error.
pub struct Events<R> {
    cursor: Cursor<R>,
    format: Format,
    builder: Builder,
    place: Place,
    seen: bool,
}

/// Where in the file the reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Start,
    /// Events follow each other without a collection around them.
    Bare,
    /// Within a collection that this byte closes.
    Inside(u8),
    Ended,
}

impl<R: Read> Events<R> {
    /// Reads a file in a format.
    pub fn new(source: R, format: Format) -> Self {
        Self {
            cursor: Cursor::new(source, 1),
            format,
            builder: Builder::default(),
            place: Place::Start,
            seen: false,
        }
    }

    fn next_event(&mut self) -> Result<Option<Event>, ReadError> {
        let event = match self.format {
            Format::Log => self.next_logged(),
            Format::Edn | Format::Json => self.next_map(),
        }?;
        if event.is_none() && !self.seen {
            return Err(ReadError::new(self.cursor.line(), Problem::Empty));
        }
        self.seen = true;
        Ok(event)
    }

    fn next_logged(&mut self) -> Result<Option<Event>, ReadError> {
        loop {
            let number = self.cursor.line();
            let Some(text) = self.cursor.next_line()? else {
                return Ok(None);
            };
            if let Some(line) = log::line(&text, number)? {
                return self.builder.logged(line, number).map(Some);
            }
        }
    }

    fn next_map(&mut self) -> Result<Option<Event>, ReadError> {
        if self.place == Place::Start {
            self.open()?;
        }
        if let Place::Inside(close) = self.place
            && self.closes(close)?
        {
            return self.end().map(|()| None);
        }
        self.blanks()?;
        let line = self.cursor.line();
        match (self.value()?, self.place) {
            (Some(value), _) => self.builder.event(value, line).map(Some),
            (None, Place::Inside(_)) => {
                let problem = Problem::Truncated("the history's list");
                Err(ReadError::new(self.cursor.line(), problem))
            }
            (None, Place::Start | Place::Bare | Place::Ended) => Ok(None),
        }
    }

    /// Looks whether there is one collection around everything.
    fn open(&mut self) -> Result<(), ReadError> {
        self.blanks()?;
        self.place = match (self.cursor.peek()?, self.format) {
            (Some(b'['), _) => Place::Inside(b']'),
            (Some(b'('), Format::Edn) => Place::Inside(b')'),
            _ => Place::Bare,
        };
        if self.place != Place::Bare {
            self.cursor.skip();
        }
        Ok(())
    }

    /// Whether the collection ends here; takes what stands between two events.
    fn closes(&mut self, close: u8) -> Result<bool, ReadError> {
        self.blanks()?;
        if json::take(&mut self.cursor, close)? {
            return Ok(true);
        }
        if self.format == Format::Json && self.seen && !json::take(&mut self.cursor, b',')? {
            return Err(json::unexpected(&mut self.cursor)?);
        }
        Ok(false)
    }

    /// Nothing may follow the collection.
    fn end(&mut self) -> Result<(), ReadError> {
        self.blanks()?;
        match self.cursor.peek()? {
            None => Ok(()),
            Some(_) => Err(ReadError::syntax(
                self.cursor.line(),
                "something follows the end of the history's list",
            )),
        }
    }

    fn blanks(&mut self) -> Result<(), ReadError> {
        match self.format {
            Format::Edn => edn::blanks(&mut self.cursor),
            Format::Json | Format::Log => json::blanks(&mut self.cursor),
        }
    }

    fn value(&mut self) -> Result<Option<Value>, ReadError> {
        match self.format {
            Format::Edn => edn::value(&mut self.cursor, edn::NESTING_MAX_LEVELS),
            Format::Json | Format::Log => json::value(&mut self.cursor, edn::NESTING_MAX_LEVELS),
        }
    }
}

impl<R: Read> Iterator for Events<R> {
    type Item = Result<Event, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.place == Place::Ended {
            return None;
        }
        let next = self.next_event().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.place = Place::Ended;
        }
        next
    }
}

impl<R: Read> FusedIterator for Events<R> {}

/// The operations of a file: each when it is completed, those that never are at the end.
pub struct Operations<R> {
    events: Events<R>,
    pairing: Option<Pairing>,
    open: Open,
}

/// Reads a file's operations.
///
/// # Errors
///
/// The iterator's items are the errors: of the file, its syntax, and of events that make no
/// history. It ends after the first.
pub fn operations<R: BufRead>(mut source: R, path: &Path) -> Operations<R> {
    // An error comes again with the first event.
    let beginning = source.fill_buf().unwrap_or_default();
    let format = Format::of(path, beginning);
    Operations {
        events: Events::new(source, format),
        pairing: Some(Pairing::default()),
        open: Open::default(),
    }
}

impl<R: Read> Iterator for Operations<R> {
    type Item = Result<Operation, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(pairing) = &mut self.pairing {
            let step = match self.events.next() {
                Some(event) => event.and_then(|event| pairing.event(event)),
                None => {
                    self.open = self.pairing.take().map(Pairing::finish).unwrap_or_default();
                    break;
                }
            };
            match step {
                Ok(Some(operation)) => return Some(Ok(operation)),
                Ok(None) => {}
                Err(error) => {
                    self.pairing = None;
                    return Some(Err(error));
                }
            }
        }
        self.open.next().map(Ok)
    }
}
