//! Sessions in files: made by hand, and found where files and folders are named.

pub(crate) mod create;
pub(crate) mod files;
