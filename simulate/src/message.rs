//! What nodes say to each other, in words: which entries of the log with which writes, which copies,
//! which answers.
//!
//! Not here: which of it is told to whom (`trace`, `telling`).

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::internal as wire;
use quorate_proto::internal::append_response::Kind;
use quorate_proto::internal::command::Operation;
use quorate_proto::internal::envelope::Body;
use quorate_proto::internal::eventual_request::Request as Asks;
use quorate_proto::internal::eventual_response::Response as Answers;
use quorate_proto::v1::{pipeline_request, pipeline_response};
use quorate_types::causal::{Actor, Delta, Dot, Dots, KeyState};

/// First byte of a payload of the log: what the rest is, as in `quorate-raft`.
const PAYLOAD_BLANK: u8 = 0;
const PAYLOAD_COMMAND: u8 = 1;
/// Bytes of an encoded key before what its user calls the key.
const KEYSPACE_BYTES: usize = 4;
/// Keys that are named of what has many.
const KEYS_NAMED_MAX: usize = 3;

/// Names of what messages carry as numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// Nodes, by the identities of their disks.
    pub(crate) disks: BTreeMap<u64, u64>,
    /// Keyspaces, by their ids.
    pub(crate) keyspaces: BTreeMap<u32, String>,
}

/// Something that is said, and of which keys, as [`Names::key`] has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) keys: Vec<String>,
}

/// An entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntrySaid {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) said: Said,
}

impl Said {
    fn new(text: impl Into<String>) -> Said {
        Said {
            text: text.into(),
            keys: Vec::new(),
        }
    }
}

/// A key as its user calls it, of `keyspace/key`.
fn short(key: &str) -> &str {
    key.split_once('/').map_or(key, |(_, key)| key)
}

pub(crate) fn text_of(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

impl Names {
    /// `keyspace/key` of an encoded key.
    pub(crate) fn key(&self, encoded: &[u8]) -> String {
        let Some((keyspace, key)) = encoded.split_first_chunk::<KEYSPACE_BYTES>() else {
            return text_of(encoded);
        };
        let keyspace = u32::from_be_bytes(*keyspace);
        let name = self.keyspaces.get(&keyspace);
        let name = name.cloned().unwrap_or_else(|| keyspace.to_string());
        format!("{name}/{}", text_of(key))
    }

    /// The name of a write of the eventual plane: whose, of which start, the how-manieth.
    fn dot(&self, dot: Dot) -> String {
        let actor = dot.actor;
        if actor == Actor::LOG {
            return "the log's".to_owned();
        }
        match self.disks.get(&actor.disk) {
            Some(node) => format!("n{node}.{}:{}", actor.start, dot.counter),
            None => dot.to_string(),
        }
    }

    fn dots(&self, dots: &Dots) -> String {
        let named = dots.actors().flat_map(|(actor, counters)| {
            counters.ranges().map(move |(first, last)| {
                let name = self.dot(Dot::new(actor, first));
                if last > first {
                    return format!("{name}-{last}");
                }
                name
            })
        });
        named.collect::<Vec<_>>().join(" ")
    }

    fn delta(&self, bytes: &Bytes) -> String {
        let Ok(delta) = Delta::decode(bytes) else {
            return "what cannot be read".to_owned();
        };
        let what = match &delta.value {
            Some(value) => format!("= {}", text_of(value)),
            None => "deleted".to_owned(),
        };
        let replaced = match delta.context.is_empty() {
            true => String::new(),
            false => format!(" over {}", self.dots(&delta.context)),
        };
        format!("{what} as {}{replaced}", self.dot(delta.dot))
    }

    fn deltas(&self, key: &[u8], deltas: &[Bytes]) -> Said {
        let key = self.key(key);
        let deltas: Vec<String> = deltas.iter().map(|delta| self.delta(delta)).collect();
        Said {
            text: format!("{} {}", short(&key), deltas.join("; ")),
            keys: vec![key],
        }
    }

    /// What a replica shows of a key.
    pub(crate) fn state(&self, bytes: &Bytes) -> String {
        let Ok(state) = KeyState::decode(bytes) else {
            return "what cannot be read".to_owned();
        };
        let live = state.live();
        let live: Vec<String> = live
            .map(|(dot, value)| format!("{} as {}", text_of(&value.payload), self.dot(*dot)))
            .collect();
        match live.is_empty() {
            true => "nothing".to_owned(),
            false => live.join(" and "),
        }
    }

    fn states<'a>(&self, states: impl Iterator<Item = (&'a Bytes, &'a Bytes)>) -> Said {
        let states: Vec<(String, String)> = states
            .map(|(key, state)| (self.key(key), self.state(state)))
            .collect();
        let named = states.iter().take(KEYS_NAMED_MAX);
        let named = named.map(|(key, state)| format!("{}: {state}", short(key)));
        let mut text = named.collect::<Vec<_>>().join(", ");
        if states.len() > KEYS_NAMED_MAX {
            text += &format!(", and {} more keys", states.len() - KEYS_NAMED_MAX);
        }
        Said {
            text: if text.is_empty() {
                "no key".to_owned()
            } else {
                text
            },
            keys: states.into_iter().map(|(key, _)| key).collect(),
        }
    }

    fn key_states(&self, states: &[wire::KeyState]) -> Said {
        self.states(states.iter().map(|state| (&state.key, &state.state)))
    }

    fn write(&self, what: &str, write: &wire::Write, value: bool) -> Said {
        let key = self.key(&write.key);
        let value = match value {
            true => format!(" = {}", text_of(&write.value)),
            false => String::new(),
        };
        Said {
            text: format!("{what} {}{value}", short(&key)),
            keys: vec![key],
        }
    }

    /// An entry of the log.
    pub(crate) fn entry(&self, entry: &wire::Entry) -> EntrySaid {
        EntrySaid {
            index: entry.index,
            term: entry.term,
            said: self.payload(&entry.payload),
        }
    }

    fn payload(&self, payload: &Bytes) -> Said {
        match payload.first() {
            Some(&PAYLOAD_BLANK) => Said::new("a new leader's first"),
            Some(&PAYLOAD_COMMAND) => match wire::Command::decode(payload.slice(1..)) {
                Ok(command) => self.command(&command),
                Err(_) => Said::new("what cannot be read"),
            },
            Some(_) | None => Said::new("members"),
        }
    }

    fn command(&self, command: &wire::Command) -> Said {
        let Some(operation) = &command.operation else {
            return Said::new("nothing");
        };
        match operation {
            Operation::Put(write) => self.write("put", write, true),
            Operation::Delete(write) => self.write("delete", write, false),
            Operation::Conditional(conditional) => {
                let write = conditional.write.clone().unwrap_or_default();
                self.write("compare-and-set", &write, !conditional.delete)
            }
            Operation::Absorb(absorb) => {
                let items = absorb.items.iter();
                let said = self.states(items.map(|item| (&item.key, &item.state)));
                Said {
                    text: format!("absorb {}", said.text),
                    ..said
                }
            }
            Operation::Tentative(tentative) => {
                let said = self.deltas(&tentative.key, &tentative.deltas);
                Said {
                    text: format!("tentative {}", said.text),
                    ..said
                }
            }
            Operation::Ceiling(_) => Said::new("a ceiling of revisions"),
            Operation::CollectBelow(_) => Said::new("old versions go"),
            Operation::CloseRequest(_) => Said::new("a name of a write is closed"),
            other => Said::new(first_word(&format!("{other:?}")).to_lowercase()),
        }
    }

    /// A message's body.
    pub(crate) fn body(&self, body: &Body) -> Said {
        match body {
            Body::Append(append) => self.append(append),
            Body::AppendResponse(response) => Said::new(appended(response)),
            Body::Vote(vote) => {
                let term = vote.vote.map_or(0, |vote| vote.term);
                let what = if vote.pre_vote {
                    "would you vote"
                } else {
                    "vote"
                };
                Said::new(format!("{what} for me in term {term}?"))
            }
            Body::VoteResponse(response) => {
                let term = response.vote.map_or(0, |vote| vote.term);
                let what = if response.granted {
                    "you have my vote"
                } else {
                    "no vote"
                };
                Said::new(format!("{what}, term {term}"))
            }
            Body::Snapshot(chunk) => {
                let index = chunk.last.map_or(0, |last| last.index);
                Said::new(format!("a snapshot as of {index}"))
            }
            Body::SnapshotResponse(response) if response.installed => {
                Said::new("the snapshot is installed")
            }
            Body::TransferLeader(transfer) => Said::new(format!("n{} is to lead", transfer.to)),
            Body::Forward(forward) => self.forward(forward),
            Body::ForwardResponse(response) => self.forwarded(response),
            Body::TransferLeaderResponse(response) => {
                Said::new(if response.accepted { "yes" } else { "no" })
            }
            Body::ReadIndex(_) => Said::new("how far is what is decided?"),
            Body::ReadIndexResponse(response) => {
                let index = response.log_id.map_or(0, |log_id| log_id.index);
                match response.ok {
                    true => Said::new(format!("decided up to {index}")),
                    false => Said::new("I do not lead"),
                }
            }
            Body::Failure(failure) => Said::new(format!("fails: {}", failure.problem)),
            Body::Eventual(request) => self.asks(request),
            Body::EventualResponse(response) => self.answers(response),
            other => Said::new(first_word(&format!("{other:?}"))),
        }
    }

    fn append(&self, append: &wire::AppendRequest) -> Said {
        let entries: Vec<EntrySaid> = append.entries.iter().map(|one| self.entry(one)).collect();
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            let committed = append.committed.map_or(0, |committed| committed.index);
            return Said::new(format!("decided up to {committed}"));
        };
        let texts: Vec<&str> = entries
            .iter()
            .map(|entry| entry.said.text.as_str())
            .collect();
        let place = match first.index == last.index {
            true => first.index.to_string(),
            false => format!("{}..{}", first.index, last.index),
        };
        Said {
            text: format!("append {place} of term {}: {}", last.term, texts.join("; ")),
            keys: entries.into_iter().flat_map(|one| one.said.keys).collect(),
        }
    }

    fn forward(&self, forward: &wire::Forward) -> Said {
        use pipeline_request::Request;
        let request = forward.request.as_ref();
        let Some(request) = request.and_then(|request| request.request.as_ref()) else {
            return Said::new("serve nothing");
        };
        let (what, keyspace, key) = match request {
            Request::Get(get) => ("get", &get.keyspace, &get.key),
            Request::Put(put) => ("put", &put.keyspace, &put.key),
            Request::Delete(delete) => ("delete", &delete.keyspace, &delete.key),
            Request::CompareAndSet(set) => ("compare-and-set", &set.keyspace, &set.key),
            other => return Said::new(format!("serve {}", first_word(&format!("{other:?}")))),
        };
        let value = match request {
            Request::Put(put) => format!(" = {}", text_of(&put.value)),
            Request::CompareAndSet(set) => format!(" = {}", text_of(&set.value)),
            _ => String::new(),
        };
        let key = text_of(key);
        Said {
            text: format!("serve {what} {key}{value}"),
            keys: vec![format!("{keyspace}/{key}")],
        }
    }

    fn forwarded(&self, response: &wire::ForwardResponse) -> Said {
        use pipeline_response::Response;
        let response = response.response.as_ref();
        let response = response.and_then(|response| response.response.as_ref());
        match response {
            Some(Response::Error(error)) => Said::new(format!("refused: {}", error.message)),
            Some(Response::Get(get)) => match &get.entry {
                Some(entry) => Said::new(format!("it is {}", text_of(&entry.value))),
                None => Said::new("there is none"),
            },
            Some(Response::CompareAndSet(set)) if !set.succeeded => Said::new("it was another"),
            Some(_) => Said::new("done"),
            None => Said::new("nothing"),
        }
    }

    fn asks(&self, request: &wire::EventualRequest) -> Said {
        let Some(request) = &request.request else {
            return Said::new("nothing");
        };
        let with = |verb: &str, said: Said| Said {
            text: format!("{verb} {}", said.text),
            keys: said.keys,
        };
        match request {
            Asks::Stores(stores) => {
                let stores = stores.stores.iter();
                let stores: Vec<Said> = stores
                    .map(|store| self.deltas(&store.key, &store.deltas))
                    .collect();
                with("store", joined(stores))
            }
            Asks::HandOver(hints) => {
                let hints = hints.items.iter();
                let hints: Vec<Said> = hints
                    .map(|hint| self.deltas(&hint.key, std::slice::from_ref(&hint.delta)))
                    .collect();
                with("hand over", joined(hints))
            }
            Asks::Fetch(fetch) => {
                let key = self.key(&fetch.key);
                Said {
                    text: format!("what have you of {}?", short(&key)),
                    keys: vec![key],
                }
            }
            Asks::Join(join) => with("join", self.key_states(&join.states)),
            Asks::Decide(decide) if decide.states.is_empty() => {
                with("decide", self.deltas(&decide.key, &decide.deltas))
            }
            Asks::Decide(decide) => with("decide", self.key_states(&decide.states)),
            Asks::Collect(collect) => {
                let keys: Vec<String> = collect.keys.iter().map(|key| self.key(key)).collect();
                let named: Vec<&str> = keys.iter().map(|key| short(key)).collect();
                Said {
                    text: format!("what is beside your log of {}?", named.join(", ")),
                    keys,
                }
            }
            Asks::TreeRoot(_) => Said::new("are our trees equal?"),
            Asks::TreeLeaves(_) | Asks::TreeKeys(_) => Said::new("where do they differ?"),
            Asks::ClockMerge(_) => Said::new("take over my clock"),
            Asks::Page(_) => Said::new("a page"),
            Asks::RepairNow(_) => Said::new("repair now"),
            Asks::StartsAsked(_) => Said::new("which starts do you speak for?"),
        }
    }

    fn answers(&self, response: &wire::EventualResponse) -> Said {
        let Some(response) = &response.response else {
            return Said::new("nothing");
        };
        let holder = |primary: bool| {
            if primary {
                "as a primary"
            } else {
                "as a stand-in"
            }
        };
        match response {
            Answers::Stored(stored) => Said::new(format!("stored {}", holder(stored.primary))),
            Answers::StoresTaken(taken) if !taken.refused.is_empty() => {
                let refused = taken.refused.iter().map(|one| one.problem.as_str());
                Said::new(format!(
                    "refused: {}",
                    refused.collect::<Vec<_>>().join(", ")
                ))
            }
            Answers::StoresTaken(taken) => Said::new(format!("stored {}", holder(taken.primary))),
            Answers::Fetched(fetched) => {
                let beside = if fetched.tentative {
                    ", beside the log"
                } else {
                    ""
                };
                Said::new(format!("{}{beside}", self.state(&fetched.state)))
            }
            Answers::Joined(joined) => with_states("joined", self.key_states(&joined.states)),
            Answers::Collected(collected) => {
                with_states("beside it is", self.key_states(&collected.states))
            }
            Answers::Decided(_) => Said::new("decided"),
            Answers::Problem(problem) => Said::new(format!("refused: {problem}")),
            Answers::TreeSums(sums) if sums.equal => Said::new("they are equal"),
            Answers::TreeSums(_) => Said::new("they differ"),
            other => Said::new(first_word(&format!("{other:?}"))),
        }
    }
}

fn with_states(verb: &str, states: Said) -> Said {
    Said {
        text: format!("{verb}: {}", states.text),
        keys: states.keys,
    }
}

fn joined(said: Vec<Said>) -> Said {
    let texts: Vec<&str> = said.iter().map(|one| one.text.as_str()).collect();
    Said {
        text: texts.join("; "),
        keys: said.iter().flat_map(|one| one.keys.clone()).collect(),
    }
}

fn appended(response: &wire::AppendResponse) -> String {
    let index = response.log_id.map_or(0, |log_id| log_id.index);
    let term = response.vote.map_or(0, |vote| vote.term);
    match response.kind() {
        Kind::Success => "has all of it".to_owned(),
        Kind::Partial => format!("has the log up to {index}"),
        Kind::Conflict => format!("has something else at {index}"),
        Kind::HigherVote => format!("refused: I am in term {term}"),
    }
}

fn first_word(text: &str) -> &str {
    let end = text.find(['(', ' ', '{']).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            disks: [(0xabc, 2)].into(),
            keyspaces: [(7, "mixed".to_owned())].into(),
        }
    }

    fn encoded(key: &str) -> Bytes {
        let mut bytes = 7_u32.to_be_bytes().to_vec();
        bytes.extend(key.as_bytes());
        bytes.into()
    }

    fn put(key: &str, value: &'static str) -> Bytes {
        let write = wire::Write {
            key: encoded(key),
            value: Bytes::from(value),
            ..wire::Write::default()
        };
        let command = wire::Command {
            operation: Some(Operation::Put(write)),
            ..wire::Command::default()
        };
        let mut payload = vec![PAYLOAD_COMMAND];
        payload.extend(command.encode_to_vec());
        payload.into()
    }

    #[test]
    fn an_append_says_what_it_carries() {
        let entry = |index, payload| wire::Entry {
            term: 3,
            index,
            payload,
        };
        let blank = Bytes::from_static(&[PAYLOAD_BLANK]);
        let append = wire::AppendRequest {
            entries: vec![entry(17, blank), entry(18, put("key-2", "41"))],
            ..wire::AppendRequest::default()
        };
        let said = names().body(&Body::Append(append));
        let text = "append 17..18 of term 3: a new leader's first; put key-2 = 41";
        assert_eq!(said.text, text);
        assert_eq!(said.keys, ["mixed/key-2"]);
    }

    #[test]
    fn a_copy_says_what_it_is_and_what_it_replaces() {
        let actor = Actor {
            disk: 0xabc,
            start: 1,
        };
        let mut context = Dots::new();
        context.insert(Dot::new(actor, 4));
        let delta = Delta {
            dot: Dot::new(actor, 5),
            context,
            value: Some(Bytes::from_static(b"41")),
            timestamp: quorate_types::Timestamp(1),
            expiry: None,
        };
        let store = wire::Store {
            key: encoded("key-2"),
            deltas: vec![delta.encode()],
            holders_wanted: 2,
        };
        let stores = wire::Stores {
            stores: vec![store],
            memory: false,
        };
        let request = wire::EventualRequest {
            request: Some(Asks::Stores(stores)),
        };
        let said = names().body(&Body::Eventual(Box::new(request)));
        assert_eq!(said.text, "store key-2 = 41 as n2.1:5 over n2.1:4");
        assert_eq!(said.keys, ["mixed/key-2"]);
        let state = names().state(&delta.state().encode());
        assert_eq!(state, "41 as n2.1:5");
    }
}
