//! The Agent Token Protocol between processes, ours and others.

mod across;
mod agent;
mod documented;
mod full;
mod herd;
mod keyring;
mod node;
mod offline;
mod provider;
mod replicas;
mod sandbox;
mod second_try;
mod secrets;
mod serve;
mod shared_store;
mod signatures;
