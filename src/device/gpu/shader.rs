//! WGSL sources as values, compiled and cached by `pipelines`. A shader knows no kernel by name and no adapter.

use crate::element::ElementType;
use crate::error::{Error, Result};
use crate::hash::mixed;
use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Both values of an `override` constant that is a `bool`.
pub(crate) const BOOL: &[f64] = &[0.0, 1.0];

/// A WGSL source. Each of its entry points is a pipeline.
///
/// Built-in shaders follow one convention: `@group(0) @binding(0)` is a uniform struct of parameters, and the
/// arrays of a dispatch follow from `@binding(1)` in the order in which the dispatch names them.
#[derive(Debug)]
pub struct Shader {
    label: Cow<'static, str>,
    source: Cow<'static, str>,
    constants: Vec<(String, f64)>,
    specializations: Vec<Specialization>,
    hash: u64,
    trusted: bool,
}

/// An entry point of a built-in shader with the values of its `override` constants: one pipeline.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Specialization {
    /// The name of the entry point.
    pub entry: &'static str,
    /// What its dispatches give as constants, in their order. The others have their defaults.
    pub constants: Vec<(&'static str, f64)>,
}

/// Built-in shaders of one source, for each element type.
#[derive(Debug)]
pub(crate) struct TypedShaders([(ElementType, Shader); 3]);

impl TypedShaders {
    /// From a source with the line `alias T = f32;`.
    pub(crate) fn new(label: &'static str, source: &'static str) -> Self {
        let types = [ElementType::F32, ElementType::U32, ElementType::I32];
        Self(types.map(|ty| (ty, Shader::typed(label, source, ty))))
    }

    /// Declares pipelines of each: see [`Shader::entry`].
    pub(crate) fn entry(self, entry: &'static str, constants: &[(&'static str, &[f64])]) -> Self {
        Self(
            self.0
                .map(|(ty, shader)| (ty, shader.entry(entry, constants))),
        )
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Shader> {
        self.0.iter().map(|(_, shader)| shader)
    }

    /// That of one type.
    pub(crate) fn of(&self, ty: ElementType) -> &Shader {
        let found = self.0.iter().find(|(of, _)| *of == ty);
        found
            .map(|(_, shader)| shader)
            .expect("all types are listed")
    }
}

/// A resource that an entry point uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingKind {
    /// A uniform block.
    Uniform {
        /// The number in `@binding(..)`.
        number: u32,
        /// The size of its type.
        bytes: u32,
    },
    /// A storage array that is only read.
    Read {
        /// The number in `@binding(..)`.
        number: u32,
    },
    /// A storage array that may be written.
    ReadWrite {
        /// The number in `@binding(..)`.
        number: u32,
    },
}

impl BindingKind {
    /// The number in `@binding(..)`.
    pub fn number(&self) -> u32 {
        match self {
            Self::Uniform { number, .. } | Self::Read { number } | Self::ReadWrite { number } => {
                *number
            }
        }
    }
}

impl Shader {
    /// A built-in shader: its indices are proven in bounds, so it is compiled without run-time checks
    /// (unless the runtime asks for checked shaders, as one run of the test suite does).
    pub(crate) fn builtin(label: &'static str, source: impl Into<Cow<'static, str>>) -> Self {
        Self::new(label.into(), source.into(), Vec::new(), true)
    }

    /// A user's shader, with the values of its `override` constants: always compiled with bounds checks and bounded
    /// loops.
    pub(crate) fn checked(label: String, source: String, constants: Vec<(String, f64)>) -> Self {
        Self::new(label.into(), source.into(), constants, false)
    }

    /// A built-in shader with its line `alias T = f32;` replaced, for another element type.
    fn typed(label: &'static str, source: &'static str, ty: ElementType) -> Self {
        let line = format!("alias T = {ty};");
        Self::builtin(label, source.replacen("alias T = f32;", &line, 1))
    }

    /// Declares pipelines of a built-in shader: `entry` with every combination of the values of `constants`. A dispatch
    /// of a built-in shader uses what is declared and nothing else, so that tools can look at every pipeline that there
    /// is.
    pub(crate) fn entry(
        mut self,
        entry: &'static str,
        constants: &[(&'static str, &[f64])],
    ) -> Self {
        let mut combinations = vec![Vec::new()];
        for (name, values) in constants {
            let longer = |chosen: &Vec<(&'static str, f64)>| {
                let chosen = chosen.clone();
                let with = move |value: &f64| [chosen.clone(), vec![(*name, *value)]].concat();
                values.iter().map(with).collect::<Vec<_>>()
            };
            combinations = combinations.iter().flat_map(longer).collect();
        }
        let declared = combinations
            .into_iter()
            .map(|constants| Specialization { entry, constants });
        self.specializations.extend(declared);
        self
    }

    fn new(
        label: Cow<'static, str>,
        source: Cow<'static, str>,
        constants: Vec<(String, f64)>,
        trusted: bool,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        (&source, trusted).hash(&mut hasher);
        for (name, value) in &constants {
            (name, value.to_bits()).hash(&mut hasher);
        }
        Self {
            label,
            constants,
            specializations: Vec::new(),
            hash: hasher.finish(),
            source,
            trusted,
        }
    }

    /// The name for debuggers and messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The WGSL text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Values of `override` constants that hold for every use of this shader.
    pub fn constants(&self) -> &[(String, f64)] {
        &self.constants
    }

    /// The pipelines that are declared of a built-in shader.
    pub fn specializations(&self) -> &[Specialization] {
        &self.specializations
    }

    /// Whether a dispatch may use this pipeline: of a built-in shader, only what is declared.
    pub(crate) fn allows(&self, entry: &str, constants: &[(&'static str, f64)]) -> bool {
        let is_asked = |s: &Specialization| s.entry == entry && s.constants == constants;
        !self.trusted || self.specializations.iter().any(is_asked)
    }

    /// Identifies the source and its constants, for pipeline caches and learned speeds.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// A hash of one of several ways to use this shader that differ in speed.
    pub fn variant(&self, number: u64) -> u64 {
        mixed(self.hash, number)
    }

    /// Whether it may be compiled without run-time checks.
    pub fn trusted(&self) -> bool {
        self.trusted
    }

    /// The resources of group 0 that an entry point uses, by ascending number.
    ///
    /// # Errors
    /// [`Error::Wgsl`] if the source is not valid or has no such compute entry point.
    pub fn bindings(&self, entry: &str) -> Result<Vec<BindingKind>> {
        let refuse = |message: String| Error::Wgsl {
            kernel: self.label.to_string(),
            message,
        };
        let module = naga::front::wgsl::parse_str(&self.source)
            .map_err(|e| refuse(e.emit_to_string(&self.source)))?;
        let info = naga::valid::Validator::new(
            naga::valid::ValidationFlags::all(),
            naga::valid::Capabilities::all(),
        )
        .validate(&module)
        .map_err(|e| refuse(e.emit_to_string(&self.source)))?;
        let index = module
            .entry_points
            .iter()
            .position(|e| e.name == entry && e.stage == naga::ShaderStage::Compute)
            .ok_or_else(|| refuse(format!("there is no compute entry point `{entry}`")))?;
        let used = info.get_entry_point(index);
        let mut bindings: Vec<BindingKind> = module
            .global_variables
            .iter()
            .filter(|(handle, _)| !used[*handle].is_empty())
            .filter_map(|(_, global)| {
                let number = global.binding?.binding;
                match global.space {
                    naga::AddressSpace::Uniform => Some(BindingKind::Uniform {
                        number,
                        bytes: module.types[global.ty].inner.size(module.to_ctx()),
                    }),
                    naga::AddressSpace::Storage { access } => {
                        Some(if access.contains(naga::StorageAccess::STORE) {
                            BindingKind::ReadWrite { number }
                        } else {
                            BindingKind::Read { number }
                        })
                    }
                    _ => None,
                }
            })
            .collect();
        bindings.sort_by_key(BindingKind::number);
        Ok(bindings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_are_those_that_the_entry_point_uses() {
        let shader = Shader::builtin(
            "test",
            "struct P { n: u32, a: f32 }
             @group(0) @binding(2) var<storage, read_write> y: array<f32>;
             @group(0) @binding(0) var<uniform> p: P;
             @group(0) @binding(1) var<storage, read> x: array<f32>;
             @compute @workgroup_size(1) fn both() { y[0] = p.a * x[0]; }
             @compute @workgroup_size(1) fn one() { y[0] = 1.0; }",
        );
        let both = shader.bindings("both").expect("valid");
        assert_eq!(
            both,
            [
                BindingKind::Uniform {
                    number: 0,
                    bytes: 8
                },
                BindingKind::Read { number: 1 },
                BindingKind::ReadWrite { number: 2 }
            ]
        );
        assert_eq!(shader.bindings("one").expect("valid"), both[2..]);
        let error = shader
            .bindings("none")
            .expect_err("there is none")
            .to_string();
        assert!(error.contains("`none`"), "{error}");
    }

    #[test]
    fn every_way_to_use_a_shader_has_its_own_hash() {
        let [a, b] = ["a", "b"].map(|label| {
            let source = format!("var<private> {label}: f32;");
            Shader::builtin("test", source)
        });
        let mut hashes = vec![a.hash(), b.hash()];
        hashes.extend((0..100).flat_map(|number| [a.variant(number), b.variant(number)]));
        let all = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), all);
    }

    #[test]
    fn every_combination_of_constants_is_declared_and_nothing_else_is_allowed() {
        let shader = Shader::builtin("test", "")
            .entry("plain", &[])
            .entry("many", &[("A", BOOL), ("B", &[2.0, 4.0, 8.0])]);
        assert_eq!(shader.specializations().len(), 1 + 2 * 3);
        assert!(shader.allows("plain", &[]));
        assert!(shader.allows("many", &[("A", 1.0), ("B", 4.0)]));
        assert!(!shader.allows("many", &[("A", 1.0), ("B", 3.0)]));
        assert!(!shader.allows("many", &[("B", 4.0)]) && !shader.allows("other", &[]));
        let of_a_user = Shader::checked("test".into(), String::new(), Vec::new());
        assert!(of_a_user.allows("any", &[]));
    }

    #[test]
    fn a_typed_shader_differs_in_its_alias_only() {
        let ty = crate::element::ElementType::U32;
        let shader = Shader::typed("test", "alias T = f32;\nvar<private> x: T;", ty);
        assert_eq!(shader.source(), "alias T = u32;\nvar<private> x: T;");
    }
}
