//! The name of a device within a runtime.

use crate::error::Error;
use std::fmt;
use std::str::FromStr;

/// A device of a runtime: the CPU, or one of the GPUs in the order in which `divvy devices` lists them.
///
/// As text: `cpu`, `gpu0`, `gpu1`. `gpu` alone is the first GPU, and `gpu:1` is the same as `gpu1`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub enum DeviceId {
    /// The CPU and the host's memory.
    Cpu,
    /// The GPU with this number, from 0.
    Gpu(usize),
}

impl DeviceId {
    /// The number of the GPU, if it is one.
    pub const fn gpu(&self) -> Option<usize> {
        match *self {
            Self::Cpu => None,
            Self::Gpu(index) => Some(index),
        }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.pad("cpu"),
            Self::Gpu(index) => f.pad(&format!("gpu{index}")),
        }
    }
}

impl FromStr for DeviceId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "cpu" {
            return Ok(Self::Cpu);
        }
        let index = match text.strip_prefix("gpu") {
            Some("") => Some(0),
            // Only digits: `usize::from_str` would also accept a sign.
            Some(rest) => Some(rest.strip_prefix(':').unwrap_or(rest))
                .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok()),
            None => None,
        };
        index.map(Self::Gpu).ok_or_else(|| Error::Placement {
            problem: format!("{text:?} is not a device; expected `cpu`, `gpu` or `gpu:1`"),
        })
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for DeviceId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_devices_parse_to_the_same_device() {
        for id in [DeviceId::Cpu, DeviceId::Gpu(0), DeviceId::Gpu(17)] {
            assert_eq!(id.to_string().parse::<DeviceId>().expect("a name"), id);
            let json = serde_json::to_string(&id).expect("a string");
            assert_eq!(json, format!("\"{id}\""));
            assert_eq!(
                serde_json::from_str::<DeviceId>(&json).expect("just written"),
                id
            );
        }
        assert_eq!(
            "gpu".parse::<DeviceId>().expect("the first"),
            DeviceId::Gpu(0)
        );
        assert_eq!(
            "gpu:3".parse::<DeviceId>().expect("the other form"),
            DeviceId::Gpu(3)
        );
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for text in [
            "",
            "CPU",
            "gpu:",
            "gpu-1",
            "gpu+1",
            "gpu 1",
            "gpu::1",
            "cpu0",
            "gpu99999999999999999999",
        ] {
            let error = text.parse::<DeviceId>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
