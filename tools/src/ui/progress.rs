//! One live line for work that takes a while: a bar with rate and remaining time on a terminal, nothing elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// Redraws a second: enough to look alive, little enough to cost nothing.
const REDRAWS: u8 = 10;

/// A progress line on standard error. Dropping it leaves what was drawn last.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar of `total` units with a word in front; of 0, as nobody knows how many, a count.
    pub(crate) fn bar(total: u64, what: &'static str) -> Self {
        let style = if total == 0 {
            "{prefix:>10} {spinner:.green} {human_pos}  {msg}"
        } else {
            "{prefix:>10} {bar:32.green} {human_pos}/{human_len}  {msg}"
        };
        Self::styled(ProgressBar::new(total), style, what)
    }

    /// No line at all: for `--json` and for tests.
    pub(crate) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// So much is done; `message` is shown behind.
    pub(crate) fn set(&self, done: u64, message: String) {
        self.0.set_position(done);
        self.0.set_message(message);
    }

    /// It is complete; the line stays.
    pub(crate) fn finish(&self, message: String) {
        self.0.finish_with_message(message);
    }

    fn styled(bar: ProgressBar, template: &str, what: &'static str) -> Self {
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(REDRAWS));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }
}
