//! What the fuzz targets have in common: oracles that share no code with what they judge, a small world of sessions
//! and tokens, and the first inputs of every target.

#![forbid(unsafe_code)]

pub mod atp;
pub mod canonical;
pub mod control;
pub mod cursor;
pub mod handshake;
pub mod mcp;
pub mod mutation;
pub mod patterns;
pub mod policy;
pub mod secrets;
pub mod seeds;
pub mod text;
pub mod world;
