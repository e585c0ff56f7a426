//! The problem of a file that should be a profile, as plain data.

/// Why a text is not a usable profile.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileProblem {
    /// It is not JSON, or has another structure.
    #[error("it is not a profile: {0}")]
    Shape(#[from] serde_json::Error),
    /// It was written by a version with another layout.
    #[error("it has the schema version {found}, this version of Divvy uses {expected}")]
    Schema {
        /// The schema version of the file.
        found: u32,
        /// The schema version of this crate.
        expected: u32,
    },
    /// It was measured by another version.
    #[error("it was measured by Divvy {found}, this is {}", env!("CARGO_PKG_VERSION"))]
    Version {
        /// The version that measured it.
        found: String,
    },
}
