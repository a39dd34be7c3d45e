//! What a seed decides: the cluster, its options, the clients, and the faults with their times.
//!
//! Each seed switches a random part of the faults and of the work on (swarm testing: Groce et al.,
//! ISSTA 2012): what is always there hides what only its absence shows.

use std::time::Duration;

use quorate_storage::disk::sim::Dice;

use crate::faults::{Fault, KINDS, Planned};
use crate::work::Work;

/// Bounds of what a seed may choose.
const NODES: (u64, u64) = (3, 7);
const CLIENTS: (u64, u64) = (2, 20);
const FAULTS: (u64, u64) = (2, 24);
/// Kinds of work at one time: with more, each has too few clients to meet.
const WORK_MAX: usize = 4;
/// Simulated time that clients work.
const TIME_DEFAULT: Duration = Duration::from_secs(8);

/// What happens to nodes: a part of all faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// All kinds, of which each seed chooses some.
    All,
    /// None.
    Calm,
    /// Cuts, bad links, pauses.
    Network,
    /// Processes that are killed, power that fails.
    Crashes,
    /// Disks that fail, are full, or slow.
    Disks,
    /// Clocks that go wrong.
    Clocks,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 6] = [
        Family::All,
        Family::Calm,
        Family::Network,
        Family::Crashes,
        Family::Disks,
        Family::Clocks,
    ];

    /// The family of a name.
    ///
    /// # Errors
    ///
    /// What is known instead.
    pub fn named(name: &str) -> Result<Family, String> {
        let names = Family::ALL.map(Family::name).join(", ");
        let found = Family::ALL.into_iter().find(|family| family.name() == name);
        found.ok_or_else(|| format!("known are {names}"))
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Family::All => "all",
            Family::Calm => "calm",
            Family::Network => "network",
            Family::Crashes => "crashes",
            Family::Disks => "disks",
            Family::Clocks => "clocks",
        }
    }
}

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    /// In consensus, and in what the log does.
    pub raft: quorate_raft::Faults,
    /// On the eventual path.
    pub eventual: quorate_eventual::Faults,
    /// In what clients are told.
    pub gateway: quorate_gateway::Faults,
    /// Disks say that they have synced, and have not.
    pub lying_syncs: bool,
    /// One sync of each start does.
    pub lying_sync: bool,
}

/// What whoever asks for a run may choose; the seed chooses the rest.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which faults there may be.
    pub family: Family,
    /// How many nodes, 3 to 7.
    pub nodes: Option<usize>,
    /// How many clients.
    pub clients: Option<usize>,
    /// How long clients work, of simulated time.
    pub time: Option<Duration>,
    /// Only this work.
    pub work: Option<Work>,
    /// Only these faults of the plan, by their numbers.
    pub only: Option<Vec<usize>>,
    /// Replicas are compared at every step of the log that they share, not only at the end.
    pub thorough: bool,
    /// What is broken on purpose.
    pub mistakes: Mistakes,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            family: Family::All,
            nodes: None,
            clients: None,
            time: None,
            work: None,
            only: None,
            thorough: false,
            mistakes: Mistakes::default(),
        }
    }
}

/// How nodes are set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Primaries of each range.
    pub replication: u32,
    /// Of the engine, before it flushes.
    pub memory_bytes: usize,
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
}

/// All that a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the rest of the choices follow from.
    pub seed: u64,
    /// How many.
    pub nodes: usize,
    /// How many, over all work.
    pub clients: usize,
    /// Longest pause of a client between two calls.
    pub pause_max: Duration,
    /// How long clients work.
    pub time: Duration,
    /// What they do.
    pub work: Vec<Work>,
    /// What befalls nodes, by the time at which it begins.
    pub faults: Vec<Planned>,
    /// How nodes are set up.
    pub settings: Settings,
    /// Replicas are compared as it runs.
    pub thorough: bool,
    /// What is broken on purpose.
    pub mistakes: Mistakes,
}

/// A number from `least` to `most`.
fn between(dice: &mut Dice, (least, most): (u64, u64)) -> u64 {
    least + dice.below(most - least + 1)
}

fn one_of<T: Copy>(dice: &mut Dice, choices: &[T]) -> T {
    choices[dice.below(choices.len() as u64) as usize]
}

/// A random part of all, at least one.
fn some_of<T: Copy>(dice: &mut Dice, all: &[T]) -> Vec<T> {
    let sure = dice.below(all.len() as u64) as usize;
    let chosen = all.iter().enumerate();
    let chosen = chosen.filter(|(at, _)| *at == sure || dice.percent(50));
    chosen.map(|(_, one)| *one).collect()
}

impl Plan {
    /// What a seed decides within the options.
    pub fn of(seed: u64, options: &Options) -> Plan {
        let mut dice = Dice::new(seed ^ 0x71a1);
        // All is drawn in the same order whatever the options say, so that a run that was made
        // smaller keeps the rest.
        let nodes = between(&mut dice, NODES) as usize;
        let clients = between(&mut dice, CLIENTS) as usize;
        let pause_max = Duration::from_millis(one_of(&mut dice, &[20, 60, 150, 400]));
        let work = work(seed);
        let settings = settings(&mut dice);
        let nodes = options.nodes.unwrap_or(nodes);
        let time = options.time.unwrap_or(TIME_DEFAULT);
        let faults = faults(&mut dice, options.family, TIME_DEFAULT);
        let faults = faults.into_iter().enumerate();
        let faults = faults.filter(|(number, fault)| {
            let only = options.only.as_ref();
            fault.at < time && only.is_none_or(|only| only.contains(number))
        });
        Plan {
            seed,
            nodes,
            clients: options.clients.unwrap_or(clients),
            pause_max,
            time,
            work: options.work.map_or(work, |one| vec![one]),
            faults: faults.map(|(_, fault)| fault).collect(),
            settings: Settings {
                replication: settings.replication.min(nodes as u32),
                ..settings
            },
            thorough: options.thorough,
            mistakes: options.mistakes,
        }
    }
}

impl Plan {
    /// Whether a copy of what is stored is taken away for good.
    pub(crate) fn damages(&self) -> bool {
        self.faults.iter().any(|planned| planned.fault.damages())
    }
}

/// Some kinds of work, by dice of their own: a new kind changes no seed's faults.
fn work(seed: u64) -> Vec<Work> {
    let mut dice = Dice::new(seed ^ 0x303b);
    let mut left = Work::ALL.to_vec();
    while left.len() > WORK_MAX || (left.len() > 1 && dice.percent(25)) {
        left.remove(dice.below(left.len() as u64) as usize);
    }
    left
}

fn settings(dice: &mut Dice) -> Settings {
    let purge_entries = one_of(dice, &[20, 50, 400]);
    Settings {
        replication: one_of(dice, &[3, 3, 3, 5]),
        memory_bytes: one_of(dice, &[16 << 10, 32 << 10, 256 << 10]),
        segment_bytes: one_of(dice, &[64 << 10, 128 << 10, 1 << 20]),
        sync_latency: Duration::from_micros(one_of(dice, &[100, 300, 2_000])),
        purge_entries,
        kept_entries: purge_entries / 3,
        absorb_keys_max: one_of(dice, &[1, 2, 8, 64]),
        closes_at_once: dice.percent(30),
    }
}

fn faults(dice: &mut Dice, family: Family, time: Duration) -> Vec<Planned> {
    let of_family: Vec<_> = KINDS
        .iter()
        .filter(|kind| family == Family::All || kind.family == family)
        .copied()
        .collect();
    if of_family.is_empty() {
        return Vec::new();
    }
    let kinds = some_of(dice, &of_family);
    let count = between(dice, FAULTS);
    let mut faults: Vec<Planned> = (0..count)
        .map(|number| {
            let kind = one_of(dice, &kinds);
            let micros = dice.below(time.as_micros() as u64);
            let millis = match dice.percent(70) {
                true => 50 + dice.below(900),
                false => 500 + dice.below(4_000),
            };
            let fault: Fault = (kind.draw)(dice);
            Planned {
                number: number as usize,
                at: Duration::from_micros(micros),
                lasts: Duration::from_millis(millis),
                fault,
            }
        })
        .collect();
    faults.sort_by_key(|fault| fault.at);
    for (number, fault) in faults.iter_mut().enumerate() {
        fault.number = number;
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_all_of_it() {
        let plan = |seed| format!("{:?}", Plan::of(seed, &Options::default()));
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn choices_leave_the_rest_of_a_plan_as_it_was() {
        let whole = Plan::of(7, &Options::default());
        let less = Options {
            clients: Some(1),
            only: Some(vec![0]),
            ..Options::default()
        };
        let less = Plan::of(7, &less);
        assert_eq!((less.nodes, less.clients), (whole.nodes, 1));
        assert_eq!(
            format!("{:?}", less.faults),
            format!("{:?}", &whole.faults[..1])
        );
    }

    #[test]
    fn a_calm_seed_has_no_faults() {
        let calm = Options {
            family: Family::Calm,
            ..Options::default()
        };
        assert!((0..50).all(|seed| Plan::of(seed, &calm).faults.is_empty()));
    }
}
