//! How far a long step has come: a bar with the time left on a terminal, now and then a line elsewhere.
//! Both go to stderr.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{output, units};

/// Steps that take less leave no trace.
const QUIET: Duration = Duration::from_secs(2);

/// Plain lines are at least this far apart.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// One step of known length.
#[derive(Debug)]
pub(crate) struct Progress {
    label: String,
    total: u64,
    done: u64,
    /// Parts that were done before the clock ran; the speed is that of the others.
    before: u64,
    started: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts a step of `total` equal parts.
    pub(crate) fn start(label: &str, total: u64) -> Self {
        Self::start_after(label, total, 0)
    }

    /// Starts a step of `total` equal parts of which `before` are done already.
    pub(crate) fn start_after(label: &str, total: u64, before: u64) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg} [{wide_bar}] {pos}/{len}, {eta} left")
                .expect("the template is valid")
                .progress_chars("=> ");
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let bar = bar.with_style(style).with_message(label.to_string());
            if before > 0 {
                // The bar takes notice of the parts, then forgets how fast they came.
                bar.set_position(before);
                bar.tick();
                bar.reset_eta();
            }
            bar
        });
        let now = Instant::now();
        Self { label: label.into(), total, done: before, before, started: now, last_line: now, bar }
    }

    /// Counts `parts` more as done.
    pub(crate) fn advance(&mut self, parts: u64) {
        self.done += parts;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            output::note(&line(&self.label, self.before, self.done, self.total, self.started.elapsed()));
        }
    }

    /// Prints a line above the bar.
    pub(crate) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    /// Ends the step and says how long it took.
    pub(crate) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        output::note(&format!("{}: {}", self.label, units::seconds(self.started.elapsed().as_secs_f64())));
    }
}

/// Steps of a run, named as they come; see [`QUIET`].
#[derive(Debug)]
pub(crate) struct Steps {
    label: &'static str,
    started: Instant,
    shown: Option<Progress>,
}

impl Steps {
    /// Before the first step.
    pub(crate) fn new() -> Self {
        Self { label: "", started: Instant::now(), shown: None }
    }

    /// `done` of `total` parts of step `label` are done; another label than before starts a new step.
    pub(crate) fn report(&mut self, label: &'static str, done: usize, total: usize) {
        if label != self.label {
            self.end();
            (self.label, self.started) = (label, Instant::now());
        }
        if self.shown.is_none() && self.started.elapsed() >= QUIET && done < total {
            self.shown = Some(Progress { started: self.started, ..Progress::start(label, total as u64) });
        }
        if let Some(shown) = &mut self.shown {
            shown.advance((done as u64).saturating_sub(shown.done));
        }
    }

    /// Ends the last step.
    pub(crate) fn end(&mut self) {
        if let Some(shown) = self.shown.take() {
            shown.finish();
        }
    }
}

/// `measuring: 3 of 30, 4 min 30 s left`; of the parts, those after `before` were done in `elapsed`.
fn line(label: &str, before: u64, done: u64, total: u64, elapsed: Duration) -> String {
    if done <= before {
        return format!("{label}: {done} of {total}");
    }
    let left = elapsed.as_secs_f64() * total.saturating_sub(done) as f64 / (done - before) as f64;
    format!("{label}: {done} of {total}, {} left", units::seconds(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_extrapolate_the_time_left() {
        let elapsed = Duration::from_secs(30);
        assert_eq!(line("measuring", 0, 3, 30, elapsed), "measuring: 3 of 30, 4 min 30 s left");
        assert_eq!(line("measuring", 0, 0, 30, elapsed), "measuring: 0 of 30");
        assert_eq!(line("measuring", 0, 31, 30, elapsed), "measuring: 31 of 30, 0.00 s left");
    }

    #[test]
    fn parts_of_earlier_runs_do_not_count_as_done_in_this_time() {
        let elapsed = Duration::from_secs(30);
        assert_eq!(line("measuring", 20, 21, 30, elapsed), "measuring: 21 of 30, 4 min 30 s left");
        assert_eq!(line("measuring", 20, 20, 30, elapsed), "measuring: 20 of 30");
    }
}
