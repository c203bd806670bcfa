//! One binary for every role: demo, sidecar, resource server and the tools around them.

pub mod conformance;
