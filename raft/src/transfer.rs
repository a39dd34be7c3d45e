//! A snapshot on its way to a follower, chunk by chunk, on both ends. What is lost is sent again
//! within seconds, from where the receiver stands. Not here: what a snapshot is (see `snapshot`).
//!
//! Each attempt has a name of its own. It reads its export from the beginning, and no other can be
//! continued with it: chunks may lie otherwise although the position is the same.

use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{StreamingError, Timeout, Unreachable};
use openraft::raft::SnapshotResponse;
use openraft::{AnyError, RPCTypes};
use quorate_proto::internal as wire;
use quorate_proto::internal::envelope::Body;
use quorate_types::{NodeId, RangeId};
use tokio::time::Instant;

use crate::consensus::{
    Consensus, Vote, log_id_from_wire, membership_from_wire, membership_to_wire, vote_from_wire,
    vote_to_wire,
};
use crate::group::Group;
use crate::network::{Network, Snapshot};
use crate::node::Inner;
use crate::peer::{CallError, Class};
use crate::snapshot::{Outgoing, SnapshotData, SnapshotError, Spool};

/// A chunk that has no answer by then is sent again.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before a chunk is sent again that could not be sent, or whose connection broke.
const RESEND_PAUSE: Duration = Duration::from_millis(200);
/// A receiver that was not heard for so long is given up: an export holds old pages of the engine.
const RECEIVER_SILENCE_MAX: Duration = Duration::from_secs(30);
/// How often a receiver that installs is asked how far it is.
const INSTALL_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// A receiver that installs for longer is given up.
const INSTALL_TIME_MAX: Duration = Duration::from_secs(600);

/// What the receiver keeps of the last attempt of one sender for one range.
#[derive(Debug)]
pub(crate) struct Incoming {
    attempt: String,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Collecting(Arc<Spool>),
    Installing,
    Installed(wire::SnapshotResponse),
}

/// What follows from a chunk.
enum Taken {
    Answer(wire::SnapshotResponse),
    Whole(Arc<Spool>),
}

/// One attempt to send a snapshot.
struct Sending<'a> {
    network: &'a Network,
    export: Arc<Outgoing>,
    attempt: String,
    vote: Vote,
    membership: wire::Membership,
    heard: Instant,
    installing: Option<Instant>,
}

fn unreachable(error: &dyn std::fmt::Display) -> StreamingError<Consensus> {
    StreamingError::Unreachable(Unreachable::new(&AnyError::error(error)))
}

impl Network {
    /// Sends chunk by chunk; the receiver says which chunk it wants next. Given up when the
    /// receiver is silent for long: the next attempt begins anew, with an export of its own.
    pub(crate) async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<Consensus>, StreamingError<Consensus>> {
        let export = snapshot.snapshot.export().map_err(|e| unreachable(&e))?;
        let mut sending = Sending {
            network: self,
            attempt: format!("{}-{}", export.id(), self.calls.unique()),
            export,
            vote,
            membership: membership_to_wire(&snapshot.meta.last_membership),
            heard: Instant::now(),
            installing: None,
        };
        let mut number = 0;
        loop {
            let Some(answer) = sending.ask(number).await? else {
                tokio::time::sleep(RESEND_PAUSE).await;
                continue;
            };
            if answer.installed {
                let vote = answer.vote.map_or(vote, |v| vote_from_wire(&v));
                return Ok(SnapshotResponse::new(vote));
            }
            if answer.installing {
                sending.still_installs()?;
                tokio::time::sleep(INSTALL_POLL_INTERVAL).await;
            } else {
                number = answer.next;
            }
        }
    }
}

impl Sending<'_> {
    /// Sends a chunk. `None`: no answer, and the receiver may get it again.
    async fn ask(
        &mut self,
        number: u64,
    ) -> Result<Option<wire::SnapshotResponse>, StreamingError<Consensus>> {
        let chunk = self.chunk(number).map_err(|e| unreachable(&e))?;
        let body = Body::Snapshot(Box::new(chunk));
        match self.network.call(Class::Bulk, body, CHUNK_TIMEOUT).await {
            Ok(Body::SnapshotResponse(answer)) => {
                self.heard = Instant::now();
                Ok(Some(answer))
            }
            Ok(_) => Err(unreachable(&"an answer of another kind")),
            Err(CallError::TimedOut | CallError::Lost | CallError::NotSent(_)) => {
                if self.heard.elapsed() >= RECEIVER_SILENCE_MAX {
                    return Err(self.timed_out(RECEIVER_SILENCE_MAX));
                }
                Ok(None)
            }
            Err(error @ CallError::Refused(_)) => Err(unreachable(&error)),
        }
    }

    fn chunk(&self, number: u64) -> Result<wire::SnapshotChunk, SnapshotError> {
        let data = self.export.chunk(number)?;
        let position = self.export.position();
        Ok(wire::SnapshotChunk {
            vote: Some(vote_to_wire(&self.vote)),
            last: Some(wire::LogId {
                term: position.term,
                index: position.index,
            }),
            membership: Some(self.membership.clone()),
            snapshot_id: self.attempt.clone(),
            number,
            end: data.is_none(),
            data: data.unwrap_or_default(),
        })
    }

    fn still_installs(&mut self) -> Result<(), StreamingError<Consensus>> {
        let since = *self.installing.get_or_insert_with(Instant::now);
        if since.elapsed() >= INSTALL_TIME_MAX {
            return Err(self.timed_out(INSTALL_TIME_MAX));
        }
        Ok(())
    }

    fn timed_out(&self, timeout: Duration) -> StreamingError<Consensus> {
        StreamingError::Timeout(Timeout {
            action: RPCTypes::InstallSnapshot,
            id: 0,
            target: self.network.target.0,
            timeout,
        })
    }
}

impl Inner {
    /// Keeps a chunk; the last one has the snapshot installed.
    pub(crate) fn take_snapshot(
        &self,
        from: NodeId,
        range: RangeId,
        id: u64,
        chunk: wire::SnapshotChunk,
    ) {
        let Some(group) = self.group(range) else {
            return self.refuse(from, range, id, "no replica of the range here");
        };
        match self.take_chunk(from, range, &chunk) {
            Ok(Taken::Answer(answer)) => self.answer_snapshot(from, range, id, answer),
            Ok(Taken::Whole(spool)) => self.start_install(from, group, id, chunk, spool),
            Err(error) => self.refuse(from, range, id, &error.to_string()),
        }
    }

    fn take_chunk(
        &self,
        from: NodeId,
        range: RangeId,
        chunk: &wire::SnapshotChunk,
    ) -> Result<Taken, SnapshotError> {
        let wants = |next| {
            Ok(Taken::Answer(wire::SnapshotResponse {
                next,
                ..Default::default()
            }))
        };
        let mut incoming = self.inbound.snapshots.lock();
        let known = incoming.get(&(range, from));
        let known = known.filter(|known| known.attempt == chunk.snapshot_id);
        let spool = match known.map(|known| &known.stage) {
            Some(Stage::Collecting(spool)) => spool.clone(),
            Some(Stage::Installing) => return Ok(Taken::Answer(installing())),
            Some(Stage::Installed(answer)) => return Ok(Taken::Answer(*answer)),
            // Late, of an attempt that is over, or of one whose beginning a restart has taken away.
            None if chunk.number > 0 => return wants(0),
            None => {
                // First the file of the attempt before, which has the same path.
                incoming.remove(&(range, from));
                let name = format!("snapshot-{range}-{from}.part");
                let path = self.options.dir.join(name);
                let spool = Arc::new(Spool::create(self.seams.disk.clone(), path)?);
                let attempt = chunk.snapshot_id.clone();
                let stage = Stage::Collecting(spool.clone());
                incoming.insert((range, from), Incoming { attempt, stage });
                spool
            }
        };
        if !chunk.end {
            return wants(spool.add(chunk.number, &chunk.data)?);
        }
        if spool.chunk_count() != chunk.number {
            return wants(spool.chunk_count());
        }
        if let Some(known) = incoming.get_mut(&(range, from)) {
            known.stage = Stage::Installing;
        }
        Ok(Taken::Whole(spool))
    }

    /// Answers when all is installed. Until then, whoever asks again hears that it goes on.
    fn start_install(
        &self,
        from: NodeId,
        group: Arc<Group>,
        id: u64,
        chunk: wire::SnapshotChunk,
        spool: Arc<Spool>,
    ) {
        let Some(inner) = self.this() else { return };
        tokio::spawn(async move {
            let range = group.range;
            let answer = install(&group, &chunk, spool).await;
            {
                let mut incoming = inner.inbound.snapshots.lock();
                let known = incoming.get_mut(&(range, from));
                match known.filter(|known| known.attempt == chunk.snapshot_id) {
                    Some(known) if answer.installed => {
                        known.stage = Stage::Installed(answer);
                    }
                    Some(_) => drop(incoming.remove(&(range, from))),
                    None => {}
                }
            }
            inner.answer_snapshot(from, range, id, answer);
        });
    }

    fn answer_snapshot(
        &self,
        from: NodeId,
        range: RangeId,
        id: u64,
        answer: wire::SnapshotResponse,
    ) {
        let body = Body::SnapshotResponse(answer);
        self.calls.answer(from, Class::Bulk, range.0, id, body);
    }
}

fn installing() -> wire::SnapshotResponse {
    wire::SnapshotResponse {
        installing: true,
        ..Default::default()
    }
}

async fn install(
    group: &Group,
    chunk: &wire::SnapshotChunk,
    spool: Arc<Spool>,
) -> wire::SnapshotResponse {
    let vote = vote_from_wire(&chunk.vote.unwrap_or_default());
    let membership = chunk.membership.clone().unwrap_or_default();
    let meta = crate::consensus::SnapshotMeta {
        last_log_id: chunk.last.as_ref().map(log_id_from_wire),
        last_membership: membership_from_wire(&membership),
    };
    let snapshot = openraft::storage::Snapshot {
        meta,
        snapshot: SnapshotData::Incoming(spool),
    };
    match group.raft.install_full_snapshot(vote, snapshot).await {
        Ok(response) => wire::SnapshotResponse {
            vote: Some(vote_to_wire(&response.vote)),
            installed: true,
            ..Default::default()
        },
        Err(error) => {
            tracing::error!(range = %group.range, %error, "a snapshot was not installed");
            wire::SnapshotResponse::default()
        }
    }
}
