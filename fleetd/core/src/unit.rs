//! What users write, a unit file, and all that is read from one: its options, what its `[X-Fleet]`
//! section demands, what contradicts itself, what is not taken.

pub mod changed;
pub mod contradiction;
pub mod count;
pub mod family;
pub mod file;
pub mod health;
pub mod image;
pub mod intake;
pub mod kept;
pub mod labels;
pub mod lint;
pub mod max_unavailable;
pub mod needs;
pub mod new_image;
pub mod on_failure;
pub mod podman;
pub mod stop_terms;
pub mod update;
pub mod xfleet;
