//! Explanations of plans, for people and for programs.

use super::candidates::evaluate;
use super::evaluation::{Candidate, Evaluation, Reason};
use super::input::PlannerInput;
use super::load::Load;
use super::planned::PlannedPart;
use super::policy::Policy;
use super::request::Request;
use crate::cost::{Machine, Prediction};
use crate::device::{DeviceId, Placement};
use crate::error::Result;
use crate::units::{count, seconds};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The plan of a call with its reasons: every candidate with its predicted time, the choice, and the devices that were
/// ruled out. `Display` writes it as a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The kernel's name.
    pub kernel: String,
    /// The length of the outermost axis.
    pub items: usize,
    /// The requested placement, as text.
    pub placement: String,
    /// The candidates, by predicted time.
    pub candidates: Vec<Alternative>,
    /// Index of the chosen candidate.
    pub choice: usize,
    /// Why it was chosen.
    pub reason: String,
    /// The predicted time of the best other candidate over that of the choice; below 1 if the other is faster. `None` if
    /// there is no other.
    pub advantage: Option<f64>,
    /// The devices that cannot or may not run the call alone.
    pub ruled_out: Vec<Exclusion>,
    /// How arrays stream through devices whose memory is too small for them.
    #[serde(default)]
    pub remarks: Vec<String>,
}

/// A candidate: one way to run a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Alternative {
    /// Its name for people.
    pub name: String,
    /// Seconds until the results are complete.
    pub predicted_seconds: f64,
    /// Of these, seconds to combine the results of its parts.
    pub combine_seconds: f64,
    /// Measurements at the nearest size that was measured, the fewest of any part: 0 if the prediction of a part comes from
    /// the rates of the device alone.
    pub samples: u64,
    /// The standard deviation of the natural logarithm of the predicted seconds: 0.1 means about 10 %.
    pub uncertainty: f64,
    /// Whether it may be chosen.
    pub eligible: bool,
    /// Its parts; several for a split.
    pub parts: Vec<AlternativePart>,
}

/// A part of an [`Alternative`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AlternativePart {
    /// The device that would run it.
    pub device: DeviceId,
    /// CPU threads that would compute it.
    pub threads: usize,
    /// The first of its items, and the one after the last.
    pub range: [usize; 2],
    /// Its predicted time, by component.
    pub predicted: Prediction,
    /// Measurements at the nearest size that was measured.
    pub samples: u64,
    /// The standard deviation of the natural logarithm of its seconds.
    pub uncertainty: f64,
    /// Whether the size is larger, or smaller, than all that were measured.
    pub extrapolated: bool,
}

/// A device that cannot or may not run a call alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Exclusion {
    /// The device.
    pub device: DeviceId,
    /// Its name for people.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Explains the plan that [`plan`](super::plan()) returns for the same arguments.
///
/// # Errors
/// As [`plan`](super::plan()).
pub fn explain(
    request: &Request<'_>,
    machine: &Machine,
    input: &PlannerInput,
    placement: &Placement,
    policy: &Policy,
) -> Result<Explanation> {
    let mut found = evaluate(request, machine, input, placement, policy)?;
    let chosen = found.candidates.remove(found.choice);
    let next = found
        .candidates
        .iter()
        .filter(|candidate| candidate.eligible)
        .min_by(|a, b| a.seconds().total_cmp(&b.seconds()));
    let advantage = next
        .filter(|_| chosen.seconds() > 0.0)
        .map(|next| next.seconds() / chosen.seconds());
    let rival = next.zip(advantage).map(|(next, ratio)| Rival {
        name: name(next),
        ratio,
    });
    let reason = reason(&found, policy, rival);
    let choice = found
        .candidates
        .iter()
        .filter(|other| other.seconds() < chosen.seconds())
        .count();
    found
        .candidates
        .sort_by(|a, b| a.seconds().total_cmp(&b.seconds()));
    found.candidates.insert(choice, chosen);
    let ruled_out = found.ruled_out.iter().map(|(device, why)| Exclusion {
        device: *device,
        name: machine
            .device(*device)
            .map_or_else(String::new, |model| model.name.clone()),
        reason: why.to_string(),
    });
    let remarks = remarks(request, machine, &found.candidates);
    Ok(Explanation {
        kernel: request.kernel.name.into(),
        items: request.items,
        placement: placement.to_string(),
        choice,
        reason,
        advantage,
        ruled_out: ruled_out.collect(),
        remarks,
        candidates: found
            .candidates
            .into_iter()
            .map(Alternative::from)
            .collect(),
    })
}

/// Remarks on parts that stream through too little memory.
fn remarks(request: &Request<'_>, machine: &Machine, candidates: &[Candidate]) -> Vec<String> {
    let parts = candidates.iter().flat_map(|candidate| {
        let parts = &candidate.plan.parts;
        parts.iter().map(move |part| (part, parts.len() > 1))
    });
    let remark = |(part, of_split): (&PlannedPart, bool)| {
        let model = machine.device(part.device)?;
        let load = Load::new(request, machine, model, &part.range).ok()?;
        let suffix = if of_split { ", of a split" } else { "" };
        Some(format!("{}{suffix}: {}", part.device, load.streams?))
    };
    parts.filter_map(remark).collect()
}

/// The best other candidate.
struct Rival {
    name: String,
    /// Its predicted time over that of the choice.
    ratio: f64,
}

fn reason(found: &Evaluation, policy: &Policy, rival: Option<Rival>) -> String {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let next = |otherwise: &str| match &rival {
        Some(Rival { name, ratio }) if *ratio >= 1.0 => {
            format!("{name} would take {ratio:.2} times as long")
        }
        Some(Rival { name, ratio }) => format!("{name} would take {} less", percent(1.0 - ratio)),
        None => otherwise.into(),
    };
    match found.reason {
        Reason::NothingToDo => "there are no items".into(),
        Reason::Asked => format!(
            "the placement asks for it; {}",
            next("no other device can run it")
        ),
        Reason::OnlyOne => "no other device can run it".into(),
        Reason::Fastest => format!(
            "it is predicted to be the fastest; {}",
            next("there is no other candidate")
        ),
        Reason::HoldsData => format!(
            "it holds the data; {}, and data move only for more than {}",
            next("there is no other candidate"),
            percent(policy.hysteresis)
        ),
        Reason::SplitSavesLittle => format!(
            "it is the fastest device; {}, and work is split only for more than {}",
            next("there is no other candidate"),
            percent(policy.split_gain)
        ),
        Reason::Compiling => format!(
            "a faster candidate must compile its pipelines first; {}",
            next("there is no other candidate")
        ),
        Reason::Exploring => format!(
            "it may be faster than the fastest known candidate, and is worth exploring; {}",
            next("there is no other candidate")
        ),
    }
}

/// The name of a candidate: `cpu, 2 threads`, or `gpu0 25 % + cpu 75 %`.
fn name(candidate: &Candidate) -> String {
    let parts = &candidate.plan.parts;
    if let [part] = &parts[..] {
        return engine_name(part.device, part.threads);
    }
    let items: usize = parts.iter().map(|part| part.range.len()).sum();
    let share = |part: &PlannedPart| {
        format!(
            "{} {:.0} %",
            part.device,
            100.0 * part.range.len() as f64 / items.max(1) as f64
        )
    };
    match parts.iter().map(share).collect::<Vec<_>>() {
        shares if shares.is_empty() => "nothing".into(),
        shares => shares.join(" + "),
    }
}

fn engine_name(device: DeviceId, threads: usize) -> String {
    match (device, threads) {
        (DeviceId::Cpu, 1) => "cpu, 1 thread".into(),
        (DeviceId::Cpu, threads) => format!("cpu, {threads} threads"),
        (gpu, _) => gpu.to_string(),
    }
}

impl From<Candidate> for Alternative {
    fn from(candidate: Candidate) -> Self {
        let samples = candidate.plan.parts.iter().map(|p| p.evidence.samples);
        Self {
            name: name(&candidate),
            predicted_seconds: candidate.seconds(),
            combine_seconds: candidate.plan.combine_seconds,
            samples: samples.min().unwrap_or(0),
            uncertainty: candidate.variance.sqrt(),
            eligible: candidate.eligible,
            parts: candidate
                .plan
                .parts
                .into_iter()
                .map(AlternativePart::from)
                .collect(),
        }
    }
}

impl From<PlannedPart> for AlternativePart {
    fn from(part: PlannedPart) -> Self {
        Self {
            device: part.device,
            threads: part.threads,
            range: [part.range.start, part.range.end],
            predicted: part.predicted,
            samples: part.evidence.samples,
            uncertainty: part.evidence.uncertainty,
            extrapolated: part.evidence.extrapolated,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, {} items, placement {}\n",
            self.kernel,
            count(self.items),
            self.placement
        )?;
        let mut rows = vec![(' ', HEADER.map(String::from))];
        for (at, candidate) in self.candidates.iter().enumerate() {
            let mark = match candidate {
                _ if at == self.choice => '*',
                candidate if !candidate.eligible => '-',
                _ => ' ',
            };
            rows.push((mark, candidate.cells()));
            let parts = candidate.parts.iter().filter(|_| candidate.parts.len() > 1);
            rows.extend(parts.map(|part| (' ', part.cells())));
        }
        write_table(f, &rows)?;
        writeln!(
            f,
            "\nchosen: {}: {}",
            self.candidates[self.choice].name, self.reason
        )?;
        for excluded in &self.ruled_out {
            writeln!(
                f,
                "ruled out: {} ({}): {}",
                excluded.device, excluded.name, excluded.reason
            )?;
        }
        for remark in &self.remarks {
            writeln!(f, "{remark}")?;
        }
        if self.candidates.iter().any(|c| c.parts.len() > 1) {
            writeln!(
                f,
                "a split takes as long as its longest part; predictions include how much its devices slow each other down"
            )?;
        }
        write!(
            f,
            "samples are runs of this kernel at the nearest size that was measured; without any, a time is predicted\n\
             from the measured rates of the device alone, and `±` says how far off it may be"
        )
    }
}

const COLUMNS: usize = 10;
const HEADER: [&str; COLUMNS] = [
    "candidate",
    "predicted",
    "±",
    "samples",
    "wait",
    "launch",
    "upload",
    "compute",
    "download",
    "combine",
];
/// A time of zero.
const NOTHING: &str = "–";

/// Leaves out the columns `wait` and `combine` if all their cells are empty or zero.
fn write_table(f: &mut fmt::Formatter<'_>, rows: &[(char, [String; COLUMNS])]) -> fmt::Result {
    let shown = |column: &usize| {
        let mut cells = rows[1..].iter().map(|(_, cells)| &cells[*column]);
        !["wait", "combine"].contains(&HEADER[*column])
            || cells.any(|cell| !cell.is_empty() && cell != NOTHING)
    };
    let width = |column: usize| {
        let cells = rows.iter().map(|(_, cells)| cells[column].chars().count());
        (column, cells.max().unwrap_or(0))
    };
    let columns: Vec<_> = (0..COLUMNS).filter(shown).map(width).collect();
    for (mark, cells) in rows {
        let mut line = String::from(*mark);
        for (column, width) in &columns {
            let cell = &cells[*column];
            line += &match column {
                0 => format!(" {cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            };
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

impl Alternative {
    /// Its row of the table. If it has several parts, their rows show the components of the time.
    fn cells(&self) -> [String; COLUMNS] {
        let mut cells = match &self.parts[..] {
            [part] => part.cells(),
            _ => Default::default(),
        };
        cells[0] = self.name.clone();
        cells[1] = seconds(self.predicted_seconds);
        cells[2] = format!("{:.0} %", 100.0 * self.uncertainty);
        cells[3] = self.samples.to_string();
        if self.combine_seconds > 0.0 {
            cells[COLUMNS - 1] = seconds(self.combine_seconds);
        }
        cells
    }
}

impl AlternativePart {
    /// Its row of the table; a component of zero is a dash.
    fn cells(&self) -> [String; COLUMNS] {
        let [start, end] = self.range;
        let name = engine_name(self.device, self.threads);
        let cell = |value: f64| match value {
            0.0 => NOTHING.into(),
            value => seconds(value),
        };
        let predicted = &self.predicted;
        [
            format!("  {name}: {}..{}", count(start), count(end)),
            seconds(predicted.seconds()),
            format!("{:.0} %", 100.0 * self.uncertainty),
            self.samples.to_string(),
            cell(predicted.wait),
            cell(predicted.launch),
            cell(predicted.upload),
            cell(predicted.compute),
            cell(predicted.download),
            String::new(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::RangeSet;
    use crate::cost::learned::KernelKey;
    use crate::cost::{Curve, DeviceModel, Engine, Limits, Link};
    use crate::device::DeviceKind;
    use crate::kernel::{Access, Role, Work};
    use crate::plan::Operand;
    use smallvec::smallvec;

    fn engine(threads: usize, launch_seconds: f64, bandwidth: f64) -> Engine {
        Engine {
            threads,
            launch_seconds,
            flops_per_second: 10.0 * bandwidth,
            bandwidth: Curve::constant(bandwidth).expect("positive"),
        }
    }

    fn device(id: DeviceId, kind: DeviceKind, engines: Vec<Engine>) -> DeviceModel {
        let link = Link::from_rate(1e-5, 1e10);
        DeviceModel {
            id,
            kind,
            name: format!("the {kind:?}"),
            engines,
            queued_seconds: 0.0,
            upload: link.clone().filter(|_| kind != DeviceKind::Cpu),
            download: link.filter(|_| kind != DeviceKind::Cpu),
            limits: Limits::default(),
        }
    }

    fn explained(n: usize, placement: Placement) -> Explanation {
        let machine = Machine {
            corun: Vec::new(),
            devices: vec![
                device(
                    DeviceId::Cpu,
                    DeviceKind::Cpu,
                    vec![engine(1, 0.0, 2e10), engine(2, 3e-6, 4e10)],
                ),
                device(
                    DeviceId::Gpu(0),
                    DeviceKind::Discrete,
                    vec![engine(1, 2e-5, 4e10)],
                ),
                device(
                    DeviceId::Gpu(1),
                    DeviceKind::Software,
                    vec![engine(1, 1e-4, 1e10)],
                ),
            ],
        };
        let residency = smallvec![
            (DeviceId::Cpu, RangeSet::from(0..n)),
            (DeviceId::Gpu(0), RangeSet::from(0..n))
        ];
        let request = Request {
            kernel: KernelKey::named("scale"),
            items: n,
            border_grain: 64,
            work: Work {
                flops: 0.0,
                bytes_read: 4.0 * n as f64,
                bytes_written: 4.0 * n as f64,
            },
            has_cpu: true,
            has_gpu: true,
            returned_bytes: 0,
            uniform_bytes: 0,
            operands: smallvec![Operand {
                role: Role::ITEM,
                access: Access::ReadWrite,
                len: n,
                element_bytes: 4,
                residency,
                read_back: 0.0,
            }],
        };
        explain(
            &request,
            &machine,
            &PlannerInput::default(),
            &placement,
            &Policy::default(),
        )
        .expect("it can be planned")
    }

    #[test]
    fn the_table_shows_every_candidate_and_the_choice() {
        let text = explained(10_000_000, Placement::Auto).to_string();
        let wanted = "\
scale, 10,000,000 items, placement auto

  candidate                                predicted     ±  samples   launch   upload  compute  download
* gpu0 50 % + cpu 50 %                       1.11 ms  71 %        0
    gpu0: 0..4,957,504                       1.11 ms  71 %        0  22.0 µs        –  1.09 ms         –
    cpu, 2 threads: 4,957,504..10,000,000    1.11 ms  71 %        0  3.30 µs        –  1.11 ms         –
  cpu, 2 threads                             2.00 ms  71 %        0  3.00 µs        –  2.00 ms         –
  gpu0                                       2.02 ms  71 %        0  20.0 µs        –  2.00 ms         –
  cpu, 1 thread                              4.00 ms  71 %        0        –        –  4.00 ms         –
- gpu1                                       12.1 ms  71 %        0   100 µs  4.01 ms  8.00 ms         –

chosen: gpu0 50 % + cpu 50 %: it is predicted to be the fastest; cpu, 2 threads would take 1.80 times as long
ruled out: gpu1 (the Software): a software adapter computes on the CPU's cores, and is not known to be faster than they are
a split takes as long as its longest part; predictions include how much its devices slow each other down
samples are runs of this kernel at the nearest size that was measured; without any, a time is predicted
from the measured rates of the device alone, and `±` says how far off it may be";
        assert_eq!(text, wanted, "\n{text}");
    }

    #[test]
    fn the_reason_fits_the_choice() {
        let reason = |n, placement| explained(n, placement).reason;
        assert_eq!(reason(0, Placement::Auto), "there are no items");
        let small =
            "it is predicted to be the fastest; cpu, 2 threads would take 8.00 times as long";
        assert_eq!(reason(1000, Placement::Auto), small);
        let asked = "the placement asks for it; cpu, 1 thread would take 98 % less";
        assert_eq!(reason(1000, Placement::Gpu(0)), asked);
        let near = reason(130_000, Placement::Auto);
        assert!(
            near.starts_with("it is the fastest device; gpu0 ")
                && near.contains("only for more than 10 %"),
            "{near}"
        );
    }

    #[test]
    fn an_explanation_survives_json() {
        let explanation = explained(64, Placement::Cpu);
        let text = serde_json::to_string(&explanation).expect("it has no maps with odd keys");
        let back: Explanation = serde_json::from_str(&text).expect("it was just written");
        assert_eq!(back, explanation);
    }
}
