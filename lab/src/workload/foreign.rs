//! Registers of a store that is not ours, through programs that speak JSON lines: read, write,
//! compare-and-set.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use quorate_jepsen::{Model, Options};
use serde_json::{Value as Json, json};
use tokio::sync::Mutex;

use super::Workload;
use super::keys::Keys;
use crate::caller::{Ask, Caller, Came, Seen};
use crate::foreign::{Answer, ForeignStore, Program};

/// The workload.
pub(super) struct Foreign {
    store: ForeignStore,
    keys: Keys,
    /// By caller; each makes one call at a time.
    programs: Mutex<HashMap<usize, Arc<Mutex<Option<Program>>>>>,
}

impl Foreign {
    pub(super) fn new(store: ForeignStore) -> Self {
        Self {
            store,
            keys: Keys::new(4, 150),
            programs: Mutex::default(),
        }
    }

    async fn call(&self, caller: &mut Caller, f: &str, key: i64, value: Json) -> Option<Json> {
        let mut programs = self.programs.lock().await;
        let program = programs.entry(caller.number).or_default().clone();
        drop(programs);
        let mut program = program.lock().await;
        let (home, endpoints) = (caller.home().to_owned(), caller.endpoints().to_vec());
        let ask = Ask {
            f,
            key: Some(key),
            value: value.clone(),
        };
        let work = async {
            if program.is_none() {
                match self.store.program(&home, &endpoints) {
                    Ok(started) => *program = Some(started),
                    Err(error) => return Came::Failed(error.to_string()),
                }
            }
            let running = program.as_mut().expect("it was started if it did not run");
            let (answer, is_of_use) = running.call(f, key, &value).await;
            if !is_of_use {
                *program = None;
            }
            match answer {
                // Only reads answer more than was asked.
                Answer::Ok(read) if f == "read" => Came::Done(read.clone(), read),
                Answer::Ok(_) => Came::Done(value.clone(), value),
                Answer::Fail(None) => Came::Refused,
                Answer::Fail(Some(problem)) => Came::Failed(problem),
                Answer::Info(problem) => Came::Unknown(problem),
            }
        };
        caller.record(ask, work).await
    }
}

#[async_trait]
impl Workload for Foreign {
    async fn step(&self, caller: &mut Caller) {
        let key = self.keys.key(&mut caller.random);
        match (caller.random.below(100), caller.seen.remove(&key)) {
            (75.., Some(seen)) => {
                let value = json!([seen.values.first(), self.keys.value()]);
                self.call(caller, "cas", key, value).await;
            }
            (50..75, _) => {
                let value = json!(self.keys.value());
                self.call(caller, "write", key, value).await;
            }
            (_, _) => {
                let read = self.call(caller, "read", key, Json::Null).await;
                // What is absent is not compared with: not every store has a word for it.
                if let Some(value) = read.and_then(|value| value.as_i64()) {
                    let (values, context) = (vec![value], Default::default());
                    caller.seen.insert(key, Seen { values, context });
                }
            }
        }
    }

    fn model(&self) -> (Model, Options) {
        let options = Options {
            independent: true,
            ..Options::default()
        };
        (Model::CasRegister, options)
    }
}
