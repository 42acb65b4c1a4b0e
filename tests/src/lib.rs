//! The harness of the end-to-end tests: real processes in directories of their own, on ports of their own, with what they print
//! kept; conditions are polled for with a deadline. Nothing here knows the inside of Flota: only its command, REST and MQTT.

pub mod browser;
pub mod chaos;
pub mod fake_gemini;
pub mod fake_node;
pub mod fake_pool;
pub mod monerod;
pub mod mosquitto;
pub mod node;
pub mod ports;
pub mod process;
pub mod rest;
pub mod simple;
pub mod socket;
pub mod sse;
pub mod tap;
pub mod until;

pub use monerod::Monerod;
pub use mosquitto::Mosquitto;
pub use node::Node;
pub use process::Process;
pub use rest::{Answer, Rest};
pub use tap::Tap;
pub use until::{DEADLINE, until, until_within};
