//! From a map of EDN or JSON to an event.

use super::error::ReadError;
use super::{Event, Kind, Name, Process};
use crate::value::Value;

/// Names that are remembered, so that each is allocated once. Past it, new ones are not shared.
const NAMES_MAX: usize = 64;

/// Makes events of maps.
#[derive(Default)]
pub(super) struct Builder {
    names: Vec<Name>,
}

impl Builder {
    /// The event of a map that begins in a line.
    pub(super) fn event(&mut self, value: Value, line: u64) -> Result<Event, ReadError> {
        let Value::Map(entries) = value else {
            let what = format!("wanted the map of an event, found `{}`", shortened(&value));
            return Err(ReadError::event(line, what));
        };
        let mut event = self.blank(line);
        let mut kind = None;
        for (key, value) in entries {
            match key.as_text() {
                Some("type") => kind = Some(kind_of(&value, line)?),
                Some("f") => event.f = self.name(&value),
                Some("process") => event.process = self.process(&value),
                Some("value") => event.value = value,
                Some("key") => event.key = Some(value),
                Some("index") => event.index = whole(&value, "index", line)?,
                Some("time") => event.time_nanoseconds = whole(&value, "time", line)?,
                _ => {}
            }
        }
        event.kind = kind.ok_or_else(|| ReadError::event(line, "an event without `type`"))?;
        Ok(event)
    }

    /// The event of a log's line.
    pub(super) fn logged(
        &mut self,
        logged: super::log::Line,
        line: u64,
    ) -> Result<Event, ReadError> {
        Ok(Event {
            kind: kind_of(&Value::text(&logged.kind), line)?,
            f: self.name(&Value::text(&logged.f)),
            process: self.process(&logged.process),
            value: logged.value,
            ..self.blank(line)
        })
    }

    fn blank(&mut self, line: u64) -> Event {
        Event {
            line,
            index: None,
            time_nanoseconds: None,
            process: Process::Unnamed,
            kind: Kind::Info,
            f: self.name(&Value::Nil),
            key: None,
            value: Value::Nil,
        }
    }

    fn name(&mut self, value: &Value) -> Name {
        let written;
        let text = match value {
            Value::Nil => "",
            Value::Text(text) => text,
            other => {
                written = other.to_string();
                &written
            }
        };
        if let Some(name) = self.names.iter().find(|name| &***name == text) {
            return name.clone();
        }
        let name = Name::from(text);
        if self.names.len() < NAMES_MAX {
            self.names.push(name.clone());
        }
        name
    }

    fn process(&mut self, value: &Value) -> Process {
        match value {
            Value::Int(number) => Process::Client(*number),
            Value::Nil => Process::Unnamed,
            other => Process::Other(self.name(other)),
        }
    }
}

fn kind_of(value: &Value, line: u64) -> Result<Kind, ReadError> {
    match value.as_text() {
        Some("invoke") => Ok(Kind::Invoke),
        Some("ok") => Ok(Kind::Ok),
        Some("fail") => Ok(Kind::Fail),
        Some("info") => Ok(Kind::Info),
        _ => {
            let found = shortened(value);
            let what = format!("`type` is invoke, ok, fail or info, not `{found}`");
            Err(ReadError::event(line, what))
        }
    }
}

fn whole(value: &Value, name: &str, line: u64) -> Result<Option<i64>, ReadError> {
    match value {
        Value::Nil => Ok(None),
        Value::Int(number) => Ok(Some(*number)),
        other => {
            let what = format!("`{name}` is a whole number, not `{}`", shortened(other));
            Err(ReadError::event(line, what))
        }
    }
}

/// A value in a message: the beginning will do.
fn shortened(value: &Value) -> String {
    const SHOWN_MAX_CHARACTERS: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_MAX_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
