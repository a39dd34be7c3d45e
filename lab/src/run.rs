//! One run, from the first process to the report.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quorate_types::{KeyspaceOptions, Mode, Reason};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::caller::{Caller, Ways};
use crate::cluster::Cluster;
use crate::error::LabError;
use crate::judge::judge;
use crate::nemesis::{Fault, Scene, disturb};
use crate::page;
use crate::plan::Plan;
use crate::random::Random;
use crate::record::Recorder;
use crate::recovery::{Recovery, recover};
use crate::results::{Outcome, Results};
use crate::workload::{KEYSPACE, Workload};

const HISTORY: &str = "history.jsonl";
const RESULTS: &str = "results.json";
const REPORT: &str = "report.html";
const DATA: &str = "data";
/// Making the keyspace, and what a workload needs in it.
const PREPARE_MAX: Duration = Duration::from_secs(30);
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Runs a plan until its time is up or `stop` ends, and says what it came to. Leaves a folder with
/// `history.jsonl`, `results.json`, `report.html` and the nodes' logs; the nodes' data as well, if
/// all is not well.
///
/// # Errors
///
/// [`LabError`] where the lab itself fails; nothing of it is left running.
pub async fn run(plan: Plan, stop: impl Future<Output = ()>) -> Result<Results, LabError> {
    let begin = Instant::now();
    let options = &plan.options;
    let workload = options.workload.make(options)?;
    let mode = match options.foreign {
        None => Some(options.workload.keyspace(options)?.mode),
        Some(_) => None,
    };
    fresh_folder(&options.dir, HISTORY)?;
    let history = options.dir.join(HISTORY);
    let cluster = Arc::new(Cluster::start(&plan).await?);
    let worked = work(&plan, &cluster, workload.clone(), mode, &history, stop).await;
    cluster.close().await;
    let worked = worked?;
    if let Some(source) = worked.recorder.failure() {
        return Err(LabError::file(history, source));
    }
    let of_faults = worked
        .faults
        .iter()
        .filter_map(|fault| fault.breach.clone());
    let breaches = of_faults.chain(workload.breaches()).collect();
    let results = Results {
        breaches,
        judgement: judge(history, workload.model()).await?,
        counts: worked.recorder.counts(),
        slices: worked.recorder.slices(),
        problems: worked.recorder.problems(),
        faults: worked.faults,
        recovery: worked.recovery,
        interrupted: worked.interrupted,
        took: begin.elapsed(),
        plan,
    };
    leave(&results)?;
    Ok(results)
}

/// What there is once the work is done.
struct Worked {
    recorder: Arc<Recorder>,
    faults: Vec<Fault>,
    /// None: it was interrupted before.
    recovery: Option<Recovery>,
    interrupted: bool,
}

async fn work(
    plan: &Plan,
    cluster: &Arc<Cluster>,
    workload: Arc<dyn Workload>,
    mode: Option<Mode>,
    history: &Path,
    stop: impl Future<Output = ()>,
) -> Result<Worked, LabError> {
    if plan.options.foreign.is_none() {
        prepare(plan, cluster, &*workload).await?;
    }
    let recorder = Arc::new(Recorder::create(history)?);
    let (tell_over, over) = watch::channel(false);
    let scene = Arc::new(Scene {
        cluster: cluster.clone(),
        recorder: recorder.clone(),
        keyspace: KEYSPACE.to_owned(),
        faults: Mutex::default(),
        over: over.clone(),
    });
    let ways = Ways {
        endpoints: cluster.endpoints(),
        keyspace: KEYSPACE.to_owned(),
        retries: workload.retries() || plan.options.retries,
    };
    let mut callers = JoinSet::new();
    for caller in callers_of(plan, &ways, &recorder) {
        callers.spawn(call(caller, workload.clone(), pause(plan), over.clone()));
    }
    let mut nemeses = JoinSet::new();
    for (number, nemesis) in plan.options.nemeses.iter().enumerate() {
        nemeses.spawn(disturb(scene.clone(), *nemesis, number, plan.options.seed));
    }
    let interrupted = tokio::select! {
        () = tokio::time::sleep(plan.options.time) => false,
        () = stop => true,
    };
    tell_over.send_replace(true);
    let mut failed = None;
    while let Some(ended) = nemeses.join_next().await {
        let ended = ended.unwrap_or_else(|error| Err(LabError::Check(error.to_string())));
        failed = failed.or(ended.err());
    }
    cluster.heal().await?;
    callers.join_all().await;
    if let Some(error) = failed {
        return Err(error);
    }
    let recovery = match interrupted {
        true => None,
        false => Some(recover(cluster, mode).await),
    };
    // Of replicas that have not come together the last reads would tell what is not lost as lost.
    if recovery.as_ref().is_some_and(Recovery::is_whole) {
        let ways = Ways {
            // One node may have taken another's place.
            endpoints: cluster.endpoints(),
            ..ways
        };
        last_reads(plan, &ways, &recorder, &*workload).await;
    }
    let mut faults = std::mem::take(&mut *scene.faults.lock().expect("no fault panics"));
    faults.sort_by_key(|fault| fault.begin);
    Ok(Worked {
        recorder,
        faults,
        recovery,
        interrupted,
    })
}

async fn prepare(plan: &Plan, cluster: &Cluster, workload: &dyn Workload) -> Result<(), LabError> {
    let keyspace = plan.options.workload.keyspace(&plan.options)?;
    make_keyspace(cluster, &keyspace).await?;
    let client = cluster.client(&cluster.endpoints(), KEYSPACE, PREPARE_MAX)?;
    workload.prepare(&client).await.map_err(LabError::Prepare)
}

/// Makes the keyspace, and waits until each node knows it.
pub(crate) async fn make_keyspace(
    cluster: &Cluster,
    keyspace: &KeyspaceOptions,
) -> Result<(), LabError> {
    let client = cluster.client(&cluster.endpoints(), KEYSPACE, PREPARE_MAX)?;
    let begin = Instant::now();
    while let Err(error) = client.admin().create_keyspace(KEYSPACE, keyspace).await {
        match error.reason() {
            // An attempt before this one has made it, and its answer was lost.
            Some(Reason::KeyspaceExists) => break,
            Some(_) | None if begin.elapsed() > PREPARE_MAX => {
                return Err(LabError::Prepare(error));
            }
            Some(_) | None => tokio::time::sleep(LOOK_PAUSE).await,
        }
    }
    for endpoint in cluster.endpoints() {
        let client = cluster.client(&[endpoint], KEYSPACE, PREPARE_MAX)?;
        // A node hears of a new keyspace a moment after it was made.
        while let Err(error) = client.get("lab/ready").await {
            if begin.elapsed() > PREPARE_MAX {
                return Err(LabError::Prepare(error));
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
    Ok(())
}

fn callers_of(plan: &Plan, ways: &Ways, recorder: &Arc<Recorder>) -> Vec<Caller> {
    let count = plan.options.clients;
    let caller = |number| {
        let random = Random::of(plan.options.seed, 1 + number as u64);
        // The last reads are made by processes of their own, one for each node.
        let stride = count + ways.endpoints.len();
        Caller::new(number, stride, ways.clone(), random, recorder.clone())
    };
    (0..count).map(caller).collect()
}

/// Between two calls of one caller, on average.
fn pause(plan: &Plan) -> Duration {
    Duration::from_secs_f64(plan.options.clients as f64 / plan.options.rate_per_second)
}

/// Calls at a steady rate until it is over. A call that has begun is ended.
async fn call(
    mut caller: Caller,
    workload: Arc<dyn Workload>,
    pause: Duration,
    mut over: watch::Receiver<bool>,
) {
    loop {
        let wait = caller.random.between(Duration::ZERO, pause * 2);
        let due = Instant::now() + wait;
        let ended = tokio::time::timeout_at(due.into(), over.wait_for(|over| *over));
        if ended.await.is_ok() {
            return;
        }
        workload.step(&mut caller).await;
    }
}

/// Reads by new callers, one at home at each node, once all has come to rest.
async fn last_reads(plan: &Plan, ways: &Ways, recorder: &Arc<Recorder>, workload: &dyn Workload) {
    let (clients, nodes) = (plan.options.clients, ways.endpoints.len());
    let reading = (0..nodes).map(async |place| {
        // Its process numbers lie between those of the others; its home is the node of its place.
        let only = Ways {
            endpoints: vec![ways.endpoints[place].clone()],
            retries: true,
            ..ways.clone()
        };
        let random = Random::of(plan.options.seed, 10_000 + place as u64);
        let number = clients + place;
        let mut caller = Caller::new(number, clients + nodes, only, random, recorder.clone());
        workload.finish(&mut caller).await;
    });
    futures::future::join_all(reading).await;
}

/// Makes the folder, and takes away what an earlier run left in it. A run's folder is known by its
/// record, a file of this name, which is there from now on.
pub(crate) fn fresh_folder(dir: &Path, record: &str) -> Result<(), LabError> {
    let is_used = |dir: &Path| fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    if is_used(dir) && !dir.join(record).exists() {
        let what = format!("{} holds other things than such a run", dir.display());
        return Err(LabError::refused(what, "name an empty folder with --dir"));
    }
    fs::create_dir_all(dir).map_err(|error| LabError::file(dir, error))?;
    for name in [record, RESULTS, REPORT] {
        remove(&dir.join(name), |path| fs::remove_file(path))?;
    }
    remove(&dir.join(DATA), |path| fs::remove_dir_all(path))?;
    let record = dir.join(record);
    fs::write(&record, "").map_err(|error| LabError::file(&record, error))?;
    for log in logs(dir) {
        remove(&log, |path| fs::remove_file(path))?;
    }
    Ok(())
}

fn logs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let is_log = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("node-") && name.ends_with(".log"))
    };
    paths.filter(is_log).collect()
}

fn remove(path: &Path, how: impl Fn(&Path) -> std::io::Result<()>) -> Result<(), LabError> {
    match how(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LabError::file(path, error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn leave(results: &Results) -> Result<(), LabError> {
    let json = format!("{:#}\n", results.to_json());
    let keep_data = results.outcome() != Outcome::Held || results.plan.options.keep_data;
    leave_files(results.dir(), &json, &page::html(results), keep_data)
}

/// Leaves what a run came to in its folder, and the nodes' data if that is wanted.
pub(crate) fn leave_files(
    dir: &Path,
    results: &str,
    report: &str,
    keep_data: bool,
) -> Result<(), LabError> {
    for (name, text) in [(RESULTS, results), (REPORT, report)] {
        let path = dir.join(name);
        fs::write(&path, text).map_err(|error| LabError::file(&path, error))?;
    }
    if !keep_data {
        remove(&dir.join(DATA), |path| fs::remove_dir_all(path))?;
    }
    Ok(())
}
