//! fleetd as a process, without a systemd: SIGHUP while it runs, and the sockets that it is handed.

mod fleetd;
mod reload;
mod same_id;
mod sockets;
