//! Which value a flag has for somebody: a function of the flag and the context alone, the same on
//! every machine and in every version.
//!
//! The words are OpenFeature's: variants, reasons, error codes.

use std::collections::BTreeMap;
use std::fmt;

use quorate_types::stable_hash;
use serde_json::Value;

use super::definition::{Condition, Flag, FlagType, Rule, Test};

/// The name under which conditions see the targeting key.
const TARGETING_KEY: &str = "targeting_key";

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvaluationContext {
    /// Tells apart those among whom a split shares; none: nobody in particular.
    pub targeting_key: Option<String>,
    /// What rules look at.
    pub attributes: BTreeMap<String, Value>,
}

impl EvaluationContext {
    /// Somebody.
    pub fn of(targeting_key: impl Into<String>) -> Self {
        Self {
            targeting_key: Some(targeting_key.into()),
            attributes: BTreeMap::new(),
        }
    }

    /// With one more attribute.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    fn attribute(&self, name: &str) -> Option<Value> {
        match (self.attributes.get(name), &self.targeting_key) {
            (Some(value), _) => Some(value.clone()),
            (None, Some(key)) if name == TARGETING_KEY => Some(key.as_str().into()),
            (None, _) => None,
        }
    }
}

macro_rules! wire_words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// OpenFeature's word.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

wire_words! {
    /// Why a flag has its value.
    FlagReason {
        /// It has no rules.
        Static = "STATIC",
        /// No rule held.
        Default = "DEFAULT",
        /// A rule held.
        TargetingMatch = "TARGETING_MATCH",
        /// A rule held, and shares among several variants.
        Split = "SPLIT",
        /// The flag is off: the caller's own default.
        Disabled = "DISABLED",
        /// It could not be told: the caller's own default.
        Error = "ERROR",
    }
}

wire_words! {
    /// Why a flag could not be evaluated.
    FlagErrorCode {
        /// No copy of the flags is there yet.
        ProviderNotReady = "PROVIDER_NOT_READY",
        /// There is no such flag.
        FlagNotFound = "FLAG_NOT_FOUND",
        /// Its definition is none.
        ParseError = "PARSE_ERROR",
        /// It is of another type than was asked for.
        TypeMismatch = "TYPE_MISMATCH",
        /// It splits by the targeting key, and the context has none.
        TargetingKeyMissing = "TARGETING_KEY_MISSING",
        /// It splits by an attribute that is no text or number, or not there.
        InvalidContext = "INVALID_CONTEXT",
    }
}

/// What an evaluation came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The value; none: take your own default.
    pub value: Option<Value>,
    /// Its name.
    pub variant: Option<String>,
    /// Why.
    pub reason: FlagReason,
    /// Why not, and in words.
    pub error: Option<(FlagErrorCode, String)>,
    /// What was looked at, in order, in words.
    pub trace: Vec<String>,
}

impl Evaluation {
    /// One that has no value.
    pub(super) fn failed(code: FlagErrorCode, problem: impl Into<String>) -> Self {
        Self {
            value: None,
            variant: None,
            reason: FlagReason::Error,
            error: Some((code, problem.into())),
            trace: Vec::new(),
        }
    }
}

impl Flag {
    /// Which value the flag has for a context; `wanted`: of this type, or it is an error.
    pub fn evaluate(
        &self,
        name: &str,
        context: &EvaluationContext,
        wanted: Option<FlagType>,
    ) -> Evaluation {
        if let Some(wanted) = wanted
            && wanted != self.kind
        {
            let problem = format!("it is of the type {:?}, not {wanted:?}", self.kind);
            return Evaluation::failed(FlagErrorCode::TypeMismatch, problem.to_lowercase());
        }
        if !self.enabled {
            return Evaluation {
                value: None,
                variant: None,
                reason: FlagReason::Disabled,
                error: None,
                trace: vec!["the flag is disabled: the caller's own default".to_owned()],
            };
        }
        let mut trace = Vec::new();
        for (at, rule) in self.rules.iter().enumerate() {
            let label = match rule.name.as_str() {
                "" => format!("rule {at}"),
                name => format!("rule {at} ({name})"),
            };
            if let Some(failed) = rule.conditions.iter().find(|one| !holds(one, context)) {
                trace.push(format!("{label}: {}", shown(failed, context)));
                continue;
            }
            if let Some(variant) = &rule.serve {
                trace.push(format!("{label}: holds, and serves {variant}"));
                return self.picked(variant, FlagReason::TargetingMatch, trace);
            }
            return match self.share(name, rule, context) {
                Ok((variant, place)) => {
                    let place = place * 100.0;
                    trace.push(format!(
                        "{label}: holds; at {place:.3} % of its split: {variant}"
                    ));
                    self.picked(&variant, FlagReason::Split, trace)
                }
                Err((code, problem)) => Evaluation {
                    trace,
                    ..Evaluation::failed(code, format!("{label}: {problem}"))
                },
            };
        }
        trace.push(format!("no rule holds: the default, {}", self.default));
        let reason = match self.rules.is_empty() {
            true => FlagReason::Static,
            false => FlagReason::Default,
        };
        self.picked(&self.default, reason, trace)
    }

    fn picked(&self, variant: &str, reason: FlagReason, trace: Vec<String>) -> Evaluation {
        Evaluation {
            // `validate` has seen to it that it is there.
            value: self.variants.get(variant).cloned(),
            variant: Some(variant.to_owned()),
            reason,
            error: None,
            trace,
        }
    }

    /// Whose share somebody is in, and where in the split from 0 to 1. Growing one of two shares
    /// moves nobody out of it.
    fn share(
        &self,
        name: &str,
        rule: &Rule,
        context: &EvaluationContext,
    ) -> Result<(String, f64), (FlagErrorCode, String)> {
        let by = rule.by.as_deref().unwrap_or(TARGETING_KEY);
        let who = match context.attribute(by) {
            Some(Value::String(text)) => text,
            Some(Value::Number(number)) => number.to_string(),
            None if rule.by.is_none() => {
                let problem = "it splits, and the context has no targeting key".to_owned();
                return Err((FlagErrorCode::TargetingKeyMissing, problem));
            }
            Some(_) | None => {
                let problem = format!("it splits by {by:?}, which is no text or number");
                return Err((FlagErrorCode::InvalidContext, problem));
            }
        };
        let salt = self.salt.as_deref().unwrap_or(name);
        let place = bucket(salt, &who);
        let all: f64 = rule.split.values().sum();
        let mut end = 0.0;
        let shares = || rule.split.iter().filter(|(_, share)| **share > 0.0);
        for (variant, share) in shares() {
            end += share / all;
            if place < end {
                return Ok((variant.clone(), place));
            }
        }
        // The shares' sum is rounded: who is at the very end is in the last one.
        let last = shares().next_back().map(|(variant, _)| variant.clone());
        Ok((last.unwrap_or_else(|| self.default.clone()), place))
    }
}

/// Where somebody lies from 0 to 1. Never changes: people would see flags flip.
fn bucket(salt: &str, who: &str) -> f64 {
    let hash = stable_hash(format!("{salt}\0{who}").as_bytes());
    // 53 bits fit a float exactly.
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

fn holds(condition: &Condition, context: &EvaluationContext) -> bool {
    let Some(value) = context.attribute(&condition.attribute) else {
        return condition.test == Test::NotIn;
    };
    let text = value.as_str().unwrap_or_default();
    let texts = || condition.values.iter().filter_map(Value::as_str);
    let limit = condition.values.first().and_then(Value::as_f64);
    match condition.test {
        Test::Exists => true,
        Test::In => condition.values.contains(&value),
        Test::NotIn => !condition.values.contains(&value),
        Test::StartsWith => value.is_string() && texts().any(|part| text.starts_with(part)),
        Test::EndsWith => value.is_string() && texts().any(|part| text.ends_with(part)),
        Test::Contains => value.is_string() && texts().any(|part| text.contains(part)),
        Test::Above => value
            .as_f64()
            .zip(limit)
            .is_some_and(|(it, limit)| it > limit),
        Test::Below => value
            .as_f64()
            .zip(limit)
            .is_some_and(|(it, limit)| it < limit),
    }
}

fn shown(condition: &Condition, context: &EvaluationContext) -> String {
    let found = match context.attribute(&condition.attribute) {
        Some(value) => value.to_string(),
        None => "not there".to_owned(),
    };
    let test = format!("{:?}", condition.test).to_lowercase();
    let values = Value::from(condition.values.clone());
    format!(
        "{} is {found}, wanted: {test} {values}",
        condition.attribute
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn flag(rules: &str) -> Flag {
        let text = format!(
            r#"{{"type":"string","variants":{{"a":"A","b":"B","c":"C"}},"default":"c","rules":{rules}}}"#
        );
        Flag::parse(text.as_bytes()).unwrap()
    }

    /// `variant REASON`, or `- CODE`.
    fn check(rules: &str, context: EvaluationContext, expected: &str) {
        let found = flag(rules).evaluate("f", &context, Some(FlagType::String));
        let shown = match (&found.variant, &found.error) {
            (Some(variant), _) => format!("{variant} {}", found.reason),
            (None, Some((code, _))) => format!("- {code}"),
            (None, None) => format!("- {}", found.reason),
        };
        assert_eq!(shown, expected, "{rules}: {found:?}");
    }

    #[test]
    fn the_first_rule_that_holds_picks() {
        let rules = r#"[
            {"if":[{"attribute":"country","values":["de","at"]}],"serve":"a"},
            {"if":[{"attribute":"age","test":"above","values":[17]},
                   {"attribute":"mail","test":"ends_with","values":["@x.org"]}],"serve":"b"}]"#;
        let nobody = EvaluationContext::default;
        check(rules, nobody(), "c DEFAULT");
        check(rules, nobody().with("country", "de"), "a TARGETING_MATCH");
        check(rules, nobody().with("country", "fr"), "c DEFAULT");
        let grown = nobody().with("age", 18).with("mail", "me@x.org");
        check(rules, grown.clone(), "b TARGETING_MATCH");
        check(rules, grown.clone().with("age", 17), "c DEFAULT");
        check(rules, grown.clone().with("age", "18"), "c DEFAULT");
        check(rules, grown.with("country", "at"), "a TARGETING_MATCH");
        check("[]", nobody(), "c STATIC");
    }

    #[test]
    fn each_test_does_what_it_says() {
        for (test, values, value, expected) in [
            ("in", r#"["x",1]"#, Value::from(1), true),
            ("in", r#"["1"]"#, Value::from(1), false),
            ("not_in", r#"["x"]"#, Value::from("y"), true),
            ("not_in", r#"["x"]"#, Value::from("x"), false),
            ("starts_with", r#"["x","y"]"#, Value::from("yz"), true),
            ("starts_with", r#"["x"]"#, Value::from(1), false),
            ("contains", r#"["z"]"#, Value::from("yzx"), true),
            ("below", "[1.5]", Value::from(1), true),
            ("below", "[1]", Value::from(1), false),
            ("exists", "[]", Value::Null, true),
        ] {
            let rules = format!(
                r#"[{{"if":[{{"attribute":"it","test":"{test}","values":{values}}}],"serve":"a"}}]"#
            );
            let expected = if expected {
                "a TARGETING_MATCH"
            } else {
                "c DEFAULT"
            };
            check(
                &rules,
                EvaluationContext::default().with("it", value),
                expected,
            );
        }
        let absent = r#"[{"if":[{"attribute":"it","test":"not_in","values":[1]}],"serve":"a"}]"#;
        check(absent, EvaluationContext::default(), "a TARGETING_MATCH");
    }

    #[test]
    fn a_split_needs_to_know_who_asks() {
        let rules = r#"[{"split":{"a":100}}]"#;
        check(
            rules,
            EvaluationContext::default(),
            "- TARGETING_KEY_MISSING",
        );
        check(rules, EvaluationContext::of("x"), "a SPLIT");
        let by = r#"[{"split":{"a":1},"by":"team"}]"#;
        check(by, EvaluationContext::of("x"), "- INVALID_CONTEXT");
        check(by, EvaluationContext::default().with("team", 7), "a SPLIT");
    }

    fn shares(rules: &str) -> BTreeMap<u32, String> {
        let flag = flag(rules);
        let variant = |n: u32| {
            let context = EvaluationContext::of(format!("user-{n}"));
            (n, flag.evaluate("f", &context, None).variant.unwrap())
        };
        (0..20_000).map(variant).collect()
    }

    #[test]
    fn shares_are_what_they_say_and_grow_without_moving_anybody_out() {
        let before = shares(r#"[{"split":{"a":25,"b":75}}]"#);
        let count = before.values().filter(|variant| *variant == "a").count();
        assert!(
            (4_700..5_300).contains(&count),
            "{count} of 20,000 are not 25 %"
        );
        let after = shares(r#"[{"split":{"a":50,"b":50}}]"#);
        let moved = before
            .iter()
            .filter(|(n, variant)| *variant == "a" && after[n] != "a");
        assert_eq!(moved.count(), 0);
        let none = shares(r#"[{"split":{"a":0,"b":1}}]"#);
        assert!(none.values().all(|variant| variant == "b"));
    }

    /// If this fails, everybody's flags flip with the next release.
    #[test]
    fn buckets_never_change() {
        for (salt, who, expected) in [
            ("f", "user-1", 8436),
            ("f", "user-2", 101_110),
            ("checkout", "", 405_428),
        ] {
            let found = (bucket(salt, who) * 1e6) as u32;
            assert_eq!(found, expected, "{salt} {who}");
        }
    }

    #[test]
    fn other_types_and_flags_that_are_off_leave_the_default_to_the_caller() {
        let mut flag = flag("[]");
        let nobody = EvaluationContext::default();
        let other = flag.evaluate("f", &nobody, Some(FlagType::Boolean));
        assert_eq!(other.error.unwrap().0, FlagErrorCode::TypeMismatch);
        flag.enabled = false;
        let off = flag.evaluate("f", &nobody, Some(FlagType::String));
        assert_eq!((off.value, off.reason), (None, FlagReason::Disabled));
    }
}
