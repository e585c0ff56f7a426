//! The figures of devices as text.

use divvy::cost::{DeviceModel, Link};
use divvy::units::{bytes, quantity, seconds};
use std::fmt::{self, Write};

/// The figures of a device, one per line, indented.
pub fn device(model: &DeviceModel) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_device(&mut text, model);
    text
}

fn write_device(text: &mut String, model: &DeviceModel) -> fmt::Result {
    let on_cpu = model.upload.is_none();
    for engine in &model.engines {
        let threads = match (on_cpu, engine.threads) {
            (false, _) => String::new(),
            (true, 1) => "1 thread: ".into(),
            (true, threads) => format!("{threads} threads: "),
        };
        let flops = quantity(engine.flops_per_second, "flop/s");
        write!(text, "\n      {threads}{flops}")?;
        if engine.launch_seconds > 0.0 {
            write!(text, ", launch {}", seconds(engine.launch_seconds))?;
        }
        if model.queued_seconds > 0.0 {
            write!(
                text,
                ", {} for each further dispatch",
                seconds(model.queued_seconds)
            )?;
        }
    }
    if let Some(memory) = model.limits.memory_bytes {
        write!(text, ", {} of memory", bytes(memory))?;
    }
    write!(text, "\n      {:>11}", "memory")?;
    for engine in &model.engines {
        let column = match (on_cpu, engine.threads) {
            (false, _) => "rate".into(),
            (true, 1) => "1 thread".into(),
            (true, threads) => format!("{threads} threads"),
        };
        write!(text, "  {column:>11}")?;
    }
    let footprints = model
        .engines
        .first()
        .map(|engine| engine.bandwidth.points());
    for [footprint, _] in footprints.unwrap_or_default() {
        write!(text, "\n      {:>11}", bytes(*footprint as u64))?;
        for engine in &model.engines {
            let rate = quantity(engine.bandwidth.at(*footprint), "B/s");
            write!(text, "  {rate:>11}")?;
        }
    }
    if let (Some(upload), Some(download)) = (&model.upload, &model.download) {
        write!(
            text,
            "\n      {:>11}  {:>11}  {:>11}",
            "transfer", "up", "down"
        )?;
        for [size, _] in upload.points() {
            let time = |link: &Link| seconds(link.seconds(*size));
            let (up, down) = (time(upload), time(download));
            write!(
                text,
                "\n      {:>11}  {up:>11}  {down:>11}",
                bytes(*size as u64)
            )?;
        }
    }
    Ok(())
}

/// How much two devices slow each other down, as one line.
pub fn corun(devices: [&str; 2], compute: [f64; 2], memory: [f64; 2]) -> String {
    let [one, other] = devices;
    let times = |[a, b]: [f64; 2]| format!("{a:.2} and {b:.2} times as long");
    format!(
        "{one} and {other} together: arithmetic takes {}, memory {}",
        times(compute),
        times(memory)
    )
}
