//! Receipts in memory alone.

use core::fmt;
use std::sync::Arc;

use obol_session::clock::{Clock, Reading};
use parking_lot::Mutex;

use super::table::{Draft, Table};
use super::{Begun, CallDigest, Finished, Limits, ReceiptId, ReceiptStore, ReceiptsUnavailable};

/// Receipts in memory, of one process. **What it gives up:** after a restart a call that was carried out before it is carried out
/// again.
pub struct MemoryReceipts {
    table: Mutex<Table>,
    clock: Arc<dyn Clock>,
}

impl MemoryReceipts {
    /// None so far.
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        // There is one life only.
        Self { table: Mutex::new(Table::new(limits, [0; 16], true)), clock }
    }
}

impl fmt::Debug for MemoryReceipts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryReceipts").field("receipts", &self.receipts()).finish_non_exhaustive()
    }
}

impl ReceiptStore for MemoryReceipts {
    fn begin(&self, id: &ReceiptId, call: &CallDigest) -> Result<Begun, ReceiptsUnavailable> {
        let now = Reading::of(&*self.clock);
        let mut table = self.table.lock();
        table.over(now).iter().for_each(|id| table.remove(id));
        Ok(match table.begin(id, call, now)? {
            Draft::Found(found) => found,
            Draft::New(row) => {
                table.put(*id, row, now);
                Begun::Fresh
            }
        })
    }

    fn finish(&self, id: &ReceiptId, finished: Finished<'_>) -> Result<(), ReceiptsUnavailable> {
        let now = Reading::of(&*self.clock);
        let mut table = self.table.lock();
        if let Some(row) = table.finish(id, finished) {
            table.put(*id, row, now);
        }
        Ok(())
    }

    fn health(&self) -> Result<(), ReceiptsUnavailable> {
        Ok(())
    }

    fn receipts(&self) -> usize {
        self.table.lock().len()
    }

    fn limits(&self) -> Limits {
        self.table.lock().limits()
    }
}
