"""Every loop that is meant to be vector code, and every kernel: the one list of both.

A loop is a type that implements `divvy::simd::VectorLoop`; the library holds a copy of it for each instruction set. It
is given by the end of its path and the instructions that it is for, without the `v` of AVX: some of them must be
found, on whole registers, in an innermost loop of each copy. A loop in the library that no row describes is a failure.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    loop: str  # a regular expression for the loop's type
    instructions: str  # a regular expression for mnemonics
    excuse: str = ""  # why it is not vector code, if it need not be
    excused_sets: tuple = ("baseline", "avx2", "avx512")


MULTIPLY_ADD = r"mulps|fmadd\d+ps"
F32, INTEGER = "f32", "[ui]32"

LOOPS = [
    Row(r"axpy::AddScaled", MULTIPLY_ADD),
    Row(r"transform::Map<.*::Neg>", r"xorps|pxord?|xorpd"),
    Row(r"transform::Map<.*::Abs>", r"andps|pandd?|andpd"),
    Row(r"transform::Map<.*::Sqrt>", r"sqrtps"),
    Row(r"transform::Map<.*::(Exp|Ln|Tanh)>", r"mulps"),
    Row(r"transform::Map<.*::Square>", r"mulps"),
    Row(r"transform::Map<.*::Reciprocal>", r"divps"),
    Row(r"transform::Sines", r"mulps"),
    Row(rf"zip::Combine<{F32}, .*::Add>", r"addps"),
    Row(rf"zip::Combine<{F32}, .*::Sub>", r"subps"),
    Row(rf"zip::Combine<{F32}, .*::Mul>", r"mulps"),
    Row(rf"zip::Combine<{F32}, .*::Div>", r"divps"),
    Row(rf"zip::Combine<{INTEGER}, .*::Add>", r"paddd"),
    Row(rf"zip::Combine<{INTEGER}, .*::Sub>", r"psubd"),
    Row(rf"zip::Combine<{INTEGER}, .*::Mul>", r"pmulld|pmuludq"),
    Row(rf"zip::Combine<{INTEGER}, .*::Div>", r"", excuse="no vector instruction divides integers"),
    Row(r"zip::Combine<.*::(Min|Max)>", r"pminud|pmaxud|pcmpgtd|pcmpn?l[te]u?d|pminsd|pmaxsd|pcmpud|pcmpd"),
    Row(r"fill::Store<", r"mov[ua]ps|movdq[ua](32|64)?"),
    Row(r"scale::Scale", r"mulps"),
    Row(rf"tree::BlockSums<{F32}, .*", r"addps"),
    Row(rf"tree::BlockSums<{INTEGER}, .*", r"paddd"),
    Row(r"extremum::LowestRanks<", r"pminud|pcmpgtd|pminsd"),
    Row(r"extremum::FirstStride<", r"pcmpn?eqd|ptestn?md|pcmpd"),
    Row(rf"prefix::TileTotals<{F32}>", r"addps|haddps"),
    Row(rf"prefix::TileTotals<{INTEGER}>", r"paddd|phaddd"),
    Row(rf"prefix::ScanTiles<{F32}>", r"addps"),
    Row(rf"prefix::ScanTiles<{INTEGER}>", r"paddd"),
    Row(r"gemv::Rows", MULTIPLY_ADD),
    Row(r"gemv::AddUp", MULTIPLY_ADD),
    Row(r"gemv::StoreSums<.*", r"addps"),
    Row(r"nbody::pairs::Attract", MULTIPLY_ADD),
    Row(r"nbody::energy::Attraction", r"sqrtpd"),
    Row(r"leapfrog::Advance", MULTIPLY_ADD),
    Row(r"heat::rows::Rows", MULTIPLY_ADD),
    Row(rf"custom::fold::FoldIn<{F32}>", r"addps"),
    Row(rf"custom::fold::FoldIn<{INTEGER}>", r"paddd"),
    Row(r"calibrate::cpu::Axpy", MULTIPLY_ADD),
    Row(r"calibrate::cpu::Chains", MULTIPLY_ADD),
]

# Functions of the `gemm` crate and their counterpart for the baseline, which are no `VectorLoop`: by instruction set.
MICROKERNELS = {
    "baseline": r"divvy::kernels::gemm::cpu::sse2::microkernel",
    "avx2": r"gemm_f32::microkernel::fma::f32::x[12]x[1-6]",
    "avx512": r"gemm_f32::microkernel::avx512f::f32::x[1-4]x[1-6]",
}

# Every pass of the library and the loops that it runs on the CPU, as `Pass for NAME` in the sources has it.
PASSES = {
    "Axpy": ["axpy::AddScaled"],
    "Transform": ["transform::Map", "transform::Sines"],
    "Zip": ["zip::Combine"],
    "Fill": ["fill::Store"],
    "BlockSums": ["tree::BlockSums"],
    "BlockBests": ["extremum::LowestRanks", "extremum::FirstStride"],
    "TileTotals": ["prefix::TileTotals"],
    "ScanTiles": ["prefix::ScanTiles"],
    "Gemm": ["microkernels", "scale::Scale"],
    "Gemv": ["gemv::Rows", "gemv::AddUp", "gemv::StoreSums", "scale::Scale"],
    "NBody": ["nbody::pairs::Attract"],
    "HalfStep": ["leapfrog::Advance"],
    "HeatStep": ["heat::rows::Rows"],
    "FoldPass": ["custom::fold::FoldIn<"],
}

# Passes without a loop of their own that should be vector code, and why.
EXCUSED_PASSES = {
    "ItemsPass": "it calls the user's closure",
}
