//! The pure part of fleet: no clock, disk, network, randomness or logging; text and values in,
//! values out.
//!
//! Read in this order: [`name`] and [`model`] are the nouns, [`mod@unit`] is all that is read from
//! a unit file (its parser [`unit::file`], its demands [`unit::xfleet`], what is refused
//! [`unit::intake`]), [`plan`] decides for the cluster, [`converge`] for one host, [`fence`] says
//! when a fenced copy has surely ended, [`event`] tells what was decided, [`wire`] holds the HTTP
//! bodies, [`transfer`] a whole cluster as one document, [`brief`] what lists show of a unit,
//! [`app`] what a folder of files brings as one, [`configuration`] what operators change by hand,
//! [`health`] what an instance is asked and what its answers mean, [`address`] what a machine may
//! be reached at, [`reboots`] who may reboot now, [`printable`] what a terminal may be shown.
//!
//! **Architecture invariant:** nothing here can fail for an outside reason, and the same input
//! gives the same bytes. `clippy.toml` beside this crate bans the clock, the disk, the environment
//! and unordered maps.

pub mod address;
pub mod app;
pub mod brief;
pub mod check;
mod compact;
pub mod configuration;
pub mod converge;
pub mod event;
pub mod fence;
mod gist;
pub mod glob;
pub mod health;
pub mod model;
pub mod name;
pub mod outlook;
pub mod plan;
pub mod printable;
pub mod reboots;
pub mod replay;
pub mod rollout;
pub mod time;
pub mod transfer;
pub mod unit;
pub mod view;
pub mod what_if;
pub mod wire;
pub mod words;
