//! How far a run is: a bar on a terminal, plain lines elsewhere and on terminals that cannot move the cursor, always on
//! standard error.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two plain lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Progress through a known number of units of work.
pub struct Progress {
    unit: String,
    total: u64,
    /// Done before this run began, so that the rate is this run's own.
    base: u64,
    done: u64,
    note: String,
    start: Instant,
    display: Display,
}

enum Display {
    Bar(ProgressBar),
    /// When the last line was written.
    Lines(Instant),
}

impl Progress {
    /// Begins with what an earlier run has done (0 for none), which counts for the position but not for the rate.
    pub fn resumed(total: u64, done: u64, unit: &str) -> Self {
        let start = Instant::now();
        let display =
            if moves_cursor() { Display::Bar(bar(total, done, unit, columns())) } else { Display::Lines(start) };
        Self { unit: unit.to_owned(), total, base: done, done, note: String::new(), start, display }
    }

    /// Reports how many units are done by now, with a few words on what is being done.
    pub fn set(&mut self, done: u64, note: &str) {
        self.done = done;
        note.clone_into(&mut self.note);
        let now = Instant::now();
        match &mut self.display {
            Display::Bar(bar) => {
                bar.set_message(self.note.clone());
                bar.set_position(done);
            }
            Display::Lines(last) => {
                if now.duration_since(*last) >= INTERVAL {
                    *last = now;
                    self.write_line();
                }
            }
        }
    }

    /// Writes a line of its own, above the bar if there is one.
    pub fn say(progress: Option<&Self>, text: &str) {
        match progress.map(|progress| &progress.display) {
            Some(Display::Bar(bar)) => bar.println(text),
            // A message is a courtesy, as progress is.
            _ => drop(writeln!(io::stderr().lock(), "{text}")),
        }
    }

    /// Ends the display; the last state stays visible.
    pub fn finish(self) {
        match &self.display {
            Display::Bar(bar) => bar.abandon(),
            Display::Lines(_) => self.write_line(),
        }
    }

    fn write_line(&self) {
        let line = self.line(self.start.elapsed());
        // Progress is a courtesy: a closed standard error must not end the run.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    fn line(&self, elapsed: Duration) -> String {
        let (done, total, unit) = (HumanCount(self.done), HumanCount(self.total), &self.unit);
        let mut line = format!("{done}/{total} {unit}");
        let rate = self.done.saturating_sub(self.base) as f64 / elapsed.as_secs_f64();
        if rate.is_finite() && rate > 0.0 {
            line += &format!(", {rate:.1} {unit}/s");
            let left = Duration::try_from_secs_f64(self.total.saturating_sub(self.done) as f64 / rate);
            if let Ok(left) = left.map(|left| HumanDuration(left.max(Duration::from_secs(1))))
                && self.done < self.total
            {
                line += &format!(", {left} left");
            }
        }
        if self.note.is_empty() { line } else { line + ": " + &self.note }
    }
}

/// One display for each long piece of work, one after the other.
#[derive(Default)]
pub struct Stages {
    current: Option<(String, Progress)>,
}

impl Stages {
    /// Reports how far the piece of work with this title is; another title begins another display.
    pub fn set(&mut self, title: &str, unit: &str, done: u64, total: u64) {
        match &mut self.current {
            Some((current, progress)) if current == title => progress.set(done, title),
            _ => {
                self.finish();
                let mut progress = Progress::resumed(total, done, unit);
                progress.set(done, title);
                self.current = Some((title.to_owned(), progress));
            }
        }
    }

    /// Writes a line of its own.
    pub fn say(&self, text: &str) {
        Progress::say(self.current.as_ref().map(|(_, progress)| progress), text);
    }

    /// Ends the display.
    pub fn finish(&mut self) {
        if let Some((_, progress)) = self.current.take() {
            progress.finish();
        }
    }
}

/// Whether standard error is a terminal on which a line can be drawn anew.
fn moves_cursor() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// Width of the terminal of standard error; one that does not know has the width that COLUMNS says, else 80.
fn columns() -> usize {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request writes to a `winsize` and to nothing else.
    let known = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) } == 0;
    let stated = || std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    Some(usize::from(size.ws_col)).filter(|width| known && *width > 0).or_else(stated).unwrap_or(80)
}

/// What a line shows, from left to right. What the words before the note take at most decides how much there is of it, since
/// a line that goes on in the next row is drawn again and again. The note is cut off where the row ends.
fn template(columns: usize, unit: &str) -> String {
    let position = format!("{{human_pos}}/{{human_len}} {unit}");
    match columns {
        100.. => format!("{{bar:30}} {position} {{per_sec}} ETA {{eta}} {{wide_msg}}"),
        60..100 => format!("{position} {{per_sec}} ETA {{eta}} {{wide_msg}}"),
        _ => format!("{position} {{eta}} {{wide_msg}}"),
    }
}

fn bar(total: u64, done: u64, unit: &str, columns: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_position(done);
    // No colour, so NO_COLOR has nothing to switch off.
    if let Ok(style) = ProgressStyle::with_template(&template(columns, unit)) {
        bar.set_style(style.with_key("per_sec", {
            let unit = unit.to_owned();
            move |state: &indicatif::ProgressState, text: &mut dyn std::fmt::Write| {
                // A failed write only shortens the bar.
                let _ = write!(text, "{:.1} {unit}/s", state.per_sec());
            }
        }));
    }
    bar.reset_eta();
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(base: u64, done: u64, total: u64) -> Progress {
        let now = Instant::now();
        Progress {
            unit: "questions".into(),
            total,
            base,
            done,
            note: String::new(),
            start: now,
            display: Display::Lines(now),
        }
    }

    #[test]
    fn a_plain_line_has_position_rate_and_time_left() {
        let progress = at(0, 2_000, 9_673);
        assert_eq!(progress.line(Duration::from_secs(10)), "2,000/9,673 questions, 200.0 questions/s, 38 seconds left");
    }

    #[test]
    fn a_resumed_run_reports_its_own_rate() {
        let progress = at(9_000, 9_100, 9_200);
        assert_eq!(progress.line(Duration::from_secs(10)), "9,100/9,200 questions, 10.0 questions/s, 10 seconds left");
    }

    #[test]
    fn nothing_done_has_no_rate_and_all_done_no_time_left() {
        assert_eq!(at(0, 0, 5).line(Duration::from_secs(10)), "0/5 questions");
        let mut progress = at(0, 5, 5);
        progress.note = "done".into();
        assert_eq!(progress.line(Duration::from_secs(5)), "5/5 questions, 1.0 questions/s: done");
    }
}
