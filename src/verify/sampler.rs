//! The sample of parts that are verified.

use super::recomputation::{Pair, Recomputation};
use crate::device::{DeviceId, Devices};
use crate::execute::{Recheck, Verify};
use crate::hash::mixed;
use crate::kernel::{LaunchSpec, Pass};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Draws the parts that are verified: a fixed share in the long run, pseudo-randomly, so that the pattern never matches a
/// regular program.
#[derive(Debug)]
pub(crate) struct Sampler {
    share: f64,
    drawn: AtomicU64,
}

impl Sampler {
    /// A sampler for this share of all parts, from 0 to 1; none for 0.
    pub(crate) fn new(share: f64) -> Option<Self> {
        let drawn = AtomicU64::new(0);
        (share > 0.0).then_some(Self { share, drawn })
    }

    /// Whether the next part is verified.
    fn next(&self) -> bool {
        const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let drawn = mixed(SEED, number) as f64 / (u64::MAX as f64);
        self.share >= 1.0 || drawn < self.share
    }
}

impl Verify for Sampler {
    fn pick(
        &self,
        pass: &dyn Pass,
        spec: &LaunchSpec,
        device: DeviceId,
        items: &Range<usize>,
        devices: &Devices,
    ) -> Option<Box<dyn Recheck>> {
        let other = Recomputation::other_device(spec, device, devices);
        let other = other.filter(|_| self.next())?;
        let picked = Recomputation::new(pass.name(), spec, Pair { device, other }, items)?;
        Some(Box::new(picked))
    }
}

#[cfg(test)]
mod tests {
    use super::Sampler;

    #[test]
    fn the_requested_share_of_parts_is_drawn() {
        for share in [0.01, 0.1, 0.5, 0.9] {
            let sampler = Sampler::new(share).expect("some");
            let drawn = (0..10_000).filter(|_| sampler.next()).count() as f64 / 1e4;
            assert!((drawn - share).abs() < 0.02, "{share}: {drawn}");
        }
        let all = Sampler::new(1.0).expect("all");
        assert!((0..1000).all(|_| all.next()));
        assert!(Sampler::new(0.0).is_none());
    }

    #[test]
    fn every_part_of_a_regular_program_is_drawn_equally_often() {
        for period in 2..12 {
            let sampler = Sampler::new(0.1).expect("some");
            let mut drawn = vec![0; period];
            (0..1000 * period)
                .filter(|_| sampler.next())
                .for_each(|at| drawn[at % period] += 1);
            assert!(
                drawn.iter().all(|count| (50..200).contains(count)),
                "{period}: {drawn:?}"
            );
        }
    }
}
