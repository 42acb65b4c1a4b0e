//! Ways in for those who throw bytes at the worker: what comes from outside must never make it panic.

/// A tasks message.
pub fn tasks(payload: &[u8]) {
    if let Ok(intake) = crate::intake::read(payload) {
        for task in intake.units {
            if let Some(json) = &task.payload {
                let _ = crate::attempt::parse(task.kind, json);
            }
        }
    }
}

/// An AI's answer; the first byte says how it is cut.
pub fn ai_stream(data: &[u8]) {
    crate::executor::ai::hostile_stream(data);
}
