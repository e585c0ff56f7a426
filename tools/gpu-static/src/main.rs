//! Looks at the code that a GPU's compiler makes of Divvy's shaders, without the GPU: Mesa's RADV compiles for AMD hardware
//! that is not there. Prints a table for each family, and fails if a pipeline spills registers, uses scratch memory, or
//! cannot be compiled.
//!
//! It says nothing of memory behaviour or of other vendors' compilers, and nothing is run: whether results are right is for
//! the library's own tests. Every pipeline that the library makes is looked at; see `divvy::catalog::shaders` for why none
//! can be missing.

mod assembly;
mod family;
mod figures;
mod report;
mod subject;
mod tap;
mod worker;

use clap::Parser;
use family::Family;
use figures::Figures;
use report::Row;
use std::path::PathBuf;
use std::process::ExitCode;
use subject::Subject;

/// Compiles Divvy's shaders with RADV for AMD GPUs that are not there, and prints what comes out.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// A family of GPUs as Mesa calls it, such as navi21 or gfx1100; may be given several times.
    #[arg(long = "family", required_unless_present = "worker")]
    families: Vec<String>,
    /// Looks at a WGSL file, its override constants at their defaults, and not at the built-in shaders.
    #[arg(long, value_name = "FILE")]
    wgsl: Option<PathBuf>,
    /// Prints the assembly of the pipeline of this name, and no table.
    #[arg(long, value_name = "NAME")]
    assembly: Option<String>,
    /// Also writes each table to this file, in whose name {family} is replaced.
    #[arg(long, value_name = "FILE")]
    output: Option<String>,
    /// Compiles what standard input asks for: the process that a crash of the compiler ends.
    #[arg(long, hide = true)]
    worker: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("gpu-static: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing was refused.
fn run(args: &Args) -> Result<bool, String> {
    if args.worker {
        return worker::serve().map(|()| true);
    }
    let mut subjects = match &args.wgsl {
        Some(path) => Subject::of_file(path)?,
        None => Subject::all(),
    };
    if let Some(name) = &args.assembly {
        subjects.retain(|subject| subject.name() == *name);
        if subjects.is_empty() {
            return Err(format!(
                "there is no pipeline `{name}`; the table without --assembly names all"
            ));
        }
    }
    let mut all_good = true;
    for name in &args.families {
        let family = Family::find(name)?;
        let answers = worker::compile(&subjects, || family.command());
        if args.assembly.is_some() {
            for answer in &answers {
                println!("{}", assembly::text(&answer.outcome.clone()?.texts)?);
            }
            continue;
        }
        let rows: Vec<Row> = subjects
            .iter()
            .zip(answers)
            .map(|(subject, answer)| Row {
                entry: subject.name_of_entry(),
                name: answer.name,
                figures: answer.outcome.and_then(|compiled| Figures::of(&compiled)),
            })
            .collect();
        let page = report::page(&family, &rows);
        print!("{page}");
        if let Some(output) = &args.output {
            let path = output.replace("{family}", name);
            std::fs::write(&path, &page).map_err(|e| format!("{path} cannot be written: {e}"))?;
        }
        for problem in report::problems(&rows) {
            eprintln!("gpu-static: {}: {problem}", family.name);
            all_good = false;
        }
    }
    Ok(all_good)
}
