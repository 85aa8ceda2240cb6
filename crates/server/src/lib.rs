//! The server: everything around a replica that touches a socket, a disk, a thread or the clock.

pub mod config;
pub mod transport;
