//! MCP: tokens between clients and servers.

mod guard;
mod pair;
mod pipe;
mod reference;
