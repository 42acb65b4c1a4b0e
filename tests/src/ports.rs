//! Ports for processes that must come back on the same one after a restart.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

// Below the range from which the kernel gives ports to outgoing connections, which would take a reserved one away.
const FIRST: u16 = 20_000;
const COUNT: u16 = 11_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on loopback that nothing listens on, given out once a process.
///
/// # Panics
/// When none of a thousand is free.
#[must_use]
pub fn free() -> u16 {
    // Test programs that run at once begin at different places.
    let offset = (std::process::id() % 1_000) as u16 * 11;
    for _ in 0..1_000 {
        let port = FIRST + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}
