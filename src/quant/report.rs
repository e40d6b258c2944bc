//! What a conversion tells while it runs.

/// Receives lines and progress. The command line prints them; tests collect them.
pub trait Reporter {
    /// A line of the report.
    fn note(&mut self, line: &str);

    /// `done` of `all` blocks of a stage are finished.
    fn progress(&mut self, stage: &str, done: usize, all: usize);
}
