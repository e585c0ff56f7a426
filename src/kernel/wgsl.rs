//! Reflection of a user's WGSL source with naga: its compute entry points, and the arrays and uniforms that one of them
//! uses.
//!
//! This module finds every error that a source has by itself, and reports it with its line. The roles of the bindings
//! belong to `custom`. This module must never know wgpu: what a device makes of the source belongs to `device/gpu`.

mod nesting;

use crate::array::ElementType;
use crate::error::{Error, Result};
use naga::valid::{Capabilities, GlobalUse, ModuleInfo, ValidationFlags, Validator};
use naga::{
    AddressSpace, ArraySize, GlobalVariable, Handle, Module, Scalar, ScalarKind, ShaderStage, Span,
    StorageAccess, TypeInner, VectorSize, WithSpan,
};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A WGSL module as one of its compute entry points uses it.
#[derive(Debug)]
pub(crate) struct Reflection {
    /// The compute entry point.
    pub entry_point: String,
    /// Its invocations in a workgroup, with overrides resolved.
    pub workgroup_size: [u32; 3],
    /// The arrays and uniforms that it uses, in the order of the source.
    pub variables: Vec<Variable>,
    /// The names of bindings that the module declares and the entry point does not use.
    pub unused: Vec<String>,
    source: String,
}

/// A module-scope variable with a binding.
#[derive(Debug)]
pub(crate) struct Variable {
    /// Its name.
    pub name: String,
    /// Its `@binding` in group 0.
    pub binding: u32,
    /// What it is.
    pub kind: Kind,
    span: Span,
}

/// What a variable with a binding is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A runtime-sized array in a storage buffer.
    Array(ArrayType),
    /// A uniform buffer.
    Uniform(Layout),
}

/// A runtime-sized array, and what the entry point does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArrayType {
    /// The type of its scalars.
    pub scalar: ElementType,
    /// Scalars in one element: 1, or the components of a vector.
    pub components: usize,
    /// Whether the elements are atomic.
    pub atomic: bool,
    /// Whether the source declares it `read_write`.
    pub writable: bool,
    /// Whether the entry point reads it.
    pub read: bool,
    /// Whether the entry point writes it.
    pub written: bool,
}

impl ArrayType {
    /// Scalars from one element to the next: the number of components, except that one scalar of padding follows a
    /// `vec3`.
    pub fn stride(&self) -> usize {
        if self.components == 3 {
            4
        } else {
            self.components
        }
    }
}

impl fmt::Display for ArrayType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.components, self.atomic) {
            (1, false) => write!(f, "array<{}>", self.scalar),
            (1, true) => write!(f, "array<atomic<{}>>", self.scalar),
            (n, _) => write!(f, "array<vec{n}<{}>>", self.scalar),
        }
    }
}

/// The memory layout of a uniform.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The name of its type.
    pub ty: String,
    /// Its bytes.
    pub size: usize,
    /// The members if it is a struct, else none. Members of nested structs have dotted names. At most [`MOST_MEMBERS`].
    pub members: Vec<Member>,
}

/// A member of a struct.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its name.
    pub name: String,
    /// The name of its type.
    pub ty: String,
    /// Its first byte, from the start of the struct.
    pub offset: usize,
    /// Its bytes.
    pub size: usize,
}

impl Layout {
    /// A table of the members for messages, one per line, with the padding between them. Empty if this is not a struct.
    pub fn describe(&self) -> String {
        let mut lines = String::new();
        let mut end = 0;
        let padding = |lines: &mut String, from: usize, to: usize| {
            if from < to {
                lines.push_str(&format!(
                    "\n  offset {from:3}, {:3} bytes: padding",
                    to - from
                ));
            }
        };
        for member in &self.members {
            padding(&mut lines, end, member.offset);
            lines.push_str(&format!(
                "\n  offset {:3}, {:3} bytes: {}: {}",
                member.offset, member.size, member.name, member.ty
            ));
            end = member.offset + member.size;
        }
        if !self.members.is_empty() {
            padding(&mut lines, end, self.size);
        }
        lines
    }
}

/// Parses and validates `source` for `kernel`, and returns what the entry point `wanted` (by default the only one)
/// declares, with `constants` for the module's overrides.
pub(crate) fn reflect(
    kernel: &str,
    source: &str,
    wanted: Option<&str>,
    constants: &[(String, f64)],
) -> Result<Reflection> {
    let reader = Reader { kernel, source };
    nesting::check(source).map_err(|problem| reader.error(problem))?;
    // naga promises not to panic on sources that validate. For other sources, a panic in naga must not reach the caller.
    catch_unwind(AssertUnwindSafe(|| reader.reflect(wanted, constants))).unwrap_or_else(|_| {
        Err(reader.error("naga, which reads WGSL, failed on this source without a reason"))
    })
}

impl Reflection {
    /// The variable named `name`, if the entry point uses it.
    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.variables.iter().find(|variable| variable.name == name)
    }

    /// The source line that declares `variable`, as naga shows lines.
    pub fn declaration(&self, variable: &Variable) -> String {
        excerpt(&self.source, variable.span, "declared here")
    }
}

/// The capabilities that the validator accepts beyond the base of WGSL: those that Divvy can request from a device. A
/// device without one reports an error when it compiles the shader.
fn capabilities() -> Capabilities {
    Capabilities::default()
        | Capabilities::SUBGROUP
        | Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::SHADER_FLOAT16
        | Capabilities::SHADER_INT64
        | Capabilities::FLOAT64
}

struct Reader<'a> {
    kernel: &'a str,
    source: &'a str,
}

impl Reader<'_> {
    fn error(&self, message: impl Into<String>) -> Error {
        Error::Wgsl {
            kernel: self.kernel.into(),
            message: message.into(),
        }
    }

    fn refuse(&self, name: &str, span: Span, problem: &str) -> Error {
        let excerpt = excerpt(self.source, span, "declared here");
        Error::Binding {
            kernel: self.kernel.into(),
            binding: name.into(),
            problem: format!("{problem}\n{excerpt}"),
        }
    }

    fn reflect(&self, wanted: Option<&str>, constants: &[(String, f64)]) -> Result<Reflection> {
        let module = naga::front::wgsl::parse_str(self.source)
            .map_err(|e| self.error(e.emit_to_string(self.source).trim_end()))?;
        let info = Validator::new(ValidationFlags::all(), capabilities())
            .validate(&module)
            .map_err(|e| self.error(e.emit_to_string(self.source).trim_end()))?;
        let index = self.entry_point(&module, wanted)?;
        let entry = &module.entry_points[index];
        let workgroup_size = self.workgroup_size(&module, &info, &entry.name, constants)?;
        let uses = info.get_entry_point(index);
        let mut reflection = Reflection {
            entry_point: entry.name.clone(),
            workgroup_size,
            variables: Vec::new(),
            unused: Vec::new(),
            source: self.source.into(),
        };
        for (handle, variable) in module.global_variables.iter() {
            let Some(binding) = variable.binding else {
                continue;
            };
            let name = variable.name.clone().unwrap_or_default();
            if uses[handle].is_empty() {
                reflection.unused.push(name);
                continue;
            }
            let span = module.global_variables.get_span(handle);
            if binding.group != 0 {
                let problem = format!(
                    "it is in bind group {}, but Divvy binds group 0 only; declare it @group(0)",
                    binding.group
                );
                return Err(self.refuse(&name, span, &problem));
            }
            let kind = self.kind(&module, handle, uses[handle])?;
            reflection.variables.push(Variable {
                name,
                binding: binding.binding,
                kind,
                span,
            });
        }
        Ok(reflection)
    }

    fn entry_point(&self, module: &Module, wanted: Option<&str>) -> Result<usize> {
        let compute: Vec<_> = module
            .entry_points
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.stage == ShaderStage::Compute)
            .map(|(index, entry)| (index, entry.name.as_str()))
            .collect();
        let names = || {
            compute
                .iter()
                .map(|(_, name)| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        match (wanted, compute.as_slice()) {
            (_, []) => Err(self.error(
                "it has no compute entry point; declare one, as in\n\
                 @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) { .. }",
            )),
            (Some(wanted), all) => all
                .iter()
                .find(|(_, name)| *name == wanted)
                .map(|(index, _)| *index)
                .ok_or_else(|| {
                    self.error(format!("it has no compute entry point `{wanted}`; it has {}", names()))
                }),
            (None, [(index, _)]) => Ok(*index),
            (None, _) => Err(self.error(format!(
                "it has several compute entry points ({}); choose one with `.entry_point(name)`",
                names()
            ))),
        }
    }

    /// The workgroup size. naga gives 1 for a size that depends on overrides until they are processed.
    fn workgroup_size(
        &self,
        module: &Module,
        info: &ModuleInfo,
        entry_point: &str,
        constants: &[(String, f64)],
    ) -> Result<[u32; 3]> {
        let overrides = || {
            let names: Vec<_> = module
                .overrides
                .iter()
                .map(|(_, o)| match (o.id, &o.name) {
                    (Some(id), _) => format!("`{id}`"),
                    (None, Some(name)) => format!("`{name}`"),
                    (None, None) => "an unnamed one".into(),
                })
                .collect();
            if names.is_empty() {
                "no override".into()
            } else {
                names.join(", ")
            }
        };
        let mut values = naga::back::PipelineConstants::default();
        for (name, value) in constants {
            values.insert(name.clone(), *value);
        }
        use naga::back::pipeline_constants::{PipelineConstantError as E, process_overrides};
        let (module, _) = process_overrides(
            module,
            info,
            Some((ShaderStage::Compute, entry_point)),
            &values,
        )
        .map_err(|e| {
            self.error(match e {
                E::NotFound(name) => {
                    format!("it has no override `{name}` to set; it has {}", overrides())
                }
                E::MissingValue(name) => format!(
                    "override `{name}` has neither a value in the source nor one given with \
                             `.constant({name:?}, value)`"
                ),
                E::ValidationError(e) => e.emit_to_string(self.source).trim_end().into(),
                other => format!("with the constants given, {other}"),
            })
        })?;
        let entry = module
            .entry_points
            .iter()
            .find(|entry| entry.stage == ShaderStage::Compute && entry.name == entry_point);
        match entry {
            Some(entry) => Ok(entry.workgroup_size),
            None => Err(self.error(format!("naga lost its entry point `{entry_point}`"))),
        }
    }

    fn kind(
        &self,
        module: &Module,
        handle: Handle<GlobalVariable>,
        uses: GlobalUse,
    ) -> Result<Kind> {
        let variable = &module.global_variables[handle];
        let refuse = |problem: &str| {
            let name = variable.name.as_deref().unwrap_or_default();
            self.refuse(name, module.global_variables.get_span(handle), problem)
        };
        match variable.space {
            AddressSpace::Uniform => Ok(Kind::Uniform(layout(module, variable.ty))),
            AddressSpace::Storage { access } => {
                let (scalar, components, atomic) =
                    array_element(module, variable.ty).ok_or_else(|| {
                        refuse(&format!(
                            "it is of type {}, but Divvy binds runtime-sized arrays only: array<T>, array<vec2<T>>, \
                             array<vec3<T>>, array<vec4<T>> or array<atomic<T>>, where T is f32, u32 or i32",
                            type_name(module, variable.ty)
                        ))
                    })?;
                Ok(Kind::Array(ArrayType {
                    scalar,
                    components,
                    atomic,
                    writable: access.contains(StorageAccess::STORE),
                    read: uses.contains(GlobalUse::READ),
                    written: uses.contains(GlobalUse::WRITE),
                }))
            }
            AddressSpace::Handle => Err(refuse(
                "textures and samplers are not supported; read an array in a storage buffer instead",
            )),
            _ => Err(refuse(
                "it is neither `var<storage>` nor `var<uniform>`, the only bindings Divvy has",
            )),
        }
    }
}

/// Scalar type, components and atomicity of the elements, if `ty` is a runtime-sized array that can be bound.
fn array_element(module: &Module, ty: Handle<naga::Type>) -> Option<(ElementType, usize, bool)> {
    let TypeInner::Array {
        base,
        size: ArraySize::Dynamic,
        ..
    } = module.types[ty].inner
    else {
        return None;
    };
    let (scalar, components, atomic) = match module.types[base].inner {
        TypeInner::Scalar(scalar) => (scalar, 1, false),
        TypeInner::Atomic(scalar) => (scalar, 1, true),
        TypeInner::Vector { size, scalar } => (scalar, size as usize, false),
        _ => return None,
    };
    Some((element_type(scalar)?, components, atomic))
}

fn element_type(scalar: Scalar) -> Option<ElementType> {
    match scalar {
        Scalar::F32 => Some(ElementType::F32),
        Scalar::U32 => Some(ElementType::U32),
        Scalar::I32 => Some(ElementType::I32),
        _ => None,
    }
}

fn layout(module: &Module, ty: Handle<naga::Type>) -> Layout {
    let mut members = Vec::new();
    push_members(module, ty, "", 0, &mut members);
    Layout {
        ty: type_name(module, ty),
        size: size_of(module, ty),
        members,
    }
}

fn size_of(module: &Module, ty: Handle<naga::Type>) -> usize {
    module.types[ty].inner.size(module.to_ctx()) as usize
}

/// Members of a struct that are listed. A struct that contains itself twice in each of 29 levels has 2^29.
const MOST_MEMBERS: usize = 256;

/// Lists the members of a struct, up to [`MOST_MEMBERS`]. Members of nested structs have dotted names.
fn push_members(
    module: &Module,
    ty: Handle<naga::Type>,
    prefix: &str,
    start: usize,
    found: &mut Vec<Member>,
) {
    let TypeInner::Struct { members, .. } = &module.types[ty].inner else {
        return;
    };
    for member in members {
        if found.len() >= MOST_MEMBERS {
            return;
        }
        let name = format!("{prefix}{}", member.name.as_deref().unwrap_or_default());
        let offset = start + member.offset as usize;
        if matches!(module.types[member.ty].inner, TypeInner::Struct { .. }) {
            push_members(module, member.ty, &format!("{name}."), offset, found);
        } else {
            found.push(Member {
                name,
                ty: type_name(module, member.ty),
                offset,
                size: size_of(module, member.ty),
            });
        }
    }
}

/// A type as WGSL writes it.
fn type_name(module: &Module, ty: Handle<naga::Type>) -> String {
    let scalar_name = |scalar: Scalar| match scalar.kind {
        ScalarKind::Sint => format!("i{}", scalar.width * 8),
        ScalarKind::Uint => format!("u{}", scalar.width * 8),
        ScalarKind::Float => format!("f{}", scalar.width * 8),
        ScalarKind::Bool => "bool".into(),
        ScalarKind::AbstractInt | ScalarKind::AbstractFloat => "an abstract number".into(),
    };
    let count = |size: VectorSize| size as u32;
    let ty = &module.types[ty];
    match (&ty.name, &ty.inner) {
        (Some(name), _) => name.clone(),
        (None, &TypeInner::Scalar(scalar)) => scalar_name(scalar),
        (None, &TypeInner::Atomic(scalar)) => format!("atomic<{}>", scalar_name(scalar)),
        (None, &TypeInner::Vector { size, scalar }) => {
            format!("vec{}<{}>", count(size), scalar_name(scalar))
        }
        (
            None,
            &TypeInner::Matrix {
                columns,
                rows,
                scalar,
            },
        ) => {
            format!(
                "mat{}x{}<{}>",
                count(columns),
                count(rows),
                scalar_name(scalar)
            )
        }
        (None, &TypeInner::Array { base, size, .. }) => {
            let base = type_name(module, base);
            match size {
                ArraySize::Constant(n) => format!("array<{base}, {n}>"),
                ArraySize::Pending(_) => format!("array<{base}, an override>"),
                ArraySize::Dynamic => format!("array<{base}>"),
            }
        }
        (None, _) => "a type without a name".into(),
    }
}

/// Shows the source line of `span` as naga shows lines, without the headline.
fn excerpt(source: &str, span: Span, label: &str) -> String {
    #[derive(Debug, thiserror::Error)]
    #[error("")]
    struct Place;

    let text = WithSpan::new(Place)
        .with_span(span, label)
        .emit_to_string(source);
    text.split_once('\n')
        .map_or(String::new(), |(_, lines)| lines.trim_end().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "
        override WIDE: u32 = 2;
        @group(0) @binding(0) var<storage, read> a: array<vec3<u32>>;
        @group(0) @binding(1) var<storage, read_write> b: array<atomic<i32>>;
        @group(0) @binding(2) var<storage, read_write> c: array<f32>;
        @group(1) @binding(0) var<uniform> d: f32;

        fn through_a_call(i: u32) { c[i] = 1.0; }

        @compute @workgroup_size(WIDE, 4 * WIDE)
        fn first(@builtin(global_invocation_id) id: vec3<u32>) {
            atomicStore(&b[0], i32(arrayLength(&a)));
            through_a_call(id.x);
        }
        @compute @workgroup_size(64)
        fn second() { atomicAdd(&b[0], 1); c[0] += f32(a[0].x); }
        @compute @workgroup_size(64)
        fn third() { c[0] = d; }";

    fn array(reflection: &Reflection, name: &str) -> Option<ArrayType> {
        match reflection.variable(name)?.kind {
            Kind::Array(ty) => Some(ty),
            Kind::Uniform(_) => None,
        }
    }

    #[test]
    fn uses_include_those_of_called_functions_and_no_other_entry_point() -> Result<()> {
        let first = reflect("k", SOURCE, Some("first"), &[])?;
        let uses = |name: &str| array(&first, name).map(|ty| (ty.read, ty.written));
        // The length of an array is not its elements.
        assert_eq!(uses("a"), Some((false, false)));
        assert_eq!(uses("b"), Some((false, true)));
        assert_eq!(uses("c"), Some((false, true)));
        assert_eq!(first.unused, ["d"]);
        let second = reflect("k", SOURCE, Some("second"), &[])?;
        let uses = |name: &str| array(&second, name).map(|ty| (ty.read, ty.written));
        assert_eq!(uses("a"), Some((true, false)));
        assert_eq!(uses("b"), Some((true, true)));
        assert_eq!(uses("c"), Some((true, true)));
        // Bindings of another entry point do not matter to this one.
        assert!(reflect("k", SOURCE, Some("third"), &[]).is_err());
        Ok(())
    }

    #[test]
    fn elements_are_told_by_type() -> Result<()> {
        let second = reflect("k", SOURCE, Some("second"), &[])?;
        let of =
            |name: &str| array(&second, name).map(|ty| (ty.to_string(), ty.stride(), ty.writable));
        assert_eq!(of("a"), Some(("array<vec3<u32>>".into(), 4, false)));
        assert_eq!(of("b"), Some(("array<atomic<i32>>".into(), 1, true)));
        assert_eq!(of("c"), Some(("array<f32>".into(), 1, true)));
        Ok(())
    }

    #[test]
    fn workgroup_sizes_follow_overrides() -> Result<()> {
        assert_eq!(
            reflect("k", SOURCE, Some("first"), &[])?.workgroup_size,
            [2, 8, 1]
        );
        let constants = [("WIDE".to_owned(), 16.0)];
        assert_eq!(
            reflect("k", SOURCE, Some("first"), &constants)?.workgroup_size,
            [16, 64, 1]
        );
        Ok(())
    }
}
