//! Ladders of writes at nodes that do not hold the range: who climbs them, and what a client that
//! says nothing replaces. Not here: the climbing (`quorate_eventual`).

use bytes::Bytes;
use quorate_eventual::{ReadRequest, Wanted};
use quorate_proto::v1;
use quorate_types::Copies;
use quorate_types::causal::{Dots, Update};
use tokio::time::Instant;

use crate::context::Context;
use crate::errors::GatewayError;
use crate::eventual::EventualWrite;
use crate::gateway::Gateway;

impl Gateway {
    /// Whether this node climbs a ladder itself though it does not hold the range: a holder that
    /// was cut off a moment ago would take the whole deadline with it, and what it has done with
    /// the write could not be told. Changes of typed keys need what a holder knows.
    pub(crate) fn climbs_here(&self, write: &EventualWrite<'_>, context: &Context) -> bool {
        let is_plain = match write.update {
            Update::Put(_) | Update::Delete => true,
            Update::PutLatest(_)
            | Update::Increment(_)
            | Update::Add(_)
            | Update::Remove(_)
            | Update::Fields(_) => false,
        };
        let is_holder = write.place.range.replicas.contains(&self.node_id());
        let is_ladder = !write.plan.strong.is_empty();
        // Names that stand for others tell what a holder must know, not what was seen. Asked last:
        // it copies what the session has seen.
        let is_told = || !write.session.seen_before(write.place.range.id).is_coarse;
        is_plain && is_ladder && !is_holder && context.forwarded.is_none() && is_told()
    }

    /// What a ladder's write replaces whose client did not say what it had seen, at a node that
    /// does not hold the key: what the log has decided, and what a holder shows, as far as both
    /// can be heard within half of the first budget.
    pub(crate) async fn look_around(
        &self,
        write: &EventualWrite<'_>,
        context: &Context,
    ) -> Result<Dots, GatewayError> {
        let place = &write.place;
        let now = Instant::now();
        let budget = write.plan.strong.first().copied().flatten();
        let first = budget.map_or(context.deadline, |budget| context.arrived + budget);
        let first = first.min(context.deadline);
        let half = now + first.saturating_duration_since(now) / 2;
        let linearizable = v1::Rung {
            level: v1::Level::Linearizable as i32,
            ..v1::Rung::default()
        };
        let get = v1::GetRequest {
            keyspace: place.keyspace.name.clone(),
            key: Bytes::copy_from_slice(place.user_key),
            consistency: Some(v1::Consistency {
                rungs: vec![linearizable],
                ..v1::Consistency::default()
            }),
            at_revision: 0,
        };
        let decided = Box::pin(self.get(get, Context::new(now, half)));
        let shown = self.eventual().read(ReadRequest {
            range: place.range.id,
            key: place.key.clone(),
            copies: Copies::One,
            wanted: Wanted::default(),
            deadline: half,
        });
        let (decided, shown) = futures::join!(
            tokio::time::timeout_at(half, decided),
            tokio::time::timeout_at(half, shown)
        );
        let mut seen = write.session.seen_before(place.range.id).dots;
        if let Ok(Ok(got)) = decided {
            let sealed = got.receipt.map(|receipt| receipt.context);
            let known = self.seen(place, sealed.as_ref().filter(|sealed| !sealed.is_empty()))?;
            seen.union(&known.unwrap_or_default());
        }
        if let Ok(Ok(read)) = shown {
            seen.union(read.state.context());
        }
        Ok(seen)
    }
}
