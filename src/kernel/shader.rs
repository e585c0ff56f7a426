//! WGSL sources as values: what `device/gpu` compiles and caches, without knowing any kernel by name.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A WGSL source with one entry point per pipeline.
///
/// Built-in shaders follow one convention: `@group(0) @binding(0)` is a uniform struct of parameters, and the
/// arrays of a dispatch follow from `@binding(1)` in the order in which the dispatch names them.
#[derive(Debug)]
pub struct Shader {
    label: Cow<'static, str>,
    source: Cow<'static, str>,
    hash: u64,
    trusted: bool,
}

impl Shader {
    /// A built-in shader: its indices are proven in bounds, so it is compiled without run-time checks
    /// (unless the runtime asks for checked shaders, as one run of the test suite does).
    pub(crate) fn builtin(label: &'static str, source: impl Into<Cow<'static, str>>) -> Self {
        Self::new(label.into(), source.into(), true)
    }

    /// A user's shader: always compiled with bounds checks and bounded loops.
    pub(crate) fn checked(label: String, source: String) -> Self {
        Self::new(label.into(), source.into(), false)
    }

    fn new(label: Cow<'static, str>, source: Cow<'static, str>, trusted: bool) -> Self {
        let mut hasher = DefaultHasher::new();
        (&source, trusted).hash(&mut hasher);
        Self { label, hash: hasher.finish(), source, trusted }
    }

    /// This built-in shader with its line `alias T = f32;` replaced, for another element type.
    pub(crate) fn typed(label: &'static str, source: &'static str, ty: crate::array::ElementType) -> Self {
        let line = format!("alias T = {ty};");
        Self::builtin(label, source.replacen("alias T = f32;", &line, 1))
    }

    /// The name for debuggers and messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The WGSL text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Identifies the source, for pipeline caches and learned speeds.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether it may be compiled without run-time checks.
    pub fn trusted(&self) -> bool {
        self.trusted
    }
}
