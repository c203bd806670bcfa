//! Tools of the Model Context Protocol.

mod guard;
