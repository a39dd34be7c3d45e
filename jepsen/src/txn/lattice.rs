//! Consistency models, which of them are stronger than which, and what rules each one out.
//!
//! After the graph that Elle uses (`consistency_model.clj`), with the models that people ask for.
//! A model that is ruled out takes all stronger ones with it.

use super::graph::Ground;

/// A model: its name, the ground that it promises, and the weaker models that it includes.
struct Consistency {
    name: &'static str,
    ground: Ground,
    includes: &'static [&'static str],
}

const fn model(
    name: &'static str,
    ground: Ground,
    includes: &'static [&'static str],
) -> Consistency {
    Consistency {
        name,
        ground,
        includes,
    }
}

const MODELS: [Consistency; 17] = [
    model("read-uncommitted", Ground::Values, &[]),
    model("read-committed", Ground::Values, &["read-uncommitted"]),
    model("read-atomic", Ground::Values, &[]),
    model("monotonic-atomic-view", Ground::Values, &["read-committed"]),
    model("cursor-stability", Ground::Values, &["read-committed"]),
    model("consistent-view", Ground::Values, &["cursor-stability"]),
    model("repeatable-read", Ground::Values, &["cursor-stability"]),
    model(
        "snapshot-isolation",
        Ground::Values,
        &["consistent-view", "monotonic-atomic-view", "read-atomic"],
    ),
    model(
        "serializable",
        Ground::Values,
        &["snapshot-isolation", "repeatable-read"],
    ),
    model(
        "strong-session-read-uncommitted",
        Ground::Session,
        &["read-uncommitted"],
    ),
    model(
        "strong-session-read-committed",
        Ground::Session,
        &["read-committed", "strong-session-read-uncommitted"],
    ),
    model(
        "strong-session-snapshot-isolation",
        Ground::Session,
        &["snapshot-isolation", "strong-session-read-committed"],
    ),
    model(
        "strong-session-serializable",
        Ground::Session,
        &["serializable", "strong-session-snapshot-isolation"],
    ),
    model(
        "strong-read-uncommitted",
        Ground::Realtime,
        &["strong-session-read-uncommitted"],
    ),
    model(
        "strong-read-committed",
        Ground::Realtime,
        &["strong-session-read-committed", "strong-read-uncommitted"],
    ),
    model(
        "strong-snapshot-isolation",
        Ground::Realtime,
        &["strong-session-snapshot-isolation", "strong-read-committed"],
    ),
    model(
        STRICT,
        Ground::Realtime,
        &["strong-session-serializable", "strong-snapshot-isolation"],
    ),
];

/// The strongest model, and the one that is asked for where nothing else is said.
pub const STRICT: &str = "strict-serializable";

/// Other names for the same.
const ALIASES: [(&str, &str); 5] = [
    ("strong-serializable", STRICT),
    ("PL-1", "read-uncommitted"),
    ("PL-2", "read-committed"),
    ("PL-2.99", "repeatable-read"),
    ("PL-3", "serializable"),
];

/// The weakest models that an anomaly rules out.
const RULED_OUT: [(&str, &[&str]); 27] = [
    ("G0", &["read-uncommitted"]),
    ("duplicate-elements", &["read-uncommitted"]),
    ("cyclic-versions", &["read-uncommitted"]),
    ("garbage-read", &["read-uncommitted", "read-atomic"]),
    ("incompatible-order", &["read-committed"]),
    ("dirty-update", &["read-committed"]),
    ("G1a", &["read-committed", "read-atomic"]),
    ("G1b", &["read-committed"]),
    ("G1c", &["read-committed"]),
    ("internal", &["read-atomic"]),
    ("future-read", &["read-atomic"]),
    ("lost-update", &["cursor-stability"]),
    ("G-single", &["consistent-view", "repeatable-read"]),
    ("G-nonadjacent", &["snapshot-isolation", "repeatable-read"]),
    ("G2-item", &["repeatable-read"]),
    ("no-serial-order", &["serializable"]),
    ("G0-process", &["strong-session-read-uncommitted"]),
    ("G1c-process", &["strong-session-read-committed"]),
    ("G-single-process", &["strong-session-snapshot-isolation"]),
    (
        "G-nonadjacent-process",
        &["strong-session-snapshot-isolation"],
    ),
    ("G2-item-process", &["strong-session-serializable"]),
    ("no-serial-order-process", &["strong-session-serializable"]),
    ("G0-realtime", &["strong-read-uncommitted"]),
    ("G1c-realtime", &["strong-read-committed"]),
    ("G-single-realtime", &["strong-snapshot-isolation"]),
    ("G-nonadjacent-realtime", &["strong-snapshot-isolation"]),
    ("G2-item-realtime", &[STRICT]),
];

/// Two anomalies of an order that values leave open.
const CYCLIC_ON_GROUND: [(&str, &[&str]); 3] = [
    (
        "cyclic-versions-process",
        &["strong-session-read-uncommitted"],
    ),
    ("cyclic-versions-realtime", &["strong-read-uncommitted"]),
    ("no-serial-order-realtime", &[STRICT]),
];

fn find(name: &str) -> Option<&'static Consistency> {
    MODELS.iter().find(|model| model.name == name)
}

/// A model that can be asked for, by its name or another name of it; else what is known.
///
/// # Errors
///
/// The names of all models.
pub fn parse(name: &str) -> Result<&'static str, String> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let name = alias.map_or(name, |(_, name)| name);
    find(name).map(|model| model.name).ok_or_else(|| {
        let names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
        format!(
            "no such consistency: `{name}`; known are {}",
            names.join(", ")
        )
    })
}

/// What a model promises about the order of transactions that do not touch each other.
pub fn ground(model: &str) -> Ground {
    find(model).map_or(Ground::Realtime, |model| model.ground)
}

/// Whether one model promises all that another does.
pub fn includes(strong: &str, weak: &str) -> bool {
    strong == weak
        || find(strong).is_some_and(|model| model.includes.iter().any(|next| includes(next, weak)))
}

/// The weakest models that some anomalies rule out, none of them stronger than another.
pub fn ruled_out<'a>(anomalies: impl Iterator<Item = &'a str>) -> Vec<&'static str> {
    let known = || RULED_OUT.iter().chain(&CYCLIC_ON_GROUND);
    let mut models: Vec<&'static str> = anomalies
        .filter_map(|anomaly| known().find(|(name, _)| *name == anomaly))
        .flat_map(|(_, models)| models.iter().copied())
        .collect();
    models.sort_unstable();
    models.dedup();
    let all = models.clone();
    models.retain(|model| {
        let weaker = |other: &&str| other != model && includes(model, other);
        !all.iter().any(weaker)
    });
    models
}
