//! The Agent Token Protocol between processes, ours and others.

mod agent;
mod node;
mod replicas;
mod serve;
