//! Making a plan that fails smaller: fewer faults, nodes and clients, less work, a shorter run, as
//! long as something is still wrong (delta debugging: Zeller and Hildebrandt, IEEE TSE 2002, for
//! the faults; one by one for the rest).

use std::time::Duration;

use crate::plan::Plan;

/// Clients work at least so long.
const TIME_MIN: Duration = Duration::from_millis(250);

/// The smallest plan found that still fails, as `fails` says of each that is tried. `tries` bounds
/// how many are.
pub fn shrink(plan: &Plan, tries: usize, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut best = plan.clone();
    let mut left = tries;
    let mut try_one = |candidate: Plan, best: &mut Plan| {
        if left == 0 {
            return false;
        }
        left -= 1;
        let better = fails(&candidate);
        if better {
            *best = candidate;
        }
        better
    };
    loop {
        let before = size(&best);
        for work in best.work.clone() {
            let candidate = Plan {
                work: vec![work],
                ..best.clone()
            };
            if best.work.len() > 1 && try_one(candidate, &mut best) {
                break;
            }
        }
        fewer_faults(&mut best, &mut try_one);
        for time in halves(best.time) {
            let mut candidate = best.clone();
            candidate.time = time;
            candidate.faults.retain(|fault| fault.at < time);
            if !try_one(candidate, &mut best) {
                break;
            }
        }
        while best.clients > 1 {
            let candidate = Plan {
                clients: best.clients / 2,
                ..best.clone()
            };
            if !try_one(candidate, &mut best) {
                break;
            }
        }
        while best.nodes > 3 {
            let mut candidate = best.clone();
            candidate.nodes -= 1;
            candidate.settings.replication =
                candidate.settings.replication.min(best.nodes as u32 - 1);
            if !try_one(candidate, &mut best) {
                break;
            }
        }
        if size(&best) == before {
            return best;
        }
    }
}

fn size(plan: &Plan) -> (usize, usize, usize, usize, Duration) {
    let faults = plan.faults.len();
    (faults, plan.nodes, plan.clients, plan.work.len(), plan.time)
}

fn halves(time: Duration) -> impl Iterator<Item = Duration> {
    let shorter = std::iter::successors(Some(time / 2), |time| Some(*time / 2));
    shorter.take_while(|time| *time >= TIME_MIN)
}

/// Takes pieces of the faults away, large ones first.
fn fewer_faults(best: &mut Plan, try_one: &mut impl FnMut(Plan, &mut Plan) -> bool) {
    let mut piece = best.faults.len().div_ceil(2);
    while piece > 0 {
        let mut from = 0;
        while from < best.faults.len() {
            let mut candidate = best.clone();
            let to = (from + piece).min(candidate.faults.len());
            candidate.faults.drain(from..to);
            if !try_one(candidate, best) {
                from += piece;
            }
        }
        piece /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Options;

    #[test]
    fn a_plan_shrinks_to_what_matters() {
        let plan = (0..).map(|seed| Plan::of(seed, &Options::default()));
        let mut large = plan.filter(|plan| plan.faults.len() > 10 && plan.nodes > 4);
        let plan = large.next().unwrap();
        let (one, other) = (plan.faults[3], plan.faults[7]);
        let fails = |plan: &Plan| plan.faults.contains(&one) && plan.faults.contains(&other);
        let small = shrink(&plan, 1_000, fails);
        assert_eq!(small.faults, [one, other]);
        assert_eq!((small.nodes, small.clients, small.work.len()), (3, 1, 1));
    }

    #[test]
    fn no_more_is_tried_than_is_granted() {
        let plan = Plan::of(1, &Options::default());
        let mut tried = 0;
        shrink(&plan, 5, |_| {
            tried += 1;
            true
        });
        assert_eq!(tried, 5);
    }
}
