//! What a call is predicted to cost on each device.
//!
//! The figures of a machine ([`Machine`]), how they are measured (`calibrate`) and kept ([`profile`]), and how seconds
//! follow from them ([`prior`]). It decides nothing: that is the planner's, in `dispatch`.

mod calibrate;
pub mod learned;
pub mod machine;
pub mod prior;
pub mod profile;
mod simulated;

pub use machine::{Bound, CoRun, Curve, DeviceModel, Engine, Limits, Link, LinkLine, Machine};
pub use prior::Prediction;
pub use simulated::calibrate_simulated;

use crate::device::{DeviceId, Devices};
use crate::error::Result;
use profile::{DeviceKey, Location, Profile};

/// What is measured of a GPU that may bind or allocate less than this is not kept.
const LEAST_KEPT: u64 = 64 << 20;

/// What is known of these devices: from the profile, else measured now, which takes a few hundred milliseconds, and
/// kept there.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the user named a profile that cannot be read.
pub(crate) fn machine(devices: &Devices, location: &Location) -> Result<Machine> {
    let mut profile = location.load()?;
    let mut measured = Vec::new();
    let mut machine = Machine::default();
    if devices.place_on_cpu {
        let name = devices.cpu.name();
        let key = DeviceKey::Cpu {
            model: name.to_owned(),
            threads: devices.cpu.threads(),
        };
        let measure = || calibrate::cpu(&devices.cpu, name.to_owned());
        machine
            .devices
            .push(known_or(&mut profile, &mut measured, true, key, measure)?);
    }
    for (index, gpu) in devices.gpus.iter().enumerate() {
        let info = gpu.info();
        let key = DeviceKey::Gpu {
            adapter: info.name.clone(),
            driver: info.driver.clone(),
            backend: info.backend.clone(),
        };
        let id = DeviceId::Gpu(index);
        // A runtime that was told to bind little for tests measures little.
        let keep = info.limits.max_binding_bytes >= LEAST_KEPT
            && info.limits.max_buffer_bytes >= LEAST_KEPT;
        let model = known_or(&mut profile, &mut measured, keep, key, || {
            calibrate::gpu(gpu, id)
        });
        let model = model.unwrap_or_else(|error| {
            tracing::warn!(%id, name = info.name, %error, "cannot be measured; only used where asked for");
            DeviceModel::unmeasured(id, info.kind, info.name.clone())
        });
        // The name within this runtime and the limits are this runtime's, whoever measured the rest.
        machine.devices.push(DeviceModel {
            id,
            limits: calibrate::limits(gpu),
            ..model
        });
    }
    if !measured.is_empty() {
        location.keep(measured, !calibrate::is_undisturbed(&devices.cpu)?);
    }
    Ok(machine)
}

/// What the profile knows of a device, or else what `measure` finds, which is noted and, if wanted, kept.
fn known_or(
    profile: &mut Profile,
    measured: &mut Vec<(DeviceKey, DeviceModel)>,
    keep: bool,
    key: DeviceKey,
    measure: impl FnOnce() -> Result<DeviceModel>,
) -> Result<DeviceModel> {
    if let Some(known) = profile.find(&key) {
        return Ok(known.clone());
    }
    let started = std::time::Instant::now();
    let model = measure()?;
    tracing::debug!(
        name = model.name,
        seconds = started.elapsed().as_secs_f64(),
        "measured"
    );
    // So that an equal device of this machine need not be measured too.
    profile.insert(key.clone(), false, model.clone());
    if keep {
        measured.push((key, model.clone()));
    }
    Ok(model)
}
