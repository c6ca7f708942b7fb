//! What the elected leader does: the election, when to plan, and the commit of a plan with its
//! events.

pub mod election;
pub mod engine;
pub mod event_log;
pub mod outlook;
pub mod overdue;
pub mod planner;
pub mod replays;
