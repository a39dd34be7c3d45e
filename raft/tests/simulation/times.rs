//! Reads at one time over many ranges, by any replica, while money moves within ranges: every
//! total is right, and what was promised closed stays as it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_proto::internal::{
    Command, Transaction, TransactionOperation, Write, command, transaction_operation,
};
use quorate_proto::v1::{Compare, Expect, expect::State};
use quorate_raft::catalog::with_keyspace;
use quorate_raft::seam::Clock;
use quorate_raft::{Group, ProposeError, ReadError};
use quorate_storage::engine::{ScanRequest, Version};
use quorate_types::{KeyspaceOptions, Partitioning, Revision};
use tokio::time::Instant;

use crate::clients::{put, within};
use crate::world::{PATIENCE, Settings, Shared, run_all};

const BANK: &str = "bank";
const RANGES: u16 = 4;
const ACCOUNTS_PER_RANGE: usize = 6;
const BALANCE: u64 = 1_000;
const WITHIN: Duration = Duration::from_millis(400);
/// Clocks are wrong by up to this.
const OFFSET_MAX_MICROSECONDS: u64 = 400_000;

type Row = (Bytes, u64, u64);

/// The accounts, by range.
struct Bank {
    world: Shared,
    accounts: Vec<Vec<String>>,
    stop: AtomicBool,
    /// From here on all accounts exist.
    opened: Revision,
    /// What was read at which time, by range.
    read: Mutex<BTreeMap<(usize, u64), Vec<Row>>>,
}

fn number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().unwrap())
}

fn balance(amount: u64) -> Bytes {
    Bytes::copy_from_slice(&amount.to_be_bytes())
}

async fn create_keyspace(world: &Shared) {
    let options = KeyspaceOptions {
        partitioning: Partitioning::Hash(RANGES),
        replication: 3,
        ..KeyspaceOptions::default()
    };
    let raft = world.raft(0).unwrap();
    raft.update_catalog(within(PATIENCE), |base| with_keyspace(base, BANK, &options))
        .await
        .unwrap();
    let deadline = within(PATIENCE);
    let known = || world.all().all(|n| world.group_of(n, BANK, b"").is_some());
    while !known() {
        assert!(
            Instant::now() < deadline,
            "the keyspace is not known everywhere"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Bank {
    /// Opens accounts, the same number in each range.
    async fn open(world: &Shared) -> Arc<Bank> {
        create_keyspace(world).await;
        let catalog = world.raft(0).unwrap().catalog();
        let keyspace = catalog.keyspace(BANK).unwrap();
        let mut accounts: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for number in 0..10_000 {
            let name = format!("account-{number}");
            let (range, _) = keyspace.route(name.as_bytes());
            let there = accounts.entry(range.id.0).or_default();
            if there.len() < ACCOUNTS_PER_RANGE {
                there.push(name);
            }
        }
        let mut bank = Bank {
            world: world.clone(),
            accounts: accounts.into_values().collect(),
            stop: AtomicBool::new(false),
            opened: Revision::ZERO,
            read: Mutex::default(),
        };
        for name in bank.accounts.iter().flatten() {
            let deadline = within(PATIENCE);
            while !bank.pay_in(name).await {
                assert!(Instant::now() < deadline, "{name} cannot be opened");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        bank.opened = bank.last_revision();
        Arc::new(bank)
    }

    /// The newest revision that any replica of the keyspace has applied.
    fn last_revision(&self) -> Revision {
        let names = self.accounts.iter().flatten();
        let groups = names.flat_map(|name| {
            let world = &self.world;
            world
                .all()
                .filter_map(|node| world.group_of(node, BANK, name.as_bytes()))
        });
        groups
            .map(|(group, _)| group.applied_revision())
            .max()
            .unwrap_or_default()
    }

    async fn pay_in(&self, name: &str) -> bool {
        for node in self.world.all() {
            if let Some((group, key)) = self.world.group_of(node, BANK, name.as_bytes())
                && group
                    .propose(put(key, balance(BALANCE)), within(WITHIN))
                    .await
                    .is_ok()
            {
                return true;
            }
        }
        false
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Moves money between two accounts of one range, again and again.
    async fn move_money(self: Arc<Self>) {
        while self.goes_on() {
            let range = self.world.roll(self.accounts.len() as u64) as usize;
            let names = &self.accounts[range];
            let from = self.world.roll(names.len() as u64) as usize;
            let to = (from + 1 + self.world.roll(names.len() as u64 - 1) as usize) % names.len();
            let mut node = self.world.any_node();
            for _ in 0..3 {
                match self.transfer(node, &names[from], &names[to]).await {
                    Ok(()) => {
                        self.world.count_answer();
                        break;
                    }
                    Err(ProposeError::NotLeader { hint: Some(leader) }) => {
                        node = leader.0 as usize - 1;
                    }
                    Err(_) => break,
                }
            }
            let pause = Duration::from_micros(self.world.roll(5_000));
            tokio::time::sleep(pause).await;
        }
    }

    async fn transfer(&self, node: usize, from: &str, to: &str) -> Result<(), ProposeError> {
        let stopped = || ProposeError::Stopped;
        let place = |name: &str| self.world.group_of(node, BANK, name.as_bytes());
        let (group, from) = place(from).ok_or_else(stopped)?;
        let (_, to) = place(to).ok_or_else(stopped)?;
        let read = |key| group.table().get(key).ok().flatten().ok_or_else(stopped);
        let (payer, payee) = (read(&from)?, read(&to)?);
        let amount = self.world.roll(number(&payer.value) + 1);
        let command = transfer(&from, &payer, &to, &payee, amount);
        group.propose(command, within(WITHIN)).await.map(drop)
    }

    /// Reads all ranges at one time, each at any replica.
    async fn read_in_time(self: Arc<Self>) {
        while self.goes_on() {
            let node = self.world.any_node();
            let at = self.opened.max(Revision(self.world.clock(node).now().0));
            for range in 0..self.accounts.len() {
                // A replica that cannot say is asked no more: another read asks another.
                let _ = self.read_range(range, at).await;
            }
            let again = {
                let read = self.read.lock();
                let count = read.len() as u64;
                let which = self.world.roll(count.max(1)) as usize;
                read.keys().nth(which).copied()
            };
            if let Some((range, at)) = again {
                let _ = self.read_range(range, Revision(at)).await;
            }
            let pause = Duration::from_micros(self.world.roll(20_000));
            tokio::time::sleep(pause).await;
        }
    }

    async fn read_range(&self, range: usize, at: Revision) -> Result<(), ReadError> {
        let node = self.world.any_node();
        let name = &self.accounts[range][0];
        let Some((group, _)) = self.world.group_of(node, BANK, name.as_bytes()) else {
            return Err(ReadError::Stopped);
        };
        group.close_at(at, within(WITHIN)).await?;
        let rows = rows_at(&group, at);
        self.check(node, range, at, rows);
        self.world.count_answer();
        Ok(())
    }

    fn check(&self, node: usize, range: usize, at: Revision, rows: Vec<Row>) {
        let node = node + 1;
        let total: u64 = rows.iter().map(|(_, _, amount)| amount).sum();
        if total != BALANCE * ACCOUNTS_PER_RANGE as u64 {
            self.world.accuse(format!(
                "node {node}, range {range} at {at}: the total is {total}: {rows:?}"
            ));
        }
        let mut read = self.read.lock();
        let before = read.entry((range, at.0)).or_insert_with(|| rows.clone());
        if *before != rows {
            self.world.accuse(format!(
                "node {node}, range {range} at {at} was {before:?}, and is now {rows:?}"
            ));
        }
    }
}

fn transfer(from: &Bytes, payer: &Version, to: &Bytes, payee: &Version, amount: u64) -> Command {
    let unchanged = |key: &Bytes, version: &Version| Compare {
        key: key.clone(),
        expect: Some(Expect {
            state: Some(State::Revision(version.revision)),
        }),
    };
    let write = |key: &Bytes, amount| {
        let write = Write {
            key: key.clone(),
            value: balance(amount),
            ttl: 0,
        };
        TransactionOperation {
            operation: Some(transaction_operation::Operation::Put(write)),
        }
    };
    let transaction = Transaction {
        compare: vec![unchanged(from, payer), unchanged(to, payee)],
        then: vec![
            write(from, number(&payer.value) - amount),
            write(to, number(&payee.value) + amount),
        ],
        otherwise: Vec::new(),
    };
    Command {
        operation: Some(command::Operation::Transaction(transaction)),
        ..Command::default()
    }
}

fn rows_at(group: &Group, at: Revision) -> Vec<Row> {
    let request = ScanRequest {
        at: Some(at.0),
        bytes_max: usize::MAX,
        ..ScanRequest::default()
    };
    let page = group.table().scan(&request).unwrap();
    let rows = page.rows.into_iter();
    rows.map(|(key, v)| (key, v.revision, number(&v.value)))
        .collect()
}

async fn clocks_jump(world: Shared) {
    loop {
        let node = world.any_node();
        let offset = world.roll(OFFSET_MAX_MICROSECONDS) as i64;
        let half = OFFSET_MAX_MICROSECONDS as i64 / 2;
        world.clock(node).set_offset(offset - half);
        tokio::time::sleep(Duration::from_millis(world.roll(150))).await;
    }
}

async fn snapshots_in_time(world: Shared) {
    let bank = Bank::open(&world).await;
    let clocks = tokio::spawn(clocks_jump(world.clone()));
    let writers = (0..8).map(|_| tokio::spawn(bank.clone().move_money()));
    let mut tasks: Vec<_> = writers.collect();
    tasks.extend((0..4).map(|_| tokio::spawn(bank.clone().read_in_time())));
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(100 + world.roll(400))).await;
        let node = world.any_node();
        match world.roll(4) {
            0 => world.isolate(node),
            1 => world.all().for_each(|node| world.cut_power(node)),
            2 => world.cut_power(node),
            _ => world.kill(node),
        }
        tokio::time::sleep(Duration::from_millis(world.roll(800))).await;
        world.make_whole().await;
    }
    tokio::time::sleep(Duration::from_millis(800)).await;
    bank.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    clocks.abort();
}

#[test]
fn reads_in_time_see_one_state() {
    let settings = Settings::default();
    run_all(
        "reads_in_time_see_one_state",
        4,
        &settings,
        snapshots_in_time,
    );
}
