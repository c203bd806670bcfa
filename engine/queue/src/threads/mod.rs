//! The three threads of a queue: the refiller mints, the writer changes the store, the opener makes ready what was claimed.

mod opener;
mod refiller;
mod writer;

pub(crate) use self::opener::Opener;
pub(crate) use self::refiller::Refiller;
pub(crate) use self::writer::Writer;
