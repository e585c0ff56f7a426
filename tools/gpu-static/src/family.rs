//! A family of GPUs that are not there: how RADV is told to compile for it.

use crate::worker::{self, Identity};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Linux distributions keep the manifests of Vulkan drivers.
const MANIFESTS: [&str; 2] = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"];

/// A family that the driver knows.
pub struct Family {
    /// As it was asked for.
    pub name: String,
    /// The device and driver.
    pub identity: Identity,
    spelling: String,
    manifest: PathBuf,
}

impl Family {
    /// Looks for the driver and asks it for the family.
    pub fn find(name: &str) -> Result<Self, String> {
        let manifest = manifest().ok_or_else(|| {
            format!(
                "no manifest of Mesa's RADV (radeon_icd*.json) is in {}; on Debian or Ubuntu: apt install \
                 mesa-vulkan-drivers",
                MANIFESTS.join(" or ")
            )
        })?;
        let mut problem = String::new();
        for spelling in spellings(name) {
            match worker::identify(command(spelling, &manifest)) {
                Ok(identity) => {
                    return Ok(Self {
                        name: name.into(),
                        identity,
                        spelling: spelling.into(),
                        manifest,
                    });
                }
                Err(error) => problem = error,
            }
        }
        Err(format!(
            "RADV gives no device of the family `{name}`: {problem}"
        ))
    }

    /// A worker that compiles for this family.
    pub fn command(&self) -> Command {
        command(&self.spelling, &self.manifest)
    }
}

/// What versions of Mesa call the family.
fn spellings(name: &str) -> Vec<&str> {
    match name {
        "gfx1100" => vec!["gfx1100", "navi31"],
        "navi31" => vec!["navi31", "gfx1100"],
        other => vec![other],
    }
}

fn manifest() -> Option<PathBuf> {
    let is_radv = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("radeon_icd") && name.ends_with(".json") && !name.contains("i686")
    };
    let files = MANIFESTS
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok());
    let mut paths = files.flatten().flatten().map(|file| file.path());
    paths.find(|path| is_radv(path))
}

/// This program as a worker. The loader and RADV read these variables when they start.
fn command(family: &str, manifest: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| "gpu-static".into()));
    command
        .arg("--worker")
        .env("VK_DRIVER_FILES", manifest)
        // The same for older loaders.
        .env("VK_ICD_FILENAMES", manifest)
        .env("VK_LOADER_LAYERS_DISABLE", "~all~")
        .env("RADV_FORCE_FAMILY", family)
        .env("RADV_DEBUG", "nocache");
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // The loader complains without it.
        command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    }
    command
}
