//! What people see: tables, colours on terminals only, ages and sizes. Results go to stdout, everything else to stderr.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use flota_proto::mqtt::WorkerState;
use flota_proto::rest::JobState;
use flota_proto::{Algorithm, Timestamp};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::failure::Failure;

/// How to speak.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    /// JSON only.
    pub json: bool,
    /// Stdout is a terminal.
    pub terminal: bool,
    /// Stderr is a terminal.
    pub notes: bool,
    colours: bool,
    note_colours: bool,
}

impl Out {
    /// As this process's streams allow. `NO_COLOR` is respected.
    pub fn new(json: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let (terminal, notes) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self { json, terminal, notes, colours: wanted && terminal && !json, note_colours: wanted && notes && !json }
    }

    /// One line of a result.
    pub fn line(&self, text: impl Display) -> Result<(), Failure> {
        writeln!(io::stdout().lock(), "{text}").map_err(Failure::from)
    }

    /// A piece of a result, at once.
    pub fn piece(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush().map_err(Failure::from)
    }

    /// A result as one line of JSON.
    pub fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| Failure::Failed(error.to_string()))?;
        self.line(text)
    }

    /// Something beside the result, for people; not said with `--json`.
    pub fn note(&self, text: impl Display) {
        if !self.json {
            eprintln!("{text}");
        }
    }

    /// Something beside the result that only somebody at a terminal cares for.
    pub fn hint(&self, text: impl Display) {
        if self.notes {
            self.note(self.paint_note(Hue::Dim, text));
        }
    }

    /// A table with these heads, without frame.
    pub fn table(&self, heads: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.terminal {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.force_no_tty();
        }
        table.set_header(heads.iter().map(|head| self.cell(Hue::Dim, head)));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table
    }

    /// Rows of a name and a value.
    pub fn pairs(&self, rows: &[(&str, String)]) -> Result<(), Failure> {
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in rows {
            let name = format!("{name:width$}");
            self.line(format!("{}  {value}", self.paint(Hue::Dim, name)))?;
        }
        Ok(())
    }

    /// `text` in a hue, where stdout shows colours.
    pub fn paint(&self, hue: Hue, text: impl Display) -> String {
        if self.colours { hue.around(text) } else { text.to_string() }
    }

    /// `text` in a hue, where stderr shows colours.
    pub fn paint_note(&self, hue: Hue, text: impl Display) -> String {
        if self.note_colours { hue.around(text) } else { text.to_string() }
    }

    /// A table's cell in a hue.
    pub fn cell(&self, hue: Hue, text: impl Display) -> Cell {
        let cell = Cell::new(text);
        match hue {
            _ if !self.colours => cell,
            Hue::Plain => cell,
            Hue::Bold => cell.add_attribute(Attribute::Bold),
            Hue::Dim => cell.add_attribute(Attribute::Dim),
            Hue::Red => cell.fg(Color::DarkRed),
            Hue::Green => cell.fg(Color::DarkGreen),
            Hue::Yellow => cell.fg(Color::DarkYellow),
            Hue::Cyan => cell.fg(Color::DarkCyan),
        }
    }

    /// A bar on stderr that shows only on a terminal.
    pub fn bar(&self, length: u64, template: &str) -> ProgressBar {
        let target = if self.notes && !self.json { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style.progress_chars("━╸─")),
            Err(_) => bar,
        }
    }
}

/// How something is emphasised; the words never depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hue {
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Hue {
    /// Of a job's state.
    pub fn of_job(state: JobState) -> Self {
        match state {
            JobState::Completed => Self::Green,
            JobState::Failed => Self::Red,
            JobState::Cancelled => Self::Yellow,
            JobState::Assigned | JobState::Computing => Self::Cyan,
            JobState::Blocked | JobState::Scheduled | JobState::Pending => Self::Plain,
        }
    }

    /// Of a worker's state.
    pub fn of_worker(state: WorkerState) -> Self {
        match state {
            WorkerState::Idle => Self::Green,
            WorkerState::Busy => Self::Cyan,
            WorkerState::Paused | WorkerState::Draining => Self::Yellow,
            WorkerState::Quarantined => Self::Red,
            WorkerState::Offline => Self::Dim,
        }
    }

    fn around(self, text: impl Display) -> String {
        let code = match self {
            Self::Plain => return text.to_string(),
            Self::Bold => 1,
            Self::Dim => 2,
            Self::Red => 31,
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Cyan => 36,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Writes bytes to stdout.
pub fn write_stdout(bytes: &[u8]) -> Result<(), Failure> {
    io::stdout().lock().write_all(bytes).map_err(Failure::from)
}

/// `1.24 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`
pub fn duration(time: Duration) -> String {
    let ms = time.as_millis();
    let s = ms / 1000;
    match s {
        _ if ms < 1000 => format!("{ms} ms"),
        0..60 => format!("{}.{:02} s", s, ms % 1000 / 10),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// `3 min ago`
pub fn ago(time: Timestamp) -> String {
    let seconds = flota_common::clock::now().since_ms(time) / 1000;
    match seconds {
        0..2 => "now".into(),
        2..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// From one time to the next.
pub fn between(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<String> {
    Some(duration(Duration::from_millis(to?.since_ms(from?))))
}

/// `1,234,567`
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `812 H/s`
pub fn hashrate(rate: f64) -> String {
    match rate {
        r if r <= 0.0 => "-".into(),
        r if r < 10.0 => format!("{r:.1} H/s"),
        r if r < 10_000.0 => format!("{r:.0} H/s"),
        r if r < 1e6 => format!("{:.1} kH/s", r / 1e3),
        r if r < 1e9 => format!("{:.1} MH/s", r / 1e6),
        r => format!("{:.1} GH/s", r / 1e9),
    }
}

/// `812 H/s, 21.3 MH/s sha256d`: of RandomX, then of what else is at work.
pub fn hashrates(randomx: f64, all: &BTreeMap<Algorithm, f64>) -> String {
    let others = all.iter().filter(|(algorithm, rate)| **algorithm != Algorithm::Randomx && **rate > 0.0);
    let mut texts: Vec<String> = others.map(|(name, rate)| format!("{} {}", hashrate(*rate), name.as_str())).collect();
    if randomx > 0.0 || texts.is_empty() {
        texts.insert(0, hashrate(randomx));
    }
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(duration(Duration::from_millis(7)), "7 ms");
        assert_eq!(duration(Duration::from_millis(1240)), "1.24 s");
        assert_eq!(duration(Duration::from_secs(3 * 60 + 5)), "3 min 5 s");
        assert_eq!(duration(Duration::from_secs(90_000)), "1 d 1 h");
        assert_eq!(hashrate(0.0), "-");
        assert_eq!(hashrate(451.4), "451 H/s");
        assert_eq!(hashrate(21_340_000.0), "21.3 MH/s");
        let all = BTreeMap::from([(Algorithm::Randomx, 451.4), (Algorithm::Sha256d, 1_500_000.0)]);
        assert_eq!(hashrates(451.4, &all), "451 H/s, 1.5 MH/s sha256d");
        assert_eq!(hashrates(0.0, &all), "1.5 MH/s sha256d");
        assert_eq!(hashrates(0.0, &BTreeMap::new()), "-");
    }
}
