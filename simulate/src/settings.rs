//! How a cluster and its clients are set up: numbers that a seed draws, each of which can be said
//! by name.
//!
//! Not here: faults, and how many nodes and clients there are, which are `plan`'s.

use std::time::Duration;

use quorate_storage::disk::sim::Dice;

/// How nodes and clients are set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Primaries of each range.
    pub replication: u32,
    /// Of the engine, before it flushes.
    pub memory_bytes: usize,
    /// After which it does so anyhow.
    pub flush_interval: Duration,
    /// Of each file of the log.
    pub segment_bytes: u64,
    /// What a sync takes.
    pub sync_latency: Duration,
    /// A log is purged after so many entries,
    pub purge_entries: u64,
    /// but for these.
    pub kept_entries: u64,
    /// Keys that one entry of the log takes in from the eventual path.
    pub absorb_keys_max: usize,
    /// Starts that are over are closed as soon as they can be.
    pub closes_at_once: bool,
    /// Longest pause of a client between two calls.
    pub pause_max: Duration,
    /// Keys in use at one time, of each kind of work.
    pub keys: i64,
}

/// One of them, as a number with a name.
pub struct Setting {
    /// As it is said on the command line.
    pub name: &'static str,
    /// The least and the most that make sense.
    bounds: (u64, u64),
    /// What a reader need not think about.
    plain: u64,
    get: fn(&Settings) -> u64,
    set: fn(&mut Settings, u64),
}

/// All of them.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "replication",
        bounds: (3, 7),
        plain: 3,
        get: |settings| u64::from(settings.replication),
        set: |settings, value| settings.replication = value as u32,
    },
    Setting {
        name: "memory-bytes",
        bounds: (4 << 10, 1 << 30),
        plain: 256 << 10,
        get: |settings| settings.memory_bytes as u64,
        set: |settings, value| settings.memory_bytes = value as usize,
    },
    Setting {
        name: "flush-millis",
        bounds: (10, 60_000),
        plain: 300,
        get: |settings| settings.flush_interval.as_millis() as u64,
        set: |settings, value| settings.flush_interval = Duration::from_millis(value),
    },
    Setting {
        name: "segment-bytes",
        bounds: (64 << 10, 1 << 30),
        plain: 1 << 20,
        get: |settings| settings.segment_bytes,
        set: |settings, value| settings.segment_bytes = value,
    },
    Setting {
        name: "sync-micros",
        bounds: (0, 10_000_000),
        plain: 100,
        get: |settings| settings.sync_latency.as_micros() as u64,
        set: |settings, value| settings.sync_latency = Duration::from_micros(value),
    },
    Setting {
        name: "purge-entries",
        bounds: (1, 1 << 30),
        plain: 400,
        get: |settings| settings.purge_entries,
        set: |settings, value| settings.purge_entries = value,
    },
    Setting {
        name: "kept-entries",
        bounds: (0, 1 << 30),
        plain: 133,
        get: |settings| settings.kept_entries,
        set: |settings, value| settings.kept_entries = value,
    },
    Setting {
        name: "absorb-keys",
        bounds: (1, 1 << 20),
        plain: 64,
        get: |settings| settings.absorb_keys_max as u64,
        set: |settings, value| settings.absorb_keys_max = value as usize,
    },
    Setting {
        name: "closes-at-once",
        bounds: (0, 1),
        plain: 0,
        get: |settings| u64::from(settings.closes_at_once),
        set: |settings, value| settings.closes_at_once = value == 1,
    },
    Setting {
        name: "pause-millis",
        bounds: (1, 60_000),
        plain: 400,
        get: |settings| settings.pause_max.as_millis() as u64,
        set: |settings, value| settings.pause_max = Duration::from_millis(value),
    },
    Setting {
        name: "keys",
        bounds: (1, 1_000),
        plain: 1,
        get: |settings| settings.keys as u64,
        set: |settings, value| settings.keys = value as i64,
    },
];

impl Setting {
    /// The setting of a name, and a value for it.
    ///
    /// # Errors
    ///
    /// What is known, or may be, instead.
    pub fn parse(text: &str) -> Result<(&'static Setting, u64), String> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        let setting = setting.ok_or_else(|| {
            let names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
            format!("known are {}", names.join(", "))
        })?;
        let (least, most) = setting.bounds;
        let value = value.parse().ok();
        let value = value.filter(|value| (least..=most).contains(value));
        let value = value.ok_or_else(|| format!("`{name}` is a number from {least} to {most}"))?;
        Ok((setting, value))
    }
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Settings {
    /// With one of them changed.
    #[must_use]
    pub fn with(&self, setting: &Setting, value: u64) -> Settings {
        let mut changed = self.clone();
        (setting.set)(&mut changed, value);
        changed
    }

    /// With one of them as plain as it can be.
    #[must_use]
    pub fn with_plain(&self, setting: &Setting) -> Settings {
        self.with(setting, setting.plain)
    }

    /// Those that others have differently, with their values here.
    pub fn beside<'a>(
        &'a self,
        others: &'a Settings,
    ) -> impl Iterator<Item = (&'static Setting, u64)> + 'a {
        let settings = SETTINGS.iter();
        let differ = settings.filter(|setting| (setting.get)(self) != (setting.get)(others));
        differ.map(|setting| (setting, (setting.get)(self)))
    }

    /// Draws them, but for the pause and the interval, which are drawn before.
    pub(crate) fn draw(dice: &mut Dice, pause_max: Duration, flush_interval: Duration) -> Settings {
        let mut one_of = |choices: &[u64]| choices[dice.below(choices.len() as u64) as usize];
        let purge_entries = one_of(&[20, 50, 400]);
        Settings {
            replication: one_of(&[3, 3, 3, 5]) as u32,
            memory_bytes: one_of(&[16 << 10, 32 << 10, 256 << 10]) as usize,
            segment_bytes: one_of(&[64 << 10, 128 << 10, 1 << 20]),
            sync_latency: Duration::from_micros(one_of(&[100, 300, 2_000])),
            purge_entries,
            kept_entries: purge_entries / 3,
            absorb_keys_max: one_of(&[1, 2, 8, 64]) as usize,
            closes_at_once: dice.percent(30),
            pause_max,
            keys: KEYS,
            flush_interval,
        }
    }
}

/// Keys in use at one time, where nothing else is said.
const KEYS: i64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_set() {
        let drawn = Settings::draw(
            &mut Dice::new(7),
            Duration::from_millis(20),
            Duration::from_secs(5),
        );
        for setting in SETTINGS {
            let said = format!("{}={}", setting.name, setting.bounds.0);
            let (found, value) = Setting::parse(&said).unwrap();
            let set = drawn.with(found, value);
            assert_eq!((setting.get)(&set), value, "{}", setting.name);
            let (plain, value) = Setting::parse(&format!("{}={}", setting.name, setting.plain))
                .unwrap_or_else(|problem| panic!("{problem}"));
            assert_eq!(drawn.with_plain(setting), drawn.with(plain, value));
        }
        let mut told = drawn.with_plain(&SETTINGS[10]);
        told.replication = 7;
        let names: Vec<&str> = told.beside(&drawn).map(|(one, _)| one.name).collect();
        assert_eq!(names, ["replication", "keys"]);
    }

    #[test]
    fn what_is_not_a_setting_is_told_what_is() {
        assert!(Setting::parse("copies=3").unwrap_err().contains("keys"));
        assert!(Setting::parse("keys").unwrap_err().contains("1 to 1000"));
        assert!(Setting::parse("keys=0").is_err());
    }
}
