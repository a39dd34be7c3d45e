//! The types that Quorate gives to openraft, and conversions to the wire and to the log.
//!
//! Nothing outside this crate names an openraft type.

use std::fmt;
use std::io;

use bytes::Bytes;
use openraft::entry::RaftEntry;
use openraft::impls::{EmptyNode, leader_id_std};
use openraft::raft::responder::Responder;
use openraft::vote::RaftLeaderId;
use openraft::{EntryPayload, OptionalSend, RaftTypeConfig};
use prost::Message;
use quorate_proto::internal as wire;
use quorate_storage::log as disk;
use serde::{Deserialize, Serialize};

use crate::machine::Applied;
use crate::runtime::QuorateRuntime;

/// Quorate's choice of openraft types: ids are numbers, terms have one leader, and commands are
/// bytes that only the state machine opens.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct Consensus;

// By hand, since the macro for it cannot set the responder.
impl RaftTypeConfig for Consensus {
    type D = CommandBytes;
    type R = Reply;
    type NodeId = u64;
    type Node = EmptyNode;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Self::D, u64, EmptyNode>;
    type Entry = openraft::Entry<<Self::LeaderId as RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = QuorateRuntime;
    type Responder<T>
        = Waiting<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// Hands a result to the task that waits for it, if it still does.
pub struct Waiting<T>(pub(crate) tokio::sync::oneshot::Sender<T>);

impl<T: OptionalSend + 'static> Responder<Consensus, T> for Waiting<T> {
    fn on_complete(self, result: T) {
        // The waiter may have run out of time.
        let _ = self.0.send(result);
    }
}

/// First byte of a log payload: what the rest is.
const PAYLOAD_BLANK: u8 = 0;
const PAYLOAD_COMMAND: u8 = 1;
const PAYLOAD_MEMBERSHIP: u8 = 2;

/// An encoded command with its payload byte in front: encoded once by the proposer, then only
/// shared, on its way to the log, to peers, and to apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandBytes(Bytes);

impl CommandBytes {
    /// Encodes a command.
    pub fn encode(command: &wire::Command) -> CommandBytes {
        let mut buffer = Vec::with_capacity(1 + command.encoded_len());
        buffer.push(PAYLOAD_COMMAND);
        command
            .encode(&mut buffer)
            .expect("a vector grows: encoding into it cannot run out of space");
        CommandBytes(buffer.into())
    }

    /// Opens it. Keys and values are slices of these bytes.
    pub fn decode(&self) -> Result<wire::Command, prost::DecodeError> {
        wire::Command::decode(self.0.slice(1..))
    }
}

impl fmt::Display for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

/// What apply answers. Blank and membership entries have no answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Never travels: it is handed to the proposer in the same process.
    #[serde(skip)]
    pub applied: Option<Box<Applied>>,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.applied.is_some() {
            "applied"
        } else {
            "nothing"
        })
    }
}

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Consensus>;
pub(crate) type Vote = <Consensus as RaftTypeConfig>::Vote;
pub(crate) type Entry = <Consensus as RaftTypeConfig>::Entry;
pub(crate) type Membership = openraft::Membership<u64, EmptyNode>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Consensus>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Consensus>;

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

pub(crate) fn log_id_term(id: &LogId) -> u64 {
    *id.leader_id
}

pub(crate) fn log_id_to_wire(id: &LogId) -> wire::LogId {
    wire::LogId {
        term: log_id_term(id),
        index: id.index,
    }
}

pub(crate) fn log_id_from_wire(id: &wire::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn log_id_to_disk(id: &LogId) -> disk::LogId {
    disk::LogId {
        term: log_id_term(id),
        index: id.index,
    }
}

pub(crate) fn log_id_from_disk(id: disk::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn vote_to_wire(vote: &Vote) -> wire::Vote {
    wire::Vote {
        term: vote.leader_id.term,
        node: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_wire(vote: &wire::Vote) -> Vote {
    make_vote(vote.term, vote.node, vote.committed)
}

pub(crate) fn vote_to_disk(vote: &Vote) -> disk::Vote {
    disk::Vote {
        term: vote.leader_id.term,
        node: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_disk(vote: disk::Vote) -> Vote {
    make_vote(vote.term, vote.node, vote.committed)
}

fn make_vote(term: u64, node: u64, committed: bool) -> Vote {
    if committed {
        Vote::new_committed(term, node)
    } else {
        Vote::new(term, node)
    }
}

pub(crate) fn membership_to_wire(stored: &StoredMembership) -> wire::Membership {
    let (term, index) = stored
        .log_id()
        .as_ref()
        .map_or((0, 0), |id| (log_id_term(id), id.index));
    let configuration = plain_membership_to_wire(stored.membership());
    wire::Membership {
        term,
        index,
        present: stored.log_id().is_some(),
        ..configuration
    }
}

fn plain_membership_to_wire(membership: &Membership) -> wire::Membership {
    let voters = membership
        .get_joint_config()
        .iter()
        .map(|set| wire::VoterSet {
            nodes: set.iter().copied().collect(),
        });
    wire::Membership {
        voters: voters.collect(),
        learners: membership.learner_ids().collect(),
        ..wire::Membership::default()
    }
}

pub(crate) fn membership_from_wire(wire: &wire::Membership) -> StoredMembership {
    let id = wire.present.then(|| log_id(wire.term, wire.index));
    StoredMembership::new(id, plain_membership_from_wire(wire))
}

fn plain_membership_from_wire(wire: &wire::Membership) -> Membership {
    let configuration: Vec<_> = wire
        .voters
        .iter()
        .map(|set| set.nodes.iter().copied().collect())
        .collect();
    if configuration.is_empty() {
        return Membership::default();
    }
    let learners = wire.learners.iter().map(|id| (*id, EmptyNode::new()));
    Membership::new_with_defaults(configuration, learners.map(|(id, _)| id))
}

/// The bytes of an entry as the log and the wire carry them.
pub(crate) fn payload_of(entry: &Entry) -> Bytes {
    match &entry.payload {
        EntryPayload::Blank => Bytes::from_static(&[PAYLOAD_BLANK]),
        EntryPayload::Normal(command) => command.0.clone(),
        EntryPayload::Membership(membership) => {
            let mut buffer = vec![PAYLOAD_MEMBERSHIP];
            plain_membership_to_wire(membership)
                .encode(&mut buffer)
                .expect("a vector grows: encoding into it cannot run out of space");
            buffer.into()
        }
    }
}

/// The inverse of [`payload_of`].
pub(crate) fn entry_of(term: u64, index: u64, payload: Bytes) -> Result<Entry, io::Error> {
    let id = log_id(term, index);
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_string());
    let payload = match payload.first() {
        Some(&PAYLOAD_BLANK) => EntryPayload::Blank,
        Some(&PAYLOAD_COMMAND) => EntryPayload::Normal(CommandBytes(payload)),
        Some(&PAYLOAD_MEMBERSHIP) => {
            let wire = wire::Membership::decode(payload.slice(1..))
                .map_err(|_| invalid("a membership entry does not decode"))?;
            EntryPayload::Membership(plain_membership_from_wire(&wire))
        }
        Some(_) | None => return Err(invalid("a log entry of an unknown kind")),
    };
    Ok(Entry::new(id, payload))
}
