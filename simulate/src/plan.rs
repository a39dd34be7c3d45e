//! What a seed decides: the cluster, its options, the clients, and the faults with their times.
//!
//! Each seed switches a random part of the faults and of the work on (swarm testing: Groce et al.,
//! ISSTA 2012): what is always there hides what only its absence shows.

use std::time::Duration;

use quorate_storage::disk::sim::Dice;

use crate::faults::{Fault, KINDS, Planned};
use crate::settings::{Setting, Settings};
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
    /// Only this work; empty: the seed's.
    pub work: Vec<Work>,
    /// Only these faults of the plan.
    pub only: Option<Vec<Chosen>>,
    /// Another course than the seed's.
    pub course: Option<u64>,
    /// Settings that are not the seed's.
    pub settings: Vec<(&'static Setting, u64)>,
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
            work: Vec::new(),
            only: None,
            course: None,
            settings: Vec::new(),
            thorough: false,
            mistakes: Mistakes::default(),
        }
    }
}

/// One of a seed's faults, and how it differs from what the seed says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its number.
    pub number: usize,
    /// When it begins.
    pub at: Option<Duration>,
    /// How long it lasts.
    pub lasts: Option<Duration>,
}

/// All that a run is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What the rest of the choices follow from.
    pub seed: u64,
    /// What everything follows from that happens by chance as it is played: the seed, unless
    /// another one is asked for. A plan that was made smaller takes another course anyhow; it can
    /// be tried with several.
    pub course: u64,
    /// How many.
    pub nodes: usize,
    /// How many, over all work.
    pub clients: usize,
    /// How long clients work.
    pub time: Duration,
    /// What they do.
    pub work: Vec<Work>,
    /// What befalls nodes, by the time at which it begins.
    pub faults: Vec<Planned>,
    /// How nodes and clients are set up.
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
        let settings = Settings::draw(&mut dice, pause_max, flush_interval(seed));
        let nodes = options.nodes.unwrap_or(nodes);
        let settings = Settings {
            replication: settings.replication.min(nodes as u32),
            ..settings
        };
        let changes = options.settings.iter();
        let settings = changes.fold(settings, |settings, (setting, value)| {
            settings.with(setting, *value)
        });
        let time = options.time.unwrap_or(TIME_DEFAULT);
        let drawn = faults(&mut dice, options.family, TIME_DEFAULT);
        let faults = match &options.only {
            Some(only) => chosen(&drawn, only),
            None => drawn,
        };
        Plan {
            seed,
            course: options.course.unwrap_or(seed),
            nodes,
            clients: options.clients.unwrap_or(clients),
            time,
            work: match options.work.is_empty() {
                true => work,
                false => options.work.clone(),
            },
            faults: faults.into_iter().filter(|fault| fault.at < time).collect(),
            settings,
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

/// How soon engines flush, by dice of its own likewise; a server's is the last of them.
fn flush_interval(seed: u64) -> Duration {
    let mut dice = Dice::new(seed ^ 0xf1a5);
    Duration::from_millis(one_of(&mut dice, &[300, 1_000, 5_000]))
}

/// Those of the faults that were chosen, by their times.
fn chosen(drawn: &[Planned], only: &[Chosen]) -> Vec<Planned> {
    let chosen = only.iter().filter_map(|chosen| {
        let fault = drawn.get(chosen.number)?;
        Some(Planned {
            at: chosen.at.unwrap_or(fault.at),
            lasts: chosen.lasts.unwrap_or(fault.lasts),
            ..*fault
        })
    });
    let mut chosen: Vec<Planned> = chosen.collect();
    chosen.sort_by_key(|fault| (fault.at, fault.number));
    chosen
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
            only: Some(vec![Chosen {
                number: 0,
                at: None,
                lasts: None,
            }]),
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
