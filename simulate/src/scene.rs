//! What a story's commands do: a calm cluster on a fixed seed, requests with their receipts, cuts and
//! ends, and looks at what each node holds.
//!
//! Not here: how a story is written (`story`).

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_proto::internal as wire;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_raft::peer::Class;
use quorate_types::causal::Dots;
use quorate_types::{Copies, Effect, Ladder, Level, NodeId, RangeId, chain, parse_duration};
use tokio::time::Instant;

use crate::ask::level_told;
use crate::message::text_of;
use crate::plan::{Family, Options, Plan};
use crate::settings::{SETTINGS, Setting, Settings};
use crate::trace::Trace;
use crate::work::Work;
use crate::world::{Process, Shared, World, id_of};

/// Time of a request that names none.
const WITHIN: Duration = Duration::from_secs(2);
/// What is awaited comes within this, of simulated time.
const AWAIT_MAX: Duration = Duration::from_secs(60);
/// Bytes of a log that are shown.
const LOG_BYTES_MAX: u64 = 1 << 20;
const COMMANDS: &str = "cluster, put, get, delete, fill, cut, heal, lose, kill, power-cut, start, \
                        lead, elapse, await, nodes, holds, log, trace";

type Lines = Result<Vec<String>, String>;

/// A cluster on which a story is played.
pub(crate) struct Scene {
    seed: u64,
    trace: Trace,
    world: Option<Shared>,
    /// Revisions are moments: they are shown as r1, r2, … in the order in which they come up.
    revisions: BTreeMap<u64, usize>,
    /// Lines of the trace that `trace` has shown.
    shown: usize,
}

fn quiet() -> Lines {
    Ok(Vec::new())
}

fn nodes(text: &str) -> Result<Vec<usize>, String> {
    let node = |text: &str| {
        let number = text.trim().parse::<usize>().ok();
        let at = number.and_then(|number| number.checked_sub(1));
        at.ok_or_else(|| format!("`{text}` is no node"))
    };
    text.split(',').map(node).collect()
}

fn list(nodes: &[u64]) -> String {
    let names: Vec<String> = nodes.iter().map(|node| format!("n{node}")).collect();
    names.join(" ")
}

fn consistency(text: &str, fence: bool) -> Result<v1::Consistency, String> {
    let ladder: Ladder = text.parse().map_err(|error| format!("{error}"))?;
    let rungs = ladder.rungs().iter().map(|rung| {
        let wire = match rung.level {
            Level::Linearizable => rung_of(v1::Level::Linearizable),
            Level::Stale => rung_of(v1::Level::Stale),
            Level::Session => rung_of(v1::Level::Session),
            Level::Bounded(most) => v1::Rung {
                staleness_max_ms: most.as_millis() as u32,
                ..rung_of(v1::Level::Bounded)
            },
            Level::Eventual { copies, strict, .. } => {
                let (copies, count) = match copies {
                    Copies::One => (v1::Copies::One, 0),
                    Copies::Quorum => (v1::Copies::Quorum, 0),
                    Copies::LocalQuorum => (v1::Copies::LocalQuorum, 0),
                    Copies::All => (v1::Copies::All, 0),
                    Copies::Count(count) => (v1::Copies::Count, u32::from(count)),
                };
                v1::Rung {
                    copies: copies as i32,
                    copies_count: count,
                    strict,
                    ..rung_of(v1::Level::Eventual)
                }
            }
        };
        v1::Rung {
            budget_ms: rung.budget.map_or(0, |budget| budget.as_millis() as u32),
            ..wire
        }
    });
    Ok(v1::Consistency {
        rungs: rungs.collect(),
        fence,
        ..v1::Consistency::default()
    })
}

fn rung_of(level: v1::Level) -> v1::Rung {
    v1::Rung {
        level: level as i32,
        ..v1::Rung::default()
    }
}

/// `put KEYSPACE KEY=VALUE at NODE [fenced] [within DURATION] LEVEL`, in its parts.
struct Ask<'a> {
    keyspace: &'a str,
    what: &'a str,
    at: usize,
    within: Duration,
    consistency: v1::Consistency,
}

impl<'a> Ask<'a> {
    fn parse(rest: &'a str) -> Result<Ask<'a>, String> {
        let wanted = "wanted: KEYSPACE WHAT at NODE [fenced] [within DURATION] LEVEL";
        let (head, rest) = rest.split_once(" at ").ok_or(wanted)?;
        let (keyspace, what) = head.split_once(' ').ok_or(wanted)?;
        let (at, rest) = rest.split_once(' ').ok_or(wanted)?;
        let (fenced, rest) = match rest.strip_prefix("fenced ") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let (within, level) = match rest.strip_prefix("within ") {
            Some(rest) => {
                let (within, level) = rest.split_once(' ').ok_or(wanted)?;
                (
                    parse_duration(within).map_err(|error| chain(&error))?,
                    level,
                )
            }
            None => (WITHIN, rest),
        };
        Ok(Ask {
            keyspace,
            what,
            at: *nodes(at)?.first().ok_or(wanted)?,
            within,
            consistency: consistency(level, fenced)?,
        })
    }
}

impl Scene {
    pub(crate) fn new(seed: u64) -> Scene {
        Scene {
            seed,
            trace: Trace::new(true),
            world: None,
            revisions: BTreeMap::new(),
            shown: 0,
        }
    }

    pub(crate) fn end(&self) {
        if let Some(world) = &self.world {
            world.end_all();
        }
    }

    /// Does what a command says; the lines are what is seen of it.
    pub(crate) async fn perform(&mut self, command: &str) -> Lines {
        let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
        match name {
            "cluster" => self.cluster(rest).await,
            "put" | "get" | "delete" => self.ask(name, rest).await,
            "fill" => self.fill(rest).await,
            "cut" | "heal" | "lose" => self.links(name, rest),
            "kill" | "power-cut" | "start" => self.processes(name, rest).await,
            "lead" => self.lead(rest).await,
            "elapse" => {
                let time = parse_duration(rest).map_err(|error| chain(&error))?;
                tokio::time::sleep(time).await;
                quiet()
            }
            "await" => self.awaited(rest).await,
            "nodes" => self.nodes(rest).await,
            "holds" => self.holds(rest).await,
            "log" => self.log(rest),
            "trace" => self.traced(rest),
            _ => Err(format!("known are {COMMANDS}")),
        }
    }

    fn world(&self) -> Result<Shared, String> {
        self.world
            .clone()
            .ok_or_else(|| "there is no cluster yet".to_owned())
    }

    /// `cluster nodes=3 keyspaces=mixed,registers [SETTING=N …]`
    async fn cluster(&mut self, rest: &str) -> Lines {
        let mut options = Options {
            family: Family::Calm,
            nodes: Some(3),
            ..Options::default()
        };
        for word in rest.split(' ') {
            match word.split_once('=') {
                Some(("nodes", number)) => {
                    options.nodes = number.parse().ok();
                }
                Some(("keyspaces", names)) => {
                    let named: Result<_, _> = names.split(',').map(Work::named).collect();
                    options.work = named?;
                }
                _ => options.settings.push(Setting::parse(word)?),
            }
        }
        let plan = Plan::of(self.seed, &options);
        let plain = |settings, setting: &Setting| Settings::with_plain(&settings, setting);
        let plain = SETTINGS.iter().fold(plan.settings, plain);
        let said = options.settings.iter();
        let plan = Plan {
            settings: said.fold(plain, |settings, (one, value)| settings.with(one, *value)),
            ..plan
        };
        let world = World::start(plan, self.trace.clone()).await?;
        self.world = Some(world);
        quiet()
    }

    fn place(&self, keyspace: &str) -> Result<(RangeId, Vec<usize>, u32), String> {
        let world = self.world()?;
        let process = world.all().find_map(|at| world.process(at));
        let catalog = process.ok_or("no node runs")?.raft.catalog();
        let keyspace = catalog
            .keyspace(keyspace)
            .ok_or("there is no such keyspace")?;
        let (range, _) = keyspace.route(b"");
        let at = |node: &NodeId| (node.0 - 1) as usize;
        let mut primaries: Vec<usize> = range.replicas.iter().map(at).collect();
        primaries.sort_unstable();
        Ok((range.id, primaries, keyspace.id.0))
    }

    fn process(&self, at: usize) -> Result<Process, String> {
        let process = self.world()?.process(at);
        process.ok_or_else(|| format!("n{} does not run", id_of(at)))
    }

    fn revision(&mut self, revision: u64) -> String {
        let next = self.revisions.len() + 1;
        format!("r{}", self.revisions.entry(revision).or_insert(next))
    }

    async fn ask(&mut self, name: &str, rest: &str) -> Lines {
        let ask = Ask::parse(rest)?;
        let (key, value) = ask.what.split_once('=').unwrap_or((ask.what, ""));
        let (keyspace, key) = (ask.keyspace.to_owned(), key.to_owned().into_bytes().into());
        let consistency = Some(ask.consistency);
        let request = match name {
            "get" => Request::Get(v1::GetRequest {
                keyspace,
                key,
                consistency,
                at_revision: 0,
            }),
            "put" => Request::Put(v1::PutRequest {
                keyspace,
                key,
                value: value.to_owned().into_bytes().into(),
                consistency,
                ..v1::PutRequest::default()
            }),
            _ => Request::Delete(v1::DeleteRequest {
                keyspace,
                key,
                consistency,
                ..v1::DeleteRequest::default()
            }),
        };
        let process = self.process(ask.at)?;
        let now = Instant::now();
        let context = quorate_gateway::Context::new(now, now + ask.within);
        let line = match process.gateway.serve(request, context).await {
            Ok(Response::Get(got)) => {
                let entries = got.entry.into_iter().chain(got.siblings);
                let values: Vec<String> = entries.map(|entry| text_of(&entry.value)).collect();
                let values = match values.is_empty() {
                    true => "nothing".to_owned(),
                    false => values.join(" and "),
                };
                format!("{values}: {}", self.receipt(got.receipt))
            }
            Ok(Response::Put(done)) => format!("done: {}", self.receipt(done.receipt)),
            Ok(Response::Delete(done)) => format!("done: {}", self.receipt(done.receipt)),
            Ok(_) => "answered".to_owned(),
            Err(error) if error.effect() == Effect::None => format!("refused: {}", chain(&error)),
            Err(error) => format!("nobody knows: {}", chain(&error)),
        };
        Ok(vec![line])
    }

    /// What was delivered.
    fn receipt(&mut self, receipt: Option<v1::Receipt>) -> String {
        let receipt = receipt.unwrap_or_default();
        let level = receipt.level.unwrap_or_default();
        let level = level_told(&v1::Rung {
            budget_ms: 0,
            ..level
        });
        let role = match receipt.role() {
            v1::Role::Leader => " as leader",
            v1::Role::Follower => " as follower",
            v1::Role::Primary => " as primary",
            v1::Role::StandIn => " as stand-in",
            v1::Role::Unspecified => "",
        };
        let mut text = format!("{level}, by n{}{role}", receipt.node);
        if !receipt.replicas.is_empty() {
            text += &format!(", with {}", list(&receipt.replicas));
        }
        if !receipt.stand_ins.is_empty() {
            text += &format!(", standing in {}", list(&receipt.stand_ins));
        }
        if receipt.revision > 0 {
            text += &format!(", revision {}", self.revision(receipt.revision));
        }
        if receipt.tentative {
            text += ", not yet in the log";
        }
        for failed in &receipt.failed {
            text += &format!("; before that: {failed}");
        }
        text
    }

    /// `fill KEYSPACE N at NODE`: so many keys, written to the log.
    async fn fill(&mut self, rest: &str) -> Lines {
        let wanted = "wanted: KEYSPACE N at NODE LEVEL";
        let (keyspace, rest) = rest.split_once(' ').ok_or(wanted)?;
        let (count, rest) = rest.split_once(' ').ok_or(wanted)?;
        for number in 1..=count.parse::<u64>().map_err(|_| wanted)? {
            let one = format!("{keyspace} k{number}={number} {rest}");
            let told = self.ask("put", &one).await?;
            if told.iter().any(|line| !line.starts_with("done")) {
                return Ok(told);
            }
        }
        Ok(vec![format!("{count} keys are written")])
    }

    /// `cut A,B | C`, `cut A -> B` (one way), `heal`, `lose A -> B`
    fn links(&mut self, name: &str, rest: &str) -> Lines {
        let network = self.world()?.network.clone();
        if name == "heal" {
            network.heal();
            return quiet();
        }
        let both = rest.split_once('|');
        let wanted = "wanted: A,B | C, or A -> B";
        let (left, right) = both.or_else(|| rest.split_once("->")).ok_or(wanted)?;
        for one in nodes(left)? {
            for other in nodes(right)? {
                if name == "lose" {
                    for class in [Class::Consensus, Class::Bulk] {
                        network.lose_after(0, id_of(one), id_of(other), class);
                    }
                    continue;
                }
                network.cut(id_of(one), id_of(other));
                if both.is_some() {
                    network.cut(id_of(other), id_of(one));
                }
            }
        }
        quiet()
    }

    /// `kill 1,2`, `power-cut all`, `start all`
    async fn processes(&mut self, name: &str, rest: &str) -> Lines {
        let world = self.world()?;
        let named = match rest {
            "all" => world.all().collect(),
            rest => nodes(rest)?,
        };
        for at in named {
            match name {
                "kill" => world.kill(at),
                "power-cut" => world.cut_power(at),
                _ => world.restart(at).await,
            }
        }
        quiet()
    }

    /// `lead KEYSPACE NODE`: its leader hands over to a node.
    async fn lead(&mut self, rest: &str) -> Lines {
        let (keyspace, node) = rest.split_once(' ').ok_or("wanted: KEYSPACE NODE")?;
        let (range, primaries, _) = self.place(keyspace)?;
        let to = *nodes(node)?.first().ok_or("wanted: a node")?;
        let world = self.world()?;
        let leads = |at: usize| {
            world
                .group(at, range)
                .is_some_and(|group| group.is_leader())
        };
        if leads(to) {
            return quiet();
        }
        let mut groups = primaries.iter().filter_map(|at| world.group(*at, range));
        let leader = groups
            .find(|group| group.is_leader())
            .ok_or("nobody leads")?;
        let deadline = Instant::now() + WITHIN;
        leader
            .move_leader(id_of(to), deadline)
            .await
            .map_err(|error| chain(&error))?;
        world
            .eventually("it leads", AWAIT_MAX, || leads(to))
            .await?;
        quiet()
    }

    /// `await whole`, `await leader KEYSPACE [among NODES]`
    async fn awaited(&mut self, rest: &str) -> Lines {
        let world = self.world()?;
        let words: Vec<&str> = rest.split(' ').collect();
        match words[..] {
            ["whole"] => {
                let same = world.eventually("all replicas are the same", AWAIT_MAX, || {
                    world.rest().is_ok()
                });
                match (same.await, world.rest()) {
                    (Err(problem), Err(why)) => Err(format!("{problem}: {why}")),
                    (_, _) => quiet(),
                }
            }
            ["leader", keyspace, "among", among] => {
                let (range, _, _) = self.place(keyspace)?;
                let among = nodes(among)?;
                let leader = || {
                    let mut groups = among.iter().filter_map(|at| world.group(*at, range));
                    groups
                        .find(|group| group.is_leader())
                        .and_then(|group| group.leader())
                };
                world
                    .eventually("somebody leads", AWAIT_MAX, || leader().is_some())
                    .await?;
                let leader = leader().map_or(0, |node| node.0);
                Ok(vec![format!("n{leader} leads")])
            }
            _ => Err("wanted: whole, or leader KEYSPACE among NODES".to_owned()),
        }
    }

    /// `nodes KEYSPACE`: who leads, how far each is, what it keeps for others or beside the log.
    async fn nodes(&mut self, keyspace: &str) -> Lines {
        let (range, primaries, _) = self.place(keyspace)?;
        let world = self.world()?;
        let mut lines = Vec::new();
        for at in world.all() {
            let name = format!("n{}", id_of(at));
            let Ok(process) = self.process(at) else {
                lines.push(format!("{name}: does not run"));
                continue;
            };
            let report = process.raft.local_report(false, keyspace).await;
            let report = report.replicas.iter().find(|one| one.range == range.0);
            let replica = report.and_then(|report| report.replica.clone());
            let mut text = match (&replica, primaries.contains(&at)) {
                (Some(replica), _) => format!(
                    "{name}: {} in term {}, has applied {}",
                    replica.role, replica.term, replica.applied
                ),
                (None, true) => format!("{name}: primary"),
                (None, false) => format!("{name}: holds none of it"),
            };
            let hints = process.eventual.hints().0;
            if hints > 0 {
                text += &format!(", {hints} hints");
            }
            let rows = process
                .eventual
                .report(range)
                .map(|report| report.overlay_rows);
            if let Some(rows) = rows.ok().filter(|rows| *rows > 0) {
                text += &format!(", {rows} rows beside the log");
            }
            lines.push(text);
        }
        Ok(lines)
    }

    /// `holds KEYSPACE KEY`: what each node has of a key by itself.
    async fn holds(&mut self, rest: &str) -> Lines {
        let (keyspace, key) = rest.split_once(' ').ok_or("wanted: KEYSPACE KEY")?;
        let (range, primaries, number) = self.place(keyspace)?;
        let world = self.world()?;
        let mut encoded = number.to_be_bytes().to_vec();
        encoded.extend(key.as_bytes());
        let encoded = bytes::Bytes::from(encoded);
        let mut lines = Vec::new();
        for at in world.all() {
            let name = format!("n{}", id_of(at));
            let Ok(process) = self.process(at) else {
                lines.push(format!("{name}: does not run"));
                continue;
            };
            let mut parts = Vec::new();
            let group = process.raft.group(range);
            if let Some(group) = group.filter(|_| keyspace != Work::Siblings.keyspace()) {
                let version = group.table().get(&encoded).map_err(|error| chain(&error))?;
                let live = quorate_raft::machine::live_values(&encoded, version);
                let live = live.map_err(|error| chain(&error))?;
                let live: Vec<String> = live.iter().map(|(_, one)| text_of(&one.payload)).collect();
                let live = if live.is_empty() {
                    "nothing".to_owned()
                } else {
                    live.join(" and ")
                };
                parts.push(format!("the log says {live}"));
            }
            if keyspace != Work::Registers.keyspace() && primaries.contains(&at) {
                parts.push(format!(
                    "shows {}",
                    self.shows(&process, range, &encoded).await
                ));
            }
            if !parts.is_empty() {
                lines.push(format!("{name}: {}", parts.join(", ")));
            }
        }
        Ok(lines)
    }

    async fn shows(&self, process: &Process, range: RangeId, key: &bytes::Bytes) -> String {
        use wire::eventual_request::Request as Asks;
        use wire::eventual_response::Response as Answers;
        let fetch = wire::Fetch {
            key: key.clone(),
            wanted: Dots::new().to_bytes(),
        };
        let request = wire::EventualRequest {
            request: Some(Asks::Fetch(fetch)),
        };
        let me = process.raft.node_id();
        match process.eventual.answer(me, range, request).await.response {
            Some(Answers::Fetched(fetched)) => self.trace.state(&fetched.state),
            Some(Answers::Problem(problem)) => problem,
            _ => "nothing".to_owned(),
        }
    }

    /// `log KEYSPACE`: what each node's log holds.
    fn log(&mut self, keyspace: &str) -> Lines {
        let (range, primaries, _) = self.place(keyspace)?;
        let mut lines = Vec::new();
        for at in primaries {
            let name = format!("n{}", id_of(at));
            let Ok(process) = self.process(at) else {
                lines.push(format!("{name}: does not run"));
                continue;
            };
            let log = process.raft.log().group(range.0);
            let (Some(first), Some(last)) = (log.first_index(), log.last()) else {
                lines.push(format!("{name}: nothing"));
                continue;
            };
            let entries = log.read(first..last.index + 1, LOG_BYTES_MAX);
            let entries = entries.map_err(|error| chain(&error))?;
            let entries = entries.into_iter().map(|entry| {
                let (term, index) = (entry.term, entry.index);
                let text = self.trace.entry(&wire::Entry {
                    term,
                    index,
                    payload: entry.payload,
                });
                format!("{index} (term {term}) {text}")
            });
            lines.push(format!(
                "{name}: {}",
                entries.collect::<Vec<_>>().join(", ")
            ));
        }
        Ok(lines)
    }

    /// `trace KEYSPACE [KEY]`: what nodes said to each other of it since the last `trace`.
    fn traced(&mut self, rest: &str) -> Lines {
        let (keyspace, key) = match rest.split_once(' ') {
            Some((keyspace, key)) => (keyspace, Some(format!("{keyspace}/{key}"))),
            None => (rest, None),
        };
        let (range, _, _) = self.place(keyspace)?;
        let lines = self.trace.told_since(self.shown, range.0, key);
        self.shown = self.trace.len();
        Ok(lines)
    }
}
