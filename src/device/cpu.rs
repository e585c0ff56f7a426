//! The CPU as a device: one rayon pool, and what a pass sees of its arrays on the host.
