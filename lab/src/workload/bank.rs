//! Accounts in one range: transfers under the condition that neither balance has changed, and reads
//! of all at one time. The sum stays.

use async_trait::async_trait;
use quorate_client::{Client, ClientError, Expect, Operation, Txn, WriteOptions};
use quorate_jepsen::{Model, Options};
use serde_json::{Map, Value as Json, json};

use super::Workload;
use crate::caller::{Ask, Caller, Told, number};

const STRAYS_PERCENT: usize = 15;
const ACCOUNTS: usize = 5;
const BALANCE_FIRST: i64 = 100;
const AMOUNT_MAX: usize = 20;

/// The workload.
pub(super) struct Bank;

fn account(number: usize) -> String {
    format!("account/{number}")
}

async fn balances(client: &Client) -> Result<Told<()>, ClientError> {
    let txn = Txn {
        then: (0..ACCOUNTS)
            .map(|number| Operation::get(account(number)))
            .collect(),
        ..Txn::default()
    };
    let done = client.txn(txn, WriteOptions::default()).await?;
    let balances = done.results.into_iter().enumerate().map(|(place, result)| {
        let balance = result.entry.map(|entry| number(&entry.value));
        (place.to_string(), json!(balance))
    });
    Ok(Told::Done(
        Json::Object(balances.collect::<Map<_, _>>()),
        (),
    ))
}

async fn transfer(
    client: &Client,
    [from, to]: [usize; 2],
    amount: i64,
    asked: Json,
) -> Result<Told<()>, ClientError> {
    let read = Txn::default()
        .then(Operation::get(account(from)))
        .then(Operation::get(account(to)));
    // Nothing was written yet, whatever became of the reading.
    let Ok(done) = client.txn(read, WriteOptions::default()).await else {
        return Ok(Told::Refused);
    };
    let values: Vec<_> = done
        .results
        .into_iter()
        .filter_map(|result| result.entry)
        .collect();
    let [source, target] = values.as_slice() else {
        return Ok(Told::Refused);
    };
    let (least, most) = (number(&source.value), number(&target.value));
    if least < amount {
        return Ok(Told::Refused);
    }
    let txn = Txn::default()
        .compare(account(from), Expect::Value(source.value.clone()))
        .compare(account(to), Expect::Revision(target.revision))
        .then(Operation::put(account(from), (least - amount).to_string()))
        .then(Operation::put(account(to), (most + amount).to_string()));
    let done = client.txn(txn, WriteOptions::default()).await?;
    Ok(match done.succeeded {
        true => Told::Done(asked, ()),
        false => Told::Refused,
    })
}

#[async_trait]
impl Workload for Bank {
    async fn prepare(&self, client: &Client) -> Result<(), ClientError> {
        for number in 0..ACCOUNTS {
            client
                .put(account(number), BALANCE_FIRST.to_string())
                .await?;
        }
        Ok(())
    }

    async fn step(&self, caller: &mut Caller) {
        let client = caller.client(STRAYS_PERCENT);
        if caller.random.percent(40) {
            let ask = Ask {
                f: "read",
                key: None,
                value: Json::Null,
            };
            caller.call(ask, balances(&client)).await;
            return;
        }
        let from = caller.random.below(ACCOUNTS);
        let to = (from + 1 + caller.random.below(ACCOUNTS - 1)) % ACCOUNTS;
        let amount = 1 + caller.random.below(AMOUNT_MAX) as i64;
        let value = json!({"from": from, "to": to, "amount": amount});
        let ask = Ask {
            f: "transfer",
            key: None,
            value: value.clone(),
        };
        caller
            .call(ask, transfer(&client, [from, to], amount, value))
            .await;
    }

    fn model(&self) -> (Model, Options) {
        (Model::Bank, Options::default())
    }
}
