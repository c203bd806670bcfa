//! Whether a request is sent again: the table of `docs/agent.md`, without its network.

use core::time::Duration;

/// The pause after a connection that failed, doubled for the next one; by chance up to half longer or shorter.
const RECONNECT: Duration = Duration::from_millis(100);
/// The shortest pause before a call that runs is asked about again.
const RUNNING: Duration = Duration::from_millis(10);
/// How long a resource server may take to hear of a session that was just opened.
const SESSION_SPREADS: Duration = Duration::from_millis(250);

/// What came of sending a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Happened<'a> {
    /// Not a byte of it went out.
    NotSent,
    /// It went out, at least in part, and no head of an answer came.
    Lost,
    /// The guard refused the token, and the handler did not run.
    Refused(&'a str),
    /// The session is so young that the resource server may not have heard of it.
    TooEarly,
    /// The call is running, under its key; when to ask again.
    Running(Duration),
    /// The guard could not decide, and the handler did not run; when to ask again.
    NotRun(Duration),
    /// The application failed.
    Failed,
    /// Anything else: it is the answer.
    Answered,
}

/// What may be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Send it again after a pause, with another token.
    Again(Duration),
    /// The same, once there is a session.
    AgainInSession,
    /// What is at hand is what comes of it.
    Stop,
}

/// What the request is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// It can be sent again at all: its body is not a stream.
    pub(super) repeatable: bool,
    /// Doing it twice does no more than doing it once.
    pub(super) safe: bool,
    /// It has an idempotency key.
    pub(super) keyed: bool,
    /// Somebody opens sessions.
    pub(super) has_authenticator: bool,
    /// It is not sent again where it may have been run.
    pub(super) once: bool,
}

/// How often what happened so far.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tries {
    unconnected: u32,
    lost: u32,
    stale: u32,
    early: u32,
    session: u32,
    not_run: u32,
}

impl Tries {
    /// Notes what came of sending it, and says what is next.
    pub(super) fn next(&mut self, happened: &Happened<'_>, facts: Facts) -> Next {
        if !facts.repeatable {
            return Next::Stop;
        }
        match happened {
            Happened::NotSent => {
                let pause = RECONNECT * (1 << self.unconnected.min(1));
                up_to(&mut self.unconnected, 2, jittered(pause))
            }
            Happened::Lost | Happened::Failed | Happened::Running(_) if facts.once => Next::Stop,
            Happened::Lost | Happened::Failed if facts.safe || facts.keyed => {
                up_to(&mut self.lost, 1, Duration::ZERO)
            }
            Happened::Refused("STALE_TIMESTAMP" | "EPOCH_EXPIRED") => {
                up_to(&mut self.stale, 1, Duration::ZERO)
            }
            Happened::TooEarly if self.early == 0 => up_to(&mut self.early, 1, SESSION_SPREADS),
            Happened::TooEarly | Happened::Refused("SESSION_EXPIRED" | "SESSION_NOT_FOUND")
                if facts.has_authenticator && self.session == 0 =>
            {
                self.session += 1;
                Next::AgainInSession
            }
            // Bounded by the time alone: each tells that the call goes on.
            Happened::Running(pause) if facts.keyed => Next::Again((*pause).max(RUNNING)),
            Happened::NotRun(pause) => up_to(&mut self.not_run, 2, *pause),
            _ => Next::Stop,
        }
    }
}

/// So that those whose server went away together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    let _without = getrandom::fill(&mut byte);
    pause.mul_f64(0.5 + f64::from(byte[0]) / 256.0)
}

fn up_to(count: &mut u32, most: u32, pause: Duration) -> Next {
    if *count == most {
        return Next::Stop;
    }
    *count += 1;
    Next::Again(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Facts =
        Facts { repeatable: true, safe: true, keyed: false, has_authenticator: true, once: false };
    const POST: Facts = Facts { safe: false, ..GET };
    const KEYED: Facts = Facts { keyed: true, ..POST };
    const STREAM: Facts = Facts { repeatable: false, ..GET };
    const BY_HAND: Facts = Facts { has_authenticator: false, ..GET };

    /// How often a request is sent to which always the same happens.
    fn sent(happened: &Happened<'_>, facts: Facts) -> u32 {
        let mut tries = Tries::default();
        (1..).find(|_| tries.next(happened, facts) == Next::Stop).unwrap()
    }

    #[test]
    fn a_storm_of_one_kind_ends() {
        let second = Duration::from_secs(1);
        for (happened, get, post, keyed) in [
            (Happened::NotSent, 3, 3, 3),
            (Happened::Lost, 2, 1, 2),
            (Happened::Failed, 2, 1, 2),
            (Happened::Refused("STALE_TIMESTAMP"), 2, 2, 2),
            (Happened::Refused("EPOCH_EXPIRED"), 2, 2, 2),
            (Happened::Refused("SESSION_EXPIRED"), 2, 2, 2),
            (Happened::Refused("SESSION_NOT_FOUND"), 2, 2, 2),
            (Happened::TooEarly, 3, 3, 3),
            (Happened::Refused("TOKEN_REPLAYED"), 1, 1, 1),
            (Happened::Refused("INVALID_SIGNATURE"), 1, 1, 1),
            (Happened::NotRun(second), 3, 3, 3),
            (Happened::Answered, 1, 1, 1),
        ] {
            assert_eq!(
                (sent(&happened, GET), sent(&happened, POST), sent(&happened, KEYED)),
                (get, post, keyed),
                "{happened:?}"
            );
            assert_eq!(sent(&happened, STREAM), 1, "{happened:?}");
        }
        assert_eq!(sent(&Happened::Running(second), POST), 1);
        assert_eq!(sent(&Happened::Refused("SESSION_EXPIRED"), BY_HAND), 1);
    }

    #[test]
    fn what_is_sent_once_is_sent_again_only_where_nothing_was_run() {
        let second = Duration::from_secs(1);
        for facts in [GET, KEYED] {
            let once = Facts { once: true, ..facts };
            for may_have_run in [Happened::Lost, Happened::Failed, Happened::Running(second)] {
                assert_eq!(sent(&may_have_run, once), 1, "{may_have_run:?}");
            }
            for not_run in [Happened::NotSent, Happened::NotRun(second), Happened::Refused("STALE_TIMESTAMP")]
            {
                assert_eq!(sent(&not_run, once), sent(&not_run, facts), "{not_run:?}");
            }
        }
    }

    #[test]
    fn a_storm_of_all_kinds_ends_as_well() {
        let all = [
            Happened::NotSent,
            Happened::Lost,
            Happened::Refused("STALE_TIMESTAMP"),
            Happened::TooEarly,
            Happened::Refused("SESSION_EXPIRED"),
            Happened::NotRun(Duration::ZERO),
        ];
        let mut tries = Tries::default();
        let sent = all.iter().cycle().position(|happened| tries.next(happened, KEYED) == Next::Stop).unwrap();
        assert!(sent <= 10, "{sent}");
    }

    #[test]
    fn those_whose_server_went_away_together_come_back_apart_and_when_a_server_says_when_they_come_then() {
        let pauses = |happened: &Happened<'_>| {
            let mut tries = Tries::default();
            [(); 2].map(|()| match tries.next(happened, GET) {
                Next::Again(pause) => pause,
                next => panic!("{next:?}"),
            })
        };
        let ms = Duration::from_millis;
        let all: Vec<_> = (0..1_000).map(|_| pauses(&Happened::NotSent)).collect();
        for [first, second] in &all {
            assert!(
                (ms(50)..=ms(150)).contains(first) && (ms(100)..=ms(300)).contains(second),
                "{first:?} {second:?}"
            );
        }
        for pick in [0, 1] {
            let different: std::collections::BTreeSet<_> = all.iter().map(|pauses| pauses[pick]).collect();
            assert!(different.len() > 100, "{}", different.len());
        }
        assert_eq!(pauses(&Happened::NotRun(ms(700))), [ms(700); 2]);
    }

    #[test]
    fn a_call_that_runs_is_waited_for() {
        let mut tries = Tries::default();
        for _ in 0..100 {
            let second = Duration::from_secs(1);
            assert_eq!(tries.next(&Happened::Running(second), KEYED), Next::Again(second));
        }
    }
}
