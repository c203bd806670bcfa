//! What an agent was given beforehand, so that no human has to be asked.

/// What stands in for a human's word.
#[derive(Clone, Copy)]
pub(crate) enum Leave<'a> {
    /// An invitation's ticket.
    Ticket(&'a str),
    /// A signed token of somebody whom the service takes at their word.
    Assertion(&'a str),
}
