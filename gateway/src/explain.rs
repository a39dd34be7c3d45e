//! `explain`: for every level, whether a get or put of a key could be served now, through whom, at
//! what cost and age, and what would have to fail for it to be refused. As this node sees it, by
//! the rules that serve requests (`stand`, and the coordinator of the eventual path); nothing is
//! asked of others.

use std::time::Duration;

use quorate_eventual::outlook::{HolderOutlook, visible_after};
use quorate_proto::v1;
use quorate_raft::{KeyspaceView, RangeView};
use quorate_types::limits::CLOCK_OFFSET_MAX;
use quorate_types::{Mode, NodeId, Timestamp, per_mille};

use crate::costs::Kind;
use crate::errors::GatewayError;
use crate::gateway::{Gateway, any_keyspace};
use crate::receipt::as_micros;

/// The bound that stands for all of `bounded`.
const BOUNDED: Duration = Duration::from_secs(5);

/// One row of the table.
struct Asked {
    is_put: bool,
    level: v1::Level,
    copies: v1::Copies,
    strict: bool,
}

/// Every level once, gets first.
fn all_levels() -> Vec<Asked> {
    let asked = |is_put, level, copies, strict| Asked {
        is_put,
        level,
        copies,
        strict,
    };
    let strong = |is_put, level| asked(is_put, level, v1::Copies::Unspecified, false);
    let eventual = |is_put, copies, strict| asked(is_put, v1::Level::Eventual, copies, strict);
    vec![
        strong(false, v1::Level::Linearizable),
        strong(false, v1::Level::Bounded),
        strong(false, v1::Level::Session),
        strong(false, v1::Level::Stale),
        eventual(false, v1::Copies::One, false),
        eventual(false, v1::Copies::Quorum, false),
        eventual(false, v1::Copies::All, false),
        strong(true, v1::Level::Linearizable),
        eventual(true, v1::Copies::One, false),
        eventual(true, v1::Copies::Quorum, false),
        eventual(true, v1::Copies::Quorum, true),
        eventual(true, v1::Copies::All, true),
    ]
}

impl Asked {
    fn rung(&self) -> v1::Rung {
        v1::Rung {
            level: self.level as i32,
            copies: self.copies as i32,
            strict: self.strict,
            staleness_max_ms: match self.level {
                v1::Level::Bounded => BOUNDED.as_millis() as u32,
                v1::Level::Unspecified
                | v1::Level::Linearizable
                | v1::Level::Session
                | v1::Level::Stale
                | v1::Level::Eventual => 0,
            },
            ..v1::Rung::default()
        }
    }

    fn is_eventual(&self) -> bool {
        self.level == v1::Level::Eventual
    }

    fn is_served_by(&self, mode: Mode) -> bool {
        match mode {
            Mode::Strong => !self.is_eventual(),
            Mode::Mixed => true,
            Mode::Eventual => self.is_eventual(),
        }
    }

    /// Of so many primaries.
    fn wanted(&self, primaries: usize) -> usize {
        match self.copies {
            v1::Copies::All => primaries,
            v1::Copies::Quorum | v1::Copies::LocalQuorum => primaries / 2 + 1,
            v1::Copies::Unspecified | v1::Copies::One | v1::Copies::Count => 1,
        }
    }
}

/// A range as this node sees it.
struct Seen {
    holders: Vec<HolderOutlook>,
    leader: Option<NodeId>,
    /// Of the replica here: a bound on the age of what it shows.
    age: Option<Duration>,
}

/// Whether a level can be had, and why not.
struct Outlook {
    through: Vec<NodeId>,
    problem: Option<String>,
    refused_if: String,
}

impl Seen {
    fn reachable(&self, stand_ins: bool) -> Vec<NodeId> {
        let holders = self.holders.iter();
        let counted = holders.filter(|one| one.reachable && (one.is_primary || stand_ins));
        counted.map(|one| one.node).collect()
    }

    fn primaries(&self) -> usize {
        self.holders.iter().filter(|one| one.is_primary).count()
    }

    /// Served if `wanted` of the nodes in reach are.
    fn counted(&self, wanted: usize, stand_ins: bool, what: &str) -> Outlook {
        let reachable = self.reachable(stand_ins);
        let problem = (reachable.len() < wanted).then(|| {
            let count = reachable.len();
            format!("{wanted} {what} are wanted, {count} can be reached")
        });
        Outlook {
            refused_if: unless(&reachable, wanted),
            problem,
            through: reachable,
        }
    }

    fn decided(&self) -> Outlook {
        let majority = self.primaries() / 2 + 1;
        let mut outlook = self.counted(majority, false, "replicas");
        let lost = self
            .leader
            .filter(|leader| !outlook.through.contains(leader));
        if let (None, Some(leader)) = (&outlook.problem, lost) {
            outlook.problem = Some(format!(
                "node {leader}, the leader, cannot be reached: another one is being elected"
            ));
        }
        outlook
    }

    fn bounded(&self) -> Outlook {
        let mut outlook = self.decided();
        let is_young = self.age.is_some_and(|age| age <= BOUNDED);
        if outlook.problem.is_some() && is_young {
            let left = BOUNDED.saturating_sub(self.age.unwrap_or_default());
            outlook.problem = None;
            outlook.refused_if = format!("{:.1} s pass like this", left.as_secs_f64());
        }
        outlook
    }

    /// Stand-ins alone show what was put there, and cannot tell of anything else whether it exists.
    fn shown(&self, wanted: usize) -> Outlook {
        let mut outlook = self.counted(wanted, true, "holders");
        if outlook.problem.is_none() && self.reachable(false).is_empty() {
            let problem = "no primary can be reached: stand-ins show only what was put there since";
            outlook.problem = Some(problem.to_owned());
        }
        outlook
    }

    fn of(&self, asked: &Asked) -> Outlook {
        let wanted = asked.wanted(self.primaries());
        match asked.level {
            v1::Level::Linearizable | v1::Level::Unspecified => self.decided(),
            v1::Level::Bounded => self.bounded(),
            v1::Level::Session | v1::Level::Stale => self.counted(1, false, "replicas"),
            v1::Level::Eventual if asked.strict => self.counted(wanted, false, "primaries"),
            v1::Level::Eventual if asked.is_put => self.counted(wanted, true, "holders"),
            v1::Level::Eventual => self.shown(wanted),
        }
    }
}

/// What would have to fail for fewer than `wanted` to be left.
fn unless(reachable: &[NodeId], wanted: usize) -> String {
    let Some(spare) = reachable.len().checked_sub(wanted) else {
        return String::new();
    };
    let nodes: Vec<String> = reachable.iter().map(ToString::to_string).collect();
    format!("{} of nodes {} fail", spare + 1, nodes.join(", "))
}

impl Gateway {
    /// What each level would get now for a key, or for the worst range of a keyspace.
    ///
    /// # Errors
    /// `KEYSPACE_NOT_FOUND`.
    pub fn explain(
        &self,
        request: &v1::ExplainRequest,
    ) -> Result<v1::ExplainResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = any_keyspace(&catalog, &request.keyspace)?;
        let ranges: Vec<&RangeView> = match &request.key {
            Some(key) => vec![keyspace.route(key).0],
            None => keyspace.ranges.iter().collect(),
        };
        let explained = ranges
            .into_iter()
            .map(|range| self.explain_range(keyspace, range));
        let refused = |answer: &v1::ExplainResponse| {
            let levels = answer.levels.iter();
            levels.filter(|level| !level.servable).count()
        };
        explained
            .max_by_key(refused)
            .ok_or_else(|| GatewayError::internal("a keyspace has ranges"))
    }

    fn explain_range(&self, keyspace: &KeyspaceView, range: &RangeView) -> v1::ExplainResponse {
        let seen = self.range_seen(range);
        let mode = keyspace.options.mode;
        let levels = all_levels()
            .into_iter()
            .filter(|asked| asked.is_served_by(mode));
        let holders = seen.holders.iter().map(|holder| self.holder(holder, &seen));
        v1::ExplainResponse {
            answered_by: self.node_id().0,
            mode: mode.to_string(),
            range: range.id.0,
            holders: holders.collect(),
            levels: levels.map(|asked| self.level(&asked, &seen)).collect(),
        }
    }

    fn range_seen(&self, range: &RangeView) -> Seen {
        let here = self.node_id();
        let without_plane = || {
            let holder = |node: &NodeId| HolderOutlook {
                node: *node,
                is_primary: true,
                reachable: *node == here || self.node().peer_reachable(*node),
                ..HolderOutlook::default()
            };
            range.replicas.iter().map(holder).collect()
        };
        let group = self.node().group(range.id);
        let age = group.as_ref().map(|group| {
            let closed = Timestamp(group.closed().0);
            self.node().now().saturating_duration_since(closed) + CLOCK_OFFSET_MAX
        });
        Seen {
            holders: self
                .eventual()
                .outlook(range.id)
                .unwrap_or_else(|_| without_plane()),
            leader: match group {
                Some(group) => group.leader(),
                // Whoever served last may have been deposed since.
                None => self.last_served(range.id).filter(|node| {
                    range.replicas.contains(node) && self.node().peer_reachable(*node)
                }),
            },
            age,
        }
    }

    fn holder(&self, holder: &HolderOutlook, seen: &Seen) -> v1::HolderOutlook {
        let micros = |latencies: &[Duration], p| per_mille(latencies.to_vec(), p).map(as_micros);
        v1::HolderOutlook {
            node: holder.node.0,
            primary: holder.is_primary,
            reachable: holder.reachable,
            leader: seen.leader == Some(holder.node),
            read_p50_us: micros(&holder.reads, 500),
            read_p99_us: micros(&holder.reads, 990),
            copy_p50_us: micros(&holder.copies, 500),
            copy_p99_us: micros(&holder.copies, 990),
        }
    }

    fn level(&self, asked: &Asked, seen: &Seen) -> v1::LevelOutlook {
        let outlook = seen.of(asked);
        let rung = asked.rung();
        let recent = self.costs().recent(Kind::of(asked.is_put, &rung));
        let servable = outlook.problem.is_none();
        let age = match asked.level {
            _ if asked.is_put || !servable => None,
            v1::Level::Linearizable => Some(Duration::ZERO),
            v1::Level::Bounded => Some(BOUNDED),
            v1::Level::Session | v1::Level::Stale => seen.age,
            v1::Level::Eventual | v1::Level::Unspecified => None,
        };
        let wanted = asked.wanted(seen.primaries());
        let visible = (asked.is_eventual() && !asked.is_put && servable)
            .then(|| visible_after(self.node_id(), &seen.holders, wanted))
            .flatten();
        v1::LevelOutlook {
            operation: if asked.is_put { "put" } else { "get" }.to_owned(),
            level: Some(rung),
            servable,
            problem: outlook.problem.unwrap_or_default(),
            through: outlook.through.iter().map(|node| node.0).collect(),
            refused_if: outlook.refused_if,
            p50_us: per_mille(recent.clone(), 500).map(as_micros),
            p99_us: per_mille(recent, 990).map(as_micros),
            staleness_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            visible_after_us: visible.map(as_micros),
        }
    }
}
