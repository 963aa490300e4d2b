//! The output for people: lines on the two streams, colours, the progress bar, numbers and names.
//!
//! Nothing here panics when a stream is closed: `print!` and `eprintln!` would.
//!
//! A terminal shows errors in red and warnings in yellow. `NO_COLOR`, `CLICOLOR=0` and `TERM=dumb` turn colours off, and
//! `CLICOLOR_FORCE` turns them on for files and pipes, too.

use crate::thousands::thousands;
use crate::{Failure, interrupt};
use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use log::{Level, LevelFilter};
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The colour of errors, and of what is wrong in a model.
const ERROR: Style = AnsiColor::Red.on_default().bold();
/// The colour of warnings.
const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// Writes to standard output, at once. A reader that has gone (`| head`) is not an error: it has seen what it wanted.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::cannot(format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Writes the line of an error, once per process: when a signal arrives, its handler and the work that it ends both have one.
pub fn complain(text: &str) {
    static SAID: Mutex<bool> = Mutex::new(false);
    // The lock is held until the line is written, because the handler ends the process right after this.
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !std::mem::replace(&mut said, true) {
        say(&format!("df11: {} {}\n", paint("error:", ERROR, &std::io::stderr()), clean(text)));
    }
}

/// Writes a line about a result to standard error.
pub fn note(text: &str) {
    say(&format!("df11: {}\n", clean(text)));
}

/// Writes clap's message about a wrong command line. It begins with `error: `, and has lines of advice.
pub fn explain(error: &clap::Error) {
    let text = error.render();
    let text = if has_colours(&std::io::stderr()) { text.ansi().to_string() } else { text.to_string() };
    say(&format!("df11: {text}"));
}

/// Returns a word of the results, such as `BAD`, in the colour of errors where standard output shows colours.
pub fn wrong(word: &str) -> String {
    paint(word, ERROR, &std::io::stdout())
}

fn paint(text: &str, style: Style, stream: &impl RawStream) -> String {
    if has_colours(stream) { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

fn has_colours(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// Writes to standard error in one piece, so that lines of several processes do not mix. Nobody can be told if it fails.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Sends what the library logs to standard error: warnings, with `-v` and `-vv` more, with `-q` nothing.
pub fn log_to_stderr(verbose: u8, quiet: bool) {
    let most = match verbose {
        _ if quiet => LevelFilter::Off,
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Trace,
    };
    env_logger::Builder::new()
        .filter_level(most)
        .format(|out, record| {
            let stderr = std::io::stderr();
            let level = match record.level() {
                Level::Error => paint("error:", ERROR, &stderr),
                Level::Warn => paint("warning:", WARNING, &stderr),
                Level::Info => "info:".into(),
                Level::Debug | Level::Trace => "debug:".into(),
            };
            writeln!(out, "df11: {level} {}", clean(&record.args().to_string()))
        })
        .init();
}

/// What a progress bar shows, the most telling first, and the columns that this takes besides the message and the bar itself. The
/// message goes first where there is no room: whoever typed the command knows it.
const TEMPLATES: [(&str, usize); 5] = [
    (
        "{msg} {wide_bar} {percent:>3} %  {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left",
        58,
    ),
    ("{wide_bar} {percent:>3} %  {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left", 57),
    ("{wide_bar} {percent:>3} %  {decimal_bytes_per_sec}  {eta} left", 31),
    ("{wide_bar} {percent:>3} %  {eta} left", 17),
    ("{percent:>3} %  {eta}", 11),
];

/// Returns the number of the first template that fits a line of so many columns, with this message; the last one if none does.
fn template_for(columns: usize, message: &str) -> usize {
    const BAR: usize = 8;
    let takes = |(template, rest): &(&str, usize)| {
        let shown = |key: &str, columns| if template.contains(key) { columns } else { 0 };
        rest + shown("{msg}", message.len()) + shown("{wide_bar}", BAR)
    };
    TEMPLATES.iter().position(|template| takes(template) <= columns).unwrap_or(TEMPLATES.len() - 1)
}

/// A bar of indicatif's, and what is needed to fit it into the terminal, which can become narrower and wider.
#[derive(Clone)]
struct Bar {
    bar: ProgressBar,
    message: &'static str,
    /// The number of the template that it has.
    template: Arc<AtomicUsize>,
}

impl Bar {
    fn new(message: &'static str, bytes: u64) -> Bar {
        let target = if bytes > 0 { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(bytes), target).with_message(message);
        let bar = Bar { bar, message, template: Arc::new(AtomicUsize::new(usize::MAX)) };
        bar.fit();
        bar
    }

    /// Chooses what is shown by the width of the terminal.
    fn fit(&self) {
        let columns = terminal_size::terminal_size_of(std::io::stderr()).map_or(80, |(width, _)| width.0.into());
        let number = template_for(columns, self.message);
        if self.template.swap(number, Ordering::Relaxed) == number {
            return;
        }
        if let Ok(style) = ProgressStyle::with_template(TEMPLATES[number].0) {
            self.bar.set_style(style);
        }
    }
}

/// A progress bar on standard error, where that is a terminal; else nothing.
pub struct Progress(Option<Bar>);

impl Progress {
    /// Starts a bar for that many bytes. One for 0 bytes is not seen until it is known how many there are.
    pub fn new(what: &'static str, bytes: u64, quiet: bool) -> Progress {
        Progress((!quiet && std::io::stderr().is_terminal()).then(|| Bar::new(what, bytes)))
    }

    /// Returns the progress for a call of the library: it moves the bar, and cancels the call when the process is interrupted.
    pub fn of_library(&self) -> df11::Progress {
        let bar = self.0.clone();
        df11::Progress::with_callback(move |progress| {
            if let Some(bar) = bar.as_ref().filter(|_| progress.total() > 0) {
                bar.fit();
                bar.bar.set_length(progress.total());
                if bar.bar.is_hidden() {
                    bar.bar.set_draw_target(ProgressDrawTarget::stderr());
                }
                bar.bar.set_position(progress.done());
            }
            interrupt::check().is_ok()
        })
    }

    /// Adds bytes that are done.
    pub fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.fit();
            bar.bar.inc(bytes);
        }
    }

    /// Writes to standard output while the bar is out of the way.
    pub fn print(&self, text: &str) -> Result<(), Failure> {
        match &self.0 {
            Some(bar) => bar.bar.suspend(|| print(text)),
            None => print(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.bar.finish_and_clear();
        }
    }
}

/// Escapes a text so that it cannot control a terminal, and so that all of it is seen.
pub fn clean(text: &str) -> String {
    df11::escape(text)
}

/// Returns a clean name of limited length. If it is longer, its middle is left out, because names differ at their ends.
pub fn fit(name: &str, width: usize) -> String {
    const GAP: &str = "...";
    let chars: Vec<char> = clean(name).chars().collect();
    if chars.len() <= width {
        return chars.into_iter().collect();
    }
    let kept = width.saturating_sub(GAP.len());
    let head = kept / 3;
    let tail = &chars[chars.len() - (kept - head)..];
    chars[..head].iter().copied().chain(GAP.chars()).chain(tail.iter().copied()).collect()
}

/// Formats bytes with four digits and a decimal prefix, as shops and model hubs count them: `15.73 MB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let (mut value, mut unit) = (count as f64 / 1000.0, 0);
    // A value that would be rounded up to 1000 belongs to the next unit.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 9.9995 { 3 } else { 1 + usize::from(value < 99.995) };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Formats a duration as the end of a sentence. Returns nothing below a tenth of a second.
pub fn took(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.1 { String::new() } else { format!(" in {seconds:.1} s") }
}

/// Formats a part of a whole: `70.12 %`.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.2} %", 100.0 * part as f64 / whole as f64) }
}

/// Formats a number and its noun: `1 group`, `2 groups`.
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// Appends a line to a string, which cannot fail. There are no spaces after the last column.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{
        use std::fmt::Write as _;
        let _ = writeln!($out, "{}", format!($($arg)*).trim_end());
    }};
}
pub(crate) use line;

/// Says that a model has groups that only this library reads.
pub fn extension(groups: u64) -> String {
    format!("needs libdf11: the reference's format cannot name or hold {}", counted(groups, "group"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.000 kB"),
            (9_999, "9.999 kB"),
            (9_999_900, "10.00 MB"),
            (99_994, "99.99 kB"),
            (99_996, "100.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.000 MB"),
            (15_728_640, "15.73 MB"),
            (u64::MAX, "18.45 EB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(
            (counted(1, "group"), counted(0, "group"), counted(2000, "file")),
            ("1 group".into(), "0 groups".into(), "2,000 files".into())
        );
    }

    #[test]
    fn names_cannot_steer_a_terminal_and_fit() {
        assert_eq!(clean("a\u{1b}[2J\n\u{202e}b"), "a\\u{1b}[2J\\n\\u{202e}b");
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("model.layers.0.self_attn.q_proj.weight", 20), "model..._proj.weight");
        for width in 0..12 {
            assert!(fit("abcdefghijklmnop", width).chars().count() <= width.max(3));
        }
    }
}
