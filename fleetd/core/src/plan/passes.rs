//! The passes of planning, one file each. `plan.rs` calls them in their order.

pub(super) mod canary;
pub(super) mod evict;
pub(super) mod follow;
pub(super) mod hold;
pub(super) mod keep;
pub(super) mod leave;
pub(super) mod lose;
pub(super) mod need;
pub(super) mod place;
pub(super) mod replace;
pub(super) mod spare;
pub(super) mod update;
pub(super) mod wish;
