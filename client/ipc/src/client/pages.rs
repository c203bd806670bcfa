//! Answers that come in pages, put together.

use obol_ipc::auth::AuthStatusResult;
use obol_ipc::control::StatusResult;
use obol_ipc::message::TokenStatusResult;
use obol_ipc::rs_control::RsStatusResult;

/// The most pages of one answer that are asked for: a daemon that never comes to an end is not followed for ever.
pub(super) const MAX_PAGES: usize = 10_000;

/// An answer of which there may be more.
pub(crate) trait Paged {
    /// Where the next page begins, if there is one.
    fn next(&mut self) -> &mut Option<u64>;

    /// Puts what `page` lists behind what is there.
    fn append(&mut self, page: Self);
}

impl Paged for TokenStatusResult {
    fn next(&mut self) -> &mut Option<u64> {
        &mut self.next
    }

    fn append(&mut self, page: Self) {
        self.tools.get_or_insert_default().extend(page.tools.unwrap_or_default());
    }
}

impl Paged for StatusResult {
    fn next(&mut self) -> &mut Option<u64> {
        &mut self.next
    }

    fn append(&mut self, page: Self) {
        self.sessions.extend(page.sessions);
        self.tools.extend(page.tools);
        self.denied.extend(page.denied);
    }
}

impl Paged for AuthStatusResult {
    fn next(&mut self) -> &mut Option<u64> {
        &mut self.next
    }

    fn append(&mut self, page: Self) {
        self.routes.extend(page.routes);
    }
}

impl Paged for RsStatusResult {
    fn next(&mut self) -> &mut Option<u64> {
        &mut self.next
    }

    fn append(&mut self, page: Self) {
        self.sessions.extend(page.sessions);
    }
}

/// The pages that have come.
pub(crate) struct Pages<T> {
    whole: T,
    count: usize,
}

impl<T: Paged> Pages<T> {
    pub(crate) fn begin(first: T) -> Self {
        Self { whole: first, count: 1 }
    }

    /// Where the next page to ask for begins; `None` when all have come.
    pub(crate) fn next(&mut self) -> Option<u64> {
        if self.count < MAX_PAGES { self.whole.next().take() } else { None }
    }

    pub(crate) fn add(&mut self, mut page: T) {
        *self.whole.next() = page.next().take();
        self.whole.append(page);
        self.count += 1;
    }

    /// All of them as one answer. `next` is left only where there are too many.
    pub(crate) fn whole(self) -> T {
        self.whole
    }
}
