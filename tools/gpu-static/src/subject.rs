//! What is compiled: an entry point of a shader with values for its override constants.

use divvy::catalog::shaders;
use divvy::kernel::{BindingKind, Shader};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A pipeline to be looked at.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// The shader's name.
    pub label: String,
    /// Its WGSL.
    pub source: String,
    /// The entry point.
    pub entry: String,
    /// Values of override constants.
    pub constants: Vec<(String, f64)>,
}

impl Subject {
    /// Every pipeline of every built-in shader, as the library declares them.
    pub fn all() -> Vec<Self> {
        let of = |shader: &'static Shader| {
            let subject = move |wanted: &divvy::kernel::Specialization| {
                let constants = wanted.constants.iter();
                Self {
                    label: shader.label().to_owned(),
                    source: shader.source().to_owned(),
                    entry: wanted.entry.to_owned(),
                    constants: constants
                        .map(|(name, value)| ((*name).into(), *value))
                        .collect(),
                }
            };
            shader.specializations().iter().map(subject)
        };
        shaders::all().into_iter().flat_map(of).collect()
    }

    /// Every entry point of a WGSL file, with its constants at their defaults.
    pub fn of_file(path: &Path) -> Result<Vec<Self>, String> {
        let name = path.display();
        let source =
            std::fs::read_to_string(path).map_err(|e| format!("{name} cannot be read: {e}"))?;
        let module = naga::front::wgsl::parse_str(&source)
            .map_err(|e| format!("{name}: {}", e.emit_to_string(&source)))?;
        let label = path.file_stem().unwrap_or_default().to_string_lossy();
        let subject = |point: &naga::EntryPoint| Self {
            label: label.clone().into_owned(),
            source: source.clone(),
            entry: point.name.clone(),
            constants: Vec::new(),
        };
        let subjects: Vec<Self> = module.entry_points.iter().map(subject).collect();
        if subjects.is_empty() {
            return Err(format!(
                "{name} has no entry point; give one a `@compute` attribute"
            ));
        }
        Ok(subjects)
    }

    /// The element type of a typed shader.
    pub fn element_type(&self) -> Option<&str> {
        let line = self
            .source
            .lines()
            .find(|line| line.starts_with("alias T = "))?;
        line.strip_prefix("alias T = ")?.strip_suffix(';')
    }

    /// The shader, its element type and the entry point, unless that is `main`.
    pub fn name_of_entry(&self) -> String {
        let mut name = self.label.clone();
        if let Some(ty) = self.element_type() {
            name = format!("{name}<{ty}>");
        }
        if self.entry != "main" {
            name = format!("{name} {}", self.entry);
        }
        name
    }

    /// Its name in tables: the same with the constants.
    pub fn name(&self) -> String {
        let mut name = self.name_of_entry();
        for (constant, value) in &self.constants {
            name = format!("{name} {constant}={value}");
        }
        name
    }

    /// The resources that the entry point uses.
    pub fn bindings(&self) -> divvy::Result<Vec<BindingKind>> {
        shaders::bindings(&self.label, &self.source, &self.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_all_pipelines_apart() {
        let mut names: Vec<String> = Subject::all().iter().map(Subject::name).collect();
        let all = names.len();
        assert!(all > 100, "{all}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(
            names.contains(&"scan<u32> scan_tile".to_owned()),
            "{names:?}"
        );
        assert!(
            names.contains(&"nbody SLICES=64 CAREFUL=1".to_owned()),
            "{names:?}"
        );
    }
}
