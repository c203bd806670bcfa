//! Takes one token: finds who says it, checks its signature and what it says, and has the directory remember it together
//! with its effect. Only then is it confirmed.

use core::time::Duration;

use super::effect::SET_TYPE;
use super::refusal::{Refusal, Wrong};
use super::set::{self, Checked, Claims};
use super::transmitter::Transmitter;
use crate::authority::{Authority, Now};
use crate::directory::TakenSet;
use crate::jws::{NotTaken, Unchecked};

fn wrong(error: &NotTaken) -> Refusal {
    let kind = match error {
        NotTaken::Malformed(_) => Wrong::Request,
        NotTaken::UnknownKey | NotTaken::Algorithm => Wrong::Key,
        NotTaken::Signature => Wrong::Authentication,
    };
    kind.because(error.to_string())
}

/// Whether a token's signature holds, as far as the keys are known that are here.
pub(super) enum Signed {
    Yes,
    /// None of the keys has the name that it names: they may have been replaced.
    UnknownKey,
}

/// Who signed a token, if anybody who is listened to says so.
pub(super) fn issuer(token: &[u8]) -> Result<String, Refusal> {
    let unchecked = Unchecked::read(token, SET_TYPE).map_err(|error| wrong(&error))?;
    Ok(unchecked.claims::<Claims>().map_err(|error| wrong(&error))?.iss)
}

/// Checks the signature. Costs some hundred microseconds at the most.
pub(super) fn signed(token: &[u8], by: &Transmitter) -> Result<Signed, Refusal> {
    let unchecked = Unchecked::read(token, SET_TYPE).map_err(|error| wrong(&error))?;
    match unchecked.check(&by.keys.current()) {
        Ok(()) => Ok(Signed::Yes),
        Err(NotTaken::UnknownKey) => Ok(Signed::UnknownKey),
        Err(error) => Err(wrong(&error)),
    }
}

/// Carries out a token whose signature holds, for good. What became of it.
pub(super) fn carry_out(
    token: &[u8],
    by: &Transmitter,
    authority: &Authority,
    now: Now,
) -> Result<TakenSet, Refusal> {
    let unchecked = Unchecked::read(token, SET_TYPE).map_err(|error| wrong(&error))?;
    let claims: Claims = unchecked.claims().map_err(|error| wrong(&error))?;
    if claims.iss != by.settings.issuer {
        return Err(Wrong::Issuer.because("`iss` is not whose keys it was checked with"));
    }
    let Checked { heard, events, of_stream } = set::check(claims, &by.settings, now.secs())?;
    if of_stream {
        tracing::info!(issuer = heard.issuer, events, "the stream of security events was spoken of");
    }
    authority.hear(&heard, &events, &set::name(heard.subject.as_ref()), now).map_err(|error| {
        tracing::error!(%error, "a security event could not be carried out");
        Refusal::Later(Duration::from_secs(1), "it cannot be carried out now")
    })
}
