//! Where a job's tasks run ([`place`]) and what happens after a failure ([`restart`]): pure decisions.

pub mod place;
pub mod restart;
