//! The audit as a page: one self-contained file without scripts.

use super::super::args::{StartLocation, unit};
use super::super::params::PARAMS;
use super::plot::{Mark, Plot, Point, Series, Shape};
use super::row::Row;
use super::summary::Meta;
use super::{Audit, Failed};
use divvy::DeviceId;
use divvy::catalog;
use divvy::units::{count, seconds};
use std::fmt::{Display, Write};

const STYLE: &str = "
:root {
  color-scheme: light dark;
  --paper: #fbfbfa; --card: #fff; --ink: #1d2129; --faint: #667085; --rule: #e3e5e9; --fine: #f1f2f4;
  --cpu: #2563eb; --gpu0: #ea7a0c; --gpu1: #0d9488; --gpu2: #be185d; --split: #8b46e0; --bad: #b42318; --bad-paper: #fef3f2;
}
@media (max-width: 700px) { .figures { grid-template-columns: repeat(2, 1fr); } }
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14161a; --card: #1b1e24; --ink: #e6e8ec; --faint: #98a1b0; --rule: #343943; --fine: #24282f;
    --cpu: #6ea3ff; --gpu0: #ffa64d; --gpu1: #38cfc0; --gpu2: #f472b6; --split: #bb8cff; --bad: #ff8a80; --bad-paper: #3a2022;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; }
h2 { font-size: 1.2rem; margin: 0; }
h2 small { font-weight: 400; color: var(--faint); font-size: .85rem; margin-left: .5rem; }
p { margin: .4rem 0; }
.faint { color: var(--faint); }
.figures { display: grid; grid-template-columns: repeat(4, 1fr); gap: .75rem; margin: 1.25rem 0; }
.figure, section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.figure { padding: .7rem .9rem; }
.figure b { display: block; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.figure span { color: var(--faint); font-size: .82rem; }
section { padding: 1rem 1.1rem; margin-top: 1.25rem; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: .6rem; }
.plots figure { flex: 1 1 420px; margin: 0; max-width: 620px; }
figcaption { color: var(--faint); font-size: .82rem; padding-left: 62px; }
svg { display: block; width: 100%; height: auto; }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; color: var(--faint); font-size: .85rem; margin-top: .4rem; }
.key span { display: inline-flex; align-items: center; gap: .4rem; }
.key svg { width: 26px; height: 16px; flex: none; }
.cpu { --c: var(--cpu); } .gpu0 { --c: var(--gpu0); } .gpu1 { --c: var(--gpu1); } .gpu2 { --c: var(--gpu2); }
.split { --c: var(--split); }
.line { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round; }
.line.software { stroke-dasharray: 6 4; }
.dot { fill: var(--c); }
.mark { fill: var(--c); stroke: var(--card); stroke-width: 1.6; }
.grid { stroke: var(--rule); } .fine { stroke: var(--fine); } .axis { stroke: var(--faint); }
.tick { fill: var(--faint); font: 11.5px system-ui, sans-serif; }
.table { overflow-x: auto; margin-top: .8rem; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; font-variant-numeric: tabular-nums; }
th { color: var(--faint); font-weight: 500; }
th, td { text-align: right; padding: .28rem .6rem; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
tr:last-child td { border-bottom: 0; }
td.bad { color: var(--bad); background: var(--bad-paper); font-weight: 600; }
.failed { color: var(--bad); }
";

/// The page.
pub fn page(audit: &Audit) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>divvy audit</title>\n",
    );
    add(
        &mut page,
        format_args!("<style>{STYLE}</style>\n</head>\n<body>\n"),
    );
    head(&mut page, audit);
    for name in kernels(audit) {
        kernel(&mut page, audit, name);
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// Escapes text for a page, between elements or in an attribute.
pub fn escape(text: impl Display) -> String {
    let mut escaped = String::new();
    for letter in text.to_string().chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Writing to a string cannot fail.
fn add(page: &mut String, element: std::fmt::Arguments<'_>) {
    let _ = page.write_fmt(element);
}

/// The kernels of an audit, in the order in which they were measured.
fn kernels(audit: &Audit) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    let failed = audit.failures.iter().map(|failed| failed.kernel);
    for name in audit.rows.iter().map(|row| row.kernel).chain(failed) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn head(page: &mut String, audit: &Audit) {
    let Meta {
        version,
        date,
        seconds: took,
        cpu,
        threads,
        gpus,
        seed,
        totals,
    } = &audit.meta;
    page.push_str("<h1>What automatic placement costs</h1>\n");
    let devices: Vec<String> = gpus
        .iter()
        .map(|gpu| {
            let software = if gpu.software {
                ", a software adapter"
            } else {
                ""
            };
            format!(
                "{}: {} ({}, {}{software})",
                gpu.device, gpu.name, gpu.driver, gpu.backend
            )
        })
        .collect();
    let gpus = if devices.is_empty() {
        "no GPU".into()
    } else {
        devices.join("; ")
    };
    add(
        page,
        format_args!(
            "<p class=\"faint\">{}. cpu: {}, {threads} threads. {}. Measured {} in {} with divvy {version}, seed {seed}.</p>\n",
            escape(match audit.rows.len() {
                1 => "1 row".into(),
                rows => format!("{} rows", count(rows)),
            }),
            escape(cpu),
            escape(gpus),
            utc(*date),
            seconds(*took),
        ),
    );
    page.push_str("<div class=\"figures\">\n");
    for (name, text) in audit.summary.lines() {
        add(
            page,
            format_args!(
                "<div class=\"figure\"><b>{}</b><span>{}</span></div>\n",
                escape(text),
                escape(name)
            ),
        );
    }
    page.push_str("</div>\n");
    page.push_str(
        "<p class=\"faint\">T is the time of a call that the planner places, O that of the best variant found by trying: \
         one CPU thread, all threads, each GPU, and splits. Regret is Σ(T − O) / ΣO; the first 20 calls of a row are \
         cold, the later ones warm. Each kernel's table gives T/O of medians when warm, of means when cold, and the error \
         of predictions.</p>\n",
    );
    for line in totals.to_string().lines() {
        add(
            page,
            format_args!("<p class=\"faint\">{}</p>\n", escape(line)),
        );
    }
}

fn kernel(page: &mut String, audit: &Audit, name: &str) {
    let rows: Vec<&Row> = audit.rows.iter().filter(|row| row.kernel == name).collect();
    let about = catalog::find(name).map_or("", |entry| entry.about);
    add(
        page,
        format_args!(
            "<section>\n<h2>{}<small>{}</small></h2>\n",
            escape(name),
            escape(about)
        ),
    );
    if !rows.is_empty() {
        key(page, audit, &rows);
        page.push_str("<div class=\"plots\">\n");
        for residency in [StartLocation::Host, StartLocation::Device] {
            let of: Vec<&Row> = rows
                .iter()
                .copied()
                .filter(|row| row.residency == residency)
                .collect();
            if of.is_empty() {
                continue;
            }
            let unit = catalog::find(name).map_or("n", |entry| unit(entry.size));
            let caption = format!("{}: seconds against {unit}", arrays(residency));
            let plot = plot(audit, &of, format!("{name}, {caption}"));
            add(
                page,
                format_args!(
                    "<figure>\n{}<figcaption>{}</figcaption>\n</figure>\n",
                    plot.svg(),
                    escape(caption)
                ),
            );
        }
        page.push_str("</div>\n");
        table(page, &rows);
    }
    for Failed {
        n,
        residency,
        error,
        ..
    } in audit.failures.iter().filter(|failed| failed.kernel == name)
    {
        let text = format!("n = {}, {}: {error}", count(*n), arrays(*residency));
        add(
            page,
            format_args!("<p class=\"failed\">{}</p>\n", escape(text)),
        );
    }
    page.push_str("</section>\n");
}

fn arrays(residency: StartLocation) -> &'static str {
    match residency {
        StartLocation::Host => "arrays on the host",
        StartLocation::Device => "arrays where it runs",
    }
}

/// The class of a device, which gives it a colour. GPUs share three colours in rotation.
fn class(device: DeviceId) -> String {
    match device.gpu() {
        Some(index) => format!("gpu{}", index % 3),
        None => "cpu".into(),
    }
}

/// The legend of colours and shapes.
fn key(page: &mut String, audit: &Audit, rows: &[&Row]) {
    page.push_str("<div class=\"key\">\n");
    let mut line = |class: &str, name: &str| {
        add(
            page,
            format_args!(
                "<span><svg viewBox=\"0 0 26 16\"><polyline class=\"line {}\" points=\"1,8 25,8\"/></svg>{}</span>\n",
                escape(class),
                escape(name),
            ),
        );
    };
    if rows.iter().any(|row| row.cpu.is_some()) {
        line("cpu", "CPU");
    }
    for device in gpus(rows) {
        let software = is_software(audit, device);
        let name = if software {
            format!("{device} (software)")
        } else {
            device.to_string()
        };
        line(&gpu_class(device, software), &name);
    }
    if rows.iter().any(|row| row.split.is_some()) {
        line("split", "best split");
    }
    let mut known: Vec<ChosenMark> = Vec::new();
    for row in rows {
        let mark = chosen(row);
        if !known.iter().any(|other| other.shape == mark.shape) {
            known.push(mark);
        }
    }
    for ChosenMark { shape, class, name } in known {
        add(
            page,
            format_args!(
                "<span><svg viewBox=\"0 0 26 16\"><g class=\"mark {}\">{}</g></svg>{}</span>\n",
                escape(class),
                shape.svg(13.0, 8.0),
                escape(name),
            ),
        );
    }
    page.push_str("</div>\n");
}

fn is_software(audit: &Audit, device: DeviceId) -> bool {
    audit
        .meta
        .gpus
        .iter()
        .any(|gpu| gpu.device == device && gpu.software)
}

fn gpu_class(device: DeviceId, software: bool) -> String {
    format!(
        "{}{}",
        class(device),
        if software { " software" } else { "" }
    )
}

/// The GPUs that were timed alone.
fn gpus(rows: &[&Row]) -> Vec<DeviceId> {
    let mut gpus: Vec<DeviceId> = rows
        .iter()
        .flat_map(|row| row.gpus.iter().map(|(device, _)| *device))
        .collect();
    gpus.sort_unstable();
    gpus.dedup();
    gpus
}

/// The mark of Auto's most frequent plan in a row.
struct ChosenMark {
    shape: Shape,
    /// The class that gives it a colour.
    class: String,
    /// Its name in the legend.
    name: &'static str,
}

fn chosen(row: &Row) -> ChosenMark {
    let (shape, class, name) = match row.chosen_parts.as_slice() {
        [] => (Shape::Circle, class(DeviceId::Cpu), "auto: nothing to do"),
        [part] if part.device == DeviceId::Cpu => {
            (Shape::Circle, class(part.device), "auto, on the CPU")
        }
        [part] => (Shape::Square, class(part.device), "auto, on a GPU"),
        _ => (Shape::Diamond, "split".into(), "auto, split"),
    };
    ChosenMark { shape, class, name }
}

fn plot(audit: &Audit, rows: &[&Row], title: String) -> Plot {
    let points = |time: &dyn Fn(&Row) -> Option<f64>| {
        let timed = rows.iter().filter_map(|row| {
            Some(Point {
                n: row.n,
                seconds: time(row)?,
            })
        });
        let mut points: Vec<Point> = timed.collect();
        points.sort_by_key(|point| point.n);
        points
    };
    let on = |row: &Row, device: DeviceId| {
        let found = row.gpus.iter().find(|(gpu, _)| *gpu == device);
        found.map(|(_, seconds)| *seconds)
    };
    let mut series = vec![Series {
        class: "split".into(),
        points: points(&|row| row.split),
    }];
    for device in gpus(rows) {
        series.push(Series {
            class: gpu_class(device, is_software(audit, device)),
            points: points(&|row| on(row, device)),
        });
    }
    series.push(Series {
        class: "cpu".into(),
        points: points(&|row| row.cpu),
    });
    let marks = rows.iter().map(|row| {
        let ChosenMark { shape, class, .. } = chosen(row);
        Mark {
            point: Point {
                n: row.n,
                seconds: row.chosen,
            },
            shape,
            class,
            title: format!(
                "auto at {}: {}, {}; {:.2} times the best, {}",
                count(row.n),
                row.chosen_name(),
                seconds(row.chosen),
                row.ratio,
                row.oracle_variant
            ),
        }
    });
    Plot {
        title,
        marks: marks.collect(),
        series,
    }
}

fn table(page: &mut String, rows: &[&Row]) {
    page.push_str("<div class=\"table\">\n<table>\n<thead><tr>");
    for title in [
        "n",
        "arrays",
        "CPU",
        "GPU",
        "best split",
        "best variant (O)",
        "auto (T)",
        "auto ran on",
        "T/O",
        "cold",
        "prediction error",
    ] {
        add(page, format_args!("<th>{title}</th>"));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        let time = |time: Option<f64>| time.map_or_else(|| "–".into(), seconds);
        let split = row.split.zip(row.split_fraction).map_or_else(
            || "–".into(),
            |(time, share)| format!("{} at {:.0} %", seconds(time), 100.0 * share),
        );
        let cold = super::statistics::ratio(row.chosen_cold, row.oracle_cold);
        let cells = [
            (count(row.n), false),
            (row.residency.name().into(), false),
            (time(row.cpu), false),
            (time(row.gpu), false),
            (split, false),
            (row.oracle_variant.clone(), false),
            (seconds(row.chosen), false),
            (row.chosen_name(), false),
            (format!("{:.3}", row.ratio), row.ratio > PARAMS.audit.marked),
            (format!("{cold:.2}"), false),
            (format!("{:.0} %", 100.0 * row.prediction_error), false),
        ];
        page.push_str("<tr>");
        for (text, bad) in cells {
            let class = if bad { " class=\"bad\"" } else { "" };
            add(page, format_args!("<td{class}>{}</td>", escape(text)));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</div>\n");
}

/// Seconds since 1970 as a date and time of day.
fn utc(date: u64) -> String {
    let (days, minutes) = (date / 86_400, date % 86_400 / 60);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let months = [
        31,
        28 + u64::from(is_leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 1;
    for length in months {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    format!(
        "{year}-{month:02}-{:02} {:02}:{:02} UTC",
        day + 1,
        minutes / 60,
        minutes % 60
    )
}

#[cfg(test)]
pub mod tests {
    use super::super::row::tests::row;
    use super::super::tests::audit;
    use super::*;

    /// Checks that every element is closed, in order, and that every `<` and `&` belongs to an element or an entity.
    pub fn assert_well_formed(text: &str) {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = text.strip_prefix("<!doctype html>").unwrap_or(text);
        while let Some(at) = rest.find(['<', '>', '&']) {
            let (found, after) = (&rest[at..=at], &rest[at + 1..]);
            if found == "&" {
                let end = after.find(';').expect("an entity ends");
                assert!(
                    ["amp", "lt", "gt", "quot", "#39"].contains(&&after[..end]),
                    "{}",
                    &after[..end]
                );
                rest = &after[end..];
                continue;
            }
            assert_eq!(found, "<", "a stray `>` before {after:.40}");
            let end = after.find('>').expect("a tag ends");
            let tag = &after[..end];
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            rest = &after[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                let name = tag.split(' ').next().expect("a name");
                open.push(name);
                if name == "style" {
                    rest = &rest[rest.find("</style>").expect("it ends")..];
                }
            }
        }
        assert_eq!(open, Vec::<&str>::new(), "never closed");
    }

    #[test]
    fn the_page_is_well_formed_and_self_contained() {
        let mut split = row("axpy", 1e-3, 2e-3);
        (split.split, split.split_fraction) = (Some(2e-3), Some(0.25));
        (split.gpu, split.gpus) = (Some(3e-3), vec![(DeviceId::Gpu(0), 3e-3)]);
        split.residency = StartLocation::Device;
        let page = page(&audit(vec![
            row("axpy", 1e-6, 1e-6),
            split,
            row("<b>", 1.0, 1.0),
        ]));
        assert_well_formed(&page);
        for outside in ["http", "<script", "<link", "src=", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        for part in [
            "<svg",
            "prefers-color-scheme",
            "axpy",
            "regret, warm",
            "best split",
            "class=\"bad\"",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn an_audit_without_rows_is_a_page_too() {
        assert_well_formed(&page(&audit(Vec::new())));
    }

    #[test]
    fn names_and_errors_are_escaped() {
        assert_eq!(
            escape("<a href='x'>&\"</a>"),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;&lt;/a&gt;"
        );
        let mut audit = audit(vec![row("k\"<i>", 1.0, 1.0)]);
        audit.meta.cpu = "<script>alert(1)</script>".into();
        audit.failures.push(Failed {
            kernel: "axpy",
            n: 3,
            residency: StartLocation::Host,
            error: "a < b & c".into(),
        });
        let page = page(&audit);
        assert_well_formed(&page);
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
        assert!(page.contains("a &lt; b &amp; c"));
    }

    #[test]
    fn dates_follow_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(utc(1_767_225_599), "2025-12-31 23:59 UTC");
        assert_eq!(utc(1_795_176_393), "2026-11-20 12:06 UTC");
    }
}
