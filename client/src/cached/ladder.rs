//! Ladders whose last rung is a copy that the client keeps. Servers never see that rung.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use quorate_types::{Ladder, Level, ParseError, format_duration, parse_duration};

/// Levels that servers are asked for, and how old a copy may be that is taken instead. As text:
/// `linearizable@200ms > bounded:5s@100ms > cached:10m`; `cached:10m` alone asks nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedLadder {
    /// What servers are asked for; none: they are not asked.
    pub served: Option<Ladder>,
    /// The last rung: how old the copy may be; none: no copy is taken.
    pub max_age: Option<Duration>,
}

impl CachedLadder {
    /// Servers at the level `linearizable`, and no copy.
    pub fn default_level() -> Self {
        Self {
            served: Some(Ladder::from(Level::Linearizable)),
            max_age: None,
        }
    }

    /// How long servers have; none: as long as a request may take.
    pub fn budget(&self) -> Option<Duration> {
        let rungs = self.served.as_ref()?.rungs();
        rungs.iter().map(|rung| rung.budget).sum()
    }

    /// The place of the last rung.
    pub(super) fn cached_rung(&self) -> u32 {
        let above = self
            .served
            .as_ref()
            .map_or(0, |ladder| ladder.rungs().len());
        u32::try_from(above).unwrap_or(u32::MAX)
    }
}

impl FromStr for CachedLadder {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (above, last) = match text.rsplit_once('>') {
            Some((above, last)) => (Some(above), last.trim()),
            None => (None, text.trim()),
        };
        let Some(age) = last.strip_prefix("cached") else {
            return Ok(Self {
                served: Some(text.parse()?),
                max_age: None,
            });
        };
        let Some(age) = age.strip_prefix(':') else {
            let allowed = "cached:DURATION, as in cached:10m, last in a ladder";
            return Err(ParseError::new("rung of a ladder", last, allowed));
        };
        Ok(Self {
            served: above.map(str::parse).transpose()?,
            max_age: Some(parse_duration(age)?),
        })
    }
}

impl fmt::Display for CachedLadder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ladder) = &self.served {
            ladder.fmt(f)?;
        }
        match self.max_age {
            Some(age) if self.served.is_some() => write!(f, " > cached:{}", format_duration(age)),
            Some(age) => write!(f, "cached:{}", format_duration(age)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_copy_is_the_last_rung_or_none() {
        for (text, budget_ms, age_ms) in [
            ("linearizable@200ms > cached:10m", Some(200), Some(600_000)),
            (
                "linearizable@200ms > stale@1s > cached:1s",
                Some(1200),
                Some(1000),
            ),
            ("linearizable > cached:10m", None, Some(600_000)),
            ("cached:5s", None, Some(5000)),
            ("linearizable", None, None),
        ] {
            let ladder: CachedLadder = text.parse().unwrap();
            assert_eq!(
                ladder.budget().map(|it| it.as_millis()),
                budget_ms,
                "{text}"
            );
            assert_eq!(ladder.max_age.map(|it| it.as_millis()), age_ms, "{text}");
            assert_eq!(ladder.to_string().parse(), Ok(ladder), "{text}");
        }
    }

    #[test]
    fn copies_without_an_age_or_in_the_middle_are_refused() {
        for text in [
            "cached",
            "cached:",
            "cached:5s > stale",
            "linearizable > cached",
            "",
        ] {
            assert!(text.parse::<CachedLadder>().is_err(), "{text}");
        }
    }
}
