//! What is to be planned: a call's outline, and where its arrays are valid.

use crate::array::{Handle, RangeSet};
use crate::cost::learned::KernelKey;
use crate::device::DeviceId;
use crate::kernel::{Access, LaunchSpec, Role, Work};
use smallvec::SmallVec;

/// What is to be planned: the outline of a call, and where its arrays are valid.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// The kernel.
    pub kernel: KernelKey<'a>,
    /// The length of the outermost axis.
    pub items: usize,
    /// What borders between parts are multiples of: [`LaunchSpec::border_grain`].
    pub border_grain: usize,
    /// What all items cost.
    pub work: Work,
    /// Whether the CPU can run it.
    pub has_cpu: bool,
    /// Whether GPUs can run it.
    pub has_gpu: bool,
    /// Bytes that the caller gets as a value after the run.
    pub returned_bytes: usize,
    /// Bytes of the largest uniform that a GPU needs for it.
    pub uniform_bytes: usize,
    /// The arrays.
    pub operands: SmallVec<[Operand; 4]>,
}

/// An array of a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Operand {
    /// Which elements belong to a range of items.
    pub role: Role,
    /// What happens to them.
    pub access: Access,
    /// Elements of the whole array.
    pub len: usize,
    /// Bytes of one element.
    pub element_bytes: usize,
    /// Where which elements are valid.
    pub residency: ValidRanges,
    /// The share of what is written that the host is expected to read before it is written again, from 0 to 1.
    pub read_back: f64,
}

/// The elements of an array that are valid on each device; [`DeviceId::Cpu`] stands for the host's memory.
/// A device that is not listed holds none.
pub type ValidRanges = SmallVec<[(DeviceId, RangeSet); 2]>;

impl<'a> Request<'a> {
    /// The request for a kernel's outline; `residency` says where an array is valid, `read_back` how much of it is
    /// expected to be read on the host afterwards.
    pub fn new(
        name: &'a str,
        implementation: u64,
        spec: &LaunchSpec,
        residency: impl Fn(&Handle) -> ValidRanges,
        read_back: impl Fn(&Handle) -> f64,
    ) -> Self {
        let operands = spec.bindings.iter().map(|binding| Operand {
            role: binding.role,
            access: binding.access,
            len: binding.array.len(),
            element_bytes: binding.array.element_type().size(),
            residency: residency(&binding.array),
            read_back: if binding.access.writes() {
                read_back(&binding.array)
            } else {
                0.0
            },
        });
        Self {
            kernel: KernelKey {
                name,
                element_type: spec.element_type(),
                implementation,
            },
            items: spec.items,
            border_grain: spec.border_grain(),
            work: spec.work(),
            has_cpu: spec.has_cpu,
            has_gpu: spec.has_gpu,
            returned_bytes: spec.returned_bytes,
            uniform_bytes: spec.uniform_bytes,
            operands: operands.collect(),
        }
    }
}
