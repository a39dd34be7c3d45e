//! Ladders: levels in order of preference, each with a budget of time.
//!
//! Not here: climbing down one (the gateway does).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration::{format_duration, parse_duration};
use crate::error::ParseError;
use crate::level::Level;
use crate::limits::LADDER_RUNGS_MAX;

/// One level of a ladder, and how long it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rung {
    /// What is tried.
    pub level: Level,
    /// For how long; none: for what is left of the request's time.
    pub budget: Option<Duration>,
}

/// Levels in order of preference: the first that can be met in its budget is taken.
/// As text: `linearizable@200ms > eventual:quorum@100ms > eventual:one`. A single level is
/// a ladder of one rung. Parsed ladders have 1 to [`LADDER_RUNGS_MAX`] rungs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ladder(pub Vec<Rung>);

impl Ladder {
    /// The rungs, the preferred one first.
    pub fn rungs(&self) -> &[Rung] {
        &self.0
    }
}

impl From<Level> for Ladder {
    fn from(level: Level) -> Self {
        Self(vec![Rung {
            level,
            budget: None,
        }])
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.level.fmt(f)?;
        match self.budget {
            Some(budget) => write!(f, "@{}", format_duration(budget)),
            None => Ok(()),
        }
    }
}

impl FromStr for Rung {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let Some((level, budget)) = text.split_once('@') else {
            return Ok(Self {
                level: text.parse()?,
                budget: None,
            });
        };
        let budget = parse_duration(budget)?;
        if budget.is_zero() {
            let allowed = "LEVEL or LEVEL@BUDGET with a budget above 0";
            return Err(ParseError::new("rung of a ladder", text, allowed));
        }
        Ok(Self {
            level: level.parse()?,
            budget: Some(budget),
        })
    }
}

impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rung) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" > ")?;
            }
            rung.fmt(f)?;
        }
        Ok(())
    }
}

impl FromStr for Ladder {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.split('>').count() > LADDER_RUNGS_MAX {
            let allowed = format!("1 to {LADDER_RUNGS_MAX} rungs");
            return Err(ParseError::new("ladder", text, allowed));
        }
        text.split('>')
            .map(|rung| rung.trim().parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl From<Ladder> for String {
    fn from(ladder: Ladder) -> Self {
        ladder.to_string()
    }
}

impl TryFrom<String> for Ladder {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}
