//! The figures of a pipeline: what the driver's statistics and the assembly say.

use crate::assembly::{self, Profile};
use crate::tap::Compiled;

/// What is told of a pipeline.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Registers of each lane.
    pub vgprs: u64,
    /// Registers of each subgroup. RADV gives every subgroup of RDNA all there are.
    pub sgprs: u64,
    /// Bytes of workgroup memory.
    pub lds: u64,
    /// Subgroups that a SIMD holds at once, by registers and workgroup memory.
    pub subgroups: u64,
    /// Registers that did not fit, of both kinds.
    pub spills: u64,
    /// Bytes of memory per lane for what did not fit registers, or was indexed by a variable.
    pub scratch: u64,
    /// Instructions.
    pub instructions: u64,
    /// What is done in loops.
    pub profile: Profile,
}

impl Figures {
    /// Takes the figures from what the driver tells.
    pub fn of(compiled: &Compiled) -> Result<Self, String> {
        let figure = |name: &str| {
            let found = compiled.statistics.iter().find(|(other, _)| other == name);
            found.map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<&str> = compiled
                    .statistics
                    .iter()
                    .map(|(name, _)| name.as_str())
                    .collect();
                format!("the driver tells no figure called `{name}`, only {names:?}")
            })
        };
        let profile = assembly::profile(assembly::text(&compiled.texts)?)?;
        let instructions = figure("Instructions")?;
        if instructions != profile.all.instructions {
            return Err(format!(
                "the driver counts {instructions} instructions, but the assembly has {}",
                profile.all.instructions
            ));
        }
        Ok(Self {
            vgprs: figure("VGPRs")?,
            sgprs: figure("SGPRs")?,
            lds: figure("LDS size")?,
            subgroups: figure("Subgroups per SIMD")?,
            spills: figure("Spilled VGPRs")? + figure("Spilled SGPRs")?,
            scratch: figure("Scratch size")?,
            instructions,
            profile,
        })
    }

    /// What must not be.
    pub fn problem(&self) -> Option<String> {
        let (spills, scratch) = (self.spills, self.scratch);
        (spills > 0 || scratch > 0).then(|| {
            format!(
                "spills {spills} registers and uses {scratch} bytes of scratch memory, expected none of both; hold fewer \
                 values at once, and index private arrays by constants only"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(spills: u64, scratch: u64) -> Compiled {
        let figures = [
            ("VGPRs", 8),
            ("SGPRs", 128),
            ("LDS size", 0),
            ("Subgroups per SIMD", 16),
            ("Spilled VGPRs", spills),
            ("Spilled SGPRs", 0),
            ("Scratch size", scratch),
            ("Instructions", 1),
        ];
        Compiled {
            statistics: figures
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
            texts: vec![("Assembly".into(), "BB0:\n\ts_endpgm\n".into())],
        }
    }

    #[test]
    fn spills_and_scratch_are_problems() {
        let problem = |spills, scratch| {
            let figures = Figures::of(&compiled(spills, scratch)).expect("all is told");
            figures.problem()
        };
        assert_eq!(problem(0, 0), None);
        assert!(problem(1, 0).is_some() && problem(0, 16).is_some());
    }

    #[test]
    fn a_figure_that_is_not_told_is_not_taken_for_0() {
        let mut told = compiled(0, 0);
        told.statistics.retain(|(name, _)| name != "Scratch size");
        let problem = Figures::of(&told).expect_err("one is missing");
        assert!(problem.contains("`Scratch size`"), "{problem}");
        let mut told = compiled(0, 0);
        told.texts.clear();
        assert!(Figures::of(&told).is_err());
    }
}
