//! Compiling in another process. A compiler that crashes or hangs ends that process and not this one: the pipeline is
//! reported by its name, and another process goes on after it.

use crate::subject::Subject;
use crate::tap::{Compiled, Driver};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// A pipeline that takes longer hangs: the slowest takes well below a second.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The device.
    pub device: String,
    /// The driver and its version.
    pub driver: String,
}

/// What came of a pipeline.
pub struct Answer {
    /// The pipeline.
    pub name: String,
    /// What the driver tells, or why it was not compiled.
    pub outcome: Result<Compiled, String>,
}

/// The worker: writes a line that says what it opened, then one for each subject that it reads.
pub fn serve() -> Result<(), String> {
    let opened = Driver::open();
    let identity = opened.as_ref().map(|driver| Identity {
        device: driver.name().into(),
        driver: driver.driver_version().into(),
    });
    say(&identity)?;
    let Ok(driver) = opened else {
        return Ok(());
    };
    for line in std::io::stdin().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let subject: Subject = serde_json::from_str(&line).map_err(|e| e.to_string())?;
        say(&driver.compile(&subject))?;
    }
    Ok(())
}

fn say(what: &impl Serialize) -> Result<(), String> {
    let line = serde_json::to_string(what).map_err(|e| e.to_string())?;
    writeln!(std::io::stdout(), "{line}").map_err(|e| e.to_string())
}

/// What a worker opens.
pub fn identify(command: Command) -> Result<Identity, String> {
    Worker::start(command).map(|worker| worker.identity.clone())
}

/// Compiles every subject, in workers that `command` starts.
pub fn compile(subjects: &[Subject], command: impl Fn() -> Command) -> Vec<Answer> {
    let mut worker: Option<Worker> = None;
    let mut ask = |subject: &Subject| {
        let mut running = match worker.take() {
            Some(running) => running,
            None => Worker::start(command())?,
        };
        let outcome = running.ask(subject)?;
        worker = Some(running);
        outcome
    };
    let answer = |subject: &Subject| Answer {
        name: subject.name(),
        outcome: ask(subject),
    };
    subjects.iter().map(answer).collect()
}

/// A process that compiles.
struct Worker {
    child: Child,
    lines: Receiver<String>,
    identity: Identity,
}

impl Worker {
    fn start(mut command: Command) -> Result<Self, String> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|e| format!("the worker does not start: {e}"))?;
        let stdout = child.stdout.take().ok_or("the worker has no output")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut worker = Self {
            child,
            lines,
            identity: Identity {
                device: String::new(),
                driver: String::new(),
            },
        };
        worker.identity = worker.next::<Result<Identity, String>>()??;
        Ok(worker)
    }

    /// The outcome of a subject; the outer error means that this worker is lost.
    fn ask(&mut self, subject: &Subject) -> Result<Result<Compiled, String>, String> {
        let line = serde_json::to_string(subject).map_err(|e| e.to_string())?;
        let stdin = self.child.stdin.as_mut().ok_or("the worker has no input")?;
        if writeln!(stdin, "{line}").is_err() {
            return Err(self.ended());
        }
        self.next()
    }

    fn next<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => serde_json::from_str(&line)
                .map_err(|e| format!("the worker's answer cannot be read ({e}): {line}")),
            Err(RecvTimeoutError::Timeout) => {
                let seconds = PATIENCE.as_secs();
                Err(format!("the compiler is not done after {seconds} seconds"))
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.ended()),
        }
    }

    fn ended(&mut self) -> String {
        match self.child.wait() {
            Ok(status) => format!("the compiler's process ended ({status})"),
            Err(error) => format!("the compiler's process is lost: {error}"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Either it has ended, or nothing that it does matters any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker that compiles nothing: it crashes on the shader `bad`.
    fn crashing() -> Command {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            r#"echo '{"Ok":{"device":"d","driver":"v"}}'
            while read -r line; do
              case $line in *'"label":"bad"'*) kill -SEGV $$ ;; esac
              echo '{"Ok":{"statistics":[["VGPRs",7]],"texts":[]}}'
            done"#,
        ]);
        command
    }

    #[test]
    fn a_crash_of_the_compiler_is_told_of_its_shader_and_the_others_are_compiled() {
        let subject = |label: &str| Subject {
            label: label.into(),
            source: String::new(),
            entry: "main".into(),
            constants: Vec::new(),
        };
        let subjects = ["one", "bad", "two"].map(subject);
        let answers = compile(&subjects, crashing);
        let names: Vec<&str> = answers.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(names, ["one", "bad", "two"]);
        let is_ok: Vec<bool> = answers.iter().map(|a| a.outcome.is_ok()).collect();
        assert_eq!(is_ok, [true, false, true]);
        let problem = answers[1].outcome.as_ref().expect_err("it crashes");
        assert!(problem.contains("signal: 11"), "{problem}");
    }

    #[test]
    fn a_worker_that_opens_nothing_says_why() {
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo '{"Err":"no device"}'"#]);
        assert_eq!(identify(command).expect_err("there is none"), "no device");
    }
}
