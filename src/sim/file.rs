//! Parses machine files. Every error names the field, what is expected and what is there.

mod field;

use super::machine::{
    Calibration, Change, MOST_DEVICES, Noise, SimulatedDevice, SimulatedKernel, SimulatedMachine,
    SimulatedPair,
};
use crate::device::{DeviceId, DeviceKind};
use field::Field;
use serde_json::Value;
use std::ops::RangeInclusive;

/// An error message, which begins with the field.
type Problem = String;

/// Seconds and rates outside these ranges belong to no machine, and would overflow.
const SECONDS: RangeInclusive<f64> = 0.0..=1e12;
const RATES: RangeInclusive<f64> = 1.0..=1e24;
/// Bytes and sizes that are exact in a JSON number.
const COUNTS: RangeInclusive<f64> = 0.0..=9007199254740992.0;
const FACTORS: RangeInclusive<f64> = 1e-6..=1e6;
/// The largest index of a GPU: sets of devices are bit masks.
const MOST_GPUS: usize = 62;

pub(super) fn machine(text: &str) -> Result<SimulatedMachine, Problem> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    let root = Field {
        path: String::new(),
        value: &value,
    };
    root.object()?;
    let devices = devices(&root.need("devices")?)?;
    let position = |field: &Field<'_>, name: &str| position(&devices, field, name);
    let kernels = kernels(&root.need("kernels")?, &devices)?;
    let mut corun: Vec<SimulatedPair> = Vec::new();
    for (pair, field) in root.optional("corun").iter().flat_map(Field::entries) {
        let factors = self::pair(&field?, &pair, &devices)?;
        let same =
            |known: &&SimulatedPair| factors.devices.iter().all(|id| known.devices.contains(id));
        if corun.iter().any(|known| same(&known)) {
            return Err(format!(
                "corun.{pair}: the pair is there twice; expected it once"
            ));
        }
        corun.push(factors);
    }
    let mut changes = Vec::new();
    for field in root.optional("changes").iter().flat_map(Field::items) {
        let field = field?;
        let device = field.need("device")?;
        changes.push(Change {
            after_call: field.need("after_call")?.count()? as usize,
            device: devices[position(&device, device.text()?)?].id,
            factor: field.need("factor")?.number(FACTORS)?,
        });
    }
    // Stable: of two changes at the same call, the later entry counts.
    changes.sort_by_key(|change| change.after_call);
    let text = |name: &str| match root.optional(name) {
        Some(field) => field.text().map(str::to_owned),
        None => Ok(String::new()),
    };
    Ok(SimulatedMachine {
        name: root.need("name")?.text()?.to_owned(),
        source: text("source")?,
        noise: root
            .optional("noise")
            .as_ref()
            .map_or(Ok(Noise::NONE), noise)?,
        devices,
        kernels,
        corun,
        changes,
    })
}

fn devices(list: &Field<'_>) -> Result<Vec<SimulatedDevice>, Problem> {
    let mut devices: Vec<SimulatedDevice> = Vec::new();
    for field in list.items() {
        let field = field?;
        let device = device(&field)?;
        if devices.iter().any(|known| known.id == device.id) {
            return Err(field.get("id").expected("an id that no other device has"));
        }
        devices.push(device);
    }
    if devices.is_empty() || devices.len() > MOST_DEVICES {
        let given = devices.len();
        return Err(format!(
            "{}: expected from 1 to {MOST_DEVICES} devices, there are {given}",
            list.path
        ));
    }
    Ok(devices)
}

fn device(field: &Field<'_>) -> Result<SimulatedDevice, Problem> {
    let id_field = field.need("id")?;
    let id: DeviceId = id_field
        .text()?
        .parse()
        .ok()
        .filter(|id| !matches!(id, DeviceId::Gpu(index) if *index > MOST_GPUS))
        .ok_or_else(|| id_field.expected("`cpu`, or `gpu0`, `gpu1` and so on"))?;
    let kind_field = field.need("kind")?;
    let kind = match kind_field.text()? {
        "cpu" => DeviceKind::Cpu,
        "discrete" => DeviceKind::Discrete,
        "integrated" => DeviceKind::Integrated,
        "software" => DeviceKind::Software,
        "other" => DeviceKind::Other,
        _ => {
            return Err(
                kind_field.expected("`cpu`, `discrete`, `integrated`, `software` or `other`")
            );
        }
    };
    if (kind == DeviceKind::Cpu) != (id == DeviceId::Cpu) {
        return Err(kind_field.expected("`cpu` for the device `cpu`, and for no other"));
    }
    let seconds = |name: &str| match field.optional(name) {
        Some(seconds) => seconds.number(SECONDS),
        None => Ok(0.0),
    };
    let table = |name: &str| match field.optional(name) {
        Some(table) => table.table(COUNTS, SECONDS).map(Some),
        None => Ok(None),
    };
    let bytes = |name: &str| match field.optional(name) {
        Some(bytes) => bytes.count().map(Some),
        None => Ok(None),
    };
    Ok(SimulatedDevice {
        id,
        kind,
        launch_seconds: seconds("launch_s")?,
        upload: table("upload")?,
        download: table("download")?,
        memory_bytes: bytes("memory_bytes")?,
        max_binding_bytes: bytes("max_binding_bytes")?,
        calibration: field
            .optional("calibration")
            .map_or(Ok(Calibration::default()), |field| calibration(&field))?,
    })
}

fn calibration(field: &Field<'_>) -> Result<Calibration, Problem> {
    field.object()?;
    let flops_per_second = match field.optional("flops_per_second") {
        Some(rate) => Some(rate.number(RATES)?),
        None => None,
    };
    let bandwidth = match field.optional("bandwidth") {
        Some(curve) => Some(curve.table(1.0..=*COUNTS.end(), RATES)?.points().to_vec()),
        None => None,
    };
    Ok(Calibration {
        flops_per_second,
        bandwidth,
    })
}

fn kernels(list: &Field<'_>, devices: &[SimulatedDevice]) -> Result<Vec<SimulatedKernel>, Problem> {
    // A time of 0 has no logarithm.
    const COMPUTE: RangeInclusive<f64> = 1e-15..=1e12;
    let mut kernels = Vec::new();
    for (name, field) in list.entries() {
        let field = field?;
        let mut tables = vec![None; devices.len()];
        for (device, table) in field.entries() {
            let table = table?;
            let at = position(devices, &table, &device)?;
            if tables[at].is_some() {
                return Err(format!(
                    "{}: {device} is there twice; expected it once",
                    field.path
                ));
            }
            tables[at] = Some(table.table(1.0..=*COUNTS.end(), COMPUTE)?);
        }
        if tables.iter().all(Option::is_none) {
            return Err(format!(
                "{}: expected a table for at least one device, there is none",
                field.path
            ));
        }
        kernels.push(SimulatedKernel { name, tables });
    }
    if kernels.is_empty() {
        return Err(format!(
            "{}: expected at least one kernel, there is none",
            list.path
        ));
    }
    Ok(kernels)
}

fn pair(
    field: &Field<'_>,
    names: &str,
    devices: &[SimulatedDevice],
) -> Result<SimulatedPair, Problem> {
    let (first, second) = names
        .split_once('+')
        .ok_or_else(|| format!("{}: expected a pair such as `cpu+gpu0`", field.path))?;
    let (first, second) = (
        position(devices, field, first)?,
        position(devices, field, second)?,
    );
    if first == second {
        return Err(format!("{}: expected two different devices", field.path));
    }
    let factors = |name: &str| -> Result<[f64; 2], Problem> {
        let Some(field) = field.optional(name) else {
            return Ok([1.0; 2]);
        };
        let factors: Vec<f64> = field
            .items()
            .map(|factor| factor?.number(FACTORS))
            .collect::<Result<_, _>>()?;
        factors
            .try_into()
            .map_err(|_| field.expected("two factors, one for each device of the pair"))
    };
    field.object()?;
    Ok(SimulatedPair {
        devices: [devices[first].id, devices[second].id],
        compute: factors("compute")?,
        memory: factors("memory")?,
    })
}

fn noise(field: &Field<'_>) -> Result<Noise, Problem> {
    field.object()?;
    let number = |name: &str, range, otherwise| match field.optional(name) {
        Some(field) => field.number(range),
        None => Ok(otherwise),
    };
    Ok(Noise {
        sigma: number("sigma", 0.0..=5.0, 0.0)?,
        spike_probability: number("spike_probability", 0.0..=1.0, 0.0)?,
        spike_factor: number("spike_factor", FACTORS, 1.0)?,
    })
}

/// The position of the device called `name`.
fn position(devices: &[SimulatedDevice], field: &Field<'_>, name: &str) -> Result<usize, Problem> {
    let id: Option<DeviceId> = name.parse().ok();
    let at = id.and_then(|id| devices.iter().position(|device| device.id == id));
    at.ok_or_else(|| {
        let known: Vec<_> = devices.iter().map(|device| device.id.to_string()).collect();
        let known = known.join(", ");
        format!(
            "{}: there is no device {name:?}; expected one of {known}",
            field.path
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A file with all fields.
    fn full() -> Value {
        json!({
            "name": "two", "source": "made up", "comment": "passed over",
            "devices": [
                {"id": "cpu", "kind": "cpu"},
                {"id": "gpu0", "kind": "discrete", "launch_s": 2e-5, "upload": [[4096, 1e-5], [1e6, 6e-5]],
                 "download": [[4096, 1e-5]], "memory_bytes": 8e9, "max_binding_bytes": 2147483647,
                 "calibration": {"flops_per_second": 1e12, "bandwidth": [[1e6, 1e11]]}}],
            "kernels": {"axpy": {"cpu": [[1024, 1e-7], [1048576, 9e-5]], "gpu0": [[1024, 4e-6]]},
                        "sum": {"cpu": [[1024, 1e-7]]}},
            "corun": {"gpu0+cpu": {"compute": [1.1, 1.2]}},
            "noise": {"sigma": 0.1, "spike_probability": 0.01, "spike_factor": 20},
            "changes": [{"after_call": 100, "device": "gpu0", "factor": 3}, {"after_call": 50, "device": "cpu", "factor": 0.5},
                        {"after_call": 100, "device": "gpu0", "factor": 2}],
        })
    }

    fn read(value: &Value) -> Result<SimulatedMachine, Problem> {
        machine(&value.to_string())
    }

    #[test]
    fn a_whole_file_is_read() {
        let machine = read(&full()).expect("valid");
        assert_eq!(
            (machine.name.as_str(), machine.source.as_str()),
            ("two", "made up")
        );
        let gpu = &machine.devices[1];
        assert_eq!((gpu.id, gpu.kind), (DeviceId::Gpu(0), DeviceKind::Discrete));
        assert_eq!(
            (gpu.launch_seconds, gpu.memory_bytes),
            (2e-5, Some(8_000_000_000))
        );
        assert_eq!(gpu.calibration.bandwidth, Some(vec![[1e6, 1e11]]));
        assert_eq!(gpu.upload_seconds(0.0), 0.0);
        assert_eq!(gpu.upload_seconds(10.0), 1e-5);
        assert_eq!(machine.devices[0].download_seconds(1e9), 0.0);
        assert_eq!(
            machine.kernels[1]
                .tables
                .iter()
                .filter(|t| t.is_some())
                .count(),
            1
        );
        assert_eq!(machine.corun[0].devices, [DeviceId::Gpu(0), DeviceId::Cpu]);
        assert_eq!(
            (machine.corun[0].compute, machine.corun[0].memory),
            ([1.1, 1.2], [1.0, 1.0])
        );
        assert_eq!(machine.epochs(), [0, 50, 100]);
        for (call, cpu, gpu) in [
            (0, 1.0, 1.0),
            (49, 1.0, 1.0),
            (50, 0.5, 1.0),
            (99, 0.5, 1.0),
            (100, 0.5, 2.0),
        ] {
            assert_eq!(
                (machine.slowness(0, call), machine.slowness(1, call)),
                (cpu, gpu),
                "{call}"
            );
        }
    }

    /// The value at a path such as `devices.1.launch_s`, created if it is missing.
    fn at<'a>(mut value: &'a mut Value, path: &str) -> &'a mut Value {
        for name in path.split('.') {
            value = match name.parse::<usize>() {
                Ok(index) => &mut value[index],
                Err(_) => &mut value[name],
            };
        }
        value
    }

    #[test]
    fn every_error_names_its_field() {
        for (path, given, expected) in [
            ("name", json!(null), "name: it is missing"),
            ("name", json!(7), "name: expected a text, it is 7"),
            ("devices", json!(null), "devices: it is missing"),
            ("devices", json!({}), "devices: expected a list"),
            (
                "devices",
                json!([]),
                "devices: expected from 1 to 8 devices, there are 0",
            ),
            (
                "devices.0",
                json!(3),
                "devices[0]: expected an object, it is 3",
            ),
            (
                "devices.0.id",
                json!("host"),
                "devices[0].id: expected `cpu`, or `gpu0`",
            ),
            ("devices.1.id", json!("gpu99"), "devices[1].id: expected"),
            (
                "devices.1.id",
                json!("cpu"),
                "devices[1].kind: expected `cpu` for the device `cpu`",
            ),
            (
                "devices.0.kind",
                json!("discrete"),
                "devices[0].kind: expected `cpu` for the device `cpu`",
            ),
            (
                "devices.1.kind",
                json!("quantum"),
                "devices[1].kind: expected `cpu`, `discrete`",
            ),
            (
                "devices.1.launch_s",
                json!(-1e-6),
                "devices[1].launch_s: expected a number from 0e0",
            ),
            (
                "devices.1.launch_s",
                json!("fast"),
                "devices[1].launch_s: expected a number",
            ),
            (
                "devices.1.launch_s",
                json!(1e300),
                "devices[1].launch_s: expected a number",
            ),
            (
                "devices.1.upload",
                json!([]),
                "devices[1].upload: expected at least one point",
            ),
            (
                "devices.1.upload",
                json!([[1, 2, 3]]),
                "devices[1].upload[0]: expected a pair",
            ),
            (
                "devices.1.upload",
                json!([[1, -2]]),
                "devices[1].upload[0][1]: expected a number",
            ),
            (
                "devices.1.upload",
                json!([[5, 1], [5, 2]]),
                "devices[1].upload[1][0]: expected a size larger",
            ),
            (
                "devices.1.memory_bytes",
                json!(1.5),
                "devices[1].memory_bytes: expected a whole number",
            ),
            (
                "devices.1.calibration.flops_per_second",
                json!(0),
                "flops_per_second: expected a number from 1e0",
            ),
            (
                "devices.1.calibration",
                json!([]),
                "devices[1].calibration: expected an object",
            ),
            (
                "kernels",
                json!({}),
                "kernels: expected at least one kernel",
            ),
            ("kernels", json!([]), "kernels: expected an object"),
            (
                "kernels.axpy",
                json!({}),
                "kernels.axpy: expected a table for at least one device",
            ),
            (
                "kernels.axpy.gpu1",
                json!([[1, 1]]),
                "kernels.axpy.gpu1: there is no device \"gpu1\"; expected one of cpu, gpu0",
            ),
            (
                "kernels.axpy.gpu:0",
                json!([[1, 1]]),
                "kernels.axpy: gpu:0 is there twice",
            ),
            (
                "kernels.axpy.cpu",
                json!([]),
                "kernels.axpy.cpu: expected at least one point",
            ),
            (
                "kernels.axpy.cpu",
                json!([[2, 1], [1, 1]]),
                "kernels.axpy.cpu[1][0]: expected a size larger",
            ),
            (
                "kernels.axpy.cpu",
                json!([[0, 1]]),
                "kernels.axpy.cpu[0][0]: expected a number from 1e0",
            ),
            (
                "kernels.axpy.cpu",
                json!([[1, 0]]),
                "kernels.axpy.cpu[0][1]: expected a number from 1e-15",
            ),
            (
                "kernels.axpy.cpu",
                json!([[1, null]]),
                "kernels.axpy.cpu[0][1]: expected a number",
            ),
            ("corun", json!([]), "corun: expected an object"),
            ("corun.cpu", json!({}), "corun.cpu: expected a pair such as"),
            (
                "corun.cpu+gpu7",
                json!({}),
                "corun.cpu+gpu7: there is no device \"gpu7\"",
            ),
            (
                "corun.cpu+cpu",
                json!({}),
                "corun.cpu+cpu: expected two different devices",
            ),
            ("corun.cpu+gpu0", json!({}), "the pair is there twice"),
            (
                "corun.gpu0+cpu.memory",
                json!([1]),
                "corun.gpu0+cpu.memory: expected two factors",
            ),
            (
                "corun.gpu0+cpu.memory",
                json!([1, 0]),
                "corun.gpu0+cpu.memory[1]: expected a number from 1e-6",
            ),
            ("noise.sigma", json!(-0.1), "noise.sigma: expected a number"),
            (
                "noise.spike_probability",
                json!(1.1),
                "noise.spike_probability: expected a number",
            ),
            ("changes", json!({}), "changes: expected a list"),
            (
                "changes.0.device",
                json!("gpu1"),
                "changes[0].device: there is no device \"gpu1\"",
            ),
            (
                "changes.0.factor",
                json!(0),
                "changes[0].factor: expected a number",
            ),
            (
                "changes.0.after_call",
                json!(-1),
                "changes[0].after_call: expected a whole number",
            ),
            (
                "changes.0.after_call",
                json!(null),
                "changes[0].after_call: it is missing",
            ),
        ] {
            let mut file = full();
            *at(&mut file, path) = given.clone();
            let problem = read(&file).expect_err(path);
            assert!(problem.contains(expected), "{path} = {given}: {problem}");
        }
        let mut twice = full();
        let gpu = twice["devices"][1].clone();
        twice["devices"].as_array_mut().expect("a list").push(gpu);
        let problem = read(&twice).expect_err("twice");
        assert!(
            problem.contains("devices[2].id: expected an id that no other device has"),
            "{problem}"
        );
    }

    #[test]
    fn a_text_that_is_no_json_object_is_refused() {
        for text in [
            "",
            "{",
            "[]",
            "7",
            "null",
            "{\"name\": 1e999}",
            &"[".repeat(100_000),
        ] {
            let problem = machine(text).expect_err("no machine");
            assert!(
                problem.contains("no JSON") || problem.contains("expected an object"),
                "{problem}"
            );
            assert!(problem.len() < 300, "{problem}");
        }
    }

    #[test]
    fn missing_binary_and_huge_files_are_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("machine.json");
        let refusal = || {
            SimulatedMachine::load(&path)
                .expect_err("refused")
                .to_string()
        };
        assert!(
            refusal().contains("machine.json: it cannot be read"),
            "{}",
            refusal()
        );
        std::fs::write(&path, [0xff, 0xfe]).expect("writable");
        assert!(refusal().contains("no text"), "{}", refusal());
        std::fs::write(
            &path,
            " ".repeat(super::super::machine::MOST_BYTES as usize + 1),
        )
        .expect("writable");
        assert!(refusal().contains("larger than 4 MiB"), "{}", refusal());
        std::fs::write(&path, full().to_string()).expect("writable");
        assert!(SimulatedMachine::load(&path).is_ok());
        let problem = SimulatedMachine::load(folder.path())
            .expect_err("a folder")
            .to_string();
        assert!(problem.contains("it cannot be read"), "{problem}");
    }
}
