//! Watches that also tell of the eventual plane: each write when it is visible at the node that
//! serves, and what the log made of it, by name; of keyspaces without a log the first alone.

use std::collections::BTreeSet;

use quorate_proto::v1::watch_event::{Kind, State};
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_types::Reason;
use tonic_types::StatusExt;

use crate::watches::{Watching, begin, refused, watch};
use crate::world::{World, eventually, in_world, level, put};

fn tentative(keyspace: &str, prefix: &'static str) -> v1::WatchRequest {
    v1::WatchRequest {
        tentative: true,
        ..watch(keyspace, prefix)
    }
}

/// Puts on the eventual plane, and says under which name.
async fn put_at(world: &World, node: usize, keyspace: &str, key: &str, value: &str) -> String {
    let Request::Put(request) = put(keyspace, key, value) else {
        panic!("a put");
    };
    let request = Request::Put(v1::PutRequest {
        consistency: level("eventual:one"),
        ..request
    });
    match world.ask(node, request).await.unwrap() {
        Response::Put(put) => put.dot,
        other => panic!("{other:?}"),
    }
}

async fn delete_at(world: &World, node: usize, keyspace: &str, key: &'static str) -> String {
    let request = Request::Delete(v1::DeleteRequest {
        keyspace: keyspace.to_owned(),
        key: key.into(),
        consistency: level("eventual:one"),
        ..v1::DeleteRequest::default()
    });
    match world.ask(node, request).await.unwrap() {
        Response::Delete(delete) => delete.dot,
        other => panic!("{other:?}"),
    }
}

impl Watching {
    /// Reads on until a write is told of in a state. Returns what it came to, and the value.
    async fn until_told(&mut self, state: State, dot: &str) -> (Kind, String) {
        loop {
            let is_it = |event: &&v1::WatchEvent| {
                event.state() == state && event.dots.iter().any(|it| it == dot)
            };
            if let Some(event) = self.told.iter().find(is_it) {
                let entry = event.entry.as_ref().unwrap();
                assert_eq!(entry.revision > 0, state == State::Committed);
                return (
                    event.kind(),
                    String::from_utf8(entry.value.to_vec()).unwrap(),
                );
            }
            self.step().await;
        }
    }

    fn of(&self, state: State) -> Vec<&v1::WatchEvent> {
        let told = self.told.iter();
        told.filter(|event| event.state() == state).collect()
    }
}

/// What one side of a cut takes is told there at once, and decided once the cut is over.
#[test]
fn a_write_is_told_when_it_is_visible_and_when_it_is_decided() {
    in_world(91, |world| async move {
        let leader = world.leader("default", "t/k").await;
        let (holders, _) = world.holders("default", "t/k");
        let away = holders.into_iter().find(|at| *at != leader).unwrap();
        let mut watching = begin(&world, away, tentative("default", "t/")).await;
        let mut plain = begin(&world, away, watch("default", "t/")).await;
        world.isolate(away);
        let put = put_at(&world, away, "default", "t/k", "one").await;
        put_at(&world, away, "default", "other", "x").await;
        let replaced = put_at(&world, away, "default", "t/r", "old").await;
        let deleted = delete_at(&world, away, "default", "t/r").await;
        let told = watching.until_told(State::Tentative, &put).await;
        assert_eq!(told, (Kind::Put, "one".to_owned()));
        let told = watching.until_told(State::Tentative, &replaced).await;
        assert_eq!(told, (Kind::Put, "old".to_owned()));
        let told = watching.until_told(State::Tentative, &deleted).await;
        assert_eq!(told, (Kind::Delete, String::new()));
        assert!(watching.of(State::Committed).is_empty());
        world.network.heal();
        let told = watching.until_told(State::Committed, &put).await;
        assert_eq!(told, (Kind::Put, "one".to_owned()));
        // The log never showed it, and says so.
        while watching.settled.len() < 2 {
            watching.step().await;
        }
        assert_eq!(watching.settled, [replaced, deleted]);
        assert_eq!(watching.of(State::Tentative).len(), 3);
        assert_eq!(
            (watching.of(State::Committed).len(), watching.skipped),
            (1, 0)
        );
        // Whoever has not asked for it sees nothing of it, and one that goes on begins with what
        // is decided.
        while plain.told.is_empty() {
            plain.step().await;
        }
        assert!(plain.of(State::Tentative).is_empty() && plain.told[0].dots.is_empty());
        let resumed = v1::WatchRequest {
            from_revision: plain.told[0].entry.as_ref().unwrap().revision,
            ..tentative("default", "t/")
        };
        let mut again = begin(&world, leader, resumed).await;
        again.until_told(State::Committed, &put).await;
        assert!(again.of(State::Tentative).is_empty());
    });
}

/// A reader that stands still loses tentative events, and is told how many; of the log's it has
/// all.
#[test]
fn a_slow_reader_skips_tentative_events_alone() {
    in_world(92, |world| async move {
        const PUTS: usize = 60;
        let at = world.leader("default", "s/").await;
        let mut watching = begin(&world, at, tentative("default", "s/")).await;
        let value = "v".repeat(64 << 10);
        let mut dots = BTreeSet::new();
        for number in 0..PUTS {
            dots.insert(put_at(&world, at, "default", &format!("s/{number}"), &value).await);
        }
        eventually("all is decided", || {
            let catalog = world.nodes[at].catalog();
            let (range, _) = catalog.keyspace("default").unwrap().route(b"s/");
            let taken_in = world.nodes[at].group(range.id).unwrap().taken_in().0;
            dots.iter()
                .all(|dot| taken_in.contains(dot.parse().unwrap()))
        })
        .await;
        let mut decided = BTreeSet::new();
        while decided.len() < PUTS {
            watching.step().await;
            let committed = watching.of(State::Committed);
            decided = committed
                .iter()
                .flat_map(|event| event.dots.clone())
                .collect();
        }
        assert_eq!(decided, dots);
        assert_eq!(watching.of(State::Committed).len(), PUTS);
        let told = watching.of(State::Tentative).len();
        println!("{told} of {PUTS} told, {} skipped", watching.skipped);
        assert!(told < PUTS && watching.skipped > 0);
    });
}

/// Without a log there is nothing but what becomes visible, at a node that holds the range or at
/// one that asks another.
#[test]
fn a_keyspace_without_a_log_tells_of_what_becomes_visible() {
    in_world(93, |world| async move {
        let options = v1::KeyspaceOptions {
            mode: "eventual".to_owned(),
            ..v1::KeyspaceOptions::default()
        };
        world.create("ev", options).await;
        let (holders, _) = world.holders("ev", "e/k");
        assert!(holders.len() < world.nodes.len(), "one has to ask another");
        let mut all = Vec::new();
        for node in 0..world.nodes.len() {
            all.push(begin(&world, node, tentative("ev", "e/")).await);
        }
        let one = put_at(&world, 0, "ev", "e/k", "one").await;
        put_at(&world, 1, "ev", "other", "x").await;
        let two = put_at(&world, 2, "ev", "e/j", "two").await;
        for watching in &mut all {
            let told = watching.until_told(State::Tentative, &one).await;
            assert_eq!(told, (Kind::Put, "one".to_owned()));
            let told = watching.until_told(State::Tentative, &two).await;
            assert_eq!(told, (Kind::Put, "two".to_owned()));
        }
        // A delete removes what its coordinator sees.
        let gone = delete_at(&world, 3, "ev", "e/k").await;
        for watching in &mut all {
            let told = watching.until_told(State::Tentative, &gone).await;
            assert_eq!(told, (Kind::Delete, String::new()));
            assert_eq!((watching.told.len(), watching.skipped), (3, 0));
            assert!(watching.positions.is_empty());
        }
    });
}

#[test]
fn what_a_mode_cannot_tell_is_refused_with_what_can_be_had() {
    in_world(94, |world| async move {
        for (name, mode) in [("strong", "strong"), ("ev", "eventual")] {
            let options = v1::KeyspaceOptions {
                mode: mode.to_owned(),
                ..v1::KeyspaceOptions::default()
            };
            world.create(name, options).await;
        }
        let etcd = v1::KeyspaceOptions {
            mode: "strong".to_owned(),
            api: "etcd".to_owned(),
            ..v1::KeyspaceOptions::default()
        };
        world.create("etcd", etcd).await;
        let from = v1::WatchRequest {
            from_revision: 7,
            ..tentative("ev", "")
        };
        let previous = v1::WatchRequest {
            previous: true,
            ..tentative("ev", "")
        };
        let cases = [
            (tentative("strong", ""), "Leave `tentative` out"),
            (tentative("etcd", ""), "serves etcd's clients alone"),
            (watch("ev", ""), "Ask with `tentative`"),
            (from, "begins with what becomes visible"),
            (previous, "keeps no earlier values"),
        ];
        for (request, words) in cases {
            let status = refused(&world, request).await;
            let info = status.get_details_error_info().expect("details");
            assert_eq!(info.reason, Reason::FieldInvalid.as_str(), "{status}");
            assert!(status.message().contains(words), "{words}: {status}");
        }
    });
}
