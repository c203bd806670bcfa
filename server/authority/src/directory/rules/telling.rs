//! Who is told of events beside those who follow: their streams, and how far each has come.

use crate::directory::MAX_PAGE;
use crate::directory::rows::EventStream;
use crate::directory::tables::{Kept, Table, Transaction};

fn known(transaction: &Transaction<'_>, name: &str) -> Kept<Option<u64>> {
    transaction.get(Table::Told, &transaction.hidden(name))
}

pub(super) fn streams(transaction: &Transaction<'_>) -> Kept<Vec<EventStream>> {
    let mut streams: Vec<EventStream> = transaction.list(Table::EventStream, None, MAX_PAGE)?;
    for stream in &mut streams {
        stream.cursor = known(transaction, &stream.id)?.unwrap_or_default().max(stream.cursor);
    }
    Ok(streams)
}

pub(super) fn put(transaction: &mut Transaction<'_>, stream: &EventStream) -> Kept<()> {
    transaction.put(Table::EventStream, stream.id.as_bytes(), stream)?;
    come_to(transaction, &stream.id, stream.cursor)
}

pub(super) fn remove(transaction: &mut Transaction<'_>, id: &str) -> Kept<()> {
    transaction.remove(Table::EventStream, id.as_bytes());
    transaction.remove(Table::Told, &transaction.hidden(id));
    Ok(())
}

pub(super) fn told(transaction: &mut Transaction<'_>, name: &str, fresh: u64) -> Kept<u64> {
    match known(transaction, name)? {
        Some(cursor) => Ok(cursor),
        None => {
            come_to(transaction, name, fresh)?;
            Ok(fresh)
        }
    }
}

pub(super) fn come_to(transaction: &mut Transaction<'_>, name: &str, cursor: u64) -> Kept<()> {
    let cursor = known(transaction, name)?.unwrap_or_default().max(cursor);
    transaction.put(Table::Told, &transaction.hidden(name), &cursor)
}
