//! The web side against the contract: real HTTP and real WebSockets, with a dispatcher in memory behind it.

#![allow(clippy::unwrap_used)]

mod fake;
mod page;
mod rest;
mod server;
mod socket;
mod sse;
mod ws;
