//! Values as histories show them: what was written, read, compared.
//!
//! EDN and JSON both end here, so keywords, symbols and strings are one thing (text), and lists,
//! vectors and sets another. What a value means is each checker's business.

use std::fmt;

/// One value of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Nothing: `nil`, `null`.
    #[default]
    Nil,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number, as the bits of an `f64`.
    Real(u64),
    /// A string, keyword, symbol or character.
    Text(Box<str>),
    /// A list, vector or set, in the order of the file.
    List(Box<[Value]>),
    /// A map, in the order of the file.
    Map(Box<[(Value, Value)]>),
}

impl Value {
    /// Text as a value.
    pub fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// A list of values.
    pub fn list(values: impl Into<Box<[Value]>>) -> Self {
        Self::List(values.into())
    }

    /// Whether this is [`Value::Nil`].
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// The whole number that this is.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Nil
            | Self::Bool(_)
            | Self::Real(_)
            | Self::Text(_)
            | Self::List(_)
            | Self::Map(_) => None,
        }
    }

    /// The text that this is.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Nil
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Real(_)
            | Self::List(_)
            | Self::Map(_) => None,
        }
    }

    /// The elements of the list that this is.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Self::List(values) => Some(values),
            Self::Nil
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Real(_)
            | Self::Text(_)
            | Self::Map(_) => None,
        }
    }

    /// The entries of the map that this is.
    pub fn as_map(&self) -> Option<&[(Value, Value)]> {
        match self {
            Self::Map(entries) => Some(entries),
            Self::Nil
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Real(_)
            | Self::Text(_)
            | Self::List(_) => None,
        }
    }

    /// What a map holds under a name; nothing if this is no map.
    pub fn field(&self, name: &str) -> Option<&Value> {
        let entries = self.as_map()?;
        let found = entries.iter().find(|(key, _)| key.as_text() == Some(name));
        found.map(|(_, value)| value)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Bool(value) => value.fmt(f),
            Self::Int(number) => number.fmt(f),
            Self::Real(bits) => f64::from_bits(*bits).fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::List(values) => {
                f.write_str("[")?;
                for (number, value) in values.iter().enumerate() {
                    if number > 0 {
                        f.write_str(" ")?;
                    }
                    value.fmt(f)?;
                }
                f.write_str("]")
            }
            Self::Map(entries) => {
                f.write_str("{")?;
                for (number, (key, value)) in entries.iter().enumerate() {
                    if number > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{key} {value}")?;
                }
                f.write_str("}")
            }
        }
    }
}
