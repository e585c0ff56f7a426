//! Whether an adapter computes what it should: a small dispatch whose results are known to the bit. A driver that gets
//! this wrong may get anything wrong, so the device is not used.

use super::dispatch::{Dispatch, EntryPoint, Window};
use super::gpu::Gpu;
use super::shader::Shader;
use crate::error::{Error, Result};
use std::sync::LazyLock;

pub(crate) static SHADER: LazyLock<Shader> = LazyLock::new(|| {
    Shader::builtin("self_test", include_str!("../../../shaders/self_test.wgsl")).entry("main", &[])
});

/// More than one, so that they must not disturb each other; few, so that it takes no time, and the results fit where little
/// can be bound.
const GROUPS: usize = 16;
/// As in the shader.
const LANES: usize = 256;
const SEED: u32 = 0x5eed;

/// Runs the test.
///
/// # Errors
/// [`Error::Gpu`] if a result is wrong, and whatever the device reports.
pub(super) fn run(gpu: &Gpu) -> Result<()> {
    // A result that the GPU does not write must not be right by chance.
    let mut found = [[u32::MAX; 2]; GROUPS];
    let bytes = size_of_val(&found) as u64;
    let buffer = gpu.allocate(bytes)?;
    gpu.upload(&buffer, 0, bytemuck::bytes_of(&found))?;
    let results = Window {
        buffer,
        offset: 0,
        bytes,
    };
    gpu.dispatch(&Dispatch {
        entry_point: EntryPoint {
            shader: &SHADER,
            name: "main",
            constants: &[],
        },
        uniforms: &[bytemuck::bytes_of(&SEED)],
        windows: std::slice::from_ref(&results),
        grid: [GROUPS as u32, 1, 1],
    })?;
    gpu.download(&results.buffer, 0, bytemuck::bytes_of_mut(&mut found))?;
    check(&found).map_err(|problem| Error::Gpu {
        device: gpu.name().into(),
        message: format!("it fails the self-test: {problem}"),
    })
}

/// Compares what came out with what must.
fn check(results: &[[u32; 2]]) -> Result<(), String> {
    for (group, result) in results.iter().enumerate() {
        let [word, float] = expected(group as u32);
        if result[0] != word {
            let given = result[0];
            return Err(format!(
                "integers fold to {given:#010x} in workgroup {group}, which should be {word:#010x}"
            ));
        }
        if result[1] != float {
            let [given, float] = [result[1], float].map(f32::from_bits);
            return Err(format!(
                "numbers sum to {given} in workgroup {group}, which should be {float} to the bit"
            ));
        }
    }
    Ok(())
}

/// What a workgroup folds its numbers to.
fn expected(group: u32) -> [u32; 2] {
    let mixed = |number: u32| {
        let x = (number ^ number >> 16).wrapping_mul(0x85eb_ca6b);
        let x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
        x ^ x >> 16
    };
    let first = SEED.wrapping_add(group * LANES as u32);
    let mut words: Vec<u32> = (0..LANES as u32).map(|lane| mixed(first + lane)).collect();
    let mut floats: Vec<f32> = words
        .iter()
        .map(|word| (word >> 8) as f32 / (1 << 24) as f32)
        .collect();
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            words[lane] = words[lane]
                .wrapping_mul(31)
                .wrapping_add(words[lane + half]);
            floats[lane] += floats[lane + half];
        }
        half /= 2;
    }
    [words[0], floats[0].to_bits()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_bit_is_found_and_told() {
        let right: Vec<[u32; 2]> = (0..GROUPS as u32).map(expected).collect();
        assert_eq!(check(&right), Ok(()));
        for (group, kind) in [(0, 0), (GROUPS / 2, 1), (GROUPS - 1, 0), (GROUPS - 1, 1)] {
            let mut wrong = right.clone();
            wrong[group][kind] ^= 1;
            let problem = check(&wrong).expect_err("a bit is wrong");
            assert!(
                problem.contains(&format!("workgroup {group},")),
                "{problem}"
            );
        }
        assert!(check(&[[u32::MAX; 2]; GROUPS]).is_err());
    }
}
