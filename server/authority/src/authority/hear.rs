//! What somebody who is listened to says of a human: remembered and carried out in one, with a place in the audit log first.

use super::{Authority, Now};
use crate::directory::{Ended, HeardSet, TakenSet};
use crate::notices::{Topic, quoted};
use crate::refused::Refused;

impl Authority {
    /// Carries out a security event that was checked. `events` and `about` are its kinds and its subject in words.
    ///
    /// # Errors
    ///
    /// [`Refused::Unavailable`]: it is not remembered, and may be sent again.
    pub(crate) fn hear(
        &self,
        set: &HeardSet,
        events: &str,
        about: &str,
        now: Now,
    ) -> Result<TakenSet, Refused> {
        let mut whole = Ended::default();
        loop {
            let place = self.auditor.reserve()?;
            let taken = self.directory.take_set(set.clone(), now.secs())?;
            place.heard(set, events, about, &taken);
            if taken != TakenSet::Again {
                self.end_logins_by(set);
            }
            match taken {
                TakenSet::Done(part) => {
                    whole.agents.extend(part.agents);
                    whole.sessions.extend(part.sessions);
                    whole.event = part.event;
                    if !part.more {
                        return Ok(TakenSet::Done(whole));
                    }
                }
                // A human whose last agents ended with the step before.
                TakenSet::Unknown if !whole.agents.is_empty() => return Ok(TakenSet::Done(whole)),
                taken => return Ok(taken),
            }
        }
    }

    /// The logins of a human of whom something is said end too. Of an agent or a session alone nothing is said about its human.
    fn end_logins_by(&self, set: &HeardSet) {
        let subject =
            set.subject.as_ref().filter(|subject| subject.agent.is_none() && subject.session.is_none());
        if let (Some(subject), Some(_)) = (subject, set.deed) {
            self.end_logins_of(&subject.human, &set.reason);
        }
    }

    /// Notes that a security event of an issuer who is listened to was refused.
    pub(crate) fn event_refused(&self, issuer: &str, why: &str, now: Now) {
        self.auditor.event_refused(issuer, why);
        let text = format!("a security event of {} was refused: {}", quoted(issuer), quoted(why));
        self.notices.say(Topic::Alarms, "event_refused", text, now.secs());
    }
}
