//! What `quorate simulate` may be asked for, and the command that asks for a plan again.
//!
//! Not here: what comes of it.

use std::ops::Range;
use std::time::Duration;

use clap::{Args, ValueEnum};
use quorate_simulate::{Chosen, Family, Options, Plan, Planned, Setting, Work};
use quorate_types::parse_duration;

const NODES: std::ops::RangeInclusive<usize> = 3..=7;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  quorate simulate --seeds 0..1000
  quorate simulate --seeds 0..200 --scenario crashes --work mixed
  quorate simulate --seeds 17 --trace

Scenarios: all (of which each seed takes some), calm, network, crashes, disks, clocks.
Work: registers (a strong keyspace), mixed (both planes on the same keys), siblings (an eventual
keyspace), transactions, sessions, watches, locks; some of them, as the seed has it.

The same seed plays the same course: what fails is made smaller, and the command that replays it is
printed. docs/SIMULATION.md tells how to chase a seed.

Exit codes: 0 nothing was found, 1 something was, 2 wrong usage.")]
pub(in crate::cli) struct SimulateArgs {
    /// Which seeds: A..B without B, or one
    #[arg(long, value_name = "A..B", default_value = "0..100", value_parser = seeds)]
    pub(super) seeds: Range<u64>,
    /// What befalls nodes
    #[arg(long, value_name = "NAME", default_value = "all", value_parser = Family::named)]
    scenario: Family,
    /// Only this work
    #[arg(long, value_name = "WORK[,…]", value_delimiter = ',', value_parser = Work::named)]
    work: Vec<Work>,
    /// How many nodes, 3 to 7 [default: the seed's]
    #[arg(long, value_name = "N", value_parser = nodes)]
    nodes: Option<usize>,
    /// How many clients [default: the seed's]
    #[arg(long, value_name = "N")]
    clients: Option<usize>,
    /// How long clients work, of simulated time [default: 8s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    time: Option<Duration>,
    /// Only these faults of the seed's, by their numbers, if need be with when they begin and how
    /// long they last; `none` for none
    #[arg(long, value_name = "N[@AT][+LASTS][,…]", value_parser = faults)]
    faults: Option<Faults>,
    /// How the cluster and its clients are set up [default: the seed's]
    #[arg(long, value_name = "NAME=N[,…]", value_delimiter = ',', value_parser = Setting::parse)]
    settings: Vec<(&'static Setting, u64)>,
    /// What happens by chance follows from this number instead of the seed
    #[arg(long, value_name = "N")]
    course: Option<u64>,
    /// Compare replicas all the time, not only at the end
    #[arg(long)]
    thorough: bool,
    /// Play each seed twice, and hold the two courses against each other
    #[arg(long)]
    pub(super) twice: bool,
    /// Print what happened, line by line: all of it, or what concerns the first problem; of one
    /// seed
    #[arg(
        long,
        value_name = "WHICH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "all"
    )]
    pub(super) trace: Option<Traced>,
    /// Do not make what fails smaller
    #[arg(long)]
    pub(super) no_shrink: bool,
    /// How long each seed that fails is made smaller
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(super) shrink_time: Duration,
    /// How many seeds are played at once [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<usize>,
    /// Have the nodes make a mistake on purpose
    #[cfg(feature = "planted-faults")]
    #[arg(long, value_name = "NAME", hide = true, value_parser = plant)]
    plant: Option<String>,
}

/// Which lines of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Traced {
    /// All that is kept.
    All,
    /// Those that concern what is wrong.
    Telling,
}

#[derive(Clone, Debug)]
struct Faults(Vec<Chosen>);

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| {
        let parsed: Result<u64, _> = text.parse();
        parsed.map_err(|_| format!("`{text}` is no number; such as 0..300, or 17"))
    };
    let range = match text.split_once("..") {
        Some((first, end)) => number(first)?..number(end)?,
        None => number(text)?..number(text)?.saturating_add(1),
    };
    match range.is_empty() {
        true => Err("there is no seed in it; such as 0..300, or 17".to_owned()),
        false => Ok(range),
    }
}

fn nodes(text: &str) -> Result<usize, String> {
    let parsed = text.parse().ok().filter(|nodes| NODES.contains(nodes));
    parsed.ok_or_else(|| "wanted: a number from 3 to 7".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

fn faults(text: &str) -> Result<Faults, String> {
    if text == "none" {
        return Ok(Faults(Vec::new()));
    }
    let chosen: Result<_, _> = text.split(',').map(fault).collect();
    Ok(Faults(chosen?))
}

/// A fault's number, perhaps with `@` when it begins and `+` how long it lasts.
fn fault(text: &str) -> Result<Chosen, String> {
    let (rest, lasts) = match text.split_once('+') {
        Some((rest, lasts)) => (rest, Some(duration(lasts)?)),
        None => (text, None),
    };
    let (number, at) = match rest.split_once('@') {
        Some((number, at)) => (number, Some(duration(at)?)),
        None => (rest, None),
    };
    let number = number.parse().map_err(|_| {
        "wanted: numbers with commas, such as 3,7 or 3@500ms+200ms; or none".to_owned()
    })?;
    Ok(Chosen { number, at, lasts })
}

/// A fault as it is asked for, where the seed has it otherwise.
fn asked(fault: &Planned, drawn: &Planned) -> String {
    let mut text = fault.number.to_string();
    if fault.at != drawn.at {
        text += &format!("@{}ms", fault.at.as_millis());
    }
    if fault.lasts != drawn.lasts {
        text += &format!("+{}ms", fault.lasts.as_millis());
    }
    text
}

fn with_commas(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(",")
}

#[cfg(feature = "planted-faults")]
fn plant(name: &str) -> Result<String, String> {
    crate::planted::named(name).map(|_| name.to_owned())
}

impl SimulateArgs {
    pub(super) fn options(&self) -> Options {
        let options = Options {
            family: self.scenario,
            nodes: self.nodes,
            clients: self.clients,
            time: self.time,
            work: self.work.clone(),
            only: self.faults.clone().map(|faults| faults.0),
            course: self.course,
            settings: self.settings.clone(),
            thorough: self.thorough,
            ..Options::default()
        };
        #[cfg(feature = "planted-faults")]
        if let Some(name) = &self.plant {
            let planted = crate::planted::named(name).unwrap_or_default();
            let mistakes = quorate_simulate::Mistakes {
                raft: planted.raft,
                eventual: planted.eventual,
                gateway: planted.gateway,
                lying_syncs: !planted.acknowledged_early.is_zero(),
                lying_sync: planted.lying_sync,
            };
            return Options {
                mistakes,
                ..options
            };
        }
        options
    }

    /// A number of a fault that none of the seeds has, and how many faults the first of them has.
    pub(super) fn missing_fault(&self) -> Option<(usize, usize)> {
        let chosen = &self.faults.as_ref()?.0;
        let all = Options {
            only: None,
            time: None,
            ..self.options()
        };
        let count = |seed| Plan::of(seed, &all).faults.len();
        let most = chosen.iter().map(|chosen| chosen.number).max()?;
        let has = |seed| most < count(seed);
        let is_missing = !self.seeds.clone().any(has);
        is_missing.then(|| (most, count(self.seeds.start)))
    }

    /// The command that plays a plan of one of these seeds again: it says what the seed alone does
    /// not.
    pub(super) fn command(&self, plan: &Plan) -> String {
        let drawn = |nodes| {
            let options = Options {
                family: self.scenario,
                nodes,
                ..Options::default()
            };
            Plan::of(plan.seed, &options)
        };
        // Fewer nodes have fewer replicas: that need not be said.
        let whole = drawn((plan.nodes != drawn(None).nodes).then_some(plan.nodes));
        let mut words = vec![format!("quorate simulate --seeds {}", plan.seed)];
        let mut say = |differs: bool, word: &dyn Fn() -> String| {
            words.extend(differs.then(word));
        };
        say(plan.course != plan.seed, &|| {
            format!("--course {}", plan.course)
        });
        say(self.scenario != Family::All, &|| {
            format!("--scenario {}", self.scenario.name())
        });
        say(plan.nodes != drawn(None).nodes, &|| {
            format!("--nodes {}", plan.nodes)
        });
        say(plan.clients != whole.clients, &|| {
            format!("--clients {}", plan.clients)
        });
        say(plan.time != whole.time, &|| {
            format!("--time {}ms", plan.time.as_millis())
        });
        say(plan.work != whole.work, &|| {
            let names = plan.work.iter().map(|work| work.name().to_owned());
            format!("--work {}", with_commas(names))
        });
        say(
            plan.faults != whole.faults,
            &|| match plan.faults.is_empty() {
                true => "--faults none".to_owned(),
                false => {
                    // A longer run has them all.
                    let drawn = |fault: &Planned| {
                        let same = |one: &&Planned| one.number == fault.number;
                        let drawn = whole.faults.iter().find(same);
                        asked(fault, drawn.unwrap_or(fault))
                    };
                    format!("--faults {}", with_commas(plan.faults.iter().map(drawn)))
                }
            },
        );
        say(plan.settings != whole.settings, &|| {
            let settings = plan.settings.beside(&whole.settings);
            let settings = settings.map(|(setting, value)| format!("{}={value}", setting.name));
            format!("--settings {}", with_commas(settings))
        });
        say(self.thorough, &|| "--thorough".to_owned());
        #[cfg(feature = "planted-faults")]
        words.extend(self.plant.iter().map(|name| format!("--plant {name}")));
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_one_or_a_range() {
        assert_eq!(seeds("3..5"), Ok(3..5));
        assert_eq!(seeds("17"), Ok(17..18));
        assert!(seeds("5..5").is_err());
        assert!(seeds("x..5").unwrap_err().contains("0..300"));
    }

    #[test]
    fn faults_are_numbers_or_none() {
        let numbers = |text| faults(text).map(|faults| faults.0);
        let plain = numbers("3,7").unwrap();
        assert_eq!((plain[0].number, plain[1].number), (3, 7));
        let moved = numbers("3@1500ms+200ms").unwrap();
        assert_eq!(moved[0].at, Some(Duration::from_millis(1_500)));
        assert_eq!(moved[0].lasts, Some(Duration::from_millis(200)));
        assert!(numbers("none").unwrap().is_empty());
        assert!(numbers("3,x").is_err());
        assert!(numbers("3@x").is_err());
    }

    #[derive(clap::Parser)]
    struct Asked {
        #[command(flatten)]
        arguments: SimulateArgs,
    }

    fn asked_for(command: &str) -> SimulateArgs {
        let words = command.split(' ').skip(1);
        <Asked as clap::Parser>::parse_from(words).arguments
    }

    #[test]
    fn a_fault_that_no_seed_has_is_missing() {
        let missing = |command| asked_for(command).missing_fault();
        let (number, count) = missing("quorate simulate --seeds 7 --faults 0,900").unwrap();
        assert_eq!(number, 900);
        let last = format!(
            "quorate simulate --seeds 7 --time 1s --faults {}",
            count - 1
        );
        assert_eq!(missing(&last), None);
        assert_eq!(missing("quorate simulate --seeds 7 --faults none"), None);
        assert_eq!(missing("quorate simulate --seeds 7"), None);
        let calm = missing("quorate simulate --seeds 0..9 --scenario calm --faults 0");
        assert_eq!(calm, Some((0, 0)));
    }

    #[test]
    fn the_command_of_a_plan_plays_that_plan() {
        let first = asked_for("quorate simulate --seeds 0..40 --thorough");
        for seed in first.seeds.clone() {
            let mut plan = Plan::of(seed, &first.options());
            for step in 0..8 {
                let command = first.command(&plan);
                let again = asked_for(&command);
                assert_eq!(again.seeds, seed..seed + 1, "{command}");
                assert_eq!(Plan::of(seed, &again.options()), plan, "{command}");
                smaller(&mut plan, step);
            }
        }
    }

    /// Changes a plan as making it smaller does, one thing after another.
    fn smaller(plan: &mut Plan, step: u64) {
        let setting = &quorate_simulate::SETTINGS[(plan.seed + step) as usize % 10];
        plan.settings = plan.settings.with_plain(setting);
        match step {
            0 => plan.nodes = 3,
            1 => plan.settings.replication = 3,
            2 => plan.clients = 1,
            3 => plan.work.truncate(1),
            4 => {
                plan.time = Duration::from_millis(3_500);
                plan.faults.retain(|fault| fault.at < plan.time);
            }
            5 => plan.faults.retain(|fault| fault.number % 2 == 1),
            6 => {
                for (at, fault) in plan.faults.iter_mut().enumerate() {
                    fault.at = Duration::from_millis(100 + at as u64);
                    fault.lasts = Duration::from_millis(70);
                }
            }
            _ => plan.course = step,
        }
    }

    #[test]
    fn a_plain_seed_needs_no_more_than_its_number() {
        let arguments = asked_for("quorate simulate --seeds 17");
        let plan = Plan::of(17, &arguments.options());
        assert_eq!(arguments.command(&plan), "quorate simulate --seeds 17");
    }
}
