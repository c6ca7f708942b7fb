//! What the engine tells of its decisions, and that what it planned can be planned again: the real
//! engine over the embedded store.

mod acts;
mod bounds;
mod cluster;
mod panics;
mod replay;
mod story;
mod waiting;
