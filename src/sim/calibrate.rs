//! Derives what calibration would measure on a simulated machine: ceilings and links, never the tables themselves.

use super::machine::{SimulatedDevice, SimulatedMachine};
use super::params::PARAMS;
use super::table::Table;
use crate::cost::machine::{CoRun, Curve, DeviceModel, Engine, Limits, Link, Machine};
use crate::cost::prior::Demand;

/// The machine that calibration would find.
///
/// `demand` returns the demand of a kernel at a size, if it is known. A real calibration measures ceilings; so the peak
/// rate of a device is the best that any of its kernels reaches at any size, and its bandwidth at a footprint is the best
/// that any of its kernels reaches near it (a pass over more bytes never takes less time). Links are measured at powers
/// of four bytes. Launches and co-run factors are those of the file.
pub fn calibrate_simulated(
    machine: &SimulatedMachine,
    mut demand: impl FnMut(&str, f64) -> Option<Demand>,
) -> Machine {
    let mut rates = vec![Rates::default(); machine.devices.len()];
    for kernel in &machine.kernels {
        for (rates, table) in rates.iter_mut().zip(&kernel.tables) {
            for [size, seconds] in table.iter().flat_map(Table::points) {
                if let Some(demand) = demand(&kernel.name, *size) {
                    rates.add(&demand, *seconds);
                }
            }
        }
    }
    let devices = machine.devices.iter().zip(&rates);
    let pairs = machine.corun.iter().map(|pair| CoRun {
        devices: pair.devices,
        compute: pair.compute,
        memory: pair.memory,
    });
    Machine {
        devices: devices.map(|(device, rates)| rates.model(device)).collect(),
        corun: pairs.collect(),
    }
}

/// The best rates of a device.
#[derive(Clone, Default)]
struct Rates {
    flops_per_second: f64,
    /// `[footprint, bytes per second]`.
    bandwidth: Vec<[f64; 2]>,
}

impl Rates {
    fn add(&mut self, demand: &Demand, seconds: f64) {
        self.flops_per_second = self.flops_per_second.max(demand.flops / seconds);
        let (footprint, rate) = (demand.footprint_bytes, demand.traffic_bytes / seconds);
        if footprint >= 1.0 && rate > 0.0 && rate.is_finite() {
            self.bandwidth.push([footprint, rate]);
        }
    }

    fn model(&self, device: &SimulatedDevice) -> DeviceModel {
        let flops = Some(self.flops_per_second).filter(|rate| *rate > 0.0 && rate.is_finite());
        let given = &device.calibration;
        let bandwidth = given.bandwidth.clone().and_then(Curve::new);
        let bandwidth = bandwidth.or_else(|| Curve::new(ceiling(&self.bandwidth)));
        let engine = Engine {
            threads: 1,
            launch_seconds: device.launch_seconds,
            flops_per_second: given
                .flops_per_second
                .or(flops)
                .unwrap_or(PARAMS.unknown_flops_per_second),
            bandwidth: bandwidth
                .or_else(|| Curve::constant(PARAMS.unknown_bytes_per_second))
                .expect("a positive rate"),
        };
        DeviceModel {
            id: device.id,
            kind: device.kind,
            name: format!("simulated {}", device.id),
            engines: vec![engine],
            queued_seconds: 0.0,
            upload: link(device.upload.as_ref()),
            download: link(device.download.as_ref()),
            limits: Limits {
                max_binding_bytes: device.max_binding_bytes,
                max_buffer_bytes: None,
                memory_bytes: device.memory_bytes,
                ..Limits::default()
            },
        }
    }
}

/// The best rate for each power of two of the footprint, such that a pass over more bytes never takes less time.
fn ceiling(rates: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let mut sorted = rates.to_vec();
    sorted.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let mut best: Vec<[f64; 2]> = Vec::new();
    for [footprint, rate] in sorted {
        match best.last_mut() {
            Some(last) if last[0].log2().floor() == footprint.log2().floor() => {
                if rate > last[1] {
                    *last = [footprint, rate];
                }
            }
            _ => best.push([footprint, rate]),
        }
    }
    let mut least_pass = f64::INFINITY;
    for point in best.iter_mut().rev() {
        least_pass = least_pass.min(point[0] / point[1]);
        point[1] = point[0] / least_pass;
    }
    best
}

/// The link as measured at powers of four bytes, from 256 B to 4 GiB.
fn link(table: Option<&Table>) -> Option<Link> {
    let sizes = (4..=16).map(|power| 4f64.powi(power));
    table.and_then(|table| Link::new(sizes.map(|bytes| [bytes, table.transfer(bytes)]).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceId;

    const FILE: &str = r#"{"name": "m", "devices": [
        {"id": "cpu", "kind": "cpu"},
        {"id": "gpu0", "kind": "discrete", "launch_s": 1e-5, "upload": [[1000, 1e-6], [1000000, 1e-3]],
         "calibration": {"flops_per_second": 7e12, "bandwidth": [[1024, 3e11]]}}],
        "kernels": {"slow": {"cpu": [[1000, 1e-6], [4000, 1e-5]]}, "fast": {"cpu": [[1000, 5e-7]], "gpu0": [[1, 1]]}}}"#;

    #[test]
    fn ceilings_are_the_best_rates_of_any_kernel_unless_the_file_gives_them() {
        let machine = SimulatedMachine::parse("m", FILE).expect("valid");
        let found = calibrate_simulated(&machine, |_, n| {
            Some(Demand {
                flops: 2.0 * n,
                traffic_bytes: 8.0 * n,
                footprint_bytes: 4.0 * n,
            })
        });
        let cpu = &found.device(DeviceId::Cpu).expect("there").engines[0];
        assert!((cpu.flops_per_second / 4e9 - 1.0).abs() < 1e-12);
        let points = cpu.bandwidth.points();
        assert_eq!(points.len(), 2);
        assert!((points[0][1] / 16e9 - 1.0).abs() < 1e-12, "{points:?}");
        assert!((points[1][1] / 3.2e9 - 1.0).abs() < 1e-12, "{points:?}");
        let gpu = found.device(DeviceId::Gpu(0)).expect("there");
        assert_eq!(gpu.engines[0].flops_per_second, 7e12);
        assert_eq!(gpu.engines[0].bandwidth.points(), [[1024.0, 3e11]]);
        assert_eq!(gpu.engines[0].launch_seconds, 1e-5);
        let upload = gpu.upload.as_ref().expect("it has one");
        assert!((upload.seconds(65536.0) / 65.536e-6 - 1.0).abs() < 1e-9);
        assert_eq!(gpu.download, None);
    }

    #[test]
    fn a_device_without_tables_has_modest_rates_and_passes_never_get_faster_with_size() {
        let machine = SimulatedMachine::parse("m", FILE).expect("valid");
        let nothing = calibrate_simulated(&machine, |_, _| None);
        assert_eq!(
            nothing.devices[0].engines[0].flops_per_second,
            PARAMS.unknown_flops_per_second
        );
        let cleaned = ceiling(&[[10.0, 1.0], [100.0, 100.0], [120.0, 50.0], [1000.0, 10.0]]);
        assert_eq!(cleaned, [[10.0, 10.0], [100.0, 100.0], [1000.0, 10.0]]);
    }
}
