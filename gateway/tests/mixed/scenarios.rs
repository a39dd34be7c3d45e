//! Both planes step by step: what one key shows after writes on each, without chance.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_raft::seam::Clock;

use crate::asking::{ALL, Level, ONE, QUORUM, Saw, Shown};
use crate::judge::{EMPTY_WITHIN, EQUAL_WITHIN};
use crate::run::must_be_right;
use crate::world::{PATIENCE, Settings, World};

const KEY: &str = "key";
const WITHIN: Duration = Duration::from_secs(2);
const LINEARIZABLE: Level = Level::Linearizable;

impl World {
    /// Puts, through a node that must take it.
    async fn must_put(&self, at: usize, value: &str, level: Level, saw: &Saw) {
        self.put(at, KEY, value, level, saw).await.unwrap();
    }

    async fn must_read(&self, at: usize, level: Level) -> Shown {
        self.read(at, KEY, level).await.unwrap()
    }

    /// Waits until a read shows just these values.
    async fn await_values(&self, at: usize, level: Level, values: &[&str]) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let texts = self.read(at, KEY, level).await.done().map(|s| s.texts());
            if texts.as_deref().is_some_and(|texts| texts == values) {
                return;
            }
            if tokio::time::Instant::now() > deadline {
                return self.accuse(format!("{level:?} at {at} shows {texts:?}, not {values:?}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until nothing is tentative, and all planes of all nodes show just these values.
    async fn ends_with(&self, values: &[&str]) {
        self.await_logs(EQUAL_WITHIN).await;
        self.await_empty(EMPTY_WITHIN).await;
        for at in self.all() {
            self.await_values(at, LINEARIZABLE, values).await;
        }
        for at in self.primaries() {
            self.await_values(at, Level::Stale, values).await;
            self.await_values(at, ONE, values).await;
        }
    }

    /// Kills all nodes, and starts them again.
    async fn restart_all(&self) {
        self.all().for_each(|at| self.cut_power(at));
        for at in self.all() {
            self.restart(at).await;
        }
    }

    /// Two primaries that do not lead.
    async fn followers(&self) -> (usize, [usize; 2]) {
        let leader = self.leader().await;
        let mut others = self.primaries();
        others.retain(|at| *at != leader);
        (leader, [others[0], others[1]])
    }

    fn others(&self, but: &[usize]) -> Vec<usize> {
        self.all().filter(|at| !but.contains(at)).collect()
    }
}

fn scenario<Test>(test: impl FnOnce(crate::world::Shared) -> Test)
where
    Test: Future<Output = ()>,
{
    must_be_right(1, Settings::default(), test);
}

#[test]
fn an_eventual_put_is_read_strongly_once_it_is_absorbed() {
    scenario(|world| async move {
        world.must_put(4, "one", ONE, &Saw::nothing()).await;
        world.await_values(0, LINEARIZABLE, &["one"]).await;
        world.ends_with(&["one"]).await;
    });
}

#[test]
fn a_strong_put_is_read_eventually_at_every_node() {
    scenario(|world| async move {
        let saw = Saw::default();
        world.must_put(0, "strong", LINEARIZABLE, &saw).await;
        for at in world.all() {
            world.await_values(at, QUORUM, &["strong"]).await;
        }
        world.ends_with(&["strong"]).await;
    });
}

#[test]
fn writes_that_have_not_seen_each_other_are_siblings_on_both_planes() {
    scenario(|world| async move {
        let (nothing, none) = (Saw::nothing(), Saw::default());
        let (_, [follower, _]) = world.followers().await;
        world.must_put(0, "strong", LINEARIZABLE, &none).await;
        world.must_put(follower, "eventual", ALL, &nothing).await;
        world.ends_with(&["eventual", "strong"]).await;
    });
}

#[test]
fn an_eventual_put_replaces_the_strong_value_that_it_has_seen() {
    scenario(|world| async move {
        let saw = Saw::default();
        world.must_put(0, "strong", LINEARIZABLE, &saw).await;
        let shown = world.must_read(1, LINEARIZABLE).await;
        world.must_put(2, "later", ONE, &Saw::of(&shown)).await;
        world.ends_with(&["later"]).await;
    });
}

#[test]
fn a_strong_put_replaces_the_tentative_value_that_it_has_seen_and_no_other() {
    scenario(|world| async move {
        let (leader, [one, other]) = world.followers().await;
        world.part(&[one], &world.others(&[one]));
        world.part(&[other], &world.others(&[other]));
        world.must_put(one, "seen", ONE, &Saw::nothing()).await;
        world.must_put(other, "unseen", ONE, &Saw::nothing()).await;
        let shown = world.must_read(one, ONE).await;
        assert_eq!(shown.texts(), ["seen"]);
        world.network.heal();
        // Only what the log has not decided yet tells contexts from what a put sweeps.
        let saw = Saw::of(&shown);
        let leveled = (LINEARIZABLE, PATIENCE);
        let put = world.put_within(leader, KEY, "strong", leveled, &saw);
        put.await.unwrap();
        let texts = world.must_read(leader, LINEARIZABLE).await.texts();
        assert!(!texts.contains(&"seen".to_owned()), "{texts:?}");
        world.await_empty(EMPTY_WITHIN).await;
        let texts = world.must_read(leader, LINEARIZABLE).await.texts();
        assert!(!texts.contains(&"seen".to_owned()), "{texts:?}");
        assert!(texts.contains(&"strong".to_owned()), "{texts:?}");
    });
}

/// A strong put replaces all that is committed, and says how much of it its client had not seen;
/// a retry says the same. Who does not say what was seen is told nothing.
#[test]
fn a_strong_put_counts_what_its_client_had_not_seen() {
    scenario(|world| async move {
        let put = async |saw: &Saw| {
            let request = v1::PutRequest {
                keyspace: world.keyspace().to_owned(),
                key: Bytes::from_static(KEY.as_bytes()),
                value: Bytes::from_static(b"value"),
                request_id: saw.id,
                context: saw.context.clone(),
                ..v1::PutRequest::default()
            };
            match world.ask(0, WITHIN, Request::Put(request)).await.unwrap() {
                Response::Put(put) => put.receipt.unwrap().replaced_unseen,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(put(&Saw::default()).await, 0);
        let shown = world.must_read(0, LINEARIZABLE).await;
        assert_eq!(put(&Saw::of(&shown)).await, 0, "it was seen");
        let retried = Saw {
            id: Some(v1::RequestId {
                client: 7,
                sequence: 1,
                first_tried: world.clock(0).now().0,
            }),
            ..Saw::of(&shown)
        };
        assert_eq!(put(&retried).await, 1, "the one before was not");
        assert_eq!(put(&retried).await, 1, "a retry is told the same");
        assert_eq!(put(&Saw::nothing()).await, 1, "nothing was seen");
        assert_eq!(put(&Saw::default()).await, 0, "it does not say");
    });
}

#[test]
fn both_sides_of_a_cut_write_and_what_was_not_seen_are_siblings() {
    scenario(|world| async move {
        let saw = Saw::default();
        world.must_put(0, "base", LINEARIZABLE, &saw).await;
        let (leader, [minority, _]) = world.followers().await;
        let base = world.must_read(minority, LINEARIZABLE).await;
        world.part(&[minority], &world.others(&[minority]));
        world
            .must_put(minority, "tentative", ONE, &Saw::of(&base))
            .await;
        world
            .must_put(leader, "strong", LINEARIZABLE, &Saw::default())
            .await;
        world.network.heal();
        world.ends_with(&["strong", "tentative"]).await;
    });
}

#[test]
fn a_minority_that_deletes_what_the_majority_replaces_leaves_the_new_value() {
    scenario(|world| async move {
        world
            .must_put(0, "base", LINEARIZABLE, &Saw::default())
            .await;
        let (leader, [minority, _]) = world.followers().await;
        let base = world.must_read(minority, LINEARIZABLE).await;
        world.part(&[minority], &world.others(&[minority]));
        let saw = Saw::of(&base);
        let deleted = world.delete(minority, KEY, (ONE, WITHIN), 0, &saw);
        deleted.await.unwrap();
        world.await_values(minority, ONE, &[]).await;
        let set = (base.revision, "set");
        let none = Saw::default();
        let set = world.compare_and_set(leader, KEY, set, WITHIN, &none);
        assert!(set.await.unwrap().is_some());
        world.network.heal();
        world.ends_with(&["set"]).await;
    });
}

#[test]
fn deletes_of_either_plane_leave_nothing_on_both() {
    scenario(|world| async move {
        for level in [ONE, LINEARIZABLE] {
            world.must_put(0, "eventual", ONE, &Saw::nothing()).await;
            world.ends_with(&["eventual"]).await;
            let shown = world.must_read(1, LINEARIZABLE).await;
            let saw = Saw::of(&shown);
            let deleted = world.delete(2, KEY, (level, WITHIN), 0, &saw);
            deleted.await.unwrap();
            world.ends_with(&[]).await;
            world
                .must_put(0, "strong", LINEARIZABLE, &Saw::default())
                .await;
            let shown = world.must_read(1, QUORUM).await;
            let saw = Saw::of(&shown);
            let deleted = world.delete(3, KEY, (level, WITHIN), 0, &saw);
            deleted.await.unwrap();
            world.ends_with(&[]).await;
        }
    });
}

#[test]
fn what_was_acknowledged_before_all_restart_is_absorbed_afterwards() {
    scenario(|world| async move {
        let (leader, [one, other]) = world.followers().await;
        // Without a majority nothing is absorbed.
        for at in [leader, one, other] {
            world.isolate(at);
        }
        world.must_put(one, "one", ONE, &Saw::nothing()).await;
        world.must_put(other, "other", ONE, &Saw::nothing()).await;
        world.network.heal();
        world.restart_all().await;
        world.ends_with(&["one", "other"]).await;
    });
}

#[test]
fn a_leader_that_is_killed_while_it_absorbs_loses_nothing() {
    for pause in 0..12 {
        must_be_right(pause, Settings::default(), |world| async move {
            let leader = world.leader().await;
            for value in ["a", "b", "c"] {
                world.must_put(leader, value, QUORUM, &Saw::nothing()).await;
            }
            tokio::time::sleep(Duration::from_millis(pause * 10)).await;
            world.cut_power(leader);
            let primaries = world.primaries();
            let up = *primaries.iter().find(|at| **at != leader).unwrap();
            world.await_values(up, LINEARIZABLE, &["a", "b", "c"]).await;
            world.restart(leader).await;
            world.ends_with(&["a", "b", "c"]).await;
        });
    }
}

#[test]
fn rows_empty_on_those_who_are_up_while_one_primary_is_away() {
    scenario(|world| async move {
        let (_, [away, _]) = world.followers().await;
        world.kill(away);
        let at = *world.primaries().iter().find(|at| **at != away).unwrap();
        for value in ["a", "b"] {
            world.must_put(at, value, ONE, &Saw::nothing()).await;
        }
        let deadline = tokio::time::Instant::now() + EMPTY_WITHIN;
        let empty = || {
            let rows = world.overlay_rows();
            rows.is_some_and(|rows| rows.iter().all(|(_, rows)| *rows == 0))
        };
        world.await_values(at, LINEARIZABLE, &["a", "b"]).await;
        world.eventually("rows are gone", empty).await;
        assert!(tokio::time::Instant::now() < deadline);
        world.restart(away).await;
        world.ends_with(&["a", "b"]).await;
    });
}

#[test]
fn a_follower_that_gets_a_snapshot_shows_what_was_absorbed() {
    scenario(|world| async move {
        let (leader, [away, _]) = world.followers().await;
        world.must_put(away, "kept", ONE, &Saw::nothing()).await;
        world.ends_with(&["kept"]).await;
        let kept = world.must_read(away, ONE).await;
        world.isolate(away);
        // What is cut off is written there as well.
        world
            .must_put(away, "tentative", ONE, &Saw::of(&kept))
            .await;
        let last = world.group(away).unwrap().applied().index;
        for count in 0..120 {
            let (key, value) = (format!("filler-{}", count % 7), count.to_string());
            let saw = Saw::default();
            let put = world.put(leader, &key, &value, LINEARIZABLE, &saw);
            put.await.unwrap();
        }
        let range = world.range().0;
        let has_forgotten = || {
            let others = world.primaries().into_iter().filter(|at| *at != away);
            let mut firsts = others.map(|at| {
                let log = world.process(at).unwrap().raft.log().group(range.0);
                log.first_index()
            });
            firsts.all(|first| first.is_some_and(|first| first > last + 1))
        };
        world.eventually("logs have forgotten", has_forgotten).await;
        world.network.heal();
        world.ends_with(&["tentative"]).await;
    });
}

/// A keyspace whose catalog was not yet copied to the disk when the power went: the node opens
/// what it holds of it before it knows where it lives.
#[test]
fn a_range_that_is_unknown_at_a_start_is_absorbed_all_the_same() {
    let settings = Settings {
        conflict: Some("siblings"),
        ..Settings::default()
    };
    must_be_right(1, settings, |world| async move {
        let (_, [one, _]) = world.followers().await;
        world.isolate(one);
        world.must_put(one, "value", ONE, &Saw::nothing()).await;
        world.cut_power(one);
        let copy = std::path::PathBuf::from(format!("/node{}/catalog.copy", one + 1));
        let disk = world.disk(one);
        quorate_storage::disk::Disk::remove(&disk, &copy).unwrap();
        world.restart(one).await;
        world.network.heal();
        world.ends_with(&["value"]).await;
    });
}
