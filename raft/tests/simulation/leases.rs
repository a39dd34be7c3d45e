//! Leases through killed leaders, cuts of power and network, and clocks of the wall that jump: none
//! ends before its time by the clock of whoever holds it, a dead one goes in time, and all replicas
//! say the same. And the mistakes that this must notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_proto::internal::{Command, LeaseGrant, Write, command::Operation};
use quorate_raft::machine::{ApplyOutcome, ApplyRefusal};
use quorate_raft::{Faults, Group, ProposeError};
use quorate_types::LeaseId;
use tokio::time::Instant;

use crate::clients::within;
use crate::world::{PATIENCE, Settings, Shared, must_be_found, run_all};

const HOLDERS: usize = 24;
const WITHIN: Duration = Duration::from_millis(500);
/// Times to live of leases, seconds: up to so many.
const TTL_MAX_SECONDS: u64 = 4;
/// A dead lease is gone within its time and this, where a leader stays.
const GONE_WITHIN: Duration = Duration::from_secs(2);
const CLOCK_JUMP_MAX_MICROSECONDS: u64 = 20_000_000;

/// All leases that were ever granted, or may have been.
#[derive(Default)]
struct Ledger {
    next: AtomicU64,
    ids: Mutex<Vec<u64>>,
    kept: AtomicU64,
    /// Leaders that were killed, or lost their power.
    killed: AtomicU64,
    /// And those that were cut off.
    cut_off: AtomicU64,
    stop: AtomicBool,
}

/// One lease as whoever holds it sees it.
struct Held {
    id: u64,
    ttl: Duration,
    /// Until then it lives for certain.
    lives_until: Instant,
}

impl Held {
    fn key(&self) -> Bytes {
        Bytes::from(format!("leased-{}", self.id))
    }

    fn must_live(&self) -> bool {
        Instant::now() < self.lives_until
    }
}

fn leader(world: &Shared) -> Option<Arc<Group>> {
    world.group(world.leader()?)
}

async fn propose(world: &Shared, operation: Operation) -> Result<ApplyOutcome, ProposeError> {
    let group = leader(world).ok_or(ProposeError::Stopped)?;
    let command = Command {
        operation: Some(operation),
        ..Command::default()
    };
    let proposed = group.propose(command, within(WITHIN)).await?;
    Ok(proposed.applied.outcome)
}

/// Grants a lease and puts a key with it; none: it is not known whether that was done.
async fn begin(world: &Shared, ledger: &Ledger) -> Option<Held> {
    let id = ledger.next.fetch_add(1, Ordering::Relaxed) + 1;
    ledger.ids.lock().push(id);
    let ttl = Duration::from_secs(1 + world.roll(TTL_MAX_SECONDS));
    let sent = Instant::now();
    let grant = LeaseGrant {
        id,
        ttl: ttl.as_micros() as u64,
    };
    propose(world, Operation::LeaseGrant(grant)).await.ok()?;
    let held = Held {
        id,
        ttl,
        lives_until: sent + ttl,
    };
    let (_, key) = world.group_of(world.leader()?, "default", &held.key())?;
    let write = Write {
        key,
        lease: id,
        ..Write::default()
    };
    match propose(world, Operation::Put(write)).await.ok()? {
        ApplyOutcome::Written { .. } => Some(held),
        ApplyOutcome::Refused(ApplyRefusal::LeaseNotFound) => {
            if held.must_live() {
                world.accuse(format!("lease {id} ended early: a put is refused"));
            }
            None
        }
        other => {
            world.accuse(format!("a put came to {other:?}"));
            None
        }
    }
}

/// Renews a lease. False: it is over.
async fn renew(world: &Shared, held: &mut Held) -> bool {
    let sent = Instant::now();
    let Some(group) = leader(world) else {
        return true;
    };
    let kept = group.keep_alive(vec![LeaseId(held.id)], within(WITHIN));
    match kept.await.as_deref() {
        Ok([0]) => {
            if held.must_live() {
                world.accuse(format!("lease {} ended early: not kept", held.id));
            }
            false
        }
        Ok(_) => {
            held.lives_until = sent + held.ttl;
            true
        }
        Err(_) => true,
    }
}

/// Reads the key at any node: while its lease lives for certain it is there.
async fn look(world: &Shared, held: &Held) {
    let Some((group, key)) = world.group_of(world.any_node(), "default", &held.key()) else {
        return;
    };
    if group.read_barrier(within(WITHIN)).await.is_err() {
        return;
    }
    // What cannot be read is another test's concern.
    if let Ok(None) = group.table().get(&key)
        && held.must_live()
    {
        let left = held.lives_until - Instant::now();
        world.accuse(format!("lease {} ended early, by {left:?}", held.id));
    }
    world.count_answer();
}

/// Takes leases, keeps them for a while, early or at the last moment, and lets them go.
async fn hold(world: Shared, ledger: Arc<Ledger>) {
    while !ledger.stop.load(Ordering::Relaxed) {
        let Some(mut held) = begin(&world, &ledger).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        for _ in 0..world.roll(6) {
            let late = world.roll(2) == 0;
            let pause = match late {
                true => held.ttl + Duration::from_millis(world.roll(300)),
                false => held.ttl / 3,
            };
            for _ in 0..4 {
                tokio::time::sleep(pause / 4).await;
                look(&world, &held).await;
            }
            if !renew(&world, &mut held).await {
                break;
            }
            ledger.kept.fetch_add(1, Ordering::Relaxed);
            look(&world, &held).await;
        }
        while held.must_live() && !ledger.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(50 + world.roll(200))).await;
            look(&world, &held).await;
        }
    }
}

async fn clocks_jump(world: Shared) {
    loop {
        let node = world.any_node();
        let half = CLOCK_JUMP_MAX_MICROSECONDS as i64 / 2;
        let offset = world.roll(CLOCK_JUMP_MAX_MICROSECONDS) as i64 - half;
        world.clock(node).set_offset(offset);
        tokio::time::sleep(Duration::from_millis(200 + world.roll(1_000))).await;
    }
}

async fn disturb(world: &Shared, ledger: &Ledger) {
    tokio::time::sleep(Duration::from_millis(500 + world.roll(2_000))).await;
    let roll = world.roll(4);
    if world.leader().is_some() {
        let lost = match roll {
            1 => &ledger.cut_off,
            _ => &ledger.killed,
        };
        lost.fetch_add(1, Ordering::Relaxed);
    }
    match roll {
        0 => world.all().for_each(|node| world.cut_power(node)),
        1 => world.isolate(world.leader().unwrap_or_default()),
        2 => world.cut_power(world.leader().unwrap_or_default()),
        _ => world.kill(world.leader().unwrap_or_default()),
    }
    tokio::time::sleep(Duration::from_millis(world.roll(1_500))).await;
    world.make_whole().await;
}

/// Nobody keeps any lease any more, and all nodes are well: all go, on every replica.
async fn all_go(world: &Shared, ledger: &Ledger) {
    world.await_leader().await;
    tokio::time::sleep(Duration::from_secs(TTL_MAX_SECONDS) + GONE_WITHIN).await;
    let ids = ledger.ids.lock().clone();
    if let Some(group) = leader(world) {
        for id in ids.iter().filter(|id| group.lease(LeaseId(**id)).is_some()) {
            world.accuse(format!("lease {id} stays though nobody keeps it"));
        }
    }
    let last = leader(world).map_or(0, |group| group.applied().index);
    let deadline = Instant::now() + PATIENCE;
    for node in world.all() {
        while world.group(node).is_none_or(|g| g.applied().index < last) {
            if Instant::now() > deadline {
                return world.accuse(format!("node {node} does not catch up"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for id in &ids {
            let key = format!("leased-{id}");
            let Some((group, key)) = world.group_of(node, "default", key.as_bytes()) else {
                continue;
            };
            let stays = group
                .table()
                .get(&key)
                .is_ok_and(|version| version.is_some());
            // A key whose put was lost with its lease's grant has never been.
            if stays || group.lease(LeaseId(*id)).is_some() {
                world.accuse(format!("lease {id} or its key stays at node {node} alone"));
            }
        }
    }
}

async fn leases(world: Shared) {
    let ledger = Arc::new(Ledger::default());
    let clocks = tokio::spawn(clocks_jump(world.clone()));
    let holders = (0..HOLDERS).map(|_| tokio::spawn(hold(world.clone(), ledger.clone())));
    let holders: Vec<_> = holders.collect();
    for _ in 0..6 {
        disturb(&world, &ledger).await;
    }
    ledger.stop.store(true, Ordering::Relaxed);
    for holder in holders {
        holder.await.unwrap();
    }
    clocks.abort();
    world.make_whole().await;
    all_go(&world, &ledger).await;
    let (granted, kept) = (ledger.ids.lock().len(), ledger.kept.load(Ordering::Relaxed));
    if granted < HOLDERS || kept == 0 {
        world.accuse(format!(
            "{granted} leases, {kept} keep-alives: nothing was tried"
        ));
    }
    let lost = [&ledger.killed, &ledger.cut_off].map(|lost| lost.load(Ordering::Relaxed));
    let [killed, cut_off] = lost;
    println!("{granted} leases, {kept} keep-alives, {killed} leaders killed, {cut_off} cut off");
}

#[test]
fn no_lease_ends_early_and_dead_ones_go() {
    run_all(
        "no_lease_ends_early_and_dead_ones_go",
        8,
        &Settings::default(),
        leases,
    );
}

fn with(faults: Faults) -> Settings {
    Settings {
        faults,
        ..Settings::default()
    }
}

fn ended_early(violation: &str) -> bool {
    violation.contains("ended early")
}

#[test]
fn leases_that_a_new_leader_shortens_are_noticed() {
    let faults = Faults {
        shorten_leases: true,
        ..Faults::default()
    };
    must_be_found(10, &with(faults), ended_early, leases);
}

#[test]
fn the_expiry_of_a_lease_that_was_renewed_is_noticed() {
    let faults = Faults {
        expire_renewed: true,
        ..Faults::default()
    };
    // A renewal must be decided between the proposal of an expiry and its decision: that takes long
    // where the disks are slow.
    let settings = Settings {
        sync_latency: Duration::from_millis(25),
        ..with(faults)
    };
    must_be_found(20, &settings, ended_early, leases);
}

#[test]
fn replicas_that_judge_leases_by_their_own_clocks_are_noticed() {
    let faults = Faults {
        renew_by_own_clock: true,
        ..Faults::default()
    };
    let differ = |violation: &str| ended_early(violation) || violation.contains("stays");
    must_be_found(10, &with(faults), differ, leases);
}
