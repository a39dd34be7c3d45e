//! Carries the end of leases to keys of other ranges: the leader of a range with such keys asks the
//! ranges that keep their leases which of those are over, and has its own log cut them.
//!
//! Asking again and again needs no list of who is to be told, and survives whatever restarts: a
//! key that was attached while its lease ended is found by the next question.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use quorate_proto::internal::{Command, LeaseCut, command, lease_cut};
use quorate_proto::v1;
use quorate_raft::machine::leases::LeaseName;
use quorate_raft::{Group, KeyspaceView, RangeView};
use quorate_types::{Mode, RangeId};
use tokio::time::Instant;

use crate::context::Context;
use crate::gateway::{Gateway, WeakGateway};

/// How long a leader rests between two rounds of questions.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A range that does not answer by then is asked in the next round.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Leases in one question, and in one entry.
const LEASES_ASKED_MAX: usize = 1_000;
/// Questions under way at the same time.
const QUESTIONS_MAX: usize = 8;

/// Leases to ask one range for, and the group whose keys are attached to them.
struct Question<'a> {
    keyspace: &'a KeyspaceView,
    home: &'a RangeView,
    group: Arc<Group>,
    names: Vec<LeaseName>,
}

/// Looks until the gateway is gone.
pub(crate) async fn watch(gateway: WeakGateway) {
    while let Some(gateway) = gateway.upgrade() {
        look(&gateway).await;
        drop(gateway);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn look(gateway: &Gateway) {
    let catalog = gateway.node().catalog();
    let leased = catalog
        .keyspaces()
        .iter()
        .filter(|keyspace| keyspace.options.mode != Mode::Eventual && keyspace.ranges.len() > 1);
    let mut questions = Vec::new();
    for keyspace in leased {
        for range in &keyspace.ranges {
            if let Some(group) = gateway.node().group(range.id).filter(|g| g.is_leader()) {
                questions_of(keyspace, &group, &mut questions);
            }
        }
    }
    stream::iter(questions)
        .for_each_concurrent(QUESTIONS_MAX, |question| ask(gateway, question))
        .await;
}

fn questions_of<'a>(
    keyspace: &'a KeyspaceView,
    group: &Arc<Group>,
    questions: &mut Vec<Question<'a>>,
) {
    let mut after = None;
    loop {
        let names = group.foreign_leases(after, LEASES_ASKED_MAX);
        let Some(last) = names.last().copied() else {
            return;
        };
        after = Some(last);
        let mut by_home: BTreeMap<RangeId, Question<'a>> = BTreeMap::new();
        for name in names {
            let (home, _) = keyspace.route(&name.id.home_key());
            let question = by_home.entry(home.id).or_insert_with(|| Question {
                keyspace,
                home,
                group: Arc::clone(group),
                names: Vec::new(),
            });
            question.names.push(name);
        }
        questions.extend(by_home.into_values());
    }
}

async fn ask(gateway: &Gateway, question: Question<'_>) {
    let Question {
        keyspace,
        home,
        group,
        names,
    } = question;
    let named = names.iter().map(|name| v1::LeaseNamed {
        id: name.id.0,
        granted: name.granted.0,
    });
    let request = v1::LeaseShowRequest {
        keyspace: keyspace.name.clone(),
        range: home.id.0,
        named: named.collect(),
        ..v1::LeaseShowRequest::default()
    };
    let now = Instant::now();
    let context = Context::new(now, now + ASK_TIMEOUT);
    // A range that cannot be asked ends no lease.
    let Ok(shown) = gateway.show_in(keyspace, home, request, context).await else {
        return;
    };
    if shown.over.is_empty() {
        return;
    }
    let items = shown.over.iter().map(|over| lease_cut::Item {
        id: over.id,
        granted: over.granted,
    });
    let cut = LeaseCut {
        items: items.collect(),
    };
    let command = Command {
        operation: Some(command::Operation::LeaseCut(cut)),
        ..Command::default()
    };
    if let Err(error) = group.propose(command, Instant::now() + ASK_TIMEOUT).await {
        tracing::debug!(range = %group.range_id(), %error, "keys of leases that are over stay");
    }
}
