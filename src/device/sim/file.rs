//! From the text of a machine file to a machine: every mistake is told by its field, what is expected and what is there.

use super::{
    Calibration, Change, MOST_DEVICES, Noise, SimulatedDevice, SimulatedKernel, SimulatedMachine,
    SimulatedPair, Table,
};
use crate::device::{DeviceId, DeviceKind};
use serde_json::Value;
use std::ops::RangeInclusive;

/// What is wrong, with the field.
type Problem = String;

/// Seconds and rates beyond these are no machine's, and would overflow.
const SECONDS: RangeInclusive<f64> = 0.0..=1e12;
const RATES: RangeInclusive<f64> = 1.0..=1e24;
/// Bytes and sizes that are exact in a JSON number.
const COUNTS: RangeInclusive<f64> = 0.0..=9007199254740992.0;
const FACTORS: RangeInclusive<f64> = 1e-6..=1e6;
/// Bit masks of devices have room for no more.
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
    // Times of 0 have no logarithm.
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

/// A value of the file, and where it is.
struct Field<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    /// The field's path with `name` in it.
    fn path_to(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// A field of this object; null if there is none.
    fn get(&self, name: &str) -> Field<'a> {
        Field {
            path: self.path_to(name),
            value: self.value.get(name).unwrap_or(&Value::Null),
        }
    }

    /// A field of this object that must be there.
    fn need(&self, name: &str) -> Result<Field<'a>, Problem> {
        self.object()?;
        let field = self.get(name);
        match field.value {
            Value::Null => Err(format!("{}: it is missing", field.path)),
            _ => Ok(field),
        }
    }

    /// A field of this object that may be left out.
    fn optional(&self, name: &str) -> Option<Field<'a>> {
        Some(self.get(name)).filter(|field| !field.value.is_null())
    }

    fn object(&self) -> Result<&'a serde_json::Map<String, Value>, Problem> {
        let object = self.value.as_object();
        object.ok_or_else(|| self.expected("an object"))
    }

    /// The fields of this object, or that it is none.
    fn entries(&self) -> impl Iterator<Item = (String, Result<Field<'a>, Problem>)> {
        let (object, error) = match self.object() {
            Ok(object) => (Some(object), None),
            Err(error) => (None, Some((String::new(), Err(error)))),
        };
        let fields = object.into_iter().flatten().map(|(name, value)| {
            let path = self.path_to(name);
            (name.clone(), Ok(Field { path, value }))
        });
        fields.chain(error)
    }

    /// The elements of this list, or that it is none.
    fn items(&self) -> impl Iterator<Item = Result<Field<'a>, Problem>> {
        let (list, error) = match self.value.as_array() {
            Some(list) => (Some(list), None),
            None => (None, Some(Err(self.expected("a list")))),
        };
        let elements = list.into_iter().flatten().enumerate().map(|(at, value)| {
            let path = format!("{}[{at}]", self.path);
            Ok(Field { path, value })
        });
        elements.chain(error)
    }

    fn text(&self) -> Result<&'a str, Problem> {
        self.value.as_str().ok_or_else(|| self.expected("a text"))
    }

    fn number(&self, range: RangeInclusive<f64>) -> Result<f64, Problem> {
        let number = self.value.as_f64().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            self.expected(&format!(
                "a number from {:e} to {:e}",
                range.start(),
                range.end()
            ))
        })
    }

    /// A whole number of at least 0.
    fn count(&self) -> Result<u64, Problem> {
        let whole = self.number(COUNTS).ok().filter(|n| n.fract() == 0.0);
        whole
            .map(|n| n as u64)
            .ok_or_else(|| self.expected("a whole number from 0 to 2^53"))
    }

    /// Points `[size, value]` with strictly ascending sizes.
    fn table(
        &self,
        sizes: RangeInclusive<f64>,
        values: RangeInclusive<f64>,
    ) -> Result<Table, Problem> {
        let mut points: Vec<[f64; 2]> = Vec::new();
        for point in self.items() {
            let point = point?;
            let mut numbers = point.items();
            let (Some(size), Some(value), None) = (numbers.next(), numbers.next(), numbers.next())
            else {
                return Err(point.expected("a pair of numbers"));
            };
            let (size, value) = (size?, value?);
            let number = size.number(sizes.clone())?;
            if points.last().is_some_and(|[before, _]| number <= *before) {
                return Err(size.expected("a size larger than the one before it"));
            }
            points.push([number, value.number(values.clone())?]);
        }
        Table::new(points).ok_or_else(|| self.expected("at least one point"))
    }

    /// That something else was expected than what is there.
    fn expected(&self, what: &str) -> Problem {
        const LONGEST: usize = 60;
        let mut given = self.value.to_string();
        if given.chars().count() > LONGEST {
            given = given.chars().take(LONGEST).chain(['…']).collect();
        }
        let place = if self.path.is_empty() {
            "the file"
        } else {
            &self.path
        };
        format!("{place}: expected {what}, it is {given}")
    }
}
