//! What is wrong with a file that should be a profile, as plain data.

/// Why a text is not a profile that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileProblem {
    /// It is no JSON, or not of this shape.
    #[error("it is not a profile: {0}")]
    Shape(#[from] serde_json::Error),
    /// It was written by a version that has another layout.
    #[error("it has the schema version {found}, this version of Divvy uses {expected}")]
    Schema {
        /// The version it has.
        found: u32,
        /// The version that is used.
        expected: u32,
    },
    /// It was measured by another version.
    #[error("it was measured by Divvy {found}, this is {}", env!("CARGO_PKG_VERSION"))]
    Version {
        /// The version that measured it.
        found: String,
    },
}
