//! Flota.
