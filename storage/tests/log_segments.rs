//! Segments come and go: old ones are re-used, no idle group keeps them, and
//! a log that is all alive is not moved in circles.

#![allow(clippy::unwrap_used)]

mod log_support;

use std::time::Duration;

use log_support::{append, entry, finish, folder, open, simulate};
use quorate_storage::disk::{Disk, SimDisk};
use quorate_storage::log::{LogId, LogOptions, NodeLog, Vote};

fn options() -> LogOptions {
    LogOptions {
        segments_kept_target: 3,
        ..LogOptions::small(32 << 10)
    }
}

/// Appends to a group and purges behind, `count` entries of 1,000 bytes.
async fn churn(log: &NodeLog, group: u64, count: u64) {
    let group = log.group(group);
    let first = group.last().map_or(1, |last| last.index + 1);
    for index in first..first + count {
        append(&group, vec![entry(2, index, vec![index as u8; 1000])])
            .await
            .unwrap();
        if index % 16 == 0 {
            let id = LogId {
                term: 2,
                index: index - 8,
            };
            finish(|done| group.purge(id, done)).await.unwrap();
        }
    }
}

#[test]
fn idle_groups_block_no_clean_up() {
    simulate(async {
        let disk = SimDisk::new();
        let log = open(&disk, options()).unwrap();
        let vote = Vote {
            term: 1,
            node: 3,
            committed: true,
        };
        for id in 10..20 {
            let idle = log.group(id);
            let entries = (1..=3)
                .map(|index| entry(1, index, vec![id as u8; 50]))
                .collect();
            append(&idle, entries).await.unwrap();
            finish(|done| idle.save_vote(vote, done)).await.unwrap();
            finish(|done| idle.purge(LogId { term: 1, index: 1 }, done))
                .await
                .unwrap();
            idle.save_committed(Some(LogId { term: 1, index: 2 }));
        }
        churn(&log, 1, 1000).await;
        let stats = log.stats();
        assert!(stats.segments <= 6, "{stats:?}");
        assert!(stats.moved_records > 0);

        let check = |log: &NodeLog| {
            for id in 10..20 {
                let idle = log.group(id);
                assert_eq!(idle.vote(), Some(vote));
                assert_eq!(idle.purged(), Some(LogId { term: 1, index: 1 }));
                assert_eq!(idle.committed(), Some(LogId { term: 1, index: 2 }));
                let found = idle.read(2..9, 10_000).unwrap();
                assert_eq!(
                    found,
                    [2, 3].map(|index| entry(1, index, vec![id as u8; 50]))
                );
            }
        };
        check(&log);
        let disk = disk.power_cut(5);
        check(&open(&disk, options()).unwrap());
        let files = disk.list(folder()).unwrap();
        assert!(files.len() <= 9, "{files:?}");
    });
}

#[test]
fn segments_are_used_again() {
    simulate(async {
        let disk = SimDisk::new();
        let log = open(&disk, options()).unwrap();
        churn(&log, 1, 300).await;
        let before = disk.counts().bytes_written;
        churn(&log, 1, 300).await;
        let zeros_and_batches = disk.counts().bytes_written - before;
        // An entry of 1,000 bytes takes three sectors, its seal one; the zeros
        // of new segments would add as much again.
        assert!(
            zeros_and_batches < 300 * 4 * 512 * 11 / 10,
            "{zeros_and_batches}"
        );
    });
}

#[test]
fn a_log_that_is_all_alive_is_not_moved_in_circles() {
    simulate(async {
        let disk = SimDisk::new();
        let log = open(&disk, options()).unwrap();
        let group = log.group(1);
        for index in 1..=400 {
            append(&group, vec![entry(1, index, vec![1; 1000])])
                .await
                .unwrap();
        }
        assert_eq!(log.stats().moved_records, 0);
        assert!(log.stats().segments > 10);
        finish(|done| {
            group.purge(
                LogId {
                    term: 1,
                    index: 399,
                },
                done,
            )
        })
        .await
        .unwrap();
        append(&group, vec![entry(1, 401, "x")]).await.unwrap();
        append(&group, vec![entry(1, 402, "x")]).await.unwrap();
        assert!(log.stats().segments <= 4, "{:?}", log.stats());
    });
}

#[test]
fn an_entry_of_the_largest_size_fits() {
    simulate(async {
        let disk = SimDisk::new();
        let largest = options().entry_bytes_max() as usize;
        let log = open(&disk, options()).unwrap();
        for index in 1..=5 {
            append(
                &log.group(1),
                vec![entry(1, index, vec![index as u8; largest])],
            )
            .await
            .unwrap();
        }
        let log = open(&disk.power_cut(9), options()).unwrap();
        let found = log.group(1).read(1..6, u64::MAX).unwrap();
        assert_eq!(found.len(), 5);
        assert!(found.iter().all(|entry| entry.payload.len() == largest));
    });
}

/// Larger than a usual segment, written between small ones, moved while it is alive, read back.
#[test]
fn an_entry_larger_than_a_segment_gets_a_larger_one() {
    let options = || LogOptions {
        large_segment_bytes: 128 << 10,
        ..options()
    };
    simulate(async {
        let disk = SimDisk::new();
        let largest = options().entry_bytes_max() as usize;
        assert!(largest > 3 * options().segment_bytes as usize);
        let log = open(&disk, options()).unwrap();
        churn(&log, 2, 20).await;
        append(&log.group(1), vec![entry(1, 1, vec![7; largest])])
            .await
            .unwrap();
        churn(&log, 2, 1_000).await;
        append(&log.group(1), vec![entry(1, 2, vec![8; largest])])
            .await
            .unwrap();
        assert!(log.stats().moved_records > 0, "{:?}", log.stats());
        assert!(log.stats().segments <= 8, "{:?}", log.stats());
        let log = open(&disk.power_cut(9), options()).unwrap();
        let found = log.group(1).read(1..3, u64::MAX).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|entry| entry.payload.len() == largest));
    });
}

#[test]
fn reads_are_limited_but_give_at_least_one() {
    simulate(async {
        let disk = SimDisk::new();
        for cache_bytes_max in [0, 1 << 20] {
            let log = open(
                &disk,
                LogOptions {
                    cache_bytes_max,
                    ..options()
                },
            )
            .unwrap();
            let group = log.group(cache_bytes_max);
            let entries = (1..=20)
                .map(|index| entry(1, index, vec![index as u8; 100]))
                .collect();
            append(&group, entries).await.unwrap();
            let count = |range, max| group.read(range, max).unwrap().len();
            assert_eq!(count(1..21, 1000), 10);
            assert_eq!(count(1..21, 0), 1);
            assert_eq!(count(15..100, u64::MAX), 6);
            assert_eq!(count(21..30, 1000), 0);
            assert_eq!(count(5..5, 1000), 0);
            log.close().await;
        }
    });
}

#[test]
fn one_sync_serves_all_that_is_queued() {
    simulate(async {
        let disk = SimDisk::new();
        disk.set_sync_latency(Duration::from_millis(2));
        let log = open(&disk, LogOptions::small(1 << 20)).unwrap();
        let before = log.stats();
        let mut waiting = Vec::new();
        for group in 0..64 {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let done = Box::new(move |result| drop(sender.send(result)));
            log.group(group)
                .append(vec![entry(1, 1, vec![0; 100])], done);
            waiting.push(receiver);
        }
        for receiver in waiting {
            receiver.await.unwrap().unwrap();
        }
        let after = log.stats();
        assert!(after.syncs - before.syncs <= 2, "{after:?}");
        assert_eq!(after.records - before.records, 64);
    });
}

#[test]
fn a_lazy_request_waits_for_company_but_not_for_ever() {
    simulate(async {
        let disk = SimDisk::new();
        let options = LogOptions {
            lazy_delay: Duration::from_millis(100),
            ..options()
        };
        let log = open(&disk, options.clone()).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = log.stats().syncs;
        log.group(1)
            .save_committed(Some(LogId { term: 1, index: 1 }));
        log.group(1)
            .save_committed(Some(LogId { term: 1, index: 2 }));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(log.stats().syncs, before);
        tokio::time::sleep(Duration::from_secs(1)).await;
        // One for the batch, one for its seal.
        assert_eq!(log.stats().syncs, before + 2);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(log.stats().syncs, before + 2, "an idle log is at rest");
        let log = open(&disk.power_cut(1), options).unwrap();
        assert_eq!(log.group(1).committed(), Some(LogId { term: 1, index: 2 }));
    });
}

#[test]
fn who_feeds_the_log_can_wait_for_room() {
    simulate(async {
        let disk = SimDisk::new();
        disk.set_sync_latency(Duration::from_millis(2));
        let options = LogOptions {
            queue_bytes_max: 5000,
            ..LogOptions::small(1 << 20)
        };
        let log = open(&disk, options).unwrap();
        let group = log.group(1);
        for index in 1..=200 {
            log.ready().await;
            assert!(log.stats().queued_bytes <= 5000);
            group.append(vec![entry(1, index, vec![0; 1000])], Box::new(|_| {}));
        }
        log.close().await;
        log.ready().await;
    });
}

#[test]
fn a_removed_group_is_gone_and_can_come_back() {
    simulate(async {
        let disk = SimDisk::new();
        let log = open(&disk, options()).unwrap();
        let group = log.group(8);
        append(&group, vec![entry(1, 1, "old")]).await.unwrap();
        group.save_committed(Some(LogId { term: 1, index: 1 }));
        finish(|done| log.remove_group(8, done)).await.unwrap();
        assert!(log.groups().is_empty());
        let disk = disk.power_cut(1);
        let log = open(&disk, options()).unwrap();
        assert!(log.groups().is_empty());
        assert_eq!(log.group(8).committed(), None);
        append(&log.group(8), vec![entry(5, 3, "new")])
            .await
            .unwrap();
        let log = open(&disk.power_cut(2), options()).unwrap();
        assert_eq!(log.groups(), [8]);
        assert_eq!(
            log.group(8)
                .read(0..9, 100)
                .err()
                .map(|error| error.to_string()),
            None
        );
        assert_eq!(log.group(8).read(3..9, 100).unwrap(), [entry(5, 3, "new")]);
    });
}
