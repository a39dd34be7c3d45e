//! A bank: a thousand accounts over 16 ranges, writers that move money within ranges, and scans
//! of everything at one time, each range at any replica. What disturbs them is in `times`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_proto::internal::{
    Command, Transaction, TransactionOperation, Write, command, transaction_operation,
};
use quorate_proto::v1::{Compare, Expect, expect::State};
use quorate_raft::catalog::with_keyspace;
use quorate_raft::seam::Clock;
use quorate_raft::{Group, ProposeError};
use quorate_storage::engine::{EngineError, ScanRequest, Version};
use quorate_types::{KeyspaceOptions, Partitioning, Revision, stable_hash};
use tokio::time::Instant;

use crate::clients::within;
use crate::world::{PATIENCE, Shared};

const BANK: &str = "bank";
pub const RANGES: u16 = 16;
const ACCOUNTS: usize = 1_000;
const BALANCE: u64 = 1_000;
const WITHIN: Duration = Duration::from_millis(400);
/// A part of a scan is tried at one replica after the other for so long.
const PART_PATIENCE: Duration = Duration::from_secs(20);
/// Some scans read as of up to so long ago.
const PAST_MAX_MICROSECONDS: u64 = 2_000_000;
const WRITER_PAUSE_MAX_MICROSECONDS: u64 = 20_000;
const SCAN_PAUSE_MAX_MICROSECONDS: u64 = 20_000;

type Row = (Bytes, u64, u64);

/// The accounts, by range, and what was read of them.
pub struct Bank {
    world: Shared,
    accounts: Vec<Vec<String>>,
    stop: AtomicBool,
    /// From here on all accounts exist.
    opened: Revision,
    scans: AtomicU64,
    read: Mutex<Read>,
}

/// Digests of what was read, by range and time.
#[derive(Default)]
struct Read {
    digests: HashMap<(usize, u64), u64>,
    /// The keys of `digests`, to choose one from.
    places: Vec<(usize, u64)>,
}

fn number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().unwrap())
}

fn balance(amount: u64) -> Bytes {
    Bytes::copy_from_slice(&amount.to_be_bytes())
}

async fn create_keyspace(world: &Shared, replication: u8) {
    let options = KeyspaceOptions {
        partitioning: Partitioning::Hash(RANGES),
        replication,
        ..KeyspaceOptions::default()
    };
    let deadline = within(PATIENCE);
    let raft = world.raft(0).unwrap();
    raft.update_catalog(deadline, |base| with_keyspace(base, BANK, &options))
        .await
        .unwrap();
    let known = || {
        let views = world.all().filter_map(|n| world.raft(n));
        let mut views = views.map(|raft| raft.catalog());
        views.all(|view| view.keyspace(BANK).is_some())
    };
    while !known() {
        assert!(Instant::now() < deadline, "the keyspace is not known");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Account names by range.
fn accounts(world: &Shared) -> Vec<Vec<String>> {
    let catalog = world.raft(0).unwrap().catalog();
    let keyspace = catalog.keyspace(BANK).unwrap();
    let mut accounts: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for number in 0..ACCOUNTS {
        let name = format!("account-{number}");
        let (range, _) = keyspace.route(name.as_bytes());
        accounts.entry(range.id.0).or_default().push(name);
    }
    assert_eq!(accounts.len(), usize::from(RANGES));
    accounts.into_values().collect()
}

impl Bank {
    /// Opens all accounts with the same balance.
    pub async fn open(world: &Shared, replication: u8) -> Arc<Bank> {
        create_keyspace(world, replication).await;
        let mut bank = Bank {
            world: world.clone(),
            accounts: accounts(world),
            stop: AtomicBool::new(false),
            opened: Revision::ZERO,
            scans: AtomicU64::new(0),
            read: Mutex::default(),
        };
        for names in &bank.accounts {
            let deadline = within(PATIENCE);
            loop {
                if let Some(revision) = bank.pay_in(names).await {
                    bank.opened = bank.opened.max(revision);
                    break;
                }
                assert!(Instant::now() < deadline, "accounts cannot be opened");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Arc::new(bank)
    }

    /// Opens the accounts of one range; says as of when they are open.
    async fn pay_in(&self, names: &[String]) -> Option<Revision> {
        for node in self.world.all() {
            let Some((group, _)) = self.place(node, &names[0]) else {
                continue;
            };
            let keys = names.iter().map(|name| self.place(node, name).unwrap().1);
            let then = keys.map(|key| write(&key, BALANCE)).collect();
            let command = transaction(Vec::new(), then);
            if let Ok(done) = group.propose(command, within(WITHIN)).await {
                return Some(done.applied.revision);
            }
        }
        None
    }

    fn place(&self, node: usize, name: &str) -> Option<(Arc<Group>, Bytes)> {
        self.world.group_of(node, BANK, name.as_bytes())
    }

    /// The node that some replica of a range takes for its leader.
    pub fn leader(&self, range: usize) -> Option<usize> {
        let name = &self.accounts[range][0];
        let groups = self.world.all().filter_map(|node| self.place(node, name));
        let mut leaders = groups.filter_map(|(group, _)| group.leader());
        leaders.next().map(|id| id.0 as usize - 1)
    }

    /// Ends writers and scans.
    pub fn close(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Scans of all ranges so far.
    pub fn scans(&self) -> u64 {
        self.scans.load(Ordering::Relaxed)
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    async fn pause(&self, microseconds_max: u64) {
        let time = Duration::from_micros(self.world.roll(microseconds_max));
        tokio::time::sleep(time).await;
    }

    /// Moves money between two accounts of one range, again and again.
    pub async fn move_money(self: Arc<Self>) {
        while self.goes_on() {
            let range = self.world.roll(self.accounts.len() as u64) as usize;
            let names = &self.accounts[range];
            let from = self.world.roll(names.len() as u64) as usize;
            let to = (from + 1 + self.world.roll(names.len() as u64 - 1) as usize) % names.len();
            let mut node = self.leader(range).unwrap_or(0);
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
            self.pause(WRITER_PAUSE_MAX_MICROSECONDS).await;
        }
    }

    async fn transfer(&self, node: usize, from: &str, to: &str) -> Result<(), ProposeError> {
        let stopped = || ProposeError::Stopped;
        let (group, from) = self.place(node, from).ok_or_else(stopped)?;
        let (_, to) = self.place(node, to).ok_or_else(stopped)?;
        let read = |key| group.table().get(key).ok().flatten().ok_or_else(stopped);
        let (payer, payee) = (read(&from)?, read(&to)?);
        let amount = self.world.roll(number(&payer.value) + 1);
        let compare = vec![unchanged(&from, &payer), unchanged(&to, &payee)];
        let then = vec![
            write(&from, number(&payer.value) - amount),
            write(&to, number(&payee.value) + amount),
        ];
        let command = transaction(compare, then);
        group.propose(command, within(WITHIN)).await.map(drop)
    }

    /// Scans everything at one time, again and again, and now and then a part of an earlier scan.
    pub async fn scan_in_time(self: Arc<Self>) {
        while self.goes_on() {
            self.scan(self.some_time()).await;
            if let Some((range, at)) = self.some_read() {
                self.read_range(range, at).await;
            }
            self.pause(SCAN_PAUSE_MAX_MICROSECONDS).await;
        }
    }

    /// Now by some node's clock, which may be ahead of all others; or some time ago.
    fn some_time(&self) -> Revision {
        let now = self.world.clock(self.world.any_node()).now().0;
        let at = match self.world.roll(3) {
            0 => now - self.world.roll(PAST_MAX_MICROSECONDS),
            _ => now,
        };
        self.opened.max(Revision(at))
    }

    fn some_read(&self) -> Option<(usize, Revision)> {
        let read = self.read.lock();
        let which = self.world.roll((read.places.len() as u64).max(1)) as usize;
        let place = read.places.get(which)?;
        Some((place.0, Revision(place.1)))
    }

    async fn scan(&self, at: Revision) {
        let mut total = 0;
        for range in 0..self.accounts.len() {
            match self.read_range(range, at).await {
                Some(part) => total += part,
                None => return,
            }
        }
        if total != BALANCE * ACCOUNTS as u64 {
            self.world.accuse(format!("at {at} the total is {total}"));
        }
        self.scans.fetch_add(1, Ordering::Relaxed);
        self.world.count_answer();
    }

    /// One range's total at one time, at the first replica that can say.
    async fn read_range(&self, range: usize, at: Revision) -> Option<u64> {
        let deadline = within(PART_PATIENCE);
        while self.goes_on() && Instant::now() < deadline {
            let node = self.world.any_node();
            let Some((group, _)) = self.place(node, &self.accounts[range][0]) else {
                // Not every node has a replica, and not every node runs.
                tokio::time::sleep(Duration::from_micros(100)).await;
                continue;
            };
            if group.close_at(at, within(WITHIN)).await.is_err() {
                self.pause(SCAN_PAUSE_MAX_MICROSECONDS).await;
                continue;
            }
            match rows_at(&group, at) {
                Ok(rows) => return Some(self.check(node, range, at, &rows)),
                Err(EngineError::BelowFloor { .. }) => return None,
                Err(error) => {
                    self.world.accuse(format!("node {}: {error}", node + 1));
                    return None;
                }
            }
        }
        None
    }

    /// Compares what was read with what must be, and with what was read before.
    fn check(&self, node: usize, range: usize, at: Revision, rows: &[Row]) -> u64 {
        let node = node + 1;
        let total: u64 = rows.iter().map(|(_, _, amount)| amount).sum();
        if total != BALANCE * self.accounts[range].len() as u64 {
            self.world.accuse(format!(
                "node {node}, range {range} at {at}: the total is {total}: {rows:?}"
            ));
        }
        let digest = digest(rows);
        let mut read = self.read.lock();
        match read.digests.insert((range, at.0), digest) {
            None => read.places.push((range, at.0)),
            Some(before) if before == digest => {}
            Some(_) => self.world.accuse(format!(
                "node {node}, range {range} at {at} was closed, read, and is now {rows:?}"
            )),
        }
        total
    }
}

fn unchanged(key: &Bytes, version: &Version) -> Compare {
    Compare {
        key: key.clone(),
        expect: Some(Expect {
            state: Some(State::Revision(version.revision)),
        }),
    }
}

fn write(key: &Bytes, amount: u64) -> TransactionOperation {
    let write = Write {
        key: key.clone(),
        value: balance(amount),
        ..Write::default()
    };
    TransactionOperation {
        operation: Some(transaction_operation::Operation::Put(write)),
    }
}

fn transaction(compare: Vec<Compare>, then: Vec<TransactionOperation>) -> Command {
    let transaction = Transaction {
        compare,
        then,
        otherwise: Vec::new(),
    };
    Command {
        operation: Some(command::Operation::Transaction(transaction)),
        ..Command::default()
    }
}

fn rows_at(group: &Group, at: Revision) -> Result<Vec<Row>, EngineError> {
    let request = ScanRequest {
        at: Some(at.0),
        rows_max: ACCOUNTS,
        bytes_max: usize::MAX,
        ..ScanRequest::default()
    };
    let page = group.table().scan(&request)?;
    let rows = page.rows.into_iter();
    Ok(rows
        .map(|(key, v)| (key, v.revision, number(&v.value)))
        .collect())
}

fn digest(rows: &[Row]) -> u64 {
    let mut bytes = Vec::new();
    for (key, revision, amount) in rows {
        bytes.extend_from_slice(key);
        bytes.extend(revision.to_be_bytes());
        bytes.extend(amount.to_be_bytes());
    }
    stable_hash(&bytes)
}
