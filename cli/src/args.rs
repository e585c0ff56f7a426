//! Arguments that several subcommands share, as validated values.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use divvy::array::ElementType;
use divvy::catalog::{self, CATALOG, Case, Entry, Size};
use divvy::device::DeviceKind;
use divvy::units::{InvalidCount, parse_count};
use divvy::{DeviceId, Error, Placement, Runtime};

/// A kernel on random input, and where it runs.
#[derive(clap::Args)]
pub struct Job {
    /// The kernel
    #[arg(value_parser = kernel())]
    pub kernel: &'static Entry,

    /// Its size: items, bodies for all-pairs kernels, the side for matrices and grids; 65536, 64Ki, 1M and 2^20 are
    /// understood. Without it, a size that benchmarks use
    #[arg(long, value_parser = size)]
    n: Option<usize>,

    /// The element type; without it, the kernel's first
    #[arg(long, value_parser = dtype())]
    dtype: Option<ElementType>,

    /// Where it runs: auto, cpu, gpu (the first), gpu:1, split:0.25 (that share on the first GPU, the rest on the CPU)
    /// or split:gpu0=0.5,gpu1=0.3,cpu=0.2
    #[arg(long, default_value = "auto", value_name = "WHERE")]
    pub placement: Placement,

    /// Where its arrays are
    #[arg(long, value_enum, default_value_t)]
    pub residency: StartLocation,

    /// CPU threads; without it, DIVVY_THREADS or one per core
    #[arg(long)]
    threads: Option<usize>,

    /// Seed of the random input
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Where the arrays of a kernel are before it runs, and where its results are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StartLocation {
    /// Inputs start on the host and outputs are wanted there: all transfers count
    #[default]
    Host,
    /// Arrays are already where the kernel runs, and stay there
    Device,
}

impl StartLocation {
    /// Its name as an argument.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Device => "device",
        }
    }
}

impl Job {
    /// The size.
    pub fn n(&self) -> usize {
        self.n.unwrap_or_else(|| default_size(self.kernel))
    }

    /// The element type.
    pub fn dtype(&self) -> ElementType {
        self.dtype.unwrap_or(self.kernel.default_type())
    }

    /// A runtime with the given number of threads.
    pub fn runtime(&self) -> Result<Runtime, Error> {
        runtime(self.threads)
    }

    /// The kernel with its random arguments.
    pub fn bind(&self) -> Result<Box<dyn Case>, Error> {
        self.kernel.bind(self.n(), self.dtype(), self.seed)
    }
}

/// A runtime with the settings of the environment, and with `threads` CPU threads if given.
pub fn runtime(threads: Option<usize>) -> Result<Runtime, Error> {
    match threads {
        Some(threads) => Runtime::builder().threads(threads).build(),
        None => Runtime::new(),
    }
}

/// Whether a device is a software adapter: a driver that computes on the CPU's cores. Its times are not those of a GPU.
pub fn is_software(rt: &Runtime, device: DeviceId) -> bool {
    device
        .gpu()
        .and_then(|index| rt.gpus().nth(index))
        .is_some_and(|gpu| gpu.kind == DeviceKind::Software)
}

/// The size without an argument: the middle one of the benchmarks' sizes.
fn default_size(kernel: &Entry) -> usize {
    let sizes = kernel.bench_sizes;
    sizes.get(sizes.len() / 2).copied().unwrap_or(1024)
}

/// Parses the name of a kernel of the catalog.
pub fn kernel() -> impl TypedValueParser<Value = &'static Entry> {
    let names = CATALOG
        .iter()
        .map(|entry| PossibleValue::new(entry.name).help(entry.about));
    PossibleValuesParser::new(names)
        .map(|name| catalog::find(&name).expect("only names of the catalog are accepted"))
}

/// Parses the name of an element type of any kernel.
fn dtype() -> impl TypedValueParser<Value = ElementType> {
    let mut types: Vec<ElementType> = Vec::new();
    for dtype in CATALOG.iter().flat_map(Entry::element_types) {
        if !types.contains(&dtype) {
            types.push(dtype);
        }
    }
    PossibleValuesParser::new(types.iter().map(|dtype| dtype.name())).map(move |name| {
        let named = |dtype: &&ElementType| dtype.name() == name;
        *types
            .iter()
            .find(named)
            .expect("only these names are accepted")
    })
}

/// The unit of `n`, in words.
pub fn unit(size: Size) -> &'static str {
    match size {
        Size::Items => "items",
        Size::Side => "to a side",
        Size::Bodies => "bodies",
    }
}

/// Parses a size.
pub fn size(text: &str) -> Result<usize, String> {
    let n = parse_count(text).map_err(|problem| problem.to_string())?;
    usize::try_from(n).map_err(|_| InvalidCount::TooLarge.to_string())
}
