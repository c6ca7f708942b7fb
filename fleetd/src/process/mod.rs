//! What any daemon needs of its process: clock, files, arguments, descriptors, panics, systemd's
//! notify socket, and log lines said once.

pub mod cli;
pub mod clock;
pub mod descriptors;
pub mod files;
pub mod notify;
pub mod panics;
pub mod repeated;
