//! The definition of a user's kernel: every binding of the source with its role, checked against what the shader does.

use super::args::Closure;
use super::part_items::PartItems;
use crate::element::ElementType;
use crate::error::{Error, Result};
use crate::hash::mixed;
use crate::kernel::Shader;
use crate::kernel::wgsl::{self, ArrayType, Kind, Layout, Reflection, Variable};
use crate::kernel::{Fold, Tolerance};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The names of the members of a part uniform, all `u32`, in this order.
const PART_MEMBERS: [&str; 4] = ["first", "len", "total", "lead"];
/// Data of this many items start at a multiple of 256 bytes for any width: the coarsest offset alignment of any
/// adapter.
const ALIGNED_ITEMS: usize = 64;
/// The most arrays that one kernel may bind: a part can track no more.
const MAX_ARRAYS: usize = 64;

/// The role of a binding in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Use {
    Input,
    Halo(usize),
    Whole,
    Output,
    Update,
    Partial { len: usize, fold: Fold },
}

impl Use {
    /// Whether items own elements of it.
    pub(super) fn is_split(self) -> bool {
        !matches!(self, Self::Whole | Self::Partial { .. })
    }

    pub(super) fn writes(self) -> bool {
        matches!(self, Self::Output | Self::Update | Self::Partial { .. })
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::Halo(_) => "input_halo",
            Self::Whole => "input_whole",
            Self::Output => "output",
            Self::Update => "update",
            Self::Partial { .. } => "partial",
        })
    }
}

/// The number of items that a workgroup computes.
#[derive(Clone, Copy, Debug)]
pub(super) enum GroupItems {
    PerInvocation(usize),
    PerWorkgroup(usize),
}

/// The input of the builder, unchecked.
#[derive(Default)]
pub(super) struct Description {
    pub(super) name: String,
    pub(super) source: String,
    pub(super) entry_point: Option<String>,
    pub(super) constants: Vec<(String, f64)>,
    pub(super) uses: Vec<(String, Use)>,
    pub(super) widths: Vec<(String, usize)>,
    pub(super) part: Option<String>,
    pub(super) group_items: Option<GroupItems>,
    pub(super) flops_per_item: Option<f64>,
    pub(super) tolerances: Vec<(String, Tolerance)>,
    pub(super) cpu: Option<Box<Closure>>,
}

/// A kernel whose parts fit together.
pub(super) struct Definition {
    pub(super) name: String,
    /// Distinguishes it from other kernels of the same name: a hash of the shader and of how it is used.
    pub(super) implementation: u64,
    pub(super) shader: Shader,
    pub(super) entry_point: String,
    pub(super) arrays: Vec<ArrayBinding>,
    pub(super) uniforms: Vec<UniformBinding>,
    /// The `@binding` of the part uniform.
    pub(super) part: Option<u32>,
    /// Items that one workgroup computes.
    pub(super) group_items: usize,
    /// The elements of this number of items start at aligned offsets in every array.
    pub(super) grain: usize,
    /// Items read past both ends of a part, a multiple of the grain.
    pub(super) halo: usize,
    pub(super) flops_per_item: f64,
    pub(super) cpu: Option<Box<Closure>>,
}

/// An array of a user's kernel.
#[derive(Debug)]
pub(super) struct ArrayBinding {
    pub(super) name: String,
    pub(super) binding: u32,
    pub(super) ty: ArrayType,
    pub(super) role: Use,
    /// Scalars that belong to one item; for partial results, the scalars of one copy.
    pub(super) scalars: usize,
    /// How far two devices may be apart in it.
    pub(super) tolerance: Tolerance,
}

/// A uniform whose value the caller sets.
#[derive(Debug)]
pub(super) struct UniformBinding {
    pub(super) name: String,
    pub(super) binding: u32,
    pub(super) layout: Layout,
}

impl Definition {
    pub(super) fn new(description: Description) -> Result<Self> {
        let Description {
            name,
            source,
            entry_point,
            constants,
            ..
        } = &description;
        let reflection = wgsl::reflect(name, source, entry_point.as_deref(), constants)?;
        let checker = Checker {
            description: &description,
            reflection: &reflection,
        };
        checker.names()?;
        let (mut arrays, mut uniforms, mut part) = (Vec::new(), Vec::new(), None);
        for variable in &reflection.variables {
            match &variable.kind {
                Kind::Array(ty) => arrays.push(checker.array(variable, *ty)?),
                Kind::Uniform(layout) if description.part.as_deref() == Some(&variable.name) => {
                    checker.part(variable, layout)?;
                    part = Some(variable.binding);
                }
                Kind::Uniform(_) => {}
            }
        }
        // In the order in which the user gave the roles, so that the first array is the one that the user named first.
        arrays.sort_by_key(|array| {
            description
                .uses
                .iter()
                .position(|(name, _)| *name == array.name)
        });
        checker.whole(&arrays, part)?;
        let group_items = checker.group_items()?;
        let grain = arrays
            .iter()
            .filter(|a| a.role.is_split())
            .map(|a| aligned_items(a.scalars))
            .max();
        let grain = grain.unwrap_or(ALIGNED_ITEMS);
        let halo = arrays
            .iter()
            .map(|a| {
                if let Use::Halo(items) = a.role {
                    items
                } else {
                    0
                }
            })
            .max();
        let halo = checker.halo(halo.unwrap_or(0), grain)?;
        let per_item: usize = arrays
            .iter()
            .filter(|a| a.role.is_split())
            .map(|a| a.scalars)
            .sum();

        let Reflection {
            entry_point,
            variables,
            ..
        } = reflection;
        for variable in variables {
            if let (Kind::Uniform(layout), false) = (variable.kind, part == Some(variable.binding))
            {
                let (name, binding) = (variable.name, variable.binding);
                uniforms.push(UniformBinding {
                    name,
                    binding,
                    layout,
                });
            }
        }
        let Description {
            name,
            source,
            constants,
            flops_per_item,
            cpu,
            ..
        } = description;
        let shader = Shader::checked(name.clone(), source, constants);
        let mut hasher = DefaultHasher::new();
        (&entry_point, group_items, halo, cpu.is_some()).hash(&mut hasher);
        for array in &arrays {
            (&array.name, array.role, array.scalars).hash(&mut hasher);
        }
        Ok(Self {
            implementation: mixed(shader.hash(), hasher.finish()),
            shader,
            entry_point,
            name,
            arrays,
            uniforms,
            part,
            group_items,
            grain,
            halo,
            flops_per_item: flops_per_item.unwrap_or(per_item as f64),
            cpu,
        })
    }

    /// The index of the array named `name`.
    pub(super) fn array(&self, name: &str) -> Option<usize> {
        self.arrays.iter().position(|array| array.name == name)
    }

    /// The names of the arrays, for messages.
    pub(super) fn array_names(&self) -> String {
        names(self.arrays.iter().map(|array| array.name.as_str()))
    }

    /// The index of the uniform named `name`.
    pub(super) fn uniform(&self, name: &str) -> Option<usize> {
        self.uniforms
            .iter()
            .position(|uniform| uniform.name == name)
    }

    /// The names of the uniforms that the caller sets, for messages.
    pub(super) fn uniform_names(&self) -> String {
        names(self.uniforms.iter().map(|uniform| uniform.name.as_str()))
    }

    /// Whether the result depends on the split unless copies of partial results belong to fixed blocks of items.
    /// Floating-point addition is not associative; all other folds are.
    pub(super) fn folds_in_blocks(&self) -> bool {
        self.arrays.iter().any(|array| {
            matches!(
                array.role,
                Use::Partial {
                    fold: Fold::Add,
                    ..
                }
            ) && array.ty.scalar == ElementType::F32
        })
    }

    /// The items that one dispatch can compute: a shader that indexes by `global_invocation_id.x` reaches no others.
    pub(super) fn dispatch_items(&self, max_groups: usize) -> usize {
        let most = self
            .group_items
            .saturating_mul(max_groups)
            .min(u32::MAX as usize);
        (most / self.grain).max(1) * self.grain
    }

    /// The number of halo items before the items from `first` on.
    pub(super) fn lead(&self, first: usize) -> usize {
        first.min(self.halo)
    }

    /// The part with the range `items` of `total`.
    pub(super) fn part_items(&self, items: &std::ops::Range<usize>, total: usize) -> PartItems {
        PartItems {
            first: items.start,
            len: items.len(),
            total,
            lead: self.lead(items.start),
        }
    }
}

/// Joins names for messages.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

/// The fewest items whose `scalars` each, four bytes large, fill a multiple of 256 bytes. A power of two.
fn aligned_items(scalars: usize) -> usize {
    ALIGNED_ITEMS >> scalars.trailing_zeros().min(ALIGNED_ITEMS.trailing_zeros())
}

struct Checker<'a> {
    description: &'a Description,
    reflection: &'a Reflection,
}

impl Checker<'_> {
    fn error(&self, name: &str, problem: impl Into<String>) -> Error {
        Error::Binding {
            kernel: self.description.name.clone(),
            binding: name.into(),
            problem: problem.into(),
        }
    }

    /// An error that also shows the line that declares the variable.
    fn error_at(&self, variable: &Variable, problem: impl fmt::Display) -> Error {
        let declaration = self.reflection.declaration(variable);
        self.error(&variable.name, format!("{problem}\n{declaration}"))
    }

    fn argument(&self, problem: impl Into<String>) -> Error {
        Error::argument(format!("kernel `{}`", self.description.name), problem)
    }

    /// Checks that every name given to the builder occurs in the source and is used once.
    fn names(&self) -> Result<()> {
        let uses = &self.description.uses;
        for (i, (name, role)) in uses.iter().enumerate() {
            if let Some((_, earlier)) = uses[..i].iter().find(|(earlier, _)| earlier == name) {
                let problem =
                    format!("it is given two roles, `{earlier}` and `{role}`; give it one");
                return Err(self.error(name, problem));
            }
            let variable = self.known(name)?;
            if let Kind::Uniform(_) = variable.kind {
                let problem = format!(
                    "it is a uniform, which has no role `{role}`; leave the role out and give its value \
                     with `.uniform(&value)` when binding"
                );
                return Err(self.error_at(variable, problem));
            }
        }
        for (i, (name, width)) in self.description.widths.iter().enumerate() {
            self.known(name)?;
            let role = uses
                .iter()
                .find(|(used, _)| used == name)
                .map(|(_, role)| role);
            if !role.is_some_and(|role| role.is_split()) {
                let problem = "only a binding that is split by item (input, input_halo, output or update) \
                               has a width; leave `.width` out";
                return Err(self.error(name, problem));
            }
            if *width == 0 {
                return Err(self.error(
                    name,
                    "a width of 0 was given; an item has at least 1 element",
                ));
            }
            if self.description.widths[..i]
                .iter()
                .any(|(earlier, _)| earlier == name)
            {
                return Err(self.error(name, "it is given two widths; give it one"));
            }
        }
        for (i, (name, _)) in self.description.tolerances.iter().enumerate() {
            self.known(name)?;
            let mut written = uses.iter().filter(|(_, role)| role.writes());
            if !written.any(|(written, _)| written == name) {
                let problem = "only an array that the kernel writes (output, update or partial) has a tolerance; leave \
                               `.tolerance` out";
                return Err(self.error(name, problem));
            }
            let mut earlier = self.description.tolerances[..i].iter();
            if earlier.any(|(earlier, _)| earlier == name) {
                return Err(self.error(name, "it is given two tolerances; give it one"));
            }
        }
        if let Some(name) = &self.description.part {
            self.known(name)?;
        }
        Ok(())
    }

    fn known(&self, name: &str) -> Result<&Variable> {
        let reflection = self.reflection;
        if let Some(variable) = reflection.variable(name) {
            return Ok(variable);
        }
        let entry_point = &reflection.entry_point;
        if reflection.unused.iter().any(|unused| unused == name) {
            let problem = format!(
                "it is declared, but the entry point `{entry_point}` does not use it; use it there, or leave it \
                 out of the builder"
            );
            return Err(self.error(name, problem));
        }
        let known = names(
            reflection
                .variables
                .iter()
                .map(|variable| variable.name.as_str()),
        );
        let problem = format!(
            "there is no such binding; the bindings that the entry point `{entry_point}` uses: {known}"
        );
        Err(self.error(name, problem))
    }

    fn array(&self, variable: &Variable, ty: ArrayType) -> Result<ArrayBinding> {
        let name = &variable.name;
        let Some((_, role)) = self.description.uses.iter().find(|(used, _)| used == name) else {
            let roles = if ty.writable {
                "output (every element is written), update (read and written) or partial (folded)"
            } else {
                "input (split by item), input_halo (with neighbours) or input_whole (all of it)"
            };
            let problem = format!("it has no role; give it one in the builder: {roles}");
            return Err(self.error_at(variable, problem));
        };
        self.role_fits(variable, ty, *role)?;
        let width = self
            .description
            .widths
            .iter()
            .find(|(used, _)| used == name)
            .map_or(1, |w| w.1);
        let elements = if let Use::Partial { len, .. } = role {
            *len
        } else {
            width
        };
        let scalars = elements
            .checked_mul(ty.stride())
            .filter(|scalars| u32::try_from(*scalars).is_ok())
            .ok_or_else(|| {
                self.error(
                    name,
                    format!("{elements} elements were asked for; the limit is 2^32 scalars"),
                )
            })?;
        let mut tolerances = self.description.tolerances.iter();
        let tolerance = tolerances.find(|(of, _)| of == name);
        let tolerance = tolerance.map_or_else(Tolerance::default, |(_, given)| given.clone());
        let (name, binding) = (name.clone(), variable.binding);
        Ok(ArrayBinding {
            name,
            binding,
            ty,
            role: *role,
            scalars,
            tolerance: tolerance.padded(ty.components, ty.stride()),
        })
    }

    /// Checks that the shader does with the array what the role says.
    fn role_fits(&self, variable: &Variable, ty: ArrayType, role: Use) -> Result<()> {
        let problem = match role {
            Use::Input | Use::Halo(_) | Use::Whole if ty.written => format!(
                "its role is `{role}`, but the shader writes it; make it `update` (read and written) or `output` \
                 (every element written), or do not write it"
            ),
            Use::Input | Use::Halo(_) | Use::Whole if ty.writable => {
                format!("its role is `{role}`, but it is declared read_write; declare it var<storage, read>")
            }
            Use::Output | Use::Update | Use::Partial { .. } if !ty.writable => format!(
                "its role is `{role}`, but it is declared read-only; declare it var<storage, read_write>, or make \
                 it `input`"
            ),
            Use::Output | Use::Update | Use::Partial { .. } if !ty.written => format!(
                "its role is `{role}`, but the shader never writes it; write it, or declare it \
                 var<storage, read> and make it `input`"
            ),
            Use::Output if ty.read => {
                "its role is `output`, so its old elements are not moved, but the shader reads it; make it \
                 `update`, or keep what you read back in a variable"
                    .into()
            }
            Use::Output | Use::Partial { .. } if ty.components == 3 => format!(
                "an element of array<vec3<T>> is followed by 4 bytes of padding that a shader cannot write, so it \
                 cannot be `{role}`; use array<vec4<T>>, or array<T> with 3 elements per item (`.width`)"
            ),
            Use::Halo(0) => "a halo of 0 items was given; make it `input`".into(),
            Use::Partial { len: 0, .. } => "a length of 0 was given; it must be at least 1".into(),
            _ => return Ok(()),
        };
        Err(self.error_at(variable, problem))
    }

    fn part(&self, variable: &Variable, layout: &Layout) -> Result<()> {
        let fits = layout.members.len() == PART_MEMBERS.len()
            && layout
                .members
                .iter()
                .zip(PART_MEMBERS)
                .all(|(m, name)| m.name == name && m.ty == "u32");
        if fits {
            return Ok(());
        }
        let problem =
            format!("it is the part uniform, which must be declared as\n{PART_DECLARATION}");
        Err(self.error_at(variable, problem))
    }

    /// Checks that the bindings are consistent with each other.
    fn whole(&self, arrays: &[ArrayBinding], part: Option<u32>) -> Result<()> {
        if arrays.len() > MAX_ARRAYS {
            return Err(self.argument(format!(
                "it binds {} arrays, but Divvy binds at most {MAX_ARRAYS}; merge some",
                arrays.len()
            )));
        }
        if !arrays.iter().any(|array| array.role.writes()) {
            return Err(self.argument(
                "it writes nothing; give one of its bindings the role `output`, `update` or `partial`",
            ));
        }
        if let (Some(name), None) = (&self.description.part, part) {
            let variable = self.known(name)?;
            let problem =
                format!("it cannot be the part uniform; declare that as\n{PART_DECLARATION}");
            return Err(self.error_at(variable, problem));
        }
        if part.is_some() {
            return Ok(());
        }
        let needs_part = |name: &str, why: &str| {
            let problem = format!(
                "{why}; declare a part uniform and name it with `.part(\"part\")`:\n{PART_DECLARATION}"
            );
            Err(self.error(name, problem))
        };
        if let Some(halo) = arrays
            .iter()
            .find(|array| matches!(array.role, Use::Halo(_)))
        {
            return needs_part(
                &halo.name,
                "its role is `input_halo`, so the shader must know where a part's own items begin in it",
            );
        }
        match arrays.iter().all(|array| !array.role.is_split()) {
            true => needs_part(
                &arrays[0].name,
                "no array is split by item, so the shader must know which items are a part's own",
            ),
            false => Ok(()),
        }
    }

    fn group_items(&self) -> Result<usize> {
        let [x, y, z] = self.reflection.workgroup_size.map(|n| n as usize);
        let too_few =
            || self.argument("0 items per invocation or workgroup were given; give at least 1");
        match self.description.group_items {
            Some(GroupItems::PerInvocation(0) | GroupItems::PerWorkgroup(0)) => Err(too_few()),
            Some(GroupItems::PerWorkgroup(items)) => Ok(items),
            _ if y * z > 1 => Err(self.argument(format!(
                "the workgroup size of `{}` is {x}×{y}×{z}, but items are numbered along x; use \
                 @workgroup_size(n), or say how many items a workgroup computes with `.items_per_workgroup(n)`",
                self.reflection.entry_point
            ))),
            Some(GroupItems::PerInvocation(items)) => Ok(x.saturating_mul(items)),
            None => Ok(x),
        }
    }

    /// The halo rounded up to the grain, so that a part with its halo starts at an aligned offset in every array and
    /// all arrays have the same lead.
    fn halo(&self, items: usize, grain: usize) -> Result<usize> {
        match items.checked_next_multiple_of(grain) {
            Some(halo) if u32::try_from(halo).is_ok() => Ok(halo),
            _ => Err(self.argument(format!(
                "a halo of {items} items was given; the limit is 2^32"
            ))),
        }
    }
}

/// The declaration of the part uniform that messages show.
const PART_DECLARATION: &str = "  struct Part { first: u32, len: u32, total: u32, lead: u32 }\n  \
                                @group(0) @binding(..) var<uniform> part: Part;";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_items_fill_256_bytes() {
        for (scalars, items) in [
            (1, 64),
            (2, 32),
            (3, 64),
            (4, 16),
            (6, 32),
            (64, 1),
            (1000, 8),
            (128, 1),
        ] {
            assert_eq!(aligned_items(scalars), items, "{scalars}");
            assert_eq!(items * scalars * 4 % 256, 0);
        }
    }
}
