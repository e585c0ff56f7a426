//! The call to be planned: its launch spec, and where its arrays are valid.

use crate::array::{Handle, RangeSet};
use crate::cost::learned::KernelKey;
use crate::device::DeviceId;
use crate::kernel::{Access, LaunchSpec, Role, Work};
use smallvec::SmallVec;

/// A call to be planned: its launch spec, and where its arrays are valid.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// The kernel.
    pub kernel: KernelKey<'a>,
    /// The length of the outermost axis.
    pub items: usize,
    /// Borders between parts are multiples of this: [`LaunchSpec::border_grain`].
    pub border_grain: usize,
    /// The cost of all items.
    pub work: Work,
    /// Whether the kernel has a CPU implementation.
    pub has_cpu: bool,
    /// Whether the kernel has a GPU implementation.
    pub has_gpu: bool,
    /// Bytes of the value that the run returns.
    pub returned_bytes: usize,
    /// Bytes of the kernel's largest uniform on a GPU.
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
    /// Whether the kernel reads or writes them.
    pub access: Access,
    /// Elements of the whole array.
    pub len: usize,
    /// Bytes of one element.
    pub element_bytes: usize,
    /// The elements that are valid on each device.
    pub residency: ValidRanges,
    /// The share of the written elements that the host is expected to read before they are written again, from 0 to 1.
    pub read_back: f64,
}

/// The elements of an array that are valid on each device; [`DeviceId::Cpu`] means the host's memory. A device that is
/// not listed holds none.
pub type ValidRanges = SmallVec<[(DeviceId, RangeSet); 2]>;

impl<'a> Request<'a> {
    /// The request for a launch spec. `residency` returns where an array is valid, `read_back` the share of it that the
    /// host is expected to read afterwards.
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
