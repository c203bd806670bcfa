//! What the benchmarks have in common: how long something took, what else the machine did, and the table of results.

pub mod clients;
pub mod load;
pub mod rows;
