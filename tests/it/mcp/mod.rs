//! MCP: tokens between clients and servers.

mod guard;
mod http;
mod pair;
mod pipe;
mod reference;
