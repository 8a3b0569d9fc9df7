//! Nexmark: an auction house's people, auctions and bids, and the field's standard queries on them.
//!
//! [`generator`] makes the events, [`queries`] has each query twice: as a job, and as the plain loop that it is compared
//! with. Both read the same events and must come to the same [`Tally`](crate::tally::Tally).

mod auctions;
mod by_clock;
mod change;
pub mod generator;
mod new_users;
mod newest;
pub mod queries;
pub mod text;
mod windows;
