//! Which public types may be sent to other threads and shared by them: all, but for those that are listed as not. What is
//! said here is checked by the compiler; a test makes sure that no public type is forgotten.

use divvy::array::{
    Array, ElementType, Handle, Matrix, MatrixMut, RangeSet, ReadGuard, WriteGuard,
};
use divvy::checkpoint::{Checkpoint, SavedArray, SavedCheckpoint};
use divvy::cost::{self, learned, machine, prior, profile};
use divvy::device;
use divvy::kernel;
use divvy::{Runtime, RuntimeBuilder};
use divvy::{catalog, kernels};
use divvy::{plan, sim, simd};
use std::path::Path;

const fn is_send<T: Send + ?Sized>() {}
const fn is_sync<T: Sync + ?Sized>() {}

/// Fails to compile unless each type is `Send` and `Sync`.
macro_rules! send_and_sync {
    ($($T:ty),* $(,)?) => { const _: () = { $(is_send::<$T>(); is_sync::<$T>();)* }; };
}

/// Fails to compile unless each type is `Send` and not `Sync`: the name of a function that is there twice for types that are
/// `Sync` cannot be resolved.
macro_rules! send_and_not_sync {
    ($($T:ty),* $(,)?) => { $(const _: () = {
        trait Twice<Which> {
            fn name() {}
        }
        impl<T: ?Sized> Twice<()> for T {}
        struct IsSync;
        impl<T: ?Sized + Sync> Twice<IsSync> for T {}
        is_send::<$T>();
        let _ = <$T as Twice<_>>::name;
    };)* };
}

send_and_sync! {
    Array<f32>, Array<u32>, Array<i32>, ElementType, Handle, Matrix<'static, f32>, MatrixMut<'static, f32>, RangeSet,
    ReadGuard<'static, f32>, WriteGuard<'static, f32>,
    divvy::array::UnsupportedElementsDoNotCompile,
    Checkpoint<'static>, SavedArray<'static>, SavedCheckpoint,
    Runtime, RuntimeBuilder, divvy::Difference, divvy::Durability, divvy::Error, divvy::Mismatch, divvy::PartReport,
    divvy::Placement, divvy::ProfileProblem, divvy::Report, divvy::Run<f32>, divvy::units::InvalidCount,
}

send_and_sync! {
    cost::Calibration, cost::Step, cost::Thoroughness,
    machine::Bound, machine::CoRun, machine::Curve, machine::DeviceModel, machine::Engine, machine::Limits, machine::Link,
    machine::LinkLine, machine::Machine,
    prior::Demand, prior::Prediction,
    learned::ExplorationBudget, learned::Variant, learned::RunConditions, learned::ClassRecord, learned::LearnedFactor,
    learned::PerfModel, learned::KernelKey<'static>, learned::Learner, learned::Record, learned::Sample,
    profile::Cleared, profile::CoRunEntry, profile::DeviceEntry, profile::DeviceKey, profile::LearnedEntry,
    profile::Location, profile::Merged, profile::Parsed, profile::Profile,
}

send_and_sync! {
    device::DeviceId, device::DeviceKind, device::DeviceSet, device::FaultPoint, device::Faults, device::GpuInfo, device::GpuLimits,
    device::GpuMemory, device::UnusableGpu, divvy::array::TransferBytes,
    sim::Calibration, sim::Change, sim::Noise, sim::SimulatedDevice, sim::SimulatedKernel, sim::SimulatedMachine,
    sim::SimulatedPair, sim::Table,
    sim::SimulatedCase, sim::Options, sim::Outcome, sim::PartShare, sim::Recovery, sim::DataLocation, sim::Row, sim::Score, sim::Sums,
}

send_and_sync! {
    plan::Alternative, plan::AlternativePart, plan::Evidence, plan::Exclusion, plan::Explanation, plan::PlannerInput,
    plan::Measured, plan::Objective, plan::Operand, plan::Plan, plan::PlannedPart, plan::Policy, plan::Request<'static>,
}

send_and_sync! {
    kernel::Access, kernel::Binding, kernel::BoundWgsl, kernel::Call<'static, kernels::axpy::Axpy>, kernel::CpuPart<'static>,
    kernel::CpuTasks, kernel::Fold, kernel::GpuArg, kernel::GpuPart<'static>, kernel::LaunchSpec, kernel::PartItems,
    kernel::Role, kernel::Tolerance, kernel::WgslKernel, kernel::WgslKernelBuilder, kernel::Work,
    kernel::BindingKind, kernel::ErrorBound, kernel::Exact, kernel::Shader, kernel::Specialization,
    kernel::Execution<'static>,
}

send_and_sync! {
    kernels::axpy::Axpy, kernels::dot::Product, kernels::extremum::ArgMax, kernels::extremum::ArgMin,
    kernels::extremum::Extremum<f32, kernels::extremum::Min>, kernels::extremum::Max, kernels::extremum::Min,
    kernels::fill::Fill<f32>, kernels::fold::Reduction<f32, kernels::sum::Itself, 1>, kernels::gemm::Gemm, kernels::gemv::Gemv,
    kernels::heat::HeatStep, kernels::leapfrog::Leapfrog, kernels::nbody::NBody, kernels::scan::Scan<f32>,
    kernels::sum::Itself, kernels::transform::Transform, kernels::zip::Zip<f32>,
    kernels::Binary, kernels::Border, kernels::Energy, kernels::Unary,
    simd::InstructionSet, simd::Simd,
    catalog::Check, catalog::Entry, catalog::Generator, catalog::Size,
}

send_and_not_sync! {
    // One call of a closure on one thread: an array is handed out for writing once.
    kernel::WgslArgs<'static>,
    // A case runs its kernel and then checks what that run left, so two threads cannot share it.
    dyn catalog::Case,
}

/// Types that are declared `pub` in a private module, for other modules of the library.
const INTERNAL: [&str; 4] = ["Clock", "Line", "Reading", "Token"];

/// The name of the type that a line declares as `pub`, if it does.
fn declared(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub ")?;
    let name = ["struct ", "enum ", "union "]
        .iter()
        .find_map(|keyword| rest.strip_prefix(keyword))?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()
}

/// The types that the files below a folder declare as `pub`.
fn public_types(folder: &Path) -> Vec<String> {
    let mut types = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            types.extend(public_types(&path));
        } else {
            let text = std::fs::read_to_string(&path).expect("a source");
            types.extend(text.lines().filter_map(declared).map(str::to_owned));
        }
    }
    types
}

#[test]
fn no_public_type_is_forgotten() {
    let asserted = include_str!("send_sync.rs");
    let words: Vec<&str> = asserted
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect();
    let types = public_types(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(types.len() > 100, "only {types:?} were found");
    let forgotten: Vec<_> = types
        .iter()
        .filter(|name| !words.contains(&name.as_str()))
        .collect();
    assert!(
        forgotten.is_empty(),
        "say here whether they are Send and Sync: {forgotten:?}"
    );
    let gone = INTERNAL
        .iter()
        .filter(|name| types.iter().all(|other| other != *name));
    assert_eq!(gone.count(), 0, "a type of INTERNAL is gone");
}
