//! Commands from the master: carried out once, and acknowledged on the stream.

use std::collections::VecDeque;

use flota_proto::kinds::RANDOMX_KEY_BYTES_MAX;
use flota_proto::mqtt::{Command, Control};
use flota_proto::{Timestamp, v1};

use crate::table::{Mode, Table};

const REMEMBERED_MAX: usize = 256;

/// What a command asks for beyond the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing.
    GoOn,
    /// The process is to end in order.
    Stop,
    /// Make ready for a RandomX key.
    Prepare(Vec<u8>),
}

/// Carries out commands; a doubled one is acknowledged again and changes nothing.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    seen: VecDeque<(String, String)>,
}

impl Commands {
    /// Carries out `control` unless it has expired.
    pub(crate) fn carry_out(&mut self, control: Control, now: Timestamp, table: &mut Table) -> Next {
        if control.expires_at_ms < now.0 {
            return Next::GoOn;
        }
        let known = self.seen.iter().find(|(id, _)| *id == control.command_id).map(|(_, outcome)| outcome.clone());
        let first = known.is_none();
        let outcome = known.unwrap_or_else(|| execute(&control, table));
        table.done(v1::Done { command_id: control.command_id.clone(), outcome: outcome.clone() });
        if !first {
            return Next::GoOn;
        }
        if self.seen.len() >= REMEMBERED_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back((control.command_id.clone(), outcome));
        match &control.command {
            Command::Stop => Next::Stop,
            Command::Prepare => key(&control).map_or(Next::GoOn, Next::Prepare),
            Command::Drain | Command::Pause | Command::Resume | Command::Config | Command::Other(_) => Next::GoOn,
        }
    }
}

/// The RandomX key of a `prepare`.
fn key(control: &Control) -> Option<Vec<u8>> {
    let key = hex::decode(control.args.get("key")?.as_str()?).ok()?;
    (key.len() <= RANDOMX_KEY_BYTES_MAX).then_some(key)
}

fn execute(control: &Control, table: &mut Table) -> String {
    let mode = table.mode();
    match &control.command {
        Command::Drain => table.set_mode(Mode { drain: true, ..mode }),
        Command::Pause => table.set_mode(Mode { paused: true, ..mode }),
        Command::Resume => table.set_mode(Mode { drain: false, paused: false, ..mode }),
        Command::Stop => table.set_mode(Mode { closing: true, ..mode }),
        Command::Prepare if key(control).is_none() => return "args.key must be a RandomX key in hex".into(),
        Command::Prepare => {}
        Command::Config => return "this worker takes its settings at its start only: restart it with new ones".into(),
        Command::Other(name) => {
            return format!("this worker does not know the command '{}'", name.chars().take(64).collect::<String>());
        }
    }
    "done".into()
}
