//! Where a caller wants a call to run.

use crate::device::DeviceId;
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Where a call runs.
///
/// As text: `auto`, `cpu`, `gpu` (the first GPU), `gpu:1`, `split:0.25` (a quarter on the first GPU, the rest on the
/// CPU) or `split:gpu0=0.5,gpu1=0.3,cpu=0.2`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Placement {
    /// Where the cost model predicts the shortest time.
    #[default]
    Auto,
    /// On the CPU, with one thread or all, whichever is predicted to be faster.
    Cpu,
    /// On the GPU with this number, from 0.
    Gpu(usize),
    /// On several devices at once. Each gets its share of the items, in the listed order. Shares are at least 0 and sum
    /// to 1; no device is listed twice.
    Split(Vec<(DeviceId, f64)>),
}

impl Placement {
    /// The share `fraction` on the first GPU, which comes first, and the rest on the CPU.
    pub fn split(fraction: f64) -> Self {
        Self::Split(vec![
            (DeviceId::Gpu(0), fraction),
            (DeviceId::Cpu, 1.0 - fraction),
        ])
    }

    /// The same placement without unusable devices: the others share their work. If no device remains, the cost model
    /// decides.
    pub(crate) fn without(&self, unusable: &[(DeviceId, Arc<str>)]) -> Cow<'_, Self> {
        let is_unusable = |device: DeviceId| unusable.iter().any(|(id, _)| *id == device);
        match self {
            Self::Gpu(index) if is_unusable(DeviceId::Gpu(*index)) => Cow::Owned(Self::Auto),
            Self::Split(shares) if shares.iter().any(|(device, _)| is_unusable(*device)) => {
                let left = shares.iter().filter(|(device, _)| !is_unusable(*device));
                let sum: f64 = left.clone().map(|(_, share)| share).sum();
                if sum > 0.0 {
                    Cow::Owned(Self::Split(
                        left.map(|(device, share)| (*device, share / sum)).collect(),
                    ))
                } else {
                    Cow::Owned(Self::Auto)
                }
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// Refuses invalid shares.
    ///
    /// # Errors
    /// [`Error::Placement`] if a share is negative or not a number, if the shares do not sum to 1, or if a device is
    /// listed twice.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Split(shares) => {
                check_shares(shares).map_err(|problem| Error::Placement { problem })
            }
            _ => Ok(()),
        }
    }
}

/// How far the sum of a split's shares may be from 1.
const SHARE_TOLERANCE: f64 = 1e-6;

fn check_shares(shares: &[(DeviceId, f64)]) -> Result<(), String> {
    for (at, (device, share)) in shares.iter().enumerate() {
        if !(share.is_finite() && *share >= 0.0) {
            return Err(format!(
                "{device} has the share {share}; shares are numbers from 0 to 1"
            ));
        }
        if shares[..at].iter().any(|(other, _)| other == device) {
            return Err(format!("{device} is listed twice; give it one share"));
        }
    }
    let sum: f64 = shares.iter().map(|(_, share)| share).sum();
    if (sum - 1.0).abs() > SHARE_TOLERANCE {
        return Err(format!("the shares sum to {sum}; they must sum to 1"));
    }
    Ok(())
}

impl From<DeviceId> for Placement {
    fn from(device: DeviceId) -> Self {
        match device {
            DeviceId::Cpu => Self::Cpu,
            DeviceId::Gpu(index) => Self::Gpu(index),
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu(index) => write!(f, "gpu:{index}"),
            Self::Split(shares) => {
                f.write_str("split:")?;
                for (at, (device, share)) in shares.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma}{device}={share}")?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Placement {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |problem: String| Error::Placement { problem };
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let Some(shares) = text.strip_prefix("split:") else {
            return text.parse::<DeviceId>().map(Self::from).map_err(|_| {
                refuse(format!(
                    "{text:?} is not one; expected `auto`, `cpu`, `gpu`, `gpu:1` or `split:0.25`"
                ))
            });
        };
        let number = |share: &str| {
            share
                .parse::<f64>()
                .ok()
                .filter(|share| (0.0..=1.0).contains(share))
                .ok_or_else(|| {
                    refuse(format!(
                        "{share:?} in {text:?} is not a share; expected a number from 0 to 1"
                    ))
                })
        };
        let placement = if shares.contains('=') {
            let listed = shares.split(',').map(|entry| {
                let (device, share) = entry.split_once('=').ok_or_else(|| {
                    refuse(format!("{entry:?} in {text:?} is not like `gpu0=0.5`"))
                })?;
                Ok((device.parse()?, number(share)?))
            });
            Self::Split(listed.collect::<Result<_>>()?)
        } else {
            Self::split(number(shares)?)
        };
        placement.check()?;
        Ok(placement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_form() {
        let read = |text: &str| text.parse::<Placement>().expect(text);
        assert_eq!(read("auto"), Placement::Auto);
        assert_eq!(read("cpu"), Placement::Cpu);
        assert_eq!(read("gpu"), Placement::Gpu(0));
        assert_eq!(read("gpu:1"), Placement::Gpu(1));
        assert_eq!(
            read("split:0.25"),
            Placement::Split(vec![(DeviceId::Gpu(0), 0.25), (DeviceId::Cpu, 0.75)])
        );
        assert_eq!(
            read("split:gpu1=0.5,cpu=0.2,gpu0=0.3"),
            Placement::Split(vec![
                (DeviceId::Gpu(1), 0.5),
                (DeviceId::Cpu, 0.2),
                (DeviceId::Gpu(0), 0.3)
            ])
        );
    }

    #[test]
    fn invalid_texts_are_refused_with_the_reason() {
        for (text, says) in [
            ("", "expected `auto`"),
            ("GPU", "expected `auto`"),
            ("gpu:x", "expected `auto`"),
            ("split", "expected `auto`"),
            ("split:", "not a share"),
            ("split:1.5", "not a share"),
            ("split:-0.1", "not a share"),
            ("split:NaN", "not a share"),
            ("split:inf", "not a share"),
            ("split:cpu=0.5,tpu=0.5", "not a device"),
            ("split:cpu=0.5,gpu0", "like `gpu0=0.5`"),
            ("split:cpu=0.5,cpu=0.5", "twice"),
            ("split:cpu=0.5,gpu0=0.4", "sum to 0.9"),
        ] {
            let error = text.parse::<Placement>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_split_built_by_hand_is_checked_too() {
        let check = |share: f64| Placement::Split(vec![(DeviceId::Cpu, share)]).check();
        assert!(check(1.0).is_ok() && check(1.0 - 1e-7).is_ok());
        for share in [0.0, 0.5, 1.1, -1.0, f64::NAN, f64::INFINITY] {
            assert!(check(share).is_err(), "{share}");
        }
        assert!(Placement::Split(vec![]).check().is_err());
    }

    proptest! {
        #[test]
        fn texts_of_placements_parse_to_the_same_placement(fraction in 0.0f64..=1.0, index in 0usize..100) {
            let others = [Placement::Auto, Placement::Cpu, Placement::Gpu(index), Placement::split(fraction)];
            for placement in others {
                prop_assert_eq!(placement.to_string().parse::<Placement>().expect("just written"), placement);
            }
        }
    }
}
