//! Watches at gateways of four nodes: what is told, from where on, through whichever node, and what
//! is refused.

use std::collections::BTreeMap;

use futures::StreamExt;
use quorate_gateway::{WATCHES_PER_CONNECTION_MAX, WatchService};
use quorate_proto::v1::watch_event::Kind;
use quorate_proto::v1::watch_server::Watch;
use quorate_proto::v1::{self, pipeline_request::Request};
use quorate_types::Reason;
use tonic_types::StatusExt;

use crate::world::{PATIENCE, World, eventually, hashed, in_world};

pub fn watch(keyspace: &str, prefix: &'static str) -> v1::WatchRequest {
    v1::WatchRequest {
        keyspace: keyspace.to_owned(),
        prefix: prefix.into(),
        progress_interval_ms: 100,
        ..v1::WatchRequest::default()
    }
}

type Messages = <WatchService as Watch>::WatchStream;

/// A watch at one node.
pub struct Watching {
    messages: Messages,
    pub positions: BTreeMap<u64, v1::WatchPosition>,
    pub told: Vec<v1::WatchEvent>,
    pub settled: Vec<String>,
    pub skipped: u64,
    complete: u64,
}

pub async fn begin(world: &World, node: usize, request: v1::WatchRequest) -> Watching {
    let service = WatchService::new(world.gateways[node].clone());
    let opened = service.watch(tonic::Request::new(request)).await.unwrap();
    let mut watching = Watching {
        messages: opened.into_inner(),
        positions: BTreeMap::new(),
        told: Vec::new(),
        settled: Vec::new(),
        skipped: 0,
        complete: 0,
    };
    // From here on what is put is told.
    watching.step().await;
    assert!(watching.told.is_empty(), "first it says where it begins");
    watching
}

impl Watching {
    pub async fn step(&mut self) {
        let next = tokio::time::timeout(PATIENCE, self.messages.next()).await;
        let message = next.expect("in time").expect("a message").unwrap();
        self.told.extend(message.events);
        self.settled.extend(message.settled);
        self.skipped += message.tentative_skipped;
        for position in message.positions {
            self.positions.insert(position.range, position);
        }
        self.complete = message.complete_revision;
    }

    /// All that is told up to a revision.
    async fn until(&mut self, revision: u64) -> Vec<String> {
        while self.complete < revision {
            self.step().await;
        }
        let mut told: Vec<_> = self.told.iter().collect();
        // Of each range in order, and of the ranges in any.
        told.sort_by_key(|event| event.entry.as_ref().unwrap().revision);
        told.into_iter().map(name).collect()
    }

    /// What one that goes on at another node shows.
    fn resumed(&self, request: &v1::WatchRequest) -> v1::WatchRequest {
        v1::WatchRequest {
            positions: self.positions.values().cloned().collect(),
            ..request.clone()
        }
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// `key=value`, `-key`, with `<value` for what was there before.
fn name(event: &v1::WatchEvent) -> String {
    let entry = event.entry.as_ref().unwrap();
    assert_eq!(event.state(), v1::watch_event::State::Committed);
    let now = match event.kind() {
        Kind::Put => format!("{}={}", text(&entry.key), text(&entry.value)),
        Kind::Delete => format!("-{}", text(&entry.key)),
        Kind::Unspecified => panic!("{event:?}"),
    };
    let before = event.previous.as_ref();
    let before = before.map_or(String::new(), |it| format!("<{}", text(&it.value)));
    let omitted = if event.previous_omitted { "<?" } else { "" };
    format!("{now}{before}{omitted}")
}

async fn delete(world: &World, keyspace: &str, key: &'static str) {
    let request = v1::DeleteRequest {
        keyspace: keyspace.to_owned(),
        key: key.into(),
        ..v1::DeleteRequest::default()
    };
    world.ask(0, Request::Delete(request)).await.unwrap();
}

async fn write_some(world: &World, keyspace: &str) -> (u64, u64) {
    let first = world.put(0, keyspace, "k1", "a").await.revision;
    world.put(1, keyspace, "other", "x").await;
    world.put(2, keyspace, "k2", "b").await;
    world.put(3, keyspace, "k1", "c").await;
    delete(world, keyspace, "k1").await;
    // Of what is not there: nothing happens.
    delete(world, keyspace, "k1").await;
    let last = world.put(0, keyspace, "k1", "d").await.revision;
    (first, last)
}

const WRITTEN: [&str; 5] = ["k1=a", "k2=b", "k1=c", "-k1", "k1=d"];

#[test]
fn all_is_told_at_every_node_as_it_comes_and_from_history() {
    in_world(71, |world| async move {
        world.create("spread", hashed(4)).await;
        let bare = v1::KeyspaceOptions {
            history_ms: Some(0),
            ..v1::KeyspaceOptions::default()
        };
        world.create("bare", bare).await;
        for keyspace in ["default", "spread", "bare"] {
            world.put(0, keyspace, "k0", "before").await;
            let mut live = Vec::new();
            for node in 0..4 {
                live.push(begin(&world, node, watch(keyspace, "k")).await);
            }
            let (first, last) = write_some(&world, keyspace).await;
            // A range without the last write need not be as far: each must be at its own last.
            let fence = world.put(0, keyspace, "k9", "z").await.revision;
            for watching in &mut live {
                let mut told = Vec::new();
                while told.len() < WRITTEN.len() + 1 {
                    watching.step().await;
                    told = watching.until(0).await;
                }
                assert_eq!(told[..5], WRITTEN, "{keyspace}");
                assert_eq!(told[5], "k9=z");
            }
            assert!(first < last && last < fence);
            if keyspace == "bare" {
                continue;
            }
            for node in 0..4 {
                let request = v1::WatchRequest {
                    from_revision: first,
                    previous: true,
                    ..watch(keyspace, "k1")
                };
                let mut watching = begin(&world, node, request).await;
                while watching.told.len() < 4 {
                    watching.step().await;
                }
                let wanted = ["k1=a", "k1=c<a", "-k1<c", "k1=d"];
                assert_eq!(watching.until(0).await, wanted, "{keyspace}");
            }
        }
    });
}

#[test]
fn a_watch_goes_on_at_another_node_where_it_was() {
    in_world(72, |world| async move {
        world.create("spread", hashed(4)).await;
        for keyspace in ["default", "spread"] {
            let request = watch(keyspace, "n/");
            let mut watching = begin(&world, 0, request.clone()).await;
            let (mut told, mut wanted) = (Vec::new(), Vec::new());
            for number in 0..40 {
                let key = format!("n/{:02}", number % 7);
                world
                    .put(number % 4, keyspace, &key, &number.to_string())
                    .await;
                wanted.push(format!("{key}={number}"));
                if number % 3 == 0 {
                    watching.step().await;
                    told.append(&mut watching.told);
                    let resumed = watching.resumed(&request);
                    watching = begin(&world, (number + 1) % 4, resumed).await;
                }
            }
            while told.len() + watching.told.len() < wanted.len() {
                watching.step().await;
            }
            told.append(&mut watching.told);
            told.sort_by_key(|event| event.entry.as_ref().unwrap().revision);
            assert_eq!(told.iter().map(name).collect::<Vec<_>>(), wanted);
        }
    });
}

#[test]
fn keys_intervals_and_filters() {
    in_world(73, |world| async move {
        let (first, _) = write_some(&world, "default").await;
        let all = v1::WatchRequest {
            from_revision: first,
            ..watch("default", "")
        };
        let of = |request: v1::WatchRequest, count: usize| {
            let world = &world;
            async move {
                let mut watching = begin(world, 1, request).await;
                while watching.told.len() < count {
                    watching.step().await;
                }
                let complete = watching.complete;
                watching.until(complete).await
            }
        };
        let key = v1::WatchRequest {
            key: "k2".into(),
            ..all.clone()
        };
        assert_eq!(of(key, 1).await, ["k2=b"]);
        let interval = v1::WatchRequest {
            start: "k2".into(),
            end: "p".into(),
            ..all.clone()
        };
        assert_eq!(of(interval, 2).await, ["other=x", "k2=b"]);
        let deletes = v1::WatchRequest {
            no_puts: true,
            ..all.clone()
        };
        assert_eq!(of(deletes, 1).await, ["-k1"]);
        let puts = v1::WatchRequest {
            no_deletes: true,
            prefix: "k1".into(),
            ..all.clone()
        };
        assert_eq!(of(puts, 3).await, ["k1=a", "k1=c", "k1=d"]);
    });
}

/// All writes of one entry have one revision; each key is told once, by what it has come to.
#[test]
fn a_batch_tells_each_key_once() {
    in_world(74, |world| async move {
        let mut watching = begin(&world, 2, watch("default", "b/")).await;
        let put = |key: &'static str, value: &'static str| v1::Operation {
            operation: Some(v1::operation::Operation::Put(v1::operation::Put {
                key: key.into(),
                value: value.into(),
                ttl_ms: 0,
                lease: 0,
            })),
        };
        let remove = |key: &'static str| v1::Operation {
            operation: Some(v1::operation::Operation::Delete(v1::operation::Delete {
                key: key.into(),
            })),
        };
        let then = vec![
            put("b/2", "x"),
            put("b/1", "y"),
            remove("b/3"),
            put("b/4", "z"),
        ];
        let request = v1::TxnRequest {
            keyspace: "default".to_owned(),
            then,
            ..v1::TxnRequest::default()
        };
        world.ask(0, Request::Txn(request)).await.unwrap();
        let last = world.put(0, "default", "b/9", "end").await.revision;
        let wanted = ["b/1=y", "b/2=x", "b/4=z", "b/9=end"];
        assert_eq!(watching.until(last).await, wanted);
        let first = watching.told[0].entry.as_ref().unwrap().revision;
        let again = v1::WatchRequest {
            from_revision: first,
            ..watch("default", "b/")
        };
        let mut history = begin(&world, 0, again).await;
        assert_eq!(history.until(last).await, wanted);
    });
}

/// One that does not read stands still, and the others do not notice.
#[test]
fn a_reader_that_stands_still_delays_nobody() {
    in_world(75, |world| async move {
        let mut slow = begin(&world, 1, watch("default", "s/")).await;
        let mut quick = begin(&world, 1, watch("default", "s/")).await;
        let mut last = 0;
        // More than the window in memory holds.
        let value = "v".repeat(16 << 10);
        for number in 0..400 {
            let key = format!("s/{}", number % 3);
            last = world.put(0, "default", &key, &value).await.revision;
        }
        assert_eq!(quick.until(last).await.len(), 400);
        assert_eq!(slow.until(last).await.len(), 400);
        let revisions = |watching: &Watching| {
            let of = |event: &v1::WatchEvent| event.entry.as_ref().unwrap().revision;
            watching.told.iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(revisions(&slow), revisions(&quick));
        assert!(revisions(&slow).is_sorted_by(|one, next| one < next));
    });
}

pub async fn refused(world: &World, request: v1::WatchRequest) -> tonic::Status {
    let service = WatchService::new(world.gateways[0].clone());
    let mut messages = match service.watch(tonic::Request::new(request)).await {
        Ok(opened) => opened.into_inner(),
        Err(status) => return status,
    };
    loop {
        match messages.next().await.expect("an error") {
            Ok(message) => assert!(message.events.is_empty(), "{message:?}"),
            Err(status) => return status,
        }
    }
}

#[test]
fn misuse_is_refused_by_name() {
    in_world(76, |world| async move {
        let written = world.put(0, "default", "k", "v").await.revision;
        let eventual = v1::KeyspaceOptions {
            mode: "eventual".to_owned(),
            ..v1::KeyspaceOptions::default()
        };
        world.create("ev", eventual).await;
        let default = || watch("default", "k");
        let position = |range| v1::WatchPosition {
            range,
            revision: written,
            key: None,
        };
        let range = world.nodes[0].catalog().keyspace("default").unwrap().ranges[0]
            .id
            .0;
        let range_id = quorate_types::RangeId(range);
        let floors = || world.nodes.iter().filter_map(|node| node.group(range_id));
        eventually("what is old is collected", || {
            floors().all(|group| group.table().floor() > 5)
        })
        .await;
        let cases = [
            (
                v1::WatchRequest {
                    from_revision: 5,
                    ..default()
                },
                Reason::RevisionCollected,
                "the first revision that can be watched from",
            ),
            (
                v1::WatchRequest {
                    from_revision: written + 10_000_000,
                    ..default()
                },
                Reason::RevisionFuture,
                "future",
            ),
            (
                v1::WatchRequest {
                    no_puts: true,
                    no_deletes: true,
                    ..default()
                },
                Reason::FieldInvalid,
                "nothing is left",
            ),
            (
                v1::WatchRequest {
                    key: "k".into(),
                    ..default()
                },
                Reason::FieldInvalid,
                "leave out the other",
            ),
            (
                v1::WatchRequest {
                    start: "z".into(),
                    end: "a".into(),
                    ..watch("default", "")
                },
                Reason::FieldInvalid,
                "above the start",
            ),
            (
                v1::WatchRequest {
                    start: "z".into(),
                    ..default()
                },
                Reason::FieldInvalid,
                "no key with the prefix",
            ),
            (
                v1::WatchRequest {
                    positions: vec![position(99)],
                    ..default()
                },
                Reason::FieldInvalid,
                "Begin without positions",
            ),
            (
                v1::WatchRequest {
                    positions: vec![position(range), position(range)],
                    ..default()
                },
                Reason::FieldInvalid,
                "twice",
            ),
            (
                v1::WatchRequest {
                    progress_interval_ms: 5,
                    ..default()
                },
                Reason::FieldInvalid,
                "100 to 600000",
            ),
            (watch("none", ""), Reason::KeyspaceNotFound, "none"),
        ];
        for (request, reason, words) in cases {
            let status = refused(&world, request.clone()).await;
            let info = status.get_details_error_info().expect("details");
            assert_eq!(info.reason, reason.as_str(), "{request:?}: {status}");
            assert!(status.message().contains(words), "{words}: {status}");
        }
        let collected = v1::WatchRequest {
            from_revision: 5,
            ..default()
        };
        let status = refused(&world, collected).await;
        let info = status.get_details_error_info().unwrap();
        // What is named can be watched from.
        let first = info.metadata["first_revision"].parse().unwrap();
        let from_first = v1::WatchRequest {
            from_revision: first,
            ..default()
        };
        let mut watching = begin(&world, 0, from_first).await;
        assert_eq!(watching.until(written).await, ["k=v"]);
    });
}

#[test]
fn too_many_watches_are_refused_and_ended_ones_make_room() {
    in_world(77, |world| async move {
        let mut all = Vec::new();
        for _ in 0..WATCHES_PER_CONNECTION_MAX {
            all.push(begin(&world, 0, watch("default", "k")).await);
        }
        let status = refused(&world, watch("default", "k")).await;
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, Reason::Overloaded.as_str());
        assert!(status.message().contains("another connection"), "{status}");
        all.clear();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let service = WatchService::new(world.gateways[0].clone());
        while let Err(status) = service
            .watch(tonic::Request::new(watch("default", "k")))
            .await
        {
            assert!(tokio::time::Instant::now() < deadline, "{status}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
}

/// A keyspace that is dropped ends its watches; one of the same name is another one.
#[test]
fn a_dropped_keyspace_ends_its_watches() {
    in_world(78, |world| async move {
        world.create("gone", v1::KeyspaceOptions::default()).await;
        let mut watching = begin(&world, 3, watch("gone", "")).await;
        let request = v1::DropKeyspaceRequest {
            name: "gone".to_owned(),
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        world.gateways[0]
            .drop_keyspace(request, deadline)
            .await
            .unwrap();
        let status = loop {
            match watching.messages.next().await.expect("an error") {
                Ok(message) => assert!(message.events.is_empty()),
                Err(status) => break status,
            }
        };
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, Reason::KeyspaceNotFound.as_str());
    });
}

/// What a watch had seen before it was cut off is not told again, and nothing is left out.
#[test]
fn a_cut_off_gateway_goes_on_when_it_is_back() {
    in_world(79, |world| async move {
        let leader = world.leader("default", "c").await;
        let (holders, _) = world.holders("default", "c");
        let follower = holders.into_iter().find(|it| *it != leader).unwrap();
        let mut watching = begin(&world, follower, watch("default", "c/")).await;
        world.put(leader, "default", "c/1", "a").await;
        world.isolate(follower);
        world.put(leader, "default", "c/2", "b").await;
        let last = world.put(leader, "default", "c/3", "c").await.revision;
        world.network.heal();
        while watching.complete < last {
            let next = tokio::time::timeout(PATIENCE, watching.messages.next()).await;
            match next.unwrap().unwrap() {
                Ok(message) => {
                    watching.told.extend(message.events);
                    watching.complete = message.complete_revision;
                    for position in message.positions {
                        watching.positions.insert(position.range, position);
                    }
                }
                Err(status) => {
                    assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
                    let resumed = watching.resumed(&watch("default", "c/"));
                    let told = std::mem::take(&mut watching.told);
                    watching = begin(&world, leader, resumed).await;
                    watching.told = told;
                }
            }
        }
        assert_eq!(watching.until(last).await, ["c/1=a", "c/2=b", "c/3=c"]);
    });
}

/// A range that rests has old revisions alone. Its watches were refused as collected when they came
/// back after a moment in which something was written.
#[test]
fn a_watch_of_a_range_that_rests_may_be_away_for_a_moment() {
    in_world(80, |world| async move {
        let options = v1::KeyspaceOptions {
            history_ms: Some(60_000),
            ..v1::KeyspaceOptions::default()
        };
        world.create("rests", options).await;
        for rested in [false, true] {
            let request = watch("rests", "r/");
            let mut watching = begin(&world, 1, request.clone()).await;
            if rested {
                let end = tokio::time::Instant::now() + std::time::Duration::from_secs(600);
                while tokio::time::Instant::now() < end {
                    watching.step().await;
                }
            }
            let resumed = watching.resumed(&request);
            drop(watching);
            let written = world.put(0, "rests", "r/1", "now").await.revision;
            let range = world.nodes[0].catalog().keyspace("rests").unwrap().ranges[0].id;
            // Until what is older than a minute is collected, as far as there was something.
            tokio::time::sleep(std::time::Duration::from_secs(20)).await;
            let floors = || world.nodes.iter().filter_map(|node| node.group(range));
            eventually("the floor has risen", || {
                floors().all(|group| group.table().floor() > written - 60_000_000)
            })
            .await;
            let mut watching = begin(&world, 2, resumed).await;
            assert_eq!(watching.until(written).await, ["r/1=now"], "{rested}");
        }
    });
}

/// However much is written to other keys, a watch is told how far it has come: else its positions
/// would grow old.
#[test]
fn a_range_that_is_busy_with_other_keys_says_how_far_it_is() {
    in_world(81, |world| async move {
        let mut watching = begin(&world, 1, watch("default", "q/")).await;
        let busy = async {
            loop {
                world.put(0, "default", "other", "x").await;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let told = async {
            for _ in 0..5 {
                let goal = world.put(2, "default", "another", "x").await.revision;
                let within = std::time::Duration::from_secs(5);
                let told = tokio::time::timeout(within, watching.until(goal)).await;
                assert!(told.expect("progress while others write").is_empty());
            }
        };
        tokio::select! {
            () = busy => {}
            () = told => {}
        }
    });
}
