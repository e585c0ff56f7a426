//! Random sequences of kernel calls, host reads and host writes at random placements, compared with plain `Vec`s.

use divvy::array::Array;
use divvy::kernels::{Binary, axpy, exclusive_scan, fill, inclusive_scan, max, sum, zip};
use divvy::{DeviceId, Placement, Runtime};
use proptest::prelude::*;

/// Arrays of each type in a program.
const ARRAYS: usize = 3;

/// One operation of a program.
#[derive(Clone, Debug)]
pub enum Step {
    Fill(usize, u32),
    Zip(Binary, usize, usize, usize),
    InclusiveScan(usize, usize),
    ExclusiveScan(usize, usize),
    Sum(usize),
    Max(usize),
    /// y = x + y or y = -x + y on the f32 arrays, which round the same on every device.
    AddTo(bool, usize, usize),
    SumFloats(usize),
    Read(usize, Span),
    Write(usize, Span, u32),
    ReadFloats(usize),
    WriteFloats(usize, Span, u16),
}

/// A range of an array, independent of the array's length.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Its start, as a share of the array.
    start: f64,
    /// Its length, as a share of the elements after the start.
    len: f64,
}

impl Span {
    /// The range in an array of `n` elements.
    fn of(self, n: usize) -> std::ops::Range<usize> {
        let start = (n as f64 * self.start) as usize;
        start..start + ((n - start) as f64 * self.len) as usize
    }
}

pub fn step() -> impl Strategy<Value = Step> {
    let array = || 0..ARRAYS;
    let span = || (0.0..1.0f64, 0.0..1.0f64).prop_map(|(start, len)| Span { start, len });
    let binary = prop::sample::select(vec![Binary::Add, Binary::Sub, Binary::Mul, Binary::Min]);
    prop_oneof![
        (array(), any::<u32>()).prop_map(|(a, v)| Step::Fill(a, v)),
        (binary, array(), array(), array()).prop_map(|(op, a, b, c)| Step::Zip(op, a, b, c)),
        (array(), array()).prop_map(|(a, b)| Step::InclusiveScan(a, b)),
        (array(), array()).prop_map(|(a, b)| Step::ExclusiveScan(a, b)),
        array().prop_map(Step::Sum),
        array().prop_map(Step::Max),
        (any::<bool>(), array(), array()).prop_map(|(s, a, b)| Step::AddTo(s, a, b)),
        array().prop_map(Step::SumFloats),
        (array(), span()).prop_map(|(a, span)| Step::Read(a, span)),
        (array(), span(), any::<u32>()).prop_map(|(a, span, v)| Step::Write(a, span, v)),
        array().prop_map(Step::ReadFloats),
        (array(), span(), any::<u16>()).prop_map(|(a, span, v)| Step::WriteFloats(a, span, v)),
    ]
}

/// A placement as the number of a device, or the share of the GPU in a split and whether the CPU comes first.
fn placement(choice: u8, share: f64, gpu: bool) -> Placement {
    if !gpu {
        return Placement::Cpu;
    }
    let mut shares = vec![(DeviceId::Gpu(0), share), (DeviceId::Cpu, 1.0 - share)];
    match choice % 5 {
        0 => Placement::Cpu,
        1 => Placement::Gpu(0),
        2 => Placement::Auto,
        3 => Placement::Split(shares),
        _ => {
            shares.reverse();
            Placement::Split(shares)
        }
    }
}

/// Distinct elements of a slice: one to change and others to read.
fn pick<T>(all: &mut [T], read: [usize; 2], write: usize) -> Option<([&T; 2], &mut T)> {
    if read.contains(&write) {
        return None;
    }
    let (low, rest) = all.split_at_mut(write);
    let (target, high) = rest.split_first_mut()?;
    let find = |i: usize| {
        if i < write {
            &low[i]
        } else {
            &high[i - write - 1]
        }
    };
    Some((read.map(find), target))
}

/// Compares elements with the expected ones, and reports the first that differs.
fn same<T: Copy + PartialEq + std::fmt::Debug>(
    got: &[T],
    want: &[T],
    what: &dyn std::fmt::Debug,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.len(), want.len());
    let differ = |at: &usize| got[*at] != want[*at];
    let count = (0..got.len()).filter(differ).count();
    if let Some(at) = (0..got.len()).find(differ) {
        let last = (0..got.len()).rfind(differ).unwrap_or(at);
        let (got, want) = (got[at], want[at]);
        prop_assert!(
            false,
            "{what:?}: {got:?} at {at} is not {want:?}; {count} elements differ, the last at {last}"
        );
    }
    Ok(())
}

/// Runs a program on arrays of `n` elements, and compares everything that it reads. Calls `before` with the number of
/// each step.
pub fn run(
    rt: &Runtime,
    n: usize,
    steps: &[(Step, u8, f64)],
    mut before: impl FnMut(usize),
) -> Result<(), TestCaseError> {
    let gpu = super::has_gpu(rt);
    let seed: Vec<u32> = (0..n as u32)
        .map(|i| i.wrapping_mul(2_654_435_761))
        .collect();
    let floats: Vec<f32> = seed.iter().map(|x| (x >> 20) as f32 - 2048.0).collect();
    let mut want = vec![seed.clone(); ARRAYS];
    let mut want_floats = vec![floats.clone(); ARRAYS];
    let mut got: Vec<Array<u32>> = (0..ARRAYS).map(|_| rt.array_from(&seed).unwrap()).collect();
    let mut got_floats: Vec<Array<f32>> = (0..ARRAYS)
        .map(|_| rt.array_from(&floats).unwrap())
        .collect();
    for (number, (step, choice, share)) in steps.iter().enumerate() {
        before(number);
        let on = placement(*choice, *share, gpu);
        match *step {
            Step::Fill(a, value) => {
                want[a].fill(value);
                rt.run(fill(value, &mut got[a]).on(on)).unwrap();
            }
            Step::Zip(op, a, b, c) => {
                let Some(([x, y], z)) = pick(&mut got, [a, b], c) else {
                    continue;
                };
                rt.run(zip(op, x, y, z).on(on)).unwrap();
                let Some(([x, y], z)) = pick(&mut want, [a, b], c) else {
                    continue;
                };
                for ((z, x), y) in z.iter_mut().zip(x).zip(y) {
                    *z = match op {
                        Binary::Add => x.wrapping_add(*y),
                        Binary::Sub => x.wrapping_sub(*y),
                        Binary::Mul => x.wrapping_mul(*y),
                        _ => *x.min(y),
                    };
                }
            }
            Step::InclusiveScan(a, b) | Step::ExclusiveScan(a, b) => {
                let inclusive = matches!(step, Step::InclusiveScan(..));
                let Some(([x, _], y)) = pick(&mut got, [a, a], b) else {
                    continue;
                };
                if inclusive {
                    rt.run(inclusive_scan(x, y).on(on)).unwrap();
                } else {
                    rt.run(exclusive_scan(x, y).on(on)).unwrap();
                }
                let Some(([x, _], y)) = pick(&mut want, [a, a], b) else {
                    continue;
                };
                let mut carry = 0u32;
                for (y, x) in y.iter_mut().zip(x) {
                    let next = carry.wrapping_add(*x);
                    *y = if inclusive { next } else { carry };
                    carry = next;
                }
            }
            Step::Sum(a) => {
                let total = want[a].iter().fold(0u32, |s, x| s.wrapping_add(*x));
                prop_assert_eq!(rt.run(sum(&got[a]).on(on)).unwrap().value, total);
            }
            Step::Max(a) => {
                let most = want[a].iter().max().copied();
                prop_assert_eq!(rt.run(max(&got[a]).on(on)).unwrap().value, most);
            }
            Step::AddTo(negative, a, b) => {
                let alpha = if negative { -1.0 } else { 1.0 };
                let Some(([x, _], y)) = pick(&mut got_floats, [a, a], b) else {
                    continue;
                };
                rt.run(axpy(alpha, x, y).on(on)).unwrap();
                let Some(([x, _], y)) = pick(&mut want_floats, [a, a], b) else {
                    continue;
                };
                y.iter_mut().zip(x).for_each(|(y, x)| *y += alpha * x);
            }
            Step::SumFloats(a) => {
                // The fixed tree: every placement gives what the CPU gives on the expected values.
                let expected = rt.array_from(&want_floats[a]).unwrap();
                let expected = rt.run(sum(&expected).on(Placement::Cpu)).unwrap().value;
                let value = rt.run(sum(&got_floats[a]).on(on)).unwrap().value;
                prop_assert_eq!(value.to_bits(), expected.to_bits());
            }
            Step::Read(a, span) => {
                let range = span.of(n);
                same(
                    &got[a].read_range(range.clone()).unwrap(),
                    &want[a][range],
                    step,
                )?;
            }
            Step::Write(a, span, value) => {
                let range = span.of(n);
                want[a][range.clone()].fill(value);
                got[a].write_range(range).unwrap().fill(value);
            }
            Step::ReadFloats(a) => {
                same(&got_floats[a].read().unwrap(), &want_floats[a], step)?;
            }
            Step::WriteFloats(a, span, value) => {
                let range = span.of(n);
                want_floats[a][range.clone()].fill(f32::from(value));
                got_floats[a]
                    .write_range(range)
                    .unwrap()
                    .fill(f32::from(value));
            }
        }
    }
    for (got, want) in got.iter().zip(&want) {
        same(&got.read().unwrap(), want, &"at the end")?;
    }
    for (got, want) in got_floats.iter().zip(&want_floats) {
        same(&got.read().unwrap(), want, &"at the end")?;
    }
    Ok(())
}
