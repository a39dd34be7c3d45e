//! What a flag is: variants of one type, a default, and rules that pick among them; as JSON.
//!
//! Values and their checks, nothing else. How one is picked is in `evaluate`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// Most rules of one flag.
pub const FLAG_RULES_MAX: usize = 256;

/// What a flag's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlagType {
    /// `true` and `false`.
    Boolean,
    /// Texts.
    String,
    /// Numbers.
    Number,
    /// Any JSON; OpenFeature's "object".
    Json,
}

impl FlagType {
    /// Whether a value is of this type.
    pub fn takes(self, value: &Value) -> bool {
        match self {
            Self::Boolean => value.is_boolean(),
            Self::String => value.is_string(),
            Self::Number => value.is_number(),
            Self::Json => true,
        }
    }

    /// The narrowest type that takes a value.
    pub fn of(value: &Value) -> FlagType {
        match value {
            Value::Bool(_) => Self::Boolean,
            Value::String(_) => Self::String,
            Value::Number(_) => Self::Number,
            Value::Null | Value::Array(_) | Value::Object(_) => Self::Json,
        }
    }
}

/// How an attribute is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// It is one of the values.
    #[default]
    In,
    /// It is none of them. An attribute that is not there is none of them.
    NotIn,
    /// A text that starts with one of them.
    StartsWith,
    /// A text that ends with one of them.
    EndsWith,
    /// A text that contains one of them.
    Contains,
    /// A number above the first value.
    Above,
    /// A number below the first value.
    Below,
    /// It is there.
    Exists,
}

/// One condition on the context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Which attribute; `targeting_key` is one.
    pub attribute: String,
    /// How it is compared.
    #[serde(default)]
    pub test: Test,
    /// With what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Value>,
}

/// The first rule whose conditions all hold picks the variant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// All must hold; none: it holds for everybody.
    #[serde(default, rename = "if", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// This variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve: Option<String>,
    /// Or one of these, each to its share of all who are told apart by `by`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub split: BTreeMap<String, f64>,
    /// The attribute by which a split tells apart; none: the targeting key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// A flag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flag {
    /// What its values are.
    #[serde(rename = "type")]
    pub kind: FlagType,
    /// A flag that is off gives the caller's own default.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Values by name.
    pub variants: BTreeMap<String, Value>,
    /// The variant where no rule holds.
    pub default: String,
    /// In order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Two flags with one salt split alike; none: the flag's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

const fn yes() -> bool {
    true
}

/// Why a text is no flag.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {problem}")]
pub struct FlagError {
    /// As in `rules[2].serve`.
    pub place: String,
    /// What is wrong there.
    pub problem: String,
}

fn wrong(place: impl Into<String>, problem: impl Into<String>) -> FlagError {
    FlagError {
        place: place.into(),
        problem: problem.into(),
    }
}

impl Flag {
    /// A flag that gives everybody one value. One of type boolean has both variants, `on` and
    /// `off`, for rules to come.
    pub fn constant(value: Value) -> Flag {
        let kind = FlagType::of(&value);
        let (variants, default) = match value {
            Value::Bool(on) => {
                let variants = [
                    ("on".to_owned(), true.into()),
                    ("off".to_owned(), false.into()),
                ];
                (BTreeMap::from(variants), if on { "on" } else { "off" })
            }
            value => (BTreeMap::from([("value".to_owned(), value)]), "value"),
        };
        Flag {
            kind,
            enabled: true,
            variants,
            default: default.to_owned(),
            rules: Vec::new(),
            salt: None,
            description: String::new(),
        }
    }

    /// Parses a definition.
    ///
    /// # Errors
    ///
    /// [`FlagError`], naming the place.
    pub fn parse(text: &[u8]) -> Result<Flag, FlagError> {
        let flag: Flag =
            serde_json::from_slice(text).map_err(|error| wrong("definition", error.to_string()))?;
        flag.validate()?;
        Ok(flag)
    }

    /// Whether its parts fit each other.
    ///
    /// # Errors
    ///
    /// [`FlagError`], naming the first place that does not.
    pub fn validate(&self) -> Result<(), FlagError> {
        for (name, value) in &self.variants {
            if !self.kind.takes(value) {
                let problem = format!("{value} is not of the type {:?}", self.kind);
                return Err(wrong(format!("variants.{name}"), problem.to_lowercase()));
            }
        }
        self.knows("default", &self.default)?;
        if self.rules.len() > FLAG_RULES_MAX {
            return Err(wrong("rules", format!("more than {FLAG_RULES_MAX}")));
        }
        for (at, rule) in self.rules.iter().enumerate() {
            self.validate_rule(&format!("rules[{at}]"), rule)?;
        }
        Ok(())
    }

    fn knows(&self, place: impl Into<String>, variant: &str) -> Result<(), FlagError> {
        if self.variants.contains_key(variant) {
            return Ok(());
        }
        let known: Vec<&str> = self.variants.keys().map(String::as_str).collect();
        let problem = format!("no variant {variant:?}; there are: {}", known.join(", "));
        Err(wrong(place, problem))
    }

    fn validate_rule(&self, place: &str, rule: &Rule) -> Result<(), FlagError> {
        match (&rule.serve, rule.split.is_empty()) {
            (Some(variant), true) => self.knows(format!("{place}.serve"), variant)?,
            (None, false) => {}
            (Some(_), false) | (None, true) => {
                return Err(wrong(place, "say one of `serve` and `split`"));
            }
        }
        for (variant, share) in &rule.split {
            self.knows(format!("{place}.split"), variant)?;
            if !share.is_finite() || *share < 0.0 {
                return Err(wrong(
                    format!("{place}.split.{variant}"),
                    "a share is 0 or more",
                ));
            }
        }
        if !rule.split.is_empty() && rule.split.values().sum::<f64>() <= 0.0 {
            return Err(wrong(
                format!("{place}.split"),
                "the shares come to nothing",
            ));
        }
        for (at, condition) in rule.conditions.iter().enumerate() {
            let place = format!("{place}.if[{at}].values");
            let fits = |fits: fn(&Value) -> bool| {
                !condition.values.is_empty() && condition.values.iter().all(fits)
            };
            let problem = match condition.test {
                Test::Exists => (!condition.values.is_empty()).then_some("`exists` takes none"),
                Test::In | Test::NotIn => condition.values.is_empty().then_some("there are none"),
                Test::StartsWith | Test::EndsWith | Test::Contains => {
                    (!fits(Value::is_string)).then_some("wanted: texts")
                }
                Test::Above | Test::Below => {
                    let one = condition.values.len() == 1 && fits(Value::is_number);
                    (!one).then_some("wanted: one number")
                }
            };
            if let Some(problem) = problem {
                return Err(wrong(place, problem));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check(text: &str, expected: &str) {
        let error = Flag::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }

    #[test]
    fn flags_that_are_none_are_refused_by_their_place() {
        let with = |rest: &str| {
            format!(
                r#"{{"type":"boolean","variants":{{"on":true,"off":false}},"default":"off"{rest}}}"#
            )
        };
        Flag::parse(with("").as_bytes()).unwrap();
        let rule = |rule: &str| with(&format!(r#","rules":[{rule}]"#));
        check("", "definition: EOF");
        check(r#"{"type":"colour"}"#, "definition: unknown variant");
        check(&with(r#","colour":1"#), "definition: unknown field");
        check(
            r#"{"type":"boolean","variants":{"on":"yes"},"default":"on"}"#,
            "variants.on: \"yes\" is not of the type boolean",
        );
        check(
            r#"{"type":"number","variants":{"one":1},"default":"two"}"#,
            "default: no variant \"two\"; there are: one",
        );
        check(&rule("{}"), "rules[0]: say one of");
        check(
            &rule(r#"{"serve":"on","split":{"on":1}}"#),
            "rules[0]: say one of",
        );
        check(&rule(r#"{"serve":"of"}"#), "rules[0].serve: no variant");
        check(&rule(r#"{"split":{"on":0}}"#), "rules[0].split: the shares");
        check(
            &rule(r#"{"split":{"on":-1}}"#),
            "rules[0].split.on: a share",
        );
        let condition = |test: &str, values: &str| {
            rule(&format!(
                r#"{{"serve":"on","if":[{{"attribute":"a","test":"{test}","values":{values}}}]}}"#
            ))
        };
        check(
            &condition("in", "[]"),
            "rules[0].if[0].values: there are none",
        );
        check(
            &condition("above", r#"["1"]"#),
            "rules[0].if[0].values: wanted: one number",
        );
        check(
            &condition("contains", "[1]"),
            "rules[0].if[0].values: wanted: texts",
        );
        check(
            &condition("exists", "[1]"),
            "rules[0].if[0].values: `exists`",
        );
    }

    #[test]
    fn a_constant_flag_survives_its_text() {
        for value in [
            true.into(),
            "x".into(),
            1.5.into(),
            serde_json::json!({"a": [1]}),
        ] {
            let flag = Flag::constant(value);
            flag.validate().unwrap();
            let text = serde_json::to_vec(&flag).unwrap();
            assert_eq!(Flag::parse(&text), Ok(flag));
        }
    }
}
