//! Sets of devices.

use super::DeviceId;

/// A set of devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceSet(u64);

impl DeviceSet {
    /// No device.
    pub const EMPTY: Self = Self(0);

    fn bit(device: DeviceId) -> u64 {
        match device {
            DeviceId::Cpu => 1,
            // GPUs beyond the number of bits share the last bit.
            DeviceId::Gpu(index) => 1 << index.saturating_add(1).min(63),
        }
    }

    /// The set with `device` added.
    #[must_use]
    pub fn with(self, device: DeviceId) -> Self {
        Self(self.0 | Self::bit(device))
    }

    /// The set with `device` removed.
    #[must_use]
    pub fn without(self, device: DeviceId) -> Self {
        Self(self.0 & !Self::bit(device))
    }

    /// Whether it contains `device`.
    pub fn contains(self, device: DeviceId) -> bool {
        self.0 & Self::bit(device) != 0
    }

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The devices in it.
    pub fn iter(self) -> impl Iterator<Item = DeviceId> {
        let gpus = (0..63).map(DeviceId::Gpu);
        std::iter::once(DeviceId::Cpu)
            .chain(gpus)
            .filter(move |device| self.contains(*device))
    }
}

impl FromIterator<DeviceId> for DeviceSet {
    fn from_iter<I: IntoIterator<Item = DeviceId>>(devices: I) -> Self {
        devices.into_iter().fold(Self::EMPTY, Self::with)
    }
}
