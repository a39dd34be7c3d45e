//! Mistakes that the storms have found, each made small.

use std::time::Duration;

use crate::asking::{Level, ONE, Saw};
use crate::judge::{EMPTY_WITHIN, judge};
use crate::run::must_be_right;
use crate::world::{Settings, Shared};

const KEY: &str = "key-0";
const WITHIN: Duration = Duration::from_secs(2);

/// A step that began a new row with what the log has decided, and left it as it was, wrote the row
/// and told neither tree nor overlay of it: nobody absorbed it, and when it went, the tree's
/// count fell below zero, which ended the node's work in the background.
#[test]
fn a_new_row_that_its_step_leaves_alone_is_counted() {
    must_be_right(1, Settings::default(), |world: Shared| async move {
        let at = world.primaries()[0];
        let ledger = world.ledger.clone();
        ledger
            .lock()
            .begin(KEY, Some("value"), [].into(), true, None);
        let saw = Saw::default();
        let put = world.put(at, KEY, "value", Level::Linearizable, &saw);
        put.await.unwrap();
        for primary in world.primaries() {
            world.read(primary, KEY, ONE).await.unwrap();
        }
        world
            .eventually("trees are built", || world.overlay_rows().is_some())
            .await;
        // It has seen nothing, and so deletes nothing.
        let saw = Saw::nothing();
        let delete = world.delete(at, KEY, (ONE, WITHIN), 0, &saw);
        delete.await.unwrap();
        let rows = world.overlay_rows().unwrap();
        if rows.iter().all(|(_, rows)| *rows == 0) {
            world.accuse("no row is counted".to_owned());
        }
        world.await_empty(EMPTY_WITHIN).await;
        judge(&world, &[KEY.to_owned()]).await;
    });
}
