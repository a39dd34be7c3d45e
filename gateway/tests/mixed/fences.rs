//! Fences under faults: what a majority of primaries had acknowledged before a fenced read began is
//! shown by it, whoever reads and whatever fails. By seed; `QUORATE_TRIALS` says how many trials
//! each of them makes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures::future::join_all;
use quorate_proto::v1;
use quorate_types::causal::Dot;

use crate::asking::{Asked, Level, Saw};
use crate::run::{number_from, run_all};
use crate::storm::{Storm, faults};
use crate::world::{Settings, Shared, World};

const TRIALS: u64 = 150;
const CLIENTS: u64 = 6;
const WITHIN: Duration = Duration::from_secs(5);
/// After a request that was refused.
const PAUSE: Duration = Duration::from_millis(20);
const ACKNOWLEDGED: Level = Level::Eventual {
    copies: v1::Copies::Quorum,
    strict: true,
};

#[derive(Default)]
struct Counts {
    fenced: Cell<u64>,
    plain: Cell<u64>,
    plain_missed: Cell<u64>,
    /// What was acknowledged.
    kept: RefCell<Vec<(String, Dot)>>,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// An eventual write, and a read of it elsewhere, one in eight without the fence.
async fn trial(world: &World, key: &str, counts: &Counts) {
    let nothing = Saw::nothing();
    let put = world.put(world.any(), key, "value", ACKNOWLEDGED, &nothing);
    let Asked::Done(stored) = put.await else {
        return tokio::time::sleep(PAUSE).await;
    };
    counts.kept.borrow_mut().push((key.to_owned(), stored.dot));
    let level = match world.roll(8) {
        0 => Level::Linearizable,
        _ => Level::Fenced,
    };
    let read = world.read_within(world.any(), key, level, 0, WITHIN);
    let Asked::Done(shown) = read.await else {
        return tokio::time::sleep(PAUSE).await;
    };
    let is_shown = shown.values.contains_key(&stored.dot);
    if level == Level::Linearizable {
        count(&counts.plain);
        if !is_shown {
            count(&counts.plain_missed);
        }
        return;
    }
    count(&counts.fenced);
    if !is_shown {
        world.accuse(format!("a fenced read at {} misses {key}", shown.node));
    }
}

async fn trials(world: Shared, counts: Rc<Counts>) {
    let wanted = counts.fenced.get() + number_from("QUORATE_TRIALS").unwrap_or(TRIALS);
    let client = async |client: u64| {
        let mut turn = 0;
        while counts.fenced.get() < wanted {
            trial(&world, &format!("key-{client}-{turn}"), &counts).await;
            turn += 1;
        }
    };
    let forever = Storm {
        faults: u64::MAX,
        ..Storm::ALL
    };
    tokio::select! {
        _ = join_all((0..CLIENTS).map(client)) => {}
        () = faults(&world, forever) => {}
    }
    world.all().for_each(|at| world.cut_power(at));
    world.make_whole().await;
    for (key, dot) in counts.kept.take() {
        let read = world.read_within(0, &key, Level::Fenced, 0, WITHIN);
        let shown = read.await.unwrap();
        if !shown.values.contains_key(&dot) {
            world.accuse(format!("{key} {dot} is lost"));
        }
    }
}

#[test]
fn a_fence_misses_nothing_that_a_majority_acknowledged() {
    let name = "a_fence_misses_nothing_that_a_majority_acknowledged";
    let counts = Rc::new(Counts::default());
    run_all(name, 4, &Settings::default(), |world| {
        trials(world, counts.clone())
    });
    let (fenced, plain) = (counts.fenced.get(), counts.plain.get());
    let missed = counts.plain_missed.get();
    println!("{fenced} fenced reads missed nothing; {missed} of {plain} without a fence did");
    assert!(missed > 0, "a fence is not needed here: nothing is shown");
}
