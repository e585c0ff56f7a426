//! How an access uses elements.

/// What an access does with elements. The same for the host and for calls on devices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Whether it needs their old values.
    pub(crate) reads: bool,
    /// Whether it changes them.
    pub(crate) writes: bool,
}

impl Usage {
    /// Only reads them.
    pub(crate) const READ: Self = Self {
        reads: true,
        writes: false,
    };
    /// Writes all of them, whatever their old values.
    pub(crate) const OVERWRITE: Self = Self {
        reads: false,
        writes: true,
    };
    /// Reads and writes them.
    pub(crate) const UPDATE: Self = Self {
        reads: true,
        writes: true,
    };
}
