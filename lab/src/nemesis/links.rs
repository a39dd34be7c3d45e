//! Ways between nodes that are bad, short of being cut: late, narrow, lossy, or reset.

use std::time::Duration;

use super::disturb::{Actor, CUT};
use crate::error::LabError;
use crate::hosts::{Cut, Strain, Strains};

/// How late things are at most; as much again by chance.
const DELAY_MAX_MILLISECONDS: usize = 250;
const DELAY_MIN_MILLISECONDS: usize = 20;
/// How much gets through, bytes a second.
const NARROW_MIN_BYTES: usize = 2 << 10;
const NARROW_MAX_BYTES: usize = 16 << 10;
/// Packets lost of a hundred.
const LOSS_MIN_PERCENT: usize = 5;
const LOSS_MAX_PERCENT: usize = 40;
/// Resets within one fault, and the time between two.
const RESETS: usize = 4;
const BETWEEN_RESETS: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_millis(700));
/// A reset lasts so long: connections that are made meanwhile are reset as well.
const RESET: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));

impl Actor {
    fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.random.below(most - least + 1)
    }

    pub(super) async fn delay_links(&mut self) -> Result<(), LabError> {
        let ms = self.between(DELAY_MIN_MILLISECONDS, DELAY_MAX_MILLISECONDS);
        let strain = Strain {
            delay: Duration::from_millis(ms as u64),
            jitter: Duration::from_millis(self.random.below(ms) as u64),
            ..Strain::default()
        };
        self.strain_links(strain, &format!("{ms} ms late")).await
    }

    pub(super) async fn narrow_links(&mut self) -> Result<(), LabError> {
        let bytes = self.between(NARROW_MIN_BYTES, NARROW_MAX_BYTES);
        let strain = Strain {
            bytes_per_second: Some(bytes as u64),
            ..Strain::default()
        };
        self.strain_links(strain, &format!("{bytes} bytes/s")).await
    }

    pub(super) async fn lossy_links(&mut self) -> Result<(), LabError> {
        let percent = self.between(LOSS_MIN_PERCENT, LOSS_MAX_PERCENT);
        let strain = Strain {
            loss_percent: u8::try_from(percent).expect("it is a percentage"),
            ..Strain::default()
        };
        self.strain_links(strain, &format!("{percent} % lost"))
            .await
    }

    /// Which ways: all, or those of one node, or those towards it.
    fn ways(&mut self) -> (Vec<Cut>, String) {
        let ids = self.ids();
        let node = *self.random.pick(&ids);
        let towards = ids
            .iter()
            .flat_map(|from| ids.iter().map(move |to| (*from, *to)));
        let ways = towards.filter(|(from, to)| from != to);
        let ways = ways.map(|(from, to)| Cut { from, to });
        match self.random.below(3) {
            0 => (ways.collect(), "all ways".to_owned()),
            1 => {
                let of = ways.filter(|way| way.from == node || way.to == node);
                (of.collect(), format!("ways of node {node}"))
            }
            _ => {
                let towards = ways.filter(|way| way.to == node);
                (towards.collect(), format!("ways to node {node}"))
            }
        }
    }

    async fn strain_links(&mut self, strain: Strain, how: &str) -> Result<(), LabError> {
        let (ways, whose) = self.ways();
        let what = format!("{whose}: {how}");
        let cluster = self.scene.cluster.clone();
        let before = cluster.hosts().strained().await?;
        let begin = self.begin(&what);
        cluster.strain(self.number, strained(&ways, strain)).await?;
        self.waited(CUT).await;
        let count = cluster.hosts().strained().await?.saturating_sub(before);
        cluster.strain(self.number, Strains::new()).await?;
        let proof = (count > 0).then(|| format!("{count} packets or pieces were struck"));
        self.end(begin, what, proof);
        Ok(())
    }

    pub(super) async fn reset_links(&mut self) -> Result<(), LabError> {
        let (ways, whose) = self.ways();
        let strain = Strain {
            resets: true,
            ..Strain::default()
        };
        let cluster = self.scene.cluster.clone();
        let before = cluster.hosts().strained().await?;
        let begin = self.begin(&whose);
        for _ in 0..RESETS {
            cluster.strain(self.number, strained(&ways, strain)).await?;
            let on = self.waited(RESET).await;
            cluster.strain(self.number, Strains::new()).await?;
            if !on || !self.waited(BETWEEN_RESETS).await {
                break;
            }
        }
        let count = cluster.hosts().strained().await?.saturating_sub(before);
        let proof = (count > 0).then(|| format!("{count} resets"));
        self.end(begin, whose, proof);
        Ok(())
    }
}

fn strained(ways: &[Cut], strain: Strain) -> Strains {
    ways.iter().map(|way| (*way, strain)).collect()
}
