//! A progress bar for work that takes a while: on a terminal only, and not before it is clear that it takes a while.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr, stdout};
use std::time::{Duration, Instant};

/// Work that is done sooner than this shows no bar.
const PATIENCE: Duration = Duration::from_millis(400);

/// A bar on standard error that is drawn between steps, never while one is timed, and cleared in the end.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    terminal: bool,
}

impl Progress {
    /// Nothing done yet of `steps`.
    pub fn new(steps: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            bar,
            started: Instant::now(),
            // Whoever pipes either stream away wants nothing but the output.
            terminal: stdout().is_terminal() && stderr().is_terminal(),
        }
    }

    /// Never a bar: for work that is a step of another's.
    pub fn none() -> Self {
        let mut none = Self::new(0);
        none.terminal = false;
        none
    }

    /// Says what is being done now.
    pub fn doing(&self, what: impl Into<String>) {
        self.show();
        self.bar.set_message(what.into());
    }

    /// Another step is done.
    pub fn step(&self) {
        self.show();
        self.bar.inc(1);
    }

    /// Clears the bar while `print` writes to the terminal.
    pub fn hidden_while<R>(&self, print: impl FnOnce() -> R) -> R {
        self.bar.suspend(print)
    }

    fn show(&self) {
        if self.terminal && self.bar.is_hidden() && self.started.elapsed() > PATIENCE {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
