//! What is measured of the machine, how it is kept, and what follows for placements that are left to the planner.

mod support;

use divvy::catalog;
use divvy::cost::{DeviceModel, Thoroughness};
use divvy::device::DeviceKind;
use divvy::kernels::axpy;
use divvy::{Array, DeviceId, Error, Placement, Result, Runtime};
use support::{build, has_gpu, runtime};

fn assert_plausible(model: &DeviceModel) {
    for engine in &model.engines {
        assert!((0.0..0.1).contains(&engine.launch_seconds), "{model:?}");
        assert!((1e7..1e16).contains(&engine.flops_per_second), "{model:?}");
        for [_, rate] in engine.bandwidth.points() {
            assert!((1e6..1e16).contains(rate), "{model:?}");
        }
    }
    for link in model.upload.iter().chain(&model.download) {
        let points = link.points();
        assert!(
            points.is_sorted_by(|a, b| a[0] < b[0] && a[1] <= b[1]),
            "{model:?}"
        );
        assert!((0.0..0.1).contains(&link.latency_seconds()), "{model:?}");
        assert!((1e6..1e14).contains(&link.bytes_per_second()), "{model:?}");
    }
}

#[test]
fn every_device_is_measured() -> Result<()> {
    let rt = runtime();
    let machine = rt.measured_machine()?;
    assert_eq!(machine.devices.len(), 1 + rt.gpus().len());
    assert!(machine.devices.iter().all(|model| rt.is_measured(model.id)));
    let cpu = machine.device(DeviceId::Cpu).expect("it is allowed");
    let threads: Vec<usize> = cpu.engines.iter().map(|engine| engine.threads).collect();
    assert_eq!(threads, [1, rt.threads()]);
    assert_plausible(cpu);
    for (index, info) in rt.gpus().enumerate() {
        let gpu = machine.device(DeviceId::Gpu(index)).expect("it was opened");
        assert_eq!((gpu.kind, &gpu.name), (info.kind, &info.name));
        assert!(gpu.engines.len() == 1);
        for link in [&gpu.upload, &gpu.download] {
            assert!(
                link.as_ref().is_some_and(|link| link.points().len() >= 6),
                "{gpu:?}"
            );
        }
        assert!(gpu.engines[0].launch_seconds > 0.0);
        assert_plausible(gpu);
    }
    Ok(())
}

#[test]
fn a_gpu_that_may_bind_little_can_be_measured_too() -> Result<()> {
    if !has_gpu(runtime()) {
        return Ok(());
    }
    for bytes in [256, 1 << 10, 1 << 17] {
        let rt = build(
            Runtime::builder()
                .max_binding_bytes(bytes)
                .max_buffer_bytes(bytes),
        );
        let machine = rt.measured_machine()?;
        let gpu = machine.device(DeviceId::Gpu(0)).expect("it was opened");
        assert_plausible(gpu);
        assert_eq!(gpu.limits.max_binding_bytes, Some(bytes));
    }
    Ok(())
}

#[test]
fn what_was_measured_is_kept_and_used_again() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("divvy/profile.json");
    let open = || Runtime::builder().threads(2).profile(&path).build();
    let measured = open()?.measured_machine()?;
    let text = std::fs::read_to_string(&path).expect("it was written");
    assert!(
        text.contains("flops_per_second") && text.ends_with("}\n"),
        "{text}"
    );
    assert_eq!(
        open()?.machine()?,
        measured,
        "the second time it is read, not measured"
    );
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), text);

    // Another number of threads is another machine to the planner, and is added.
    let other = Runtime::builder()
        .threads(1)
        .cpu_only()
        .profile(&path)
        .build()?;
    assert_eq!(other.measured_machine()?.devices[0].engines.len(), 1);
    assert_eq!(open()?.machine()?, measured);
    Ok(())
}

#[test]
fn calibrating_takes_the_place_of_what_was_known() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("profile.json");
    let rt = Runtime::builder().threads(2).profile(&path).build()?;
    let mut steps = Vec::new();
    let found = rt.calibrate(Thoroughness::Quick, |step| steps.push(step.clone()))?;
    assert_eq!(found.kept.expect("it can be written"), Some(path.clone()));
    assert_eq!(found.problems, []);
    assert_eq!(rt.machine()?, found.machine);
    assert!(
        steps
            .iter()
            .enumerate()
            .all(|(at, step)| step.done == at && step.of == steps.len())
    );
    found.machine.devices.iter().for_each(assert_plausible);
    let devices = found.machine.devices.len();
    assert_eq!(devices, 1 + rt.gpus().len());
    assert_eq!(found.machine.corun.len(), devices * (devices - 1) / 2);
    for pair in &found.machine.corun {
        let mut factors = pair.compute.iter().chain(&pair.memory);
        assert!(
            factors.all(|factor| (1.0..=1e3).contains(factor)),
            "{pair:?}"
        );
    }
    // Another runtime starts from it.
    let again = Runtime::builder().threads(2).profile(&path).build()?;
    assert_eq!(again.machine()?, found.machine);
    assert!(
        again
            .machine()?
            .devices
            .iter()
            .all(|model| again.is_measured(model.id))
    );
    Ok(())
}

#[test]
fn what_the_last_calls_on_a_gpu_taught_is_kept() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("profile.json");
    let rt = Runtime::builder().threads(2).profile(&path).build()?;
    if rt.gpus().len() == 0 {
        eprintln!("SKIPPED: no GPU");
        return Ok(());
    }
    rt.measured_machine()?;
    let (x, mut y) = (rt.filled(1000, 1.0f32)?, rt.filled(1000, 1.0f32)?);
    // Of the first time the compilation is a part, so that it teaches nothing.
    for _ in 0..2 {
        rt.run(axpy(2.0, &x, &mut y).on(Placement::Gpu(0)))?;
        y.to_vec()?;
    }
    drop(rt);
    let kept = std::fs::read_to_string(&path).expect("it was written");
    assert!(kept.contains("axpy"), "{kept}");
    Ok(())
}

#[test]
fn what_was_learned_is_kept_when_the_runtime_goes_and_known_to_the_next() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("profile.json");
    let open = || {
        Runtime::builder()
            .threads(2)
            .cpu_only()
            .profile(&path)
            .build()
    };
    let run = |rt: &Runtime| -> Result<()> {
        rt.measured_machine()?;
        let (x, mut y) = (Array::filled(5000, 1.0f32)?, Array::filled(5000, 1.0f32)?);
        (0..10).try_for_each(|_| rt.run(axpy(1.0, &x, &mut y)).map(drop))
    };
    let samples = || {
        let text = std::fs::read_to_string(&path).expect("it was written");
        let parsed = divvy::cost::profile::parse(&text).expect("it is a profile");
        let entries = parsed.profile.learned().iter();
        let of_axpy = entries.filter(|entry| entry.kernel == "axpy");
        of_axpy.map(|entry| entry.samples()).sum::<u64>()
    };
    run(&open()?)?;
    let first = samples();
    assert!(first > 0);
    let again = open()?;
    run(&again)?;
    again.save_profile()?;
    assert!(samples() > first, "{} after {first}", samples());
    Ok(())
}

#[test]
fn a_machine_that_was_given_is_not_measured() -> Result<()> {
    let rt = support::build(Runtime::builder().cpu_only());
    let mut machine = (*rt.measured_machine()?).clone();
    machine.devices[0].engines[0].flops_per_second = 12345.0;
    let given = build(Runtime::builder().cpu_only().machine(machine.clone()));
    assert_eq!(*given.measured_machine()?, machine);
    assert!(given.is_measured(DeviceId::Cpu));
    assert_eq!(given.profile_path(), None);
    given.save_profile()
}

#[test]
fn a_profile_that_makes_no_sense_is_measured_anew() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("profile.json");
    // Of another version of the crate, and of the schema before this one.
    let schema = divvy::cost::profile::SCHEMA;
    for text in [
        format!("{{\"schema\": {schema}, \"divvy\": \"0.0.0\"}}"),
        format!(
            "{{\"schema\": {}, \"divvy\": \"0.1.0\", \"devices\": []}}",
            schema - 1
        ),
    ] {
        std::fs::write(&path, &text).expect("writable");
        let rt = Runtime::builder().cpu_only().profile(&path).build()?;
        assert_plausible(&rt.measured_machine()?.devices[0]);
        assert_ne!(
            std::fs::read_to_string(&path).expect("it was replaced"),
            text
        );
    }
    Ok(())
}

#[test]
fn a_profile_that_cannot_be_read_is_an_error_that_names_it() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let rt = Runtime::builder()
        .cpu_only()
        .profile(folder.path())
        .build()?;
    let (x, mut y) = (Array::filled(3, 1.0f32)?, Array::filled(3, 1.0f32)?);
    let error = rt
        .run(axpy(1.0, &x, &mut y))
        .expect_err("a folder is no file");
    assert!(
        matches!(&error, Error::Io { path, .. } if path == folder.path()),
        "{error}"
    );
    assert_eq!(*y.read()?, [1.0; 3], "nothing ran");
    Ok(())
}

#[test]
fn a_software_adapter_is_never_chosen() -> Result<()> {
    let rt = runtime();
    let machine = rt.measured_machine()?;
    let is_software = |id| {
        machine
            .device(id)
            .is_some_and(|device| device.kind == DeviceKind::Software)
    };
    for entry in catalog::CATALOG {
        for n in [1, 300, entry.bench_sizes[0].min(1 << 12)] {
            let mut case = entry.bind(n, entry.default_type(), 7)?;
            case.reset()?;
            let placed = |case: &mut dyn catalog::Case, what: &str| -> Result<()> {
                let explanation = case.explain(rt, Placement::Auto)?;
                let chosen = &explanation.candidates[explanation.choice];
                let software = chosen.parts.iter().any(|part| is_software(part.device));
                assert!(!software, "{}, n {n}, {what}:\n{explanation}", entry.name);
                Ok(())
            };
            placed(&mut *case, "data on the host")?;
            if has_gpu(rt) {
                case.run(rt, Placement::Gpu(0))?;
                placed(&mut *case, "data on the adapter")?;
            }
        }
    }
    Ok(())
}
