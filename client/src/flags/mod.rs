//! Feature flags: keys whose values are definitions, evaluated here, without a round trip.
//!
//! A [`Flags`] follows the prefix of the flags with a copy (see [`cached`](crate::cached)), so an
//! evaluation looks at memory alone, and goes on while no server answers. The model is
//! OpenFeature's: typed flags with variants; a context with a targeting key and attributes; an
//! answer with value, variant, reason, and an error code where the caller's default was taken.

mod definition;
mod evaluate;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_types::Revision;
use serde_json::Value;

pub use definition::{Condition, FLAG_RULES_MAX, Flag, FlagError, FlagType, Rule, Test};
pub use evaluate::{Evaluation, EvaluationContext, FlagErrorCode, FlagReason};

use crate::cached::{Cached, CachedError, CachedLadder, CachedOptions};
use crate::client::Client;

/// Where flags lie, unless it is said otherwise.
pub const FLAGS_PREFIX: &str = "flags/";

/// Where flags lie, and where they are kept for bad times.
#[derive(Clone, Debug)]
pub struct FlagsOptions {
    /// What their keys start with; the rest is the flag's name.
    pub prefix: Bytes,
    /// A folder for the last-known-good copy; none: in memory only.
    pub folder: Option<PathBuf>,
}

impl Default for FlagsOptions {
    fn default() -> Self {
        Self {
            prefix: Bytes::from_static(FLAGS_PREFIX.as_bytes()),
            folder: None,
        }
    }
}

/// The flags of a prefix, as they are now.
#[derive(Debug)]
pub struct Flags {
    copy: Cached,
    prefix: Bytes,
    parsed: Mutex<Arc<Parsed>>,
}

#[derive(Debug, Default)]
struct Parsed {
    /// Of the copy that it was made of; none: of no copy.
    revision: Option<Revision>,
    flags: HashMap<Bytes, Result<Flag, FlagError>>,
}

impl Client {
    /// Flags that are followed from now on. Where servers do not answer at once, those of the copy
    /// on disk count; where there is none, each evaluation is `PROVIDER_NOT_READY` until one does.
    ///
    /// # Errors
    ///
    /// [`CachedError::File`]: the folder cannot be used. A refusal that would come again is told.
    pub async fn flags(&self, options: FlagsOptions) -> Result<Flags, CachedError> {
        let prefix = options.prefix.clone();
        let mut copy = self
            .cached(CachedOptions {
                prefix: options.prefix,
                folder: options.folder,
            })
            .await?;
        match copy.read(&CachedLadder::default_level()).await {
            Ok(_) => {}
            Err(CachedError::Unanswered { .. }) => {}
            Err(error) => return Err(error),
        }
        copy.follow();
        Ok(Flags {
            copy,
            prefix,
            parsed: Mutex::default(),
        })
    }
}

impl Flags {
    /// A flag of type boolean, or `default`.
    pub fn boolean(&self, name: &str, default: bool, context: &EvaluationContext) -> bool {
        let found = self.evaluate(name, context, Some(FlagType::Boolean));
        found.value.and_then(|it| it.as_bool()).unwrap_or(default)
    }

    /// A flag of type string, or `default`.
    pub fn string(&self, name: &str, default: &str, context: &EvaluationContext) -> String {
        let found = self.evaluate(name, context, Some(FlagType::String));
        let text = found.value.as_ref().and_then(Value::as_str);
        text.unwrap_or(default).to_owned()
    }

    /// A flag of type number, or `default`.
    pub fn number(&self, name: &str, default: f64, context: &EvaluationContext) -> f64 {
        let found = self.evaluate(name, context, Some(FlagType::Number));
        found.value.and_then(|it| it.as_f64()).unwrap_or(default)
    }

    /// A flag of type json, or `default`.
    pub fn json(&self, name: &str, default: Value, context: &EvaluationContext) -> Value {
        let found = self.evaluate(name, context, Some(FlagType::Json));
        found.value.unwrap_or(default)
    }

    /// All that is to be known of a flag's value; `wanted`: of this type, or it is an error.
    pub fn evaluate(
        &self,
        name: &str,
        context: &EvaluationContext,
        wanted: Option<FlagType>,
    ) -> Evaluation {
        let parsed = self.parsed();
        if parsed.revision.is_none() {
            let problem = "no server has answered yet, and there is no copy";
            return Evaluation::failed(FlagErrorCode::ProviderNotReady, problem);
        }
        evaluate_one(parsed.flags.get(name.as_bytes()), name, context, wanted)
    }

    /// How old the copy is that flags are taken from; none: there is none.
    pub fn age(&self) -> Option<Duration> {
        self.copy.age()
    }

    /// The flags of the copy, parsed once for each copy.
    fn parsed(&self) -> Arc<Parsed> {
        let mut parsed = self.parsed.lock();
        let revision = self.copy.revision();
        if parsed.revision != revision {
            let values = self.copy.values().into_iter();
            let flags = values.filter_map(|(key, value)| {
                let name = key.slice(self.prefix.len()..);
                (!name.is_empty()).then(|| (name, Flag::parse(&value)))
            });
            *parsed = Arc::new(Parsed {
                revision,
                flags: flags.collect(),
            });
        }
        Arc::clone(&parsed)
    }
}

/// Evaluates a flag as it was found: not at all, as no flag, or as one.
pub fn evaluate_one(
    found: Option<&Result<Flag, FlagError>>,
    name: &str,
    context: &EvaluationContext,
    wanted: Option<FlagType>,
) -> Evaluation {
    match found {
        Some(Ok(flag)) => flag.evaluate(name, context, wanted),
        Some(Err(error)) => Evaluation::failed(FlagErrorCode::ParseError, error.to_string()),
        None => {
            let problem = format!("no flag {name:?}");
            Evaluation::failed(FlagErrorCode::FlagNotFound, problem)
        }
    }
}
