//! An answer on its way out, in which the credential is blotted out.
//!
//! Some APIs show what they were sent: in an error, on a page for developers, in a log that can be asked for. What stands in an
//! answer reaches the agent, so the secret is looked for in each, also across pieces. Its letters become stars, so that the answer
//! stays as long as it was said to be.

use core::future::Future as _;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::sync::Arc;

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};
use memchr::{memchr_iter, memmem};
use obol_secret::wipe::Wiped;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

use crate::credential::Credential;

type BoxError = Box<dyn core::error::Error + Send + Sync>;

/// Takes headers out in which a secret stands.
pub(crate) fn headers(headers: &mut HeaderMap, secrets: &[Wiped]) {
    let holds = |value: &[u8]| secrets.iter().any(|secret| memmem::find(value, secret).is_some());
    let names: Vec<_> =
        headers.iter().filter(|(_, value)| holds(value.as_bytes())).map(|(name, _)| name.clone()).collect();
    for name in names {
        headers.remove(name);
    }
}

/// Blots secrets out of bytes that come piece by piece.
#[derive(Default)]
struct Blot {
    /// The end of what came, where a secret may begin in it.
    held: Vec<u8>,
}

impl Blot {
    /// What may go on of what is there.
    fn pass(&mut self, piece: Bytes, secrets: &[Wiped]) -> Bytes {
        let found = |bytes: &[u8]| secrets.iter().any(|secret| memmem::find(bytes, secret).is_some());
        if self.held.is_empty() && !found(&piece) && begun(&piece, secrets) == 0 {
            return piece;
        }
        let mut bytes = core::mem::take(&mut self.held);
        bytes.extend_from_slice(&piece);
        for secret in secrets {
            let places: Vec<_> = memmem::find_iter(&bytes, &**secret).collect();
            for place in places {
                bytes.iter_mut().skip(place).take(secret.len()).for_each(|byte| *byte = b'*');
            }
        }
        let kept = begun(&bytes, secrets);
        self.held = bytes.split_off(bytes.len() - kept);
        bytes.into()
    }

    fn rest(&mut self) -> Bytes {
        core::mem::take(&mut self.held).into()
    }
}

/// How many bytes at the end may be the beginning of a secret.
fn begun(bytes: &[u8], secrets: &[Wiped]) -> usize {
    let of = |secret: &Wiped| {
        let (first, most) = (secret.first()?, secret.len() - 1);
        let tail = bytes.get(bytes.len().saturating_sub(most)..)?;
        let place = memchr_iter(*first, tail)
            .find(|place| tail.get(*place..).is_some_and(|end| secret.starts_with(end)))?;
        Some(tail.len() - place)
    };
    secrets.iter().filter_map(of).max().unwrap_or(0)
}

/// An answer's body. No pause in it may be longer than `patience`.
pub(crate) struct Passing {
    body: Incoming,
    credential: Arc<Credential>,
    blot: Blot,
    patience: Duration,
    /// Set up when something has to be waited for.
    alarm: Option<Pin<Box<Sleep>>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Passing {
    pub(crate) fn new(
        body: Incoming,
        credential: Arc<Credential>,
        patience: Duration,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { body, credential, blot: Blot::default(), patience, alarm: None, _place: place }
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    this.alarm = None;
                    // Trailers stay here: nothing that is served needs them.
                    let Ok(piece) = frame.into_data() else { continue };
                    // As it is now: an answer may go on longer than a credential.
                    let piece = this.blot.pass(piece, &this.credential.looked_for());
                    if !piece.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) => {
                    let rest = this.blot.rest();
                    return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))));
                }
                Poll::Pending => break,
            }
        }
        let patience = this.patience;
        let alarm = this.alarm.get_or_insert_with(|| Box::pin(sleep(patience)));
        alarm.as_mut().poll(context).map(|()| Some(Err("the API paused for too long".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.blot.held.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, held) = (self.body.size_hint(), self.blot.held.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint.set_lower(hint.lower().saturating_add(held));
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(pieces: &[&str], secrets: &[&str]) -> String {
        let secrets: Vec<_> = secrets.iter().map(|secret| Wiped::new(secret.as_bytes().to_vec())).collect();
        let mut blot = Blot::default();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&blot.pass(Bytes::copy_from_slice(piece.as_bytes()), &secrets));
        }
        out.extend_from_slice(&blot.rest());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_secret_is_blotted_out_wherever_the_pieces_end() {
        let text = "a sk-secret-1 b sk-secret-1sk-secret-1 sk-secret- c sk-sk-secret-1";
        let clean = "a *********** b ********************** sk-secret- c sk-***********";
        for cut in 0..=text.len() {
            let (front, rest) = text.split_at(cut);
            assert_eq!(passed(&[front, rest], &["sk-secret-1"]), clean, "{cut}");
        }
        let letters: Vec<_> = text.split("").collect();
        assert_eq!(passed(&letters, &["sk-secret-1"]), clean);
    }

    #[test]
    fn each_form_of_a_secret_is_looked_for() {
        assert_eq!(
            passed(&["me:pass", "word bWU6cGFzc3dvcmQ="], &["password", "bWU6cGFzc3dvcmQ="]),
            "me:******** ****************"
        );
    }

    #[test]
    fn what_holds_no_secret_passes_at_once() {
        let secrets = [Wiped::new(b"sk-secret".to_vec())];
        let mut blot = Blot::default();
        for piece in ["data: one\n\n", "data: s", "", "plain k"] {
            assert_eq!(blot.pass(Bytes::from(piece), &secrets), piece.trim_end_matches('s'));
            assert_eq!(blot.rest(), if piece.ends_with('s') { "s" } else { "" });
        }
    }

    #[test]
    fn a_header_with_a_secret_does_not_pass() {
        let mut map = HeaderMap::new();
        map.insert("x-echo", "Bearer sk-secret".parse().unwrap());
        map.insert("x-other", "1".parse().unwrap());
        headers(&mut map, &[Wiped::new(b"sk-secret".to_vec())]);
        assert_eq!(map.keys().collect::<Vec<_>>(), ["x-other"]);
    }
}
