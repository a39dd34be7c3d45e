//! Who lives: how suspicious the silence of each peer is, judged by the rhythm of its beats, and
//! which peers come and go.
//!
//! A phi-accrual failure detector (Hayashibara, Défago, Yared, Katayama: "The φ accrual failure
//! detector", 2004): phi is minus the decimal logarithm of the chance that a peer with such a
//! rhythm is silent for so long and still lives. Peers that flap are damped as routes are in BGP
//! (RFC 2439): each further return doubles the time that they must stay well.
//!
//! Plain code: time is an argument, counted from any moment. Not here: sending beats (`upkeep`),
//! and what is done about a peer that is away.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorate_types::NodeId;

/// How often a node says that it lives.
pub(crate) const BEAT_INTERVAL: Duration = Duration::from_millis(100);
/// Beats whose distances are remembered.
const INTERVALS_MAX: usize = 64;
/// A distance counts as at most so much: an outage says little about the rhythm after it.
const INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Beats are never taken to be more regular than this: it is what a busy machine, and a sync of
/// its disk, do to them. With [`PHI_MAX_DEFAULT`] a regular peer is away after 600 ms.
const DEVIATION_MIN: Duration = Duration::from_millis(96);
/// However irregular its beats were, a peer that is silent for so long is away.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Phi above which a peer is away where nothing else is set: one wrong suspicion in 10^8 beats, if
/// distances are spread normally.
pub const PHI_MAX_DEFAULT: f64 = 8.0;
/// What can be set for it.
pub const PHI_MAX_BOUNDS: std::ops::RangeInclusive<f64> = 1.0..=100.0;
/// Phi is shown as at most this.
const PHI_SHOWN_MAX: f64 = 999.0;
/// Returns of a peer that are remembered.
const RETURNS_MAX: usize = 16;
/// And for how long.
const RETURNS_WINDOW: Duration = Duration::from_secs(60);
/// With this many returns in the window a peer flaps.
const FLAPPING_RETURNS: usize = 3;
/// A peer that flaps must stay well for this long, and twice as long with each further return.
const STEADY_AFTER: Duration = Duration::from_secs(5);
/// But for no longer than this.
const STEADY_AFTER_MAX: Duration = Duration::from_secs(60);
/// A node that has done nothing for so long was stopped itself: what it did not hear says nothing
/// about its peers.
const OWN_PAUSE_MIN: Duration = Duration::from_millis(300);

/// A peer as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerLiveness {
    /// How suspicious its silence is; the highest that is shown where nothing was ever heard.
    pub phi: f64,
    /// Whether it is taken to live.
    pub reachable: bool,
    /// Whether it is, and has not come and gone of late.
    pub steady: bool,
    /// How often it came back within the last minute.
    pub returns: usize,
}

/// All peers of one node.
#[derive(Debug)]
pub(crate) struct Liveness {
    /// How many deviations beyond the mean a silence may last.
    deviations_max: f64,
    /// When this node was last seen at work.
    at_work: Duration,
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Debug)]
struct Peer {
    heard: Duration,
    /// It is away from here on, if it is not heard before.
    away_at: Duration,
    intervals: VecDeque<f64>,
    /// When it came back, of late.
    returns: VecDeque<Duration>,
    steady_at: Duration,
}

impl Liveness {
    /// Suspects a peer whose phi is above `phi_max`.
    pub(crate) fn new(phi_max: f64) -> Liveness {
        let (low, high) = (*PHI_MAX_BOUNDS.start(), *PHI_MAX_BOUNDS.end());
        Liveness {
            deviations_max: deviations_at(phi_max.clamp(low, high)),
            at_work: Duration::ZERO,
            peers: BTreeMap::new(),
        }
    }

    /// A peer was heard. Returns whether it was away before.
    pub(crate) fn beat(&mut self, node: NodeId, now: Duration) -> bool {
        self.work(now);
        let deviations_max = self.deviations_max;
        let Some(peer) = self.peers.get_mut(&node) else {
            self.peers.insert(node, Peer::new(now, deviations_max));
            return false;
        };
        let was_away = now >= peer.away_at;
        if was_away {
            peer.came_back(now);
        }
        peer.heard_again(now, deviations_max);
        was_away
    }

    /// This node is at work. If it was not for long, its peers are given that time.
    pub(crate) fn work(&mut self, now: Duration) {
        let idle = now.saturating_sub(self.at_work);
        self.at_work = now;
        if idle < OWN_PAUSE_MIN {
            return;
        }
        for peer in self.peers.values_mut() {
            // Who was away before is still.
            if peer.away_at > now.saturating_sub(idle) {
                peer.heard = (peer.heard + idle).min(now);
                peer.away_at += idle;
            }
        }
    }

    /// Whether a peer is taken to live.
    pub(crate) fn is_reachable(&mut self, node: NodeId, now: Duration) -> bool {
        self.work(now);
        self.peers.get(&node).is_some_and(|peer| now < peer.away_at)
    }

    /// Whether it is, and does not flap.
    pub(crate) fn is_steady(&mut self, node: NodeId, now: Duration) -> bool {
        self.is_reachable(node, now) && self.peers.get(&node).is_some_and(|it| now >= it.steady_at)
    }

    /// What is known of a peer.
    pub(crate) fn look(&mut self, node: NodeId, now: Duration) -> PeerLiveness {
        let (reachable, steady) = (self.is_reachable(node, now), self.is_steady(node, now));
        let peer = self.peers.get(&node);
        PeerLiveness {
            phi: peer.map_or(PHI_SHOWN_MAX, |peer| peer.phi(now)),
            reachable,
            steady,
            returns: peer.map_or(0, |peer| peer.recent_returns(now)),
        }
    }
}

impl Peer {
    fn new(now: Duration, deviations_max: f64) -> Peer {
        let mut peer = Peer {
            heard: now,
            away_at: now,
            intervals: VecDeque::from([BEAT_INTERVAL.as_secs_f64()]),
            returns: VecDeque::new(),
            steady_at: now,
        };
        peer.expect(deviations_max);
        peer
    }

    fn heard_again(&mut self, now: Duration, deviations_max: f64) {
        let interval = now.saturating_sub(self.heard).min(INTERVAL_MAX);
        if self.intervals.len() == INTERVALS_MAX {
            self.intervals.pop_front();
        }
        self.intervals.push_back(interval.as_secs_f64());
        self.heard = now;
        self.expect(deviations_max);
    }

    /// Works out until when it may be silent.
    fn expect(&mut self, deviations_max: f64) {
        let (mean, deviation) = self.rhythm();
        let silence = Duration::from_secs_f64(mean + deviations_max * deviation);
        self.away_at = self.heard + silence.min(SILENCE_MAX);
    }

    /// Mean and standard deviation of the distances between its beats, seconds.
    fn rhythm(&self) -> (f64, f64) {
        let count = self.intervals.len() as f64;
        let mean = self.intervals.iter().sum::<f64>() / count;
        let squares: f64 = self.intervals.iter().map(|it| (it - mean).powi(2)).sum();
        let deviation = (squares / count).sqrt();
        (mean, deviation.max(DEVIATION_MIN.as_secs_f64()))
    }

    fn phi(&self, now: Duration) -> f64 {
        let (mean, deviation) = self.rhythm();
        let silence = now.saturating_sub(self.heard).as_secs_f64();
        phi_at((silence - mean) / deviation).min(PHI_SHOWN_MAX)
    }

    fn came_back(&mut self, now: Duration) {
        if self.returns.len() == RETURNS_MAX {
            self.returns.pop_front();
        }
        self.returns.push_back(now);
        let returns = self.recent_returns(now);
        if returns >= FLAPPING_RETURNS {
            let doublings = u32::try_from(returns - FLAPPING_RETURNS).unwrap_or(u32::MAX);
            let factor = 2_u32.saturating_pow(doublings);
            let well = STEADY_AFTER.saturating_mul(factor).min(STEADY_AFTER_MAX);
            self.steady_at = now + well;
        }
    }

    fn recent_returns(&self, now: Duration) -> usize {
        let since = now.saturating_sub(RETURNS_WINDOW);
        self.returns.iter().filter(|at| **at >= since).count()
    }
}

/// Phi of a silence that is so many deviations beyond the mean: the tail of the normal
/// distribution by its logistic approximation (Bowling et al., 2009).
fn phi_at(deviations: f64) -> f64 {
    let x = deviations * (1.5976 + 0.070_56 * deviations * deviations);
    // log10(1 + e^x), which for large x is x / ln 10.
    match x > 50.0 {
        true => x / std::f64::consts::LN_10,
        false => x.exp().ln_1p() / std::f64::consts::LN_10,
    }
}

/// The other way round: how many deviations a phi stands for.
fn deviations_at(phi: f64) -> f64 {
    let (mut low, mut high) = (-10.0, 40.0);
    // Halved so often that what is left is far below a beat.
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        match phi_at(middle) < phi {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(2);

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Beats every 100 ms, and the node at work as often, from `from` until before `until`.
    fn beats(liveness: &mut Liveness, from: u64, until: u64) {
        for at in (from..until).step_by(100) {
            liveness.beat(PEER, ms(at));
        }
    }

    /// The node at work, and nothing heard.
    fn silence(liveness: &mut Liveness, from: u64, until: u64) {
        for at in (from..until).step_by(100) {
            liveness.work(ms(at));
        }
    }

    #[test]
    fn phi_is_the_logarithm_of_the_chance() {
        // From a table of the normal distribution: beyond 0, 2.326, 3.719 deviations lie 50 %,
        // 1 % and 0.01 %. The approximation is a few percent off, far out.
        for (deviations, phi) in [(0.0, 0.301), (2.326, 2.0), (3.719, 4.0)] {
            let off = (phi_at(deviations) - phi).abs();
            assert!(off < 0.01 + phi * 0.05, "{deviations}: {off}");
        }
        for phi in [1.0, 8.0, 100.0] {
            assert!((phi_at(deviations_at(phi)) - phi).abs() < 1e-6);
        }
    }

    #[test]
    fn a_regular_peer_is_away_after_600_ms() {
        let mut liveness = Liveness::new(PHI_MAX_DEFAULT);
        beats(&mut liveness, 0, 10_000);
        silence(&mut liveness, 10_000, 10_400);
        assert!(liveness.is_reachable(PEER, ms(9_900 + 590)));
        assert!(!liveness.is_reachable(PEER, ms(9_900 + 610)));
        assert!(!liveness.look(PEER, ms(9_900 + 610)).steady);
        assert!(liveness.look(PEER, ms(9_900 + 610)).phi > PHI_MAX_DEFAULT);
    }

    #[test]
    fn who_was_never_heard_is_away() {
        let mut liveness = Liveness::new(PHI_MAX_DEFAULT);
        assert!(!liveness.is_reachable(PEER, ms(0)));
        assert_eq!(liveness.look(PEER, ms(0)).phi, PHI_SHOWN_MAX);
        assert!(!liveness.beat(PEER, ms(0)));
        assert!(liveness.is_steady(PEER, ms(0)));
    }

    #[test]
    fn a_lower_threshold_suspects_sooner() {
        let after = |phi_max| {
            let mut liveness = Liveness::new(phi_max);
            beats(&mut liveness, 0, 10_000);
            let lives = |at: &u64| liveness.is_reachable(PEER, ms(9_900 + at));
            (0..10_000).step_by(10).take_while(lives).count()
        };
        assert!(after(2.0) < after(8.0));
        assert!(after(8.0) < after(16.0));
    }

    #[test]
    fn irregular_beats_are_given_more_time_but_not_for_ever() {
        let mut liveness = Liveness::new(PHI_MAX_DEFAULT);
        let mut at = 0;
        for step in [100, 100, 100, 500].into_iter().cycle().take(100) {
            liveness.work(ms(at + step / 2));
            at += step;
            liveness.beat(PEER, ms(at));
        }
        silence(&mut liveness, at, at + 1_000);
        assert!(liveness.is_reachable(PEER, ms(at + 900)));
        silence(&mut liveness, at + 1_000, at + 3_000);
        assert!(!liveness.is_reachable(PEER, ms(at + 3_000)));
    }

    #[test]
    fn a_long_outage_does_not_make_the_next_one_last_longer() {
        let mut liveness = Liveness::new(PHI_MAX_DEFAULT);
        beats(&mut liveness, 0, 10_000);
        silence(&mut liveness, 10_000, 70_000);
        assert!(liveness.beat(PEER, ms(70_000)));
        beats(&mut liveness, 70_100, 75_000);
        silence(&mut liveness, 75_000, 76_000);
        assert!(!liveness.is_reachable(PEER, ms(74_900 + 900)));
    }

    #[test]
    fn a_node_that_was_stopped_itself_suspects_nobody_for_it() {
        let mut liveness = Liveness::new(PHI_MAX_DEFAULT);
        beats(&mut liveness, 0, 10_000);
        // Stopped for ten seconds; then this is asked before anything is heard.
        assert!(liveness.is_reachable(PEER, ms(20_000)));
        assert!(!liveness.beat(PEER, ms(20_010)));
        assert_eq!(liveness.look(PEER, ms(20_010)).returns, 0);
        // Who does not come back then is away after all.
        silence(&mut liveness, 20_100, 21_000);
        assert!(!liveness.is_reachable(PEER, ms(20_900)));
        // And a pause revives nobody.
        assert!(!liveness.is_reachable(PEER, ms(30_000)));
    }

    #[test]
    fn who_comes_and_goes_must_stay_well_for_longer_each_time() {
        let mut liveness = Liveness::new(PHI_MAX_DEFAULT);
        let mut at = 0;
        let mut waited = Vec::new();
        for _ in 0..5 {
            beats(&mut liveness, at, at + 1_000);
            silence(&mut liveness, at + 1_000, at + 3_000);
            at += 3_000;
            assert!(liveness.beat(PEER, ms(at)));
            assert!(liveness.is_reachable(PEER, ms(at)));
            let steady_at = liveness.peers[&PEER].steady_at;
            waited.push(steady_at.saturating_sub(ms(at)).as_secs());
        }
        assert_eq!(waited, [0, 0, 5, 10, 20]);
        assert_eq!(liveness.look(PEER, ms(at)).returns, 5);
        assert!(!liveness.is_steady(PEER, ms(at)));
        beats(&mut liveness, at + 100, at + 21_000);
        assert!(liveness.is_steady(PEER, ms(at + 20_950)));
        // A minute later all is forgotten.
        beats(&mut liveness, at + 21_000, at + 62_000);
        assert_eq!(liveness.look(PEER, ms(at + 61_950)).returns, 0);
    }
}
