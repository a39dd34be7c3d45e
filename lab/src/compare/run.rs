//! One comparison, from the first process to the report.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::watch;

use super::etcd::Etcd;
use super::ledger::Ledger;
use super::load::{self, Load};
use super::options::{ComparePlan, TargetKind};
use super::page::html;
use super::quorate::Quorate;
use super::results::{Comparison, CutTold, FORMAT, LedgerTold, Repair, Setup};
use super::sample::{Moment, Sample, Side, Span};
use super::sides::{Sides, Standing, choose};
use super::tally::{LastRead, Run};
use super::target::{LastLevel, Target};
use crate::error::LabError;
use crate::random::Random;
use crate::results::Outcome;
use crate::run::{fresh_folder, leave_files};

/// The calls, one a line.
const SAMPLES: &str = "samples.jsonl";
/// Connections are made and caches filled before it counts.
const WARM_UP: Duration = Duration::from_secs(2);
/// Last reads under way.
const LAST_AT_ONCE: usize = 32;

/// What is going on, for whoever waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Processes start.
    Starting,
    /// Calls are made, and all is whole.
    Before,
    /// The sides are cut apart.
    Cut,
    /// They are together again.
    After,
    /// All come to rest.
    Recovering,
    /// What is there is read.
    Reading,
}

/// Runs a plan until its time is up or `stop` ends, and says what it came to. Leaves a folder with
/// `samples.jsonl`, `results.json`, `report.html` and the nodes' logs; the nodes' data as well, if
/// all is not well.
///
/// # Errors
///
/// [`LabError`] where the lab itself fails; nothing of it is left running.
pub async fn compare(
    plan: ComparePlan,
    tell: impl Fn(Stage),
    stop: impl Future<Output = ()>,
) -> Result<Comparison, LabError> {
    let begin = Instant::now();
    let dir = &plan.options.dir;
    fresh_folder(dir, SAMPLES)?;
    tell(Stage::Starting);
    let target: Arc<dyn Target> = match plan.options.target {
        TargetKind::Quorate => Arc::new(Quorate::start(&plan).await?),
        TargetKind::Etcd => Arc::new(Etcd::start(&plan).await?),
    };
    let worked = work(&plan, &target, tell, stop).await;
    target.close().await;
    let worked = worked?;
    let comparison = told(&plan, &*target, &worked, begin.elapsed());
    let keep_data = comparison.outcome() != Outcome::Held || plan.options.keep_data;
    let json = format!("{}\n", comparison.to_json());
    leave_files(dir, &json, &html(&comparison, &plan.beside), keep_data)?;
    Ok(comparison)
}

/// What there is once the work is done.
struct Worked {
    standing: Standing,
    sides: Sides,
    samples: Vec<Sample>,
    cut: Span,
    /// When calls were no longer made.
    over: Moment,
    /// What the cut held up.
    held: u64,
    repair: Repair,
    /// None: it was interrupted before.
    recovered: Option<Result<Duration, Vec<String>>>,
    last: Vec<LastRead>,
    /// Last reads that failed.
    unread: Vec<String>,
}

async fn work(
    plan: &ComparePlan,
    target: &Arc<dyn Target>,
    tell: impl Fn(Stage),
    stop: impl Future<Output = ()>,
) -> Result<Worked, LabError> {
    let options = &plan.options;
    let mut stop = pin!(stop);
    let standing = target.standing().await?;
    let mut random = Random::of(options.seed, 0);
    let sides = choose(&standing, options.cut, options.leader, &mut random)?;
    let path = options.dir.join(SAMPLES);
    let load = Arc::new(Load::new(target.clone(), sides.clone(), WARM_UP, &path)?);
    let (tell_over, over) = watch::channel(false);
    let streams = load::start(&load, options.rate_per_second, options.seed, &over);
    tell(Stage::Before);
    let mut worked = Worked {
        // Who leads may have changed since, and is told as it was when it was cut.
        standing,
        sides,
        samples: Vec::new(),
        cut: Span {
            begin: Moment::NEVER,
            end: Moment::NEVER,
        },
        over: Moment::NEVER,
        held: 0,
        repair: Repair::default(),
        recovered: None,
        last: Vec::new(),
        unread: Vec::new(),
    };
    let course = async {
        tokio::time::sleep(WARM_UP + options.before).await;
        through_the_cut(plan, &load, &mut worked, &tell).await?;
        tell(Stage::After);
        tokio::time::sleep(options.after).await;
        Ok::<(), LabError>(())
    };
    let ended = tokio::select! {
        ended = course => Some(ended),
        () = &mut stop => None,
    };
    worked.over = load.now();
    tell_over.send_replace(true);
    target.heal().await?;
    streams.join_all().await;
    let samples = load.take_samples();
    worked.samples = samples.map_err(|error| LabError::file(path, error))?;
    let before = std::mem::take(&mut worked.repair.bytes);
    match ended {
        Some(ended) => ended?,
        None => return Ok(worked),
    }
    tell(Stage::Recovering);
    tokio::select! {
        recovered = target.recover() => worked.recovered = Some(recovered),
        () = &mut stop => return Ok(worked),
    }
    tell(Stage::Reading);
    let after = target.repaired().await.into_iter();
    let since = after.map(|(what, bytes)| {
        let before = before.get(&what).copied().unwrap_or(0);
        (what, bytes.saturating_sub(before))
    });
    worked.repair.bytes = since.collect();
    tokio::select! {
        () = last_reads(&**target, &mut worked) => {}
        () = &mut stop => worked.recovered = None,
    }
    Ok(worked)
}

/// Cuts the sides apart, waits, and heals. What counts as cut lies wholly within.
async fn through_the_cut(
    plan: &ComparePlan,
    load: &Load,
    worked: &mut Worked,
    tell: impl Fn(Stage),
) -> Result<(), LabError> {
    let target = &load.target;
    if let Ok(Standing { leader, .. }) = target.standing().await {
        worked.standing.leader = leader;
    }
    // What there is of it already; the difference is told in the end.
    worked.repair.bytes = target.repaired().await;
    let before = target.hosts().held().await?;
    target.cut(&worked.sides).await?;
    worked.cut = Span {
        begin: load.now(),
        end: Moment::NEVER,
    };
    tell(Stage::Cut);
    tokio::time::sleep(plan.options.cut_time).await;
    worked.held = target.hosts().held().await?.saturating_sub(before);
    worked.cut.end = load.now();
    target.heal().await
}

/// Reads every key at a node of each side, and once as it was decided.
async fn last_reads(target: &dyn Target, worked: &mut Worked) {
    let ledger = Ledger::of(&worked.samples);
    let ways = [
        (worked.sides.majority[0], LastLevel::Local),
        (worked.sides.minority[0], LastLevel::Local),
        (worked.sides.majority[0], LastLevel::Decided),
    ];
    let keys = ledger.keys().into_iter();
    let asked = keys.flat_map(|key| ways.map(|(node, level)| (key, node, level)));
    let reads = asked.map(async |(key, node, level)| {
        let values = target.last(node, &key.to_string(), level).await;
        (key, values)
    });
    let mut reads = futures::stream::iter(reads).buffer_unordered(LAST_AT_ONCE);
    while let Some((key, values)) = reads.next().await {
        match values {
            Ok(values) => worked.last.push(LastRead { key, values }),
            Err(problem) => worked.unread.push(format!("{key}: {problem}")),
        }
    }
}

fn told(plan: &ComparePlan, target: &dyn Target, worked: &Worked, took: Duration) -> Comparison {
    let ledger = Ledger::of(&worked.samples);
    let run = Run {
        probes: target.probes(),
        rungs: (0..target.probes().len())
            .map(|probe| target.rungs(probe))
            .collect(),
        samples: &worked.samples,
        ledger: &ledger,
        cut: worked.cut,
        whole: Span {
            begin: Moment(0),
            end: worked.over,
        },
        last: &worked.last,
    };
    let rows = run.rows();
    let written = || rows.iter().filter_map(|row| row.written.as_ref());
    let ledger_told = LedgerTold {
        acknowledged: written().map(|told| told.acknowledged).sum(),
        lost: written().map(|told| told.lost).sum(),
        from_nowhere: run.written_by_nobody(),
        keys: ledger.keys().len(),
        last_reads: worked.last.len(),
        conflicts: written().map(|told| told.conflicts).sum(),
    };
    let mut comparison = Comparison {
        format: FORMAT,
        outcome: String::new(),
        breaches: breaches(&run, &ledger_told, worked),
        doubts: doubts(worked),
        setup: setup(plan, target, took),
        cut: cut_told(worked),
        rows,
        ledger: ledger_told,
        repair: worked.repair.clone(),
        recovered_ms: match &worked.recovered {
            Some(Ok(after)) => Some(after.as_secs_f64() * 1e3),
            Some(Err(_)) | None => None,
        },
    };
    comparison.outcome = comparison.outcome().name().to_owned();
    comparison
}

fn setup(plan: &ComparePlan, target: &dyn Target, took: Duration) -> Setup {
    let options = &plan.options;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Setup {
        target: target.name(),
        nodes: options.nodes,
        replication: plan.replication.into(),
        hosts: plan.hosts.name().to_owned(),
        seed: options.seed,
        rate_per_second: options.rate_per_second,
        timeout_ms: millis(options.timeout),
        remarks: target.remarks(),
        command: plan.command(),
        took_ms: millis(took),
    }
}

fn cut_told(worked: &Worked) -> CutTold {
    let until = |moment: Moment| moment.min(worked.over);
    let ms = |moment: Moment| until(moment).since(Moment(0)).as_secs_f64() * 1e3;
    CutTold {
        begin_ms: ms(worked.cut.begin),
        end_ms: ms(worked.cut.end),
        whole_ms: ms(worked.over),
        sides: Side::BOTH.map(|side| worked.sides.nodes(side).to_vec()),
        primaries: worked.standing.primaries.clone(),
        leader: worked.standing.leader,
        proof: (worked.held > 0).then(|| format!("{} held up", worked.held)),
    }
}

/// What is wrong with the store.
fn breaches(run: &Run<'_>, ledger: &LedgerTold, worked: &Worked) -> Vec<String> {
    let mut breaches = Vec::new();
    if ledger.lost > 0 {
        breaches.push(format!("{} acknowledged writes are lost", ledger.lost));
    }
    if ledger.from_nowhere > 0 {
        let count = ledger.from_nowhere;
        breaches.push(format!("{count} values were read that nobody wrote"));
    }
    breaches.extend(run.broken_promises());
    if let Some(Err(problems)) = &worked.recovered {
        breaches.extend(problems.iter().cloned());
    }
    breaches
}

/// Why the run does not tell.
fn doubts(worked: &Worked) -> Vec<String> {
    let mut doubts = Vec::new();
    match &worked.recovered {
        None => doubts.push("it was interrupted".to_owned()),
        Some(_) if worked.held == 0 => {
            doubts.push("the cut is not known to have happened".to_owned());
        }
        Some(_) => {}
    }
    if let Some(first) = worked.unread.first() {
        let count = worked.unread.len();
        doubts.push(format!("{count} of the last reads failed, first {first}"));
    }
    doubts
}
