//! Tokens that somebody else spent, as agents say: a line in the log, a number, and a word to the service.
//!
//! Whoever may use the socket can say so, a hijacked agent too. So nothing else follows from it, and it is heard only so often, of each
//! process and of all; what is not heard one by one is counted, and told with the next.

use core::hash::Hash;
use core::time::Duration;
use std::sync::Arc;

use obol_ipc::auth::TokenStolenParams;
use obol_probe::metrics::Counter;
use obol_probe::rate::{Bucket, Limiter, Rate, Start};
use obol_sidecar::{Owner, Requester};
use obol_stream::Word;
use obol_uplink::Outbox;
use parking_lot::Mutex;

/// How often a process is heard at once, and all of them; then once a second.
const OWN_BURST: u32 = 3;
const BURST: u32 = 10;

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Stolen<O = Owner> {
    /// How often it was said.
    pub(crate) said: Counter,
    owners: Limiter<O>,
    all: Mutex<Heard>,
    start: Start,
    outbox: Arc<Outbox>,
}

#[derive(Debug, Default)]
struct Heard {
    allowance: Bucket,
    /// How often it was said since the last word.
    unsaid: u64,
}

impl<O: Hash + Eq> Stolen<O> {
    /// What is heard is told through this.
    pub(crate) fn new(outbox: Arc<Outbox>) -> Self {
        let owners = Limiter::new(Rate::new(1).map(|rate| rate.with_burst(OWN_BURST)));
        Self { said: Counter::default(), owners, all: Mutex::default(), start: Start::now(), outbox }
    }

    fn hear_at(&self, stolen: TokenStolenParams, owner: O, client: &str, now: u64) -> Result<(), Duration> {
        self.said.increment();
        let mut all = self.all.lock();
        let own = self.owners.take(owner, now);
        if let Err(wait) = own.and_then(|()| all.take(now)) {
            all.unsaid += 1;
            return Err(wait);
        }
        let unsaid = core::mem::take(&mut all.unsaid);
        let TokenStolenParams { tool, audience, session_id: session } = stolen;
        tracing::error!(
            tool = tool.as_str(),
            audience = audience.as_str(),
            session = session.map(tracing::field::display),
            client,
            unsaid,
            "an agent reports that someone else spent one of its tokens; the service is told"
        );
        let (audience, tool) = (audience.as_str().to_owned(), tool.as_str().to_owned());
        if self.outbox.put(Word::TokenStolen { session, audience, tool, unsaid }).is_err() {
            // The service has been away for long.
            all.unsaid += unsaid + 1;
        }
        Ok(())
    }
}

impl Stolen {
    /// Hears it from an agent.
    ///
    /// # Errors
    ///
    /// How long until it is heard again.
    pub(crate) fn hear(&self, stolen: TokenStolenParams, requester: &Requester) -> Result<(), Duration> {
        self.hear_at(stolen, requester.owner(), &requester.client, self.start.nanoseconds())
    }
}

impl Heard {
    fn take(&mut self, now: u64) -> Result<(), Duration> {
        let Some(rate) = Rate::new(1) else { return Ok(()) };
        self.allowance.take(now, rate.with_burst(BURST))
    }
}

#[cfg(test)]
mod tests {
    use obol_ipc::names::{Audience, ToolName};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn stolen() -> TokenStolenParams {
        let (tool, audience) = (ToolName::new("pay").unwrap(), Audience::new("https://a").unwrap());
        TokenStolenParams { tool, audience, session_id: None }
    }

    #[test]
    fn an_agent_that_cries_without_end_is_heard_seldom_and_the_rest_is_counted() {
        let outbox = Arc::new(Outbox::default());
        let heard = Stolen::new(Arc::clone(&outbox));
        let cry = |owner: u32, now| heard.hear_at(stolen(), owner, "test/1", now);
        let own = (0..1_000).filter(|_| cry(1, SECOND).is_ok()).count();
        assert_eq!(own, 3, "one process");
        assert!(cry(2, SECOND).is_ok(), "another is heard all the same");
        let forks = (3_u32..1_000).filter(|owner| cry(*owner, SECOND).is_ok()).count();
        assert_eq!(own + 1 + forks, 10, "all that it forks");
        let wait = cry(1_000, SECOND).unwrap_err();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert!(cry(1_001, 3 * SECOND).is_ok());
        assert_eq!(heard.said.get(), 1_000 + 1 + 997 + 2);

        // What the service is told holds all of it.
        let told = |word: Word| match word {
            Word::TokenStolen { unsaid, .. } => unsaid + 1,
            other => panic!("{other:?}"),
        };
        assert_eq!(outbox.take_all().into_iter().map(told).sum::<u64>(), heard.said.get());
    }

    #[test]
    fn what_the_service_cannot_be_told_is_not_forgotten() {
        let outbox = Arc::new(Outbox::default());
        let heard = Stolen::new(Arc::clone(&outbox));
        for second in 1..=40 {
            heard.hear_at(stolen(), second, "test/1", second * SECOND).unwrap();
        }
        let waiting = outbox.take_all();
        assert_eq!(waiting.len(), 16, "no more wait");
        heard.hear_at(stolen(), 41, "test/1", 41 * SECOND).unwrap();
        let Some(Word::TokenStolen { unsaid, .. }) = outbox.take_all().pop() else { panic!() };
        assert_eq!(unsaid, 24);
    }
}
