//! The vector instruction sets of the CPU, and the only way to run a loop that is compiled for one of them.
//!
//! A program is compiled for the instructions that every processor of its architecture has. A loop that should use more
//! is a [`VectorLoop`]: [`Simd::run`] contains a copy of it for every [`InstructionSet`] and runs the copy of its own
//! set. The set is an argument, passed from the CPU device through [`CpuPart::simd`](crate::kernel::CpuPart::simd) to
//! the kernel. Nothing here is global, and nothing else in this crate asks the processor for its instruction sets.
//!
//! `scripts/vector_code.sh` disassembles every such loop and fails if one does not use the registers of its set.

mod lanes;
mod set;

pub use lanes::Lanes;
pub(crate) use lanes::Token;
pub use set::InstructionSet;

use crate::error::{Error, Result};

/// A loop with a copy for every instruction set.
///
/// `run` must be `#[inline(always)]`, and so must every function that it calls: a function that is not inlined is
/// compiled for the baseline. Pass functions as types with a trait, not as closures or function pointers, which may
/// remain calls.
///
/// ```
/// use divvy::simd::{Lanes, Simd, VectorLoop};
///
/// /// `y = x²`
/// struct Square<'a> {
///     x: &'a [f32],
///     y: &'a mut [f32],
/// }
///
/// impl VectorLoop for Square<'_> {
///     type Output = ();
///
///     #[inline(always)]
///     fn run<L: Lanes>(self, _: L) {
///         for (y, x) in self.y.iter_mut().zip(self.x) {
///             *y = x * x;
///         }
///     }
/// }
///
/// let (x, mut y) = ([1.0, 2.0, 3.0], [0.0; 3]);
/// Simd::best().run(Square { x: &x, y: &mut y });
/// assert_eq!(y, [1.0, 4.0, 9.0]);
/// ```
pub trait VectorLoop {
    /// The result of the loop.
    type Output;

    /// Runs the loop. `lanes` identifies the set for which this copy is compiled.
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// An instruction set that this processor has, with which loops run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Simd {
    token: Token,
}

impl Simd {
    /// The widest set that this processor has.
    pub fn best() -> Self {
        let token = InstructionSet::ALL
            .iter()
            .rev()
            .find_map(|set| Token::new(*set));
        Self {
            token: token.unwrap_or(Token::BASELINE),
        }
    }

    /// This set.
    ///
    /// # Errors
    /// [`Error::Setting`] if the processor lacks it, or if Divvy has no code for it on this architecture.
    pub fn new(set: InstructionSet) -> Result<Self> {
        match Token::new(set) {
            Some(token) => Ok(Self { token }),
            None => Err(Error::Setting {
                setting: "the instruction set".into(),
                given: set.to_string(),
                expected: set::expected(),
            }),
        }
    }

    /// The set that the variable `DIVVY_SIMD` names, or the widest available one if it is not set or empty.
    ///
    /// # Errors
    /// [`Error::Setting`] if it names no set, or one that this processor lacks.
    pub fn from_environment() -> Result<Self> {
        const VARIABLE: &str = "DIVVY_SIMD";
        let Some(value) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) else {
            return Ok(Self::best());
        };
        let given = value.to_string_lossy().into_owned();
        let set = given.trim().parse().ok();
        let token = set.and_then(Token::new);
        token
            .map(|token| Self { token })
            .ok_or_else(|| Error::Setting {
                setting: VARIABLE.into(),
                given,
                expected: set::expected(),
            })
    }

    /// Which set it is.
    pub fn set(self) -> InstructionSet {
        self.token.set()
    }

    /// The set, with the proof that the processor has it.
    #[inline(always)]
    pub(crate) fn token(self) -> Token {
        self.token
    }

    /// Runs the copy of the loop that is compiled for this set.
    #[inline]
    pub fn run<B: VectorLoop>(self, body: B) -> B::Output {
        match self.token {
            Token::Baseline(lanes) => baseline(Compiled { lanes, body }),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Token::Avx2(lanes) => lanes.vectorize(Compiled { lanes, body }),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Token::Avx512(lanes) => lanes.vectorize(Compiled { lanes, body }),
            #[cfg(target_arch = "aarch64")]
            Token::Neon(lanes) => lanes.vectorize(Compiled { lanes, body }),
        }
    }
}

/// A loop and the set for which this copy is compiled. `scripts/vector_code.sh` finds copies by this name.
struct Compiled<L, B> {
    lanes: L,
    body: B,
}

impl<L: Lanes, B: VectorLoop> pulp::NullaryFnOnce for Compiled<L, B> {
    type Output = B::Output;

    #[inline(always)]
    fn call(self) -> B::Output {
        self.body.run(self.lanes)
    }
}

/// A function of its own, so that the script finds this copy too.
#[inline(never)]
fn baseline<C: pulp::NullaryFnOnce>(compiled: C) -> C::Output {
    compiled.call()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reports which copy of it ran.
    struct Which;

    impl VectorLoop for Which {
        type Output = InstructionSet;

        #[inline(always)]
        fn run<L: Lanes>(self, _: L) -> InstructionSet {
            L::SET
        }
    }

    #[test]
    fn every_available_set_runs_its_own_copy() {
        for set in InstructionSet::available() {
            let simd = Simd::new(set).expect("it is available");
            assert_eq!((simd.set(), simd.run(Which)), (set, set));
        }
        assert_eq!(Simd::best().set(), InstructionSet::best());
    }

    #[test]
    fn a_missing_set_is_refused_with_the_available_ones() {
        let available = InstructionSet::available();
        let lacking = InstructionSet::ALL
            .iter()
            .filter(|set| !available.contains(set));
        // No processor has both AVX2 and NEON.
        assert!(lacking.clone().count() > 0);
        for set in lacking {
            let message = Simd::new(*set).expect_err("it is not there").to_string();
            assert!(
                message.contains(&format!("{:?}", set.to_string())),
                "{message}"
            );
            for set in &available {
                assert!(message.contains(&format!("`{set}`")), "{message}");
            }
        }
    }
}
