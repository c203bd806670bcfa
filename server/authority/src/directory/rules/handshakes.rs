//! A handshake is answered once. What a repeated third message gets is what the first one got, byte for byte: two answers
//! would be two texts under one key and number.

use obol_handshake::HandshakeHash;
use zeroize::Zeroizing;

use super::at;
use crate::directory::tables::{Kept, Number, Table, Transaction, Unavailable};
use crate::directory::{Carried, Handshake, MAX_ANSWERS, Seal};
use crate::refused::Refused;

/// What a purpose came to.
pub(super) enum Decided<T> {
    /// It was carried out or refused; either is answered.
    Done(Result<T, Refused>),
    /// It has to be decided anew, by what is true now.
    Stale,
}

/// Carries out `act` unless this handshake was answered before, and keeps the answer.
pub(super) fn once<T>(
    transaction: &mut Transaction<'_>,
    handshake: Handshake,
    now: u64,
    seal: Seal<T>,
    act: impl FnOnce(&mut Transaction<'_>) -> Kept<Decided<T>>,
) -> Kept<Carried<T>> {
    if let Some(row) = transaction.get_bytes(Table::Handshake, &handshake.before.0)? {
        let (hash, reply) = row
            .split_first_chunk::<32>()
            .ok_or_else(|| Unavailable::new("an answer that was kept has another form"))?;
        return Ok(match HandshakeHash(*hash) == handshake.hash {
            true => Carried::Again(reply.to_vec()),
            false => Carried::Used,
        });
    }
    let kept = transaction.number(Number::Handshakes)?;
    if kept >= MAX_ANSWERS {
        return Err(Unavailable::new("too many handshakes within two minutes; ask again"));
    }
    let Decided::Done(outcome) = act(transaction)? else { return Ok(Carried::Stale) };
    let reply = seal(&outcome);
    let row = Zeroizing::new([&handshake.hash.0[..], &reply].concat());
    transaction.put_bytes(Table::Handshake, &handshake.before.0, row);
    transaction.mark(Table::HandshakeTime, &at(now, &handshake.before.0));
    transaction.set_number(Number::Handshakes, kept + 1)?;
    Ok(Carried::Now(outcome, reply))
}
