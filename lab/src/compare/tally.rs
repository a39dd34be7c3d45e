//! From samples to numbers: phases, percentiles, first successes, ages, slices of time.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_types::per_mille;

use super::ledger::{Behind, Ledger};
use super::probe::{Act, AgePromise, Plane, Probe};
use super::results::{BehindTold, Course, Part, Phase, Row, WrittenTold};
use super::sample::{End, Key, Moment, Sample, Side, Span};

/// One slice of a course.
const SLICE_MS: u64 = 500;
/// Age is measured from outside: a read and an acknowledgement that cross on their way are no breach.
const AGE_SLACK: Duration = Duration::from_millis(50);

/// The values of a key that one last read found.
pub(crate) struct LastRead {
    pub(crate) key: Key,
    pub(crate) values: Vec<i64>,
}

/// All that is counted of a run.
pub(crate) struct Run<'a> {
    pub(crate) probes: &'a [Probe],
    pub(crate) rungs: Vec<usize>,
    pub(crate) samples: &'a [Sample],
    pub(crate) ledger: &'a Ledger,
    pub(crate) cut: Span,
    /// From when on calls count, to when they were made.
    pub(crate) whole: Span,
    pub(crate) last: &'a [LastRead],
}

/// A read, and how far it was behind.
struct Aged<'a> {
    sample: &'a Sample,
    plane: Plane,
    behind: Behind,
}

fn ms(time: Duration) -> f64 {
    // To a microsecond.
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl Run<'_> {
    /// All levels.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let row = |(probe, told): (usize, &Probe)| Row {
            act: told.act,
            level: told.level.clone(),
            rungs: self.rungs[probe],
            sides: Side::BOTH.map(|side| self.part(probe, side)),
            written: (told.act == Act::Write).then(|| self.written(probe)),
        };
        self.probes.iter().enumerate().map(row).collect()
    }

    /// A call belongs to the phase in which it began; one that was under way when it was cut, to
    /// the cut.
    fn phase_of(&self, sample: &Sample) -> usize {
        match sample {
            sample if sample.end < self.cut.begin => 0,
            sample if sample.begin < self.cut.end => 1,
            _ => 2,
        }
    }

    fn part(&self, probe: usize, side: Side) -> Part {
        let all = self.samples.iter();
        let own = |sample: &&Sample| {
            sample.probe == probe && sample.side == side && sample.begin >= self.whole.begin
        };
        let samples: Vec<&Sample> = all.filter(own).collect();
        let aged = self.aged(&samples);
        let first = |from: Moment, until: Moment| {
            let span = Span {
                begin: from,
                end: until,
            };
            let done = samples.iter().filter(|sample| sample.is_done());
            let ends = done.filter(|sample| span.holds(sample.begin));
            let first = ends.map(|sample| sample.end).min();
            first.map(|end| ms(end.since(from)))
        };
        let mut problems = BTreeMap::new();
        for problem in samples.iter().filter_map(|one| one.problem.as_ref()) {
            *problems.entry(problem.clone()).or_default() += 1;
        }
        Part {
            phases: [0, 1, 2].map(|number| {
                let samples = samples.iter();
                let samples = samples.filter(|sample| self.phase_of(sample) == number);
                phase(samples.copied(), self.rungs[probe])
            }),
            first_after_cut_ms: first(self.cut.begin, self.cut.end),
            first_after_heal_ms: first(self.cut.end, Moment::NEVER),
            silence_ms: ms(silence(&samples, self.cut)),
            behind: [Plane::Strong, Plane::Eventual].map(|plane| behind_told(&aged, plane)),
            problems,
            course: self.course(&samples, &aged),
        }
    }

    fn aged<'a>(&self, samples: &[&'a Sample]) -> Vec<Aged<'a>> {
        let reads = samples
            .iter()
            .filter(|one| one.is_done() && one.written.is_none());
        let aged = |sample: &&'a Sample| {
            let plane = self.probes[sample.key.probe()].shows?;
            let behind = self.ledger.behind(sample.key, &sample.read, sample.begin);
            Some(Aged {
                sample,
                plane,
                behind,
            })
        };
        reads.filter_map(aged).collect()
    }

    fn course(&self, samples: &[&Sample], aged: &[Aged<'_>]) -> Course {
        let whole = self.whole.end.since(self.whole.begin).as_millis();
        let slices = usize::try_from(whole.div_ceil(u128::from(SLICE_MS))).unwrap_or(0);
        let place = |sample: &Sample| {
            let after = sample.begin.since(self.whole.begin).as_millis();
            usize::try_from(after / u128::from(SLICE_MS)).unwrap_or(usize::MAX)
        };
        let mut course = Course {
            slice_ms: SLICE_MS,
            ..Course::default()
        };
        for counts in [
            &mut course.done,
            &mut course.lower,
            &mut course.refused,
            &mut course.silent,
        ] {
            counts.resize(slices, 0);
        }
        let mut latencies = vec![Vec::new(); slices];
        for sample in samples.iter().filter(|sample| place(sample) < slices) {
            let counts = match sample.came_to {
                End::Done { rung: 0 } => &mut course.done,
                End::Done { .. } => &mut course.lower,
                End::Refused => &mut course.refused,
                End::Silent => &mut course.silent,
            };
            counts[place(sample)] += 1;
            if sample.is_done() {
                latencies[place(sample)].push(sample.end.since(sample.begin));
            }
        }
        for latencies in latencies {
            course.max_ms.push(latencies.iter().max().copied().map(ms));
            course.p50_ms.push(per_mille(latencies, 500).map(ms));
        }
        course.behind_ms = [Plane::Strong, Plane::Eventual].map(|plane| {
            let mut oldest: Vec<Option<f64>> = vec![None; slices];
            for aged in aged.iter().filter(|aged| aged.plane == plane) {
                if let Some(oldest) = oldest.get_mut(place(aged.sample)) {
                    let age = ms(aged.behind.age);
                    *oldest = Some(oldest.map_or(age, |other| age.max(other)));
                }
            }
            oldest
        });
        course
    }

    fn written(&self, probe: usize) -> WrittenTold {
        let mut told = WrittenTold::default();
        for key in self.ledger.keys() {
            if key.probe() != probe {
                continue;
            }
            told.acknowledged += self.ledger.acknowledged(key);
            told.lost += self.lost(key);
            if self.ledger.is_contended(key) {
                told.contended_keys += 1;
                let several = |read: &LastRead| read.key == key && read.values.len() > 1;
                told.conflicts += usize::from(self.last.iter().any(several));
            }
        }
        told
    }

    /// Acknowledged writes of a key that any of the last reads lacks.
    fn lost(&self, key: Key) -> usize {
        let reads = self.last.iter().filter(|read| read.key == key);
        let lost = reads.map(|read| self.ledger.lost(key, &read.values, Some(self.cut)).len());
        lost.max().unwrap_or(0)
    }

    /// Values that any read found though nobody wrote them.
    pub(crate) fn written_by_nobody(&self) -> usize {
        let reads = self.samples.iter();
        let during = reads.map(|one| self.ledger.written_by_nobody(one.key, &one.read));
        let last = self.last.iter();
        let last = last.map(|one| self.ledger.written_by_nobody(one.key, &one.values));
        during.chain(last).sum()
    }

    /// Reads that were older than their level lets them be, in words.
    pub(crate) fn broken_promises(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (place, probe) in self.probes.iter().enumerate() {
            let longest = match probe.promise {
                AgePromise::None => continue,
                AgePromise::Fresh => Duration::ZERO,
                AgePromise::Bounded { age_ms } => Duration::from_millis(age_ms) + AGE_SLACK,
            };
            let reads: Vec<&Sample> = self
                .samples
                .iter()
                .filter(|one| one.probe == place)
                .collect();
            let strong = self.aged(&reads).into_iter();
            let strong = strong.filter(|aged| aged.plane == Plane::Strong);
            let ages = strong.map(|aged| aged.behind.age);
            let old: Vec<Duration> = ages.filter(|age| *age > longest).collect();
            if let Some(oldest) = old.iter().max() {
                let (count, level) = (old.len(), &probe.level);
                broken.push(format!(
                    "{count} reads at {level} were too old, by up to {oldest:.1?}"
                ));
            }
        }
        broken
    }
}

fn phase<'a>(samples: impl Iterator<Item = &'a Sample>, rungs: usize) -> Phase {
    let mut phase = Phase {
        done: vec![0; rungs],
        ..Phase::default()
    };
    let mut latencies = Vec::new();
    for sample in samples {
        phase.calls += 1;
        match sample.came_to {
            End::Done { rung } => {
                let lowest = rungs.saturating_sub(1);
                phase.done[usize::try_from(rung).unwrap_or(lowest).min(lowest)] += 1;
                latencies.push(sample.end.since(sample.begin));
            }
            End::Refused => phase.refused += 1,
            End::Silent => phase.silent += 1,
        }
    }
    phase.p50_ms = per_mille(latencies.clone(), 500).map(ms);
    phase.p99_ms = per_mille(latencies, 990).map(ms);
    phase
}

/// The longest stretch without a call that was served, as they ended.
fn silence(samples: &[&Sample], span: Span) -> Duration {
    let done = samples.iter().filter(|sample| sample.is_done());
    let ends = done.map(|sample| sample.end);
    let mut moments: Vec<Moment> = ends.filter(|end| span.holds(*end)).collect();
    moments.extend([span.begin, span.end]);
    moments.sort_unstable();
    let gaps = moments.windows(2).map(|pair| pair[1].since(pair[0]));
    gaps.max().unwrap_or(Duration::ZERO)
}

fn behind_told(aged: &[Aged<'_>], plane: Plane) -> Option<BehindTold> {
    let of_plane = aged.iter().filter(|aged| aged.plane == plane);
    let behind: Vec<Behind> = of_plane.map(|aged| aged.behind).collect();
    let ages: Vec<Duration> = behind.iter().map(|behind| behind.age).collect();
    Some(BehindTold {
        reads: behind.len() as u64,
        stale: behind.iter().filter(|one| one.versions > 0).count() as u64,
        max_ms: ms(*ages.iter().max()?),
        p50_ms: ms(per_mille(ages, 500)?),
        max_versions: behind.iter().map(|behind| behind.versions).max()?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const OWN: Key = Key::Own {
        probe: 1,
        side: Side::Majority,
        number: 0,
    };
    const SHARED: Key = Key::Shared { probe: 1, round: 0 };
    const CUT: Span = Span {
        begin: Moment(1_000_000),
        end: Moment(2_000_000),
    };

    fn probes() -> Vec<Probe> {
        vec![
            Probe::read("linearizable", AgePromise::Fresh),
            Probe::write("linearizable", Some(Plane::Strong)),
        ]
    }

    fn call(probe: usize, side: Side, begin_ms: i64, took_ms: i64, came_to: End) -> Sample {
        Sample {
            probe,
            side,
            node: 1,
            key: OWN,
            begin: Moment(begin_ms * 1_000),
            end: Moment((begin_ms + took_ms) * 1_000),
            came_to,
            may_apply: false,
            written: None,
            read: Vec::new(),
            problem: (!matches!(came_to, End::Done { .. })).then(|| "no majority".to_owned()),
        }
    }

    const DONE: End = End::Done { rung: 0 };

    fn rows(samples: &[Sample], last: &[LastRead]) -> (Vec<Row>, Vec<String>) {
        let probes = probes();
        let ledger = Ledger::of(samples);
        let run = Run {
            probes: &probes,
            rungs: vec![1, 1],
            samples,
            ledger: &ledger,
            cut: CUT,
            whole: Span {
                begin: Moment(0),
                end: Moment(3_000_000),
            },
            last,
        };
        (run.rows(), run.broken_promises())
    }

    #[test]
    fn calls_belong_to_the_phase_in_which_they_began_or_were_cut() {
        let minority = Side::Minority;
        let (rows, broken) = rows(
            &[
                // While all warm up: it does not count.
                call(0, minority, -100, 50, DONE),
                call(0, minority, 100, 10, DONE),
                call(0, minority, 990, 100, End::Silent),
                call(0, minority, 1_200, 300, End::Refused),
                call(0, minority, 1_400, 20, DONE),
                call(0, minority, 1_900, 10, End::Refused),
                call(0, minority, 2_250, 30, DONE),
            ],
            &[],
        );
        let part = &rows[0].sides[Side::Minority.place()];
        let counts = |phase: &Phase| (phase.calls, phase.done[0], phase.refused, phase.silent);
        assert_eq!(
            part.phases.each_ref().map(counts),
            [(1, 1, 0, 0), (4, 1, 2, 1), (1, 1, 0, 0)]
        );
        assert_eq!(part.phases[1].served(), Some(0.25));
        assert_eq!(part.phases[1].p99_ms, Some(20.0));
        assert_eq!(part.first_after_cut_ms, Some(420.0));
        assert_eq!(part.first_after_heal_ms, Some(280.0));
        assert_eq!(part.silence_ms, 580.0);
        assert_eq!(part.problems["no majority"], 3);
        assert_eq!(part.course.done, [1, 0, 1, 0, 1, 0]);
        assert_eq!(part.course.refused, [0, 0, 1, 1, 0, 0]);
        assert_eq!(rows[0].sides[0].phases[1].served(), None);
        assert_eq!(broken, [""; 0]);
    }

    #[test]
    fn a_read_that_misses_what_was_acknowledged_is_told_with_its_age() {
        let write = |value, begin_ms| Sample {
            written: Some(value),
            ..call(1, Side::Majority, begin_ms, 10, DONE)
        };
        let read = |begin_ms, values: &[i64]| Sample {
            read: values.to_vec(),
            ..call(0, Side::Minority, begin_ms, 5, DONE)
        };
        let samples = [
            write(1, 100),
            write(2, 1_100),
            write(3, 1_200),
            read(200, &[1]),
            read(1_500, &[1]),
        ];
        let (rows, broken) = rows(&samples, &[]);
        let behind = rows[0].sides[1].behind[0].clone().unwrap();
        assert_eq!((behind.reads, behind.stale, behind.max_versions), (2, 1, 2));
        assert_eq!(behind.max_ms, 390.0);
        assert_eq!(rows[0].sides[1].behind[1], None);
        let course = &rows[0].sides[1].course;
        assert_eq!(course.behind_ms[0][3], Some(390.0));
        assert_eq!(
            broken,
            ["1 reads at linearizable were too old, by up to 390.0ms"]
        );
    }

    #[test]
    fn last_reads_tell_what_is_lost_and_what_stands_beside_each_other() {
        let write = |value, side| Sample {
            written: Some(value),
            key: SHARED,
            ..call(1, side, 1_100 + value, 10, DONE)
        };
        let samples = [write(1, Side::Majority), write(2, Side::Minority)];
        let last = |values: &[i64]| LastRead {
            key: SHARED,
            values: values.to_vec(),
        };
        let told = |last: &[LastRead]| rows(&samples, last).0[1].written.clone().unwrap();
        let both = told(&[last(&[1, 2]), last(&[1, 2])]);
        assert_eq!((both.acknowledged, both.lost), (2, 0));
        assert_eq!((both.contended_keys, both.conflicts), (1, 1));
        // One of the reads lacks one.
        let one = told(&[last(&[1, 2]), last(&[2])]);
        assert_eq!(one.lost, 1);
    }
}
