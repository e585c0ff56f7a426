//! The table, and what stands out in it.

use crate::assembly::Count;
use crate::family::Family;
use crate::figures::Figures;
use std::fmt::Write;

/// A quarter of the 32 that RADV tells at most.
const FEW_SUBGROUPS: u64 = 8;

/// A pipeline and what came of it.
pub struct Row {
    /// The pipeline without its constants.
    pub entry: String,
    /// The pipeline.
    pub name: String,
    /// Its figures, or why there are none.
    pub figures: Result<Figures, String>,
}

/// Why the check fails: pipelines that could not be compiled, that spill or use scratch.
pub fn problems(rows: &[Row]) -> Vec<String> {
    let problem = |row: &Row| {
        let what = match &row.figures {
            Ok(figures) => figures.problem()?,
            Err(problem) => problem.clone(),
        };
        Some(format!("{}: {what}", row.name))
    };
    rows.iter().filter_map(problem).collect()
}

/// A page of Markdown.
pub fn page(family: &Family, rows: &[Row]) -> String {
    let mut page = format!(
        "# What RADV makes of the built-in shaders: {}\n\n\
         {} pipelines, compiled for {} by {}, from SPIR-V of naga {} through wgpu-hal {}; nothing was run.\n\
         Command: `scripts/gpu_static.sh --keep`\n\n",
        family.name,
        rows.len(),
        family.identity.device,
        family.identity.driver,
        version("naga"),
        version("wgpu-hal"),
    );
    page += "Subgroups: how many a SIMD holds at once, 32 at most, as RADV counts them. Loads: instructions that load \
             vectors from memory; in flight: the most of them at once, if the instructions run in the order of the text.\n\
             Hottest loop: instructions of the innermost loop with the most multiply-adds (or, without any, instructions); \
             FMA: multiply-adds as a share of its vector instructions.\n\n";
    page += "| pipeline | VGPRs | SGPRs | LDS, bytes | subgroups | instructions | loads | in flight | spills | scratch, bytes \
             | hottest loop | FMA |\n";
    page += "|---|---|---|---|---|---|---|---|---|---|---|---|\n";
    for row in rows {
        page += &line(row);
    }
    page += &standouts(rows);
    page
}

fn line(row: &Row) -> String {
    let f = match &row.figures {
        Ok(figures) => figures,
        Err(problem) => {
            let problem = problem.replace('|', "\\|").replace('\n', " ");
            return format!("| {} | {problem} | | | | | | | | | | |\n", row.name);
        }
    };
    let (hottest, share) = match &f.profile.hottest {
        Some(count) => {
            let share = 100.0 * count.multiply_adds as f64 / count.vector.max(1) as f64;
            (count.instructions.to_string(), format!("{share:.0} %"))
        }
        None => ("no loop".into(), String::new()),
    };
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {hottest} | {share} |\n",
        row.name,
        f.vgprs,
        f.sgprs,
        f.lds,
        f.subgroups,
        f.instructions,
        f.profile.all.loads,
        f.profile.all.in_flight,
        f.spills,
        f.scratch,
    )
}

/// Facts that follow from the figures.
fn standouts(rows: &[Row]) -> String {
    let mut text = "\n## What stands out\n\n".to_owned();
    let mut list = |title: &str, stands_out: &dyn Fn(&Figures) -> bool| {
        let mut found: Vec<(&str, usize)> = Vec::new();
        for row in rows {
            if !row.figures.as_ref().is_ok_and(stands_out) {
                continue;
            }
            match found.iter_mut().find(|(entry, _)| *entry == row.entry) {
                Some((_, count)) => *count += 1,
                None => found.push((&row.entry, 1)),
            }
        }
        let tell = |(entry, count): &(&str, usize)| {
            let of = rows.iter().filter(|row| row.entry == *entry).count();
            match of {
                1 => (*entry).to_owned(),
                _ => format!("{entry} ({count} of {of} pipelines)"),
            }
        };
        let found: Vec<String> = found.iter().map(tell).collect();
        let found = if found.is_empty() {
            "none".into()
        } else {
            found.join(", ")
        };
        let _ = writeln!(text, "- {title}: {found}.");
    };
    list(
        &format!("{FEW_SUBGROUPS} subgroups per SIMD or fewer"),
        &|f| f.subgroups <= FEW_SUBGROUPS,
    );
    list(
        "Two loads or more of which only one is in flight at a time",
        &|f| f.profile.all.loads >= 2 && f.profile.all.in_flight == 1,
    );
    list("A hottest loop with one load in flight at a time", &|f| {
        f.profile
            .hottest
            .is_some_and(|hottest| hottest.in_flight == 1)
    });
    list(
        "Multiply-adds in the hottest loop that are less than half of its vector instructions",
        &|f| {
            let has_few =
                |count: Count| count.multiply_adds > 0 && 2 * count.multiply_adds < count.vector;
            f.profile.hottest.is_some_and(has_few)
        },
    );
    text
}

/// The version of a dependency that this program is built with.
fn version(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    let version = lines
        .nth(1)
        .and_then(|line| line.strip_prefix("version = \""));
    version
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock_file() {
        assert!(version("naga").starts_with("30."), "{}", version("naga"));
        assert!(version("wgpu-hal").starts_with("30."));
        assert_eq!(version("no-such-package"), "unknown");
    }

    #[test]
    fn what_could_not_be_compiled_is_a_problem_and_in_the_table() {
        let row = Row {
            entry: "odd".into(),
            name: "odd".into(),
            figures: Err("it | is\nodd".into()),
        };
        assert_eq!(line(&row), "| odd | it \\| is odd | | | | | | | | | | |\n");
        assert_eq!(problems(&[row]), ["odd: it | is\nodd"]);
    }
}
