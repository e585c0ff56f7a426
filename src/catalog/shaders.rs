//! Every built-in shader with every pipeline that is made of it, for tools that inspect compiled code. Not part of the
//! stable interface.
//!
//! There is no second list to maintain by hand. A shader declares its pipelines at its definition (`Shader::entry`),
//! from the same tables from which a dispatch chooses. A debug build panics when a dispatch uses an undeclared
//! pipeline, so the whole test suite checks this. Tests fail when a file of `shaders/`, or a static that holds a
//! shader, is missing in [`all`].

use crate::device::gpu::self_test;
use crate::error::Result;
use crate::kernel::{BindingKind, FOLD_SHADERS, Shader};
use crate::kernels::{
    axpy, extremum, fill, fold, gemm, gemv, heat, leapfrog, nbody, scale, scan, transform, zip,
};

/// The features that a device requests, where an adapter has them.
pub use crate::device::gpu::useful_features;

/// Every built-in shader.
pub fn all() -> Vec<&'static Shader> {
    let single: [&'static Shader; 13] = [
        &axpy::SHADER,
        &extremum::SHADER,
        &fill::SHADER,
        &gemm::SHADER,
        &gemv::ROWS_SHADER,
        &gemv::COLUMNS_SHADER,
        &heat::SHADER,
        &leapfrog::SHADER,
        &nbody::SHADER,
        &scale::SHADER,
        &transform::SHADER,
        &crate::cost::CALIBRATION_SHADER,
        &self_test::SHADER,
    ];
    let typed = [&fold::SHADERS, &scan::SHADERS, &zip::SHADERS, &FOLD_SHADERS];
    let typed = typed.into_iter().flat_map(|shaders| shaders.iter());
    single.into_iter().chain(typed).collect()
}

/// The resources that an entry point of a source uses, by ascending number.
///
/// # Errors
/// [`Error::Wgsl`](crate::Error::Wgsl) if the source is not valid or has no such compute entry point.
pub fn bindings(label: &str, source: &str, entry: &str) -> Result<Vec<BindingKind>> {
    Shader::checked(label.into(), source.into(), Vec::new()).bindings(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The source without its element type: the same for all types of a shader.
    fn untyped(source: &str) -> String {
        let is_alias = |line: &&str| line.starts_with("alias T = ");
        let lines = source.lines().filter(|line| !is_alias(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_file_of_shaders_is_listed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
        let listed: Vec<String> = all().iter().map(|s| untyped(s.source())).collect();
        let mut files = 0;
        for file in std::fs::read_dir(folder).expect("the folder is there") {
            let path = file.expect("it can be read").path();
            let source = std::fs::read_to_string(&path).expect("it is text");
            let source = untyped(&source);
            assert!(listed.contains(&source), "{} is not listed", path.display());
            files += 1;
        }
        assert!(files > 10, "{files}");
    }

    /// The number of shaders that a line of Rust defines as a static.
    fn defined(line: &str) -> usize {
        let Some((_, ty)) = line.split_once(": LazyLock<") else {
            return 0;
        };
        match ty {
            // One for each element type.
            _ if ty.starts_with("TypedShaders>") => 3,
            _ => usize::from(ty.starts_with("Shader>")),
        }
    }

    fn rust_files(folder: &Path, found: &mut Vec<(String, String)>) {
        for file in std::fs::read_dir(folder).expect("the folder is there") {
            let path = file.expect("it can be read").path();
            if path.is_dir() {
                rust_files(&path, found);
            } else {
                let text = std::fs::read_to_string(&path).expect("it is text");
                found.push((path.display().to_string(), text));
            }
        }
    }

    #[test]
    fn every_shader_that_the_sources_define_is_listed() {
        let mut files = Vec::new();
        rust_files(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut files,
        );
        let mut count = 0;
        for (path, text) in &files {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let here: usize = code.lines().map(defined).sum();
            let makes = ["Shader::builtin(", "TypedShaders::new("]
                .iter()
                .any(|call| code.contains(call));
            let is_test = path.ends_with("tests.rs") || path.ends_with("shader.rs");
            assert!(
                !makes || here > 0 || is_test,
                "{path} makes a shader that is no `static ..: LazyLock<Shader>` or `LazyLock<TypedShaders>`, so this test cannot count it"
            );
            count += here;
        }
        assert_eq!(
            count,
            all().len(),
            "a static of the sources is missing in `all`"
        );
    }

    #[test]
    fn every_entry_point_is_declared_and_every_declared_one_exists() {
        for shader in all() {
            let label = shader.label();
            let module = naga::front::wgsl::parse_str(shader.source()).expect("it is valid");
            for point in &module.entry_points {
                let is_it = |s: &&crate::kernel::Specialization| s.entry == point.name;
                let declared = shader.specializations().iter().find(is_it);
                assert!(
                    declared.is_some(),
                    "{label} does not declare {}",
                    point.name
                );
            }
            for declared in shader.specializations() {
                let bindings = shader.bindings(declared.entry);
                assert!(bindings.is_ok(), "{label} lacks {}", declared.entry);
                for (name, _) in &declared.constants {
                    let is_it = |o: &naga::Override| o.name.as_deref() == Some(*name);
                    let known = module.overrides.iter().any(|(_, o)| is_it(o));
                    assert!(known, "{label} has no override {name}");
                }
            }
        }
    }

    #[test]
    fn no_pipeline_is_listed_twice() {
        let mut seen: Vec<(u64, &crate::kernel::Specialization)> = Vec::new();
        for shader in all() {
            for declared in shader.specializations() {
                let key = (shader.hash(), declared);
                assert!(!seen.contains(&key), "{} {declared:?}", shader.label());
                seen.push(key);
            }
        }
    }
}
