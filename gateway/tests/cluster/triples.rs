//! A level is never changed silently: each operation at each level in each mode is served as
//! asked, and its receipt says so, or it is refused by name, without an effect.

use bytes::Bytes;
use quorate_gateway::GatewayError;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_types::{Effect, Level, Mode, Operation, Reason, served};

use crate::world::{World, get, in_world, put};

const MODES: [(&str, Mode); 3] = [
    ("strong", Mode::Strong),
    ("mixed", Mode::Mixed),
    ("eventual", Mode::Eventual),
];
const LEVELS: [&str; 11] = [
    "linearizable",
    "bounded:3s",
    "session",
    "stale",
    "eventual:one",
    "eventual:quorum",
    "eventual:local_quorum",
    "eventual:all",
    "eventual:2",
    "eventual:2,strict",
    "eventual:quorum,memory",
];
const BEGIN: Bytes = Bytes::from_static(&[0]);

/// What can be asked, and what it is in the table of levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Get,
    GetAt,
    Scan,
    ScanAt,
    History,
    BatchOfGets,
    BatchOfPuts,
    Put,
    Delete,
    DeletePrefix,
    DeleteIf,
    CompareAndSet,
    Transaction,
    Update,
}

impl Asked {
    const ALL: [Asked; 14] = [
        Asked::Get,
        Asked::GetAt,
        Asked::Scan,
        Asked::ScanAt,
        Asked::History,
        Asked::BatchOfGets,
        Asked::BatchOfPuts,
        Asked::Put,
        Asked::Delete,
        Asked::DeletePrefix,
        Asked::DeleteIf,
        Asked::CompareAndSet,
        Asked::Transaction,
        Asked::Update,
    ];

    fn operation(self) -> Operation {
        match self {
            Asked::Get | Asked::Scan | Asked::History | Asked::BatchOfGets => Operation::Read,
            Asked::GetAt | Asked::ScanAt => Operation::Snapshot,
            Asked::BatchOfPuts
            | Asked::Put
            | Asked::Delete
            | Asked::DeletePrefix
            | Asked::Update => Operation::Write,
            Asked::DeleteIf | Asked::CompareAndSet => Operation::CompareAndSet,
            Asked::Transaction => Operation::Transaction,
        }
    }

    /// What this version refuses though the mode could serve it.
    fn is_absent(self, mode: Mode, level: &Level) -> bool {
        match self {
            Asked::History => mode == Mode::Eventual || level.is_eventual(),
            Asked::DeletePrefix => level.is_eventual(),
            Asked::Update => mode == Mode::Strong,
            Asked::Get
            | Asked::Scan
            | Asked::GetAt
            | Asked::ScanAt
            | Asked::BatchOfGets
            | Asked::BatchOfPuts
            | Asked::Put
            | Asked::Delete
            | Asked::DeleteIf
            | Asked::CompareAndSet
            | Asked::Transaction => false,
        }
    }

    fn request(self, keyspace: &str, revision: u64, wish: Option<v1::Consistency>) -> Request {
        let (name, key) = (keyspace.to_owned(), Bytes::from_static(b"k"));
        let of_key = get(keyspace, "k");
        let operation = |operation| v1::Operation {
            operation: Some(operation),
        };
        let a_get = || {
            operation(v1::operation::Operation::Get(v1::operation::Get {
                key: key.clone(),
            }))
        };
        let a_put = || {
            operation(v1::operation::Operation::Put(v1::operation::Put {
                key: key.clone(),
                value: Bytes::from_static(b"v"),
                ..v1::operation::Put::default()
            }))
        };
        let scan = v1::ScanRequest {
            keyspace: name.clone(),
            consistency: wish.clone(),
            ..v1::ScanRequest::default()
        };
        let batch = |one| {
            Request::Batch(v1::BatchRequest {
                keyspace: keyspace.to_owned(),
                operations: vec![one],
                consistency: wish.clone(),
                request_id: None,
            })
        };
        let delete = v1::DeleteRequest {
            keyspace: name.clone(),
            key: key.clone(),
            consistency: wish.clone(),
            ..v1::DeleteRequest::default()
        };
        match self {
            Asked::Get => Request::Get(v1::GetRequest {
                consistency: wish,
                ..of_key
            }),
            Asked::GetAt => Request::Get(v1::GetRequest {
                consistency: wish,
                at_revision: revision,
                ..of_key
            }),
            Asked::Scan => Request::Scan(scan),
            Asked::ScanAt => Request::Scan(v1::ScanRequest {
                at_revision: revision,
                ..scan
            }),
            Asked::History => Request::History(v1::HistoryRequest {
                keyspace: name,
                key,
                limit: 0,
                consistency: wish,
            }),
            Asked::BatchOfGets => batch(a_get()),
            Asked::BatchOfPuts => batch(a_put()),
            Asked::Put => {
                let Request::Put(put) = put(keyspace, "k", "v") else {
                    unreachable!()
                };
                Request::Put(v1::PutRequest {
                    consistency: wish,
                    ..put
                })
            }
            Asked::Delete => Request::Delete(delete),
            Asked::DeletePrefix => Request::Delete(v1::DeleteRequest {
                prefix: true,
                ..delete
            }),
            Asked::DeleteIf => Request::Delete(v1::DeleteRequest {
                if_revision: revision,
                ..delete
            }),
            Asked::CompareAndSet => Request::CompareAndSet(v1::CompareAndSetRequest {
                keyspace: name,
                key,
                expect: Some(v1::Expect {
                    state: Some(v1::expect::State::Present(true)),
                }),
                value: Bytes::from_static(b"v"),
                consistency: wish,
                ..v1::CompareAndSetRequest::default()
            }),
            Asked::Transaction => Request::Txn(v1::TxnRequest {
                keyspace: name,
                then: vec![a_put()],
                consistency: wish,
                ..v1::TxnRequest::default()
            }),
            Asked::Update => Request::Update(v1::UpdateRequest {
                keyspace: format!("{keyspace}-counts"),
                key,
                change: Some(v1::Change {
                    change: Some(v1::change::Change::Increment(1)),
                }),
                consistency: wish,
                ..v1::UpdateRequest::default()
            }),
        }
    }
}

fn receipt_of(response: Response) -> Option<v1::Receipt> {
    match response {
        Response::Get(got) => got.receipt,
        Response::Put(put) => put.receipt,
        Response::Delete(deleted) => deleted.receipt,
        Response::Scan(scan) => scan.receipt,
        Response::Batch(batch) => batch.receipt,
        Response::CompareAndSet(set) => set.receipt,
        Response::Txn(txn) => txn.receipt,
        Response::History(history) => history.receipt,
        Response::Update(update) => update.receipt,
        other => panic!("{other:?}"),
    }
}

/// A level on the wire.
fn rung(level: &Level) -> v1::Rung {
    let mut rung = v1::Rung::default();
    let wire = match level {
        Level::Linearizable => v1::Level::Linearizable,
        Level::Session => v1::Level::Session,
        Level::Stale => v1::Level::Stale,
        Level::Bounded(age) => {
            rung.staleness_max_ms = u32::try_from(age.as_millis()).unwrap();
            v1::Level::Bounded
        }
        Level::Eventual {
            copies,
            strict,
            ack,
        } => {
            use quorate_types::{Ack, Copies};
            rung.copies = match copies {
                Copies::One => v1::Copies::One,
                Copies::Quorum => v1::Copies::Quorum,
                Copies::LocalQuorum => v1::Copies::LocalQuorum,
                Copies::All => v1::Copies::All,
                Copies::Count(count) => {
                    rung.copies_count = u32::from(*count);
                    v1::Copies::Count
                }
            } as i32;
            rung.strict = *strict;
            rung.ack = i32::from(*ack == Ack::Memory);
            v1::Level::Eventual
        }
    };
    rung.level = wire as i32;
    rung
}

/// Whether it was refused before anything was done, for a reason that says what does not fit.
fn is_refused_by_name(error: &GatewayError) -> bool {
    let named = [
        Reason::LevelNotServed,
        Reason::FieldInvalid,
        Reason::NotImplemented,
    ];
    error.effect() == Effect::None && error.reason().is_some_and(|why| named.contains(&why))
}

async fn keyspaces(world: &World) {
    for (name, _) in MODES {
        for (name, conflict) in [(name.to_owned(), ""), (format!("{name}-counts"), "counter")] {
            let options = v1::KeyspaceOptions {
                mode: name.split('-').next().unwrap().to_owned(),
                conflict: conflict.to_owned(),
                ..v1::KeyspaceOptions::default()
            };
            if name == "strong-counts" {
                continue;
            }
            world.create(&name, options).await;
        }
    }
}

#[test]
fn each_operation_at_each_level_in_each_mode_is_served_as_asked_or_refused_by_name() {
    in_world(91, |world| async move {
        keyspaces(&world).await;
        let (mut served_as_asked, mut refused) = (0, 0);
        for (keyspace, mode) in MODES {
            let written = world.put(0, keyspace, "k", "v").await;
            for asked in Asked::ALL {
                for text in LEVELS {
                    let level: Level = text.parse().unwrap();
                    let wish = Some(v1::Consistency {
                        rungs: vec![rung(&level)],
                        session_token: BEGIN,
                        ..v1::Consistency::default()
                    });
                    let request = asked.request(keyspace, written.revision.max(1), wish);
                    if asked == Asked::Update && mode == Mode::Strong {
                        continue;
                    }
                    let allowed = served(mode, asked.operation(), &level).is_ok()
                        && !asked.is_absent(mode, &level);
                    let what = format!("{asked:?} at {text} in {keyspace}");
                    match world.ask(1, request).await {
                        Ok(response) => {
                            assert!(allowed, "{what} was served");
                            let told = receipt_of(response).unwrap().level;
                            assert_eq!(told, Some(rung(&level)), "{what}");
                            served_as_asked += 1;
                        }
                        // The condition was looked at, so the level was met.
                        Err(error) if error.reason() == Some(Reason::CompareFailed) => {
                            assert!(allowed, "{what}: {error}");
                            served_as_asked += 1;
                        }
                        Err(error) => {
                            assert!(!allowed, "{what}: {error}");
                            assert!(is_refused_by_name(&error), "{what}: {error:?}");
                            refused += 1;
                        }
                    }
                }
            }
        }
        println!("{served_as_asked} served as asked, {refused} refused by name");
        assert!(served_as_asked > 100 && refused > 100);
    });
}

#[test]
fn an_operation_without_a_level_gets_its_modes_own_and_says_so() {
    in_world(92, |world| async move {
        keyspaces(&world).await;
        for (keyspace, mode) in MODES {
            let written = world.put(0, keyspace, "k", "v").await;
            for asked in Asked::ALL {
                if asked == Asked::Update && mode == Mode::Strong {
                    continue;
                }
                let default = quorate_types::default_level(mode, asked.operation());
                let what = format!("{asked:?} in {keyspace}");
                let request = asked.request(keyspace, written.revision.max(1), None);
                match world.ask(2, request).await {
                    Ok(response) => {
                        let told = receipt_of(response).unwrap().level.unwrap();
                        assert_eq!(told.level, rung(&default).level, "{what}");
                    }
                    Err(error) if error.reason() == Some(Reason::CompareFailed) => {}
                    Err(error) => {
                        assert!(is_refused_by_name(&error), "{what}: {error:?}");
                        let allowed = served(mode, asked.operation(), &default).is_ok();
                        assert!(
                            !allowed || asked.is_absent(mode, &default),
                            "{what}: {error}"
                        );
                    }
                }
            }
        }
    });
}
