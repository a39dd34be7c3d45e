//! Scans: pages, both directions, buckets, snapshots, history, deletions of a prefix.

use bytes::Bytes;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_types::Reason;

use crate::world::{World, get, hashed, in_world, level};

fn scan(keyspace: &str, prefix: &'static str) -> v1::ScanRequest {
    v1::ScanRequest {
        keyspace: keyspace.to_owned(),
        prefix: prefix.into(),
        ..Default::default()
    }
}

/// All rows of a scan, page by page, each page through another node.
async fn all(world: &World, request: v1::ScanRequest) -> (Vec<v1::KeyValue>, usize) {
    let mut entries = Vec::new();
    let mut page_token = Bytes::new();
    for page in 0.. {
        let request = v1::ScanRequest {
            page_token,
            ..request.clone()
        };
        let answer = world
            .scan(page % world.gateways.len(), request)
            .await
            .unwrap();
        entries.extend(answer.entries);
        if answer.next_page_token.is_empty() {
            return (entries, page + 1);
        }
        page_token = answer.next_page_token;
        assert!(page < 1000, "a scan without end");
    }
    unreachable!()
}

fn keys(entries: &[v1::KeyValue]) -> Vec<String> {
    entries
        .iter()
        .map(|entry| String::from_utf8(entry.key.to_vec()).unwrap())
        .collect()
}

async fn fill(world: &World, keyspace: &str) -> Vec<String> {
    let mut keys = Vec::new();
    for number in 0..40 {
        let key = format!("k{number:02}");
        world
            .put(number % 4, keyspace, &key, &format!("value {number}"))
            .await;
        keys.push(key);
    }
    world.put(0, keyspace, "other", "x").await;
    keys
}

#[test]
fn pages_in_both_directions_over_one_range_and_over_buckets() {
    in_world(11, |world| async move {
        world.create("spread", hashed(8)).await;
        for keyspace in ["default", "spread"] {
            let mut expected = fill(&world, keyspace).await;
            let request = v1::ScanRequest {
                limit: 7,
                ..scan(keyspace, "k")
            };
            let (rows, pages) = all(&world, request.clone()).await;
            assert_eq!(keys(&rows), expected);
            assert_eq!(rows[3].value, "value 3");
            assert_eq!(pages, 6);
            let keys_only = v1::ScanRequest {
                keys_only: true,
                ..request.clone()
            };
            assert!(
                all(&world, keys_only)
                    .await
                    .0
                    .iter()
                    .all(|row| row.value.is_empty())
            );
            let interval = v1::ScanRequest {
                prefix: Bytes::new(),
                start: "k05".into(),
                end: "k08".into(),
                ..request.clone()
            };
            assert_eq!(keys(&all(&world, interval).await.0), ["k05", "k06", "k07"]);
            expected.reverse();
            let reverse = v1::ScanRequest {
                reverse: true,
                ..request
            };
            assert_eq!(keys(&all(&world, reverse).await.0), expected);
            assert_eq!(all(&world, scan(keyspace, "")).await.0.len(), 41);
            assert!(all(&world, scan(keyspace, "zz")).await.0.is_empty());
        }
    });
}

#[test]
fn pages_are_limited_by_bytes() {
    in_world(12, |world| async move {
        let expected = fill(&world, "default").await;
        let request = v1::ScanRequest {
            bytes_max: 50,
            ..scan("default", "k")
        };
        let (rows, pages) = all(&world, request).await;
        assert_eq!(keys(&rows), expected);
        assert!(pages > 5, "{pages} pages");
    });
}

#[test]
fn all_pages_belong_to_one_snapshot() {
    in_world(13, |world| async move {
        world.create("spread", hashed(8)).await;
        for keyspace in ["default", "spread"] {
            let expected = fill(&world, keyspace).await;
            let request = v1::ScanRequest {
                limit: 10,
                ..scan(keyspace, "k")
            };
            let first = world.scan(0, request.clone()).await.unwrap();
            for key in &expected {
                world.put(1, keyspace, key, "changed").await;
            }
            world.put(2, keyspace, "k99", "new").await;
            let mut rows = first.entries;
            let mut page_token = first.next_page_token;
            while !page_token.is_empty() {
                let request = v1::ScanRequest {
                    page_token,
                    ..request.clone()
                };
                let page = world.scan(3, request).await.unwrap();
                assert_eq!(page.at_revision, first.at_revision);
                rows.extend(page.entries);
                page_token = page.next_page_token;
            }
            assert_eq!(keys(&rows), expected);
            assert!(rows.iter().all(|row| row.value.starts_with(b"value")));
            // The same by its revision, later and elsewhere; and the present is another one.
            let at_revision = first.at_revision;
            let again = v1::ScanRequest {
                at_revision,
                ..scan(keyspace, "k")
            };
            assert_eq!(keys(&all(&world, again).await.0), expected);
            let old = v1::GetRequest {
                at_revision,
                ..get(keyspace, "k00")
            };
            assert_eq!(world.get(2, old).await.entry.unwrap().value, "value 0");
            assert_eq!(
                all(&world, scan(keyspace, "k")).await.0.len(),
                expected.len() + 1
            );
        }
    });
}

#[test]
fn every_strong_level_scans_many_ranges() {
    in_world(14, |world| async move {
        world.create("spread", hashed(8)).await;
        let expected = fill(&world, "spread").await;
        for name in ["bounded:5000", "stale", "linearizable"] {
            for node in 0..4 {
                let request = v1::ScanRequest {
                    consistency: level(name),
                    ..scan("spread", "k")
                };
                let page = world.scan(node, request).await.unwrap();
                // Stale and bounded ones may miss the last moments, never the order.
                let seen = keys(&page.entries);
                assert!(expected.ends_with(&seen) || seen.iter().all(|key| expected.contains(key)));
                if name == "linearizable" {
                    assert_eq!(seen, expected);
                }
            }
        }
    });
}

#[test]
fn tokens_and_revisions_that_do_not_fit_are_refused_by_name() {
    in_world(15, |world| async move {
        fill(&world, "default").await;
        let first = world
            .scan(
                0,
                v1::ScanRequest {
                    limit: 5,
                    ..scan("default", "k")
                },
            )
            .await
            .unwrap();
        let check = async |request: v1::ScanRequest, reason: Reason| {
            let error = world.scan(1, request).await.unwrap_err();
            assert_eq!(error.reason(), Some(reason), "{error}");
        };
        let page_token = first.next_page_token;
        let other = v1::ScanRequest {
            page_token: page_token.clone(),
            ..scan("default", "o")
        };
        check(other, Reason::PageTokenMismatch).await;
        let cut = page_token.slice(..page_token.len() - 1);
        check(
            v1::ScanRequest {
                page_token: cut,
                ..scan("default", "k")
            },
            Reason::PageTokenMismatch,
        )
        .await;
        let future = first.at_revision + 3_600_000_000;
        check(
            v1::ScanRequest {
                at_revision: future,
                ..scan("default", "k")
            },
            Reason::RevisionFuture,
        )
        .await;
        check(
            v1::ScanRequest {
                limit: 20_000,
                ..scan("default", "k")
            },
            Reason::FieldInvalid,
        )
        .await;
        // More rows in the next page are as well; the snapshot stays.
        let wider = v1::ScanRequest {
            page_token,
            limit: 100,
            ..scan("default", "k")
        };
        assert_eq!(world.scan(2, wider).await.unwrap().entries.len(), 35);
    });
}

#[test]
fn without_history_there_is_one_page_of_one_range() {
    in_world(16, |world| async move {
        let plain = v1::KeyspaceOptions {
            history_ms: Some(0),
            ..Default::default()
        };
        world.create("plain", plain.clone()).await;
        world
            .create(
                "spread",
                v1::KeyspaceOptions {
                    history_ms: Some(0),
                    ..hashed(4)
                },
            )
            .await;
        let expected = fill(&world, "plain").await;
        fill(&world, "spread").await;
        assert_eq!(
            keys(&world.scan(1, scan("plain", "k")).await.unwrap().entries),
            expected
        );
        let paged = v1::ScanRequest {
            limit: 5,
            ..scan("plain", "k")
        };
        for refused in [paged.clone(), scan("spread", "k")] {
            let error = world.scan(1, refused).await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::RevisionCollected), "{error}");
        }
        let stale = v1::ScanRequest {
            consistency: level("stale"),
            ..paged
        };
        let mut seen = 0;
        let mut page_token = Bytes::new();
        loop {
            let page = world
                .scan(
                    2,
                    v1::ScanRequest {
                        page_token,
                        ..stale.clone()
                    },
                )
                .await
                .unwrap();
            seen += page.entries.len();
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert!(seen <= expected.len());
    });
}

#[test]
fn history_tells_the_versions_of_a_key() {
    in_world(17, |world| async move {
        let first = world.put(0, "default", "k", "one").await.revision;
        world.put(1, "default", "k", "two").await;
        let delete = v1::DeleteRequest {
            keyspace: "default".to_owned(),
            key: "k".into(),
            ..Default::default()
        };
        world.ask(2, Request::Delete(delete)).await.unwrap();
        world.put(3, "default", "k", "three").await;
        for node in 0..4 {
            let request = v1::HistoryRequest {
                keyspace: "default".to_owned(),
                key: "k".into(),
                ..Default::default()
            };
            let Response::History(told) = world.ask(node, Request::History(request)).await.unwrap()
            else {
                panic!("another answer");
            };
            let versions: Vec<_> = told
                .entries
                .iter()
                .map(|entry| (entry.deleted, entry.version.as_ref().unwrap().value.clone()))
                .collect();
            let value = Bytes::from_static;
            let expected = [
                (false, value(b"three")),
                (true, value(b"")),
                (false, value(b"two")),
                (false, value(b"one")),
            ];
            assert_eq!(versions, expected);
            assert_eq!(told.entries[3].version.as_ref().unwrap().revision, first);
        }
    });
}

#[test]
fn a_prefix_goes_in_steps() {
    in_world(18, |world| async move {
        world.create("spread", hashed(20)).await;
        for keyspace in ["default", "spread"] {
            fill(&world, keyspace).await;
            let mut page_token = Bytes::new();
            let mut deleted = 0;
            for step in 0.. {
                let request = v1::DeleteRequest {
                    keyspace: keyspace.to_owned(),
                    key: "k".into(),
                    prefix: true,
                    page_token,
                    ..Default::default()
                };
                let Response::Delete(done) =
                    world.ask(step % 4, Request::Delete(request)).await.unwrap()
                else {
                    panic!("another answer");
                };
                deleted += done.deleted;
                page_token = done.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            assert_eq!(deleted, 40);
            assert_eq!(keys(&all(&world, scan(keyspace, "")).await.0), ["other"]);
        }
    });
}
