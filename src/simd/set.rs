//! The names of instruction sets, and which of them this machine has.

use super::lanes::Token;
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A vector instruction set for which Divvy's loops are compiled. Of two sets of one processor, the greater is the
/// wider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum InstructionSet {
    /// The instructions that every processor of the architecture has: SSE2 on x86-64.
    Baseline,
    /// AVX2 with FMA: vectors of 32 bytes. The level x86-64-v3, without F16C and MOVBE.
    Avx2,
    /// AVX-512 F, BW, CD, DQ and VL: vectors of 64 bytes. The level x86-64-v4.
    Avx512,
    /// NEON on 64-bit ARM: vectors of 16 bytes. Untested: no machine on which Divvy is tested has it.
    Neon,
}

impl InstructionSet {
    /// All sets, in ascending order.
    pub const ALL: &'static [Self] = &[Self::Baseline, Self::Avx2, Self::Avx512, Self::Neon];

    /// The sets of this processor, in ascending order. The baseline is always among them.
    pub fn available() -> Vec<Self> {
        let all = Self::ALL.iter().copied();
        all.filter(|set| Token::new(*set).is_some()).collect()
    }

    /// The widest set of this processor.
    pub fn best() -> Self {
        super::Simd::best().set()
    }

    /// Its name in `DIVVY_SIMD`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for InstructionSet {
    type Err = Error;

    /// Parses an [`InstructionSet::name`], whether or not this processor has the set.
    fn from_str(text: &str) -> Result<Self, Error> {
        let named = Self::ALL.iter().find(|set| set.name() == text);
        named.copied().ok_or_else(|| Error::Setting {
            setting: "the instruction set".into(),
            given: text.into(),
            expected: one_of(Self::ALL),
        })
    }
}

/// The values that the setting accepts on this machine, for messages.
pub(super) fn expected() -> String {
    let available = InstructionSet::available();
    format!("{}, which this processor has", one_of(&available))
}

/// `a`, `b` or `c`
fn one_of(sets: &[InstructionSet]) -> String {
    let names: Vec<String> = sets.iter().map(|set| format!("`{set}`")).collect();
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => names.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_other_texts_are_refused() {
        for set in InstructionSet::ALL {
            assert_eq!(
                set.to_string().parse::<InstructionSet>().expect("a name"),
                *set
            );
        }
        for text in ["", "AVX2", "avx-512", "sse2", " avx2"] {
            let error = text
                .parse::<InstructionSet>()
                .expect_err("no name")
                .to_string();
            let all = "`baseline`, `avx2`, `avx512` or `neon`";
            assert!(
                error.contains(&format!("{text:?}")) && error.contains(all),
                "{error}"
            );
        }
    }

    #[test]
    fn available_sets_ascend_from_the_baseline_to_the_best() {
        let available = InstructionSet::available();
        assert_eq!(available.first(), Some(&InstructionSet::Baseline));
        assert_eq!(available.last(), Some(&InstructionSet::best()));
        assert!(available.is_sorted());
    }

    /// The instructions that the documentation promises for each name, checked with the processor alone.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn sets_are_available_exactly_where_all_their_instructions_are() {
        use std::arch::is_x86_feature_detected as has;
        let avx2 = has!("avx2")
            && has!("fma")
            && has!("bmi1")
            && has!("bmi2")
            && has!("lzcnt")
            && has!("popcnt");
        let avx512 = has!("avx512f")
            && has!("avx512bw")
            && has!("avx512cd")
            && has!("avx512dq")
            && has!("avx512vl");
        let available = InstructionSet::available();
        assert_eq!(available.contains(&InstructionSet::Avx2), avx2);
        assert_eq!(available.contains(&InstructionSet::Avx512), avx2 && avx512);
        assert!(!available.contains(&InstructionSet::Neon));
    }
}
