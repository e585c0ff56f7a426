//! A progress bar for long work, on a terminal only.

use super::params::PARAMS;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr, stdout};
use std::time::Instant;

/// A bar on standard error. It is drawn between steps, never while a step is timed, and cleared at the end.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    terminal: bool,
}

impl Progress {
    /// A bar of `steps` steps, none of them done.
    pub fn new(steps: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            bar,
            started: Instant::now(),
            // If either stream is redirected, only the output is wanted.
            terminal: stdout().is_terminal() && stderr().is_terminal(),
        }
    }

    /// No bar: for work that is a step of other work.
    pub fn none() -> Self {
        let mut none = Self::new(0);
        none.terminal = false;
        none
    }

    /// Shows the current work.
    pub fn doing(&self, what: impl Into<String>) {
        self.show();
        self.bar.set_message(what.into());
    }

    /// Counts a finished step.
    pub fn step(&self) {
        self.show();
        self.bar.inc(1);
    }

    /// Clears the bar while `print` writes to the terminal.
    pub fn hidden_while<R>(&self, print: impl FnOnce() -> R) -> R {
        self.bar.suspend(print)
    }

    fn show(&self) {
        if self.terminal
            && self.bar.is_hidden()
            && self.started.elapsed() > PARAMS.timing.progress_delay
        {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
