//! An answer as it is kept: status, headers and body, if it is not too long.

use axum::body::Body;
use http::header::{CONNECTION, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use obol_verify::receipt::MAX_ANSWER_BYTES;

use crate::sealing::SEALED_CONTENT_TYPE;

/// What is kept of how a call ended.
#[derive(Debug)]
pub(super) enum Kept {
    /// The answer.
    Answer(Vec<u8>),
    /// That there was one.
    Not,
    /// That nobody knows.
    Unknown,
}

/// What is kept of an answer, and the answer. One that is too long goes on as it comes, and so does one that the handler sealed for
/// its token: no other could open it.
pub(super) async fn kept(response: Response<Body>) -> (Kept, Response<Body>) {
    let (mut parts, mut body) = response.into_parts();
    let is_sealed = parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == SEALED_CONTENT_TYPE);
    let head = head(parts.status, &parts.headers);
    let room = MAX_ANSWER_BYTES.saturating_sub(head.len());
    if is_sealed || head.len() > MAX_ANSWER_BYTES {
        return (Kept::Not, Response::from_parts(parts, body));
    }
    let mut front = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => front.extend_from_slice(&data),
            // Trailers are not kept.
            Ok(Err(_)) => {}
            Err(error) => {
                tracing::error!(%error, "an answer broke off, and is not kept");
                parts.status = StatusCode::INTERNAL_SERVER_ERROR;
                return (Kept::Not, Response::from_parts(parts, Body::empty()));
            }
        }
        if front.len() > room {
            return (Kept::Not, Response::from_parts(parts, behind(front.into(), body)));
        }
    }
    let whole = [head, front.clone()].concat();
    (Kept::Answer(whole), Response::from_parts(parts, Body::from(front)))
}

/// A body with what was read of it put back.
fn behind(front: Bytes, rest: Body) -> Body {
    Body::new(Behind { front: Some(front), rest })
}

struct Behind {
    front: Option<Bytes>,
    rest: Body,
}

impl hyper::body::Body for Behind {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: core::pin::Pin<&mut Self>,
        context: &mut core::task::Context<'_>,
    ) -> core::task::Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        match self.front.take() {
            Some(front) => core::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(front)))),
            None => core::pin::Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        let front = self.front.as_ref().map_or(0, Bytes::len) as u64;
        let mut hint = self.rest.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(front));
        }
        hint.set_lower(hint.lower().saturating_add(front));
        hint
    }
}

/// Status and headers: the status, how many headers there are, and each one's name and value with their lengths.
fn head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let kept: Vec<_> =
        headers.iter().filter(|(name, _)| ![CONNECTION, TRANSFER_ENCODING].contains(name)).collect();
    let mut bytes = status.as_u16().to_be_bytes().to_vec();
    let length = |bytes: &mut Vec<u8>, length: usize| {
        // What does not fit makes the head too long to be kept.
        bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    };
    length(&mut bytes, kept.len());
    for (name, value) in kept {
        length(&mut bytes, name.as_str().len());
        bytes.extend(name.as_str().as_bytes());
        length(&mut bytes, value.len());
        bytes.extend(value.as_bytes());
    }
    bytes
}

/// Reads what [`kept`] made of an answer.
pub(super) fn from_bytes(bytes: &[u8]) -> Option<Response<Body>> {
    let mut rest = bytes;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::from_u16(number(&mut rest)?).ok()?;
    for _ in 0..number(&mut rest)? {
        let name = HeaderName::from_bytes(text(&mut rest)?).ok()?;
        let value = HeaderValue::from_bytes(text(&mut rest)?).ok()?;
        response.headers_mut().append(name, value);
    }
    Some(response.map(|()| Body::from(rest.to_vec())))
}

fn number(rest: &mut &[u8]) -> Option<u16> {
    let (number, behind) = rest.split_first_chunk::<2>()?;
    *rest = behind;
    Some(u16::from_be_bytes(*number))
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(rest)?;
    let (text, behind) = rest.split_at_checked(length.into())?;
    *rest = behind;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(body: Vec<u8>) -> Response<Body> {
        let builder = Response::builder().status(201).header("x-a", "1").header("x-a", "2");
        builder.header("connection", "close").body(Body::from(body)).unwrap()
    }

    async fn bytes(response: Response<Body>) -> (u16, Vec<u8>) {
        let (parts, body) = response.into_parts();
        (parts.status.as_u16(), body.collect().await.unwrap().to_bytes().to_vec())
    }

    #[tokio::test]
    async fn an_answer_is_kept_as_it_was_if_it_is_not_too_long() {
        for length in [0, 1, 1_000, MAX_ANSWER_BYTES - 100] {
            let (kept, given) = kept(response(vec![7; length])).await;
            let Kept::Answer(kept) = kept else { panic!("{length}") };
            let again = from_bytes(&kept).unwrap();
            assert_eq!(again.headers().get_all("x-a").iter().count(), 2);
            assert!(!again.headers().contains_key("connection"));
            assert_eq!(bytes(again).await, bytes(given).await);
        }
        let (kept, given) = kept(response(vec![7; 3 * MAX_ANSWER_BYTES])).await;
        assert!(matches!(kept, Kept::Not));
        assert_eq!(bytes(given).await, (201, vec![7; 3 * MAX_ANSWER_BYTES]), "it is given all the same");
    }

    #[test]
    fn what_is_no_answer_is_not_read() {
        for wrong in [&[][..], &[0], &[0, 0, 0, 0], &[0, 200, 0, 1], &[0, 200, 0, 1, 0, 9, b'x']] {
            assert!(from_bytes(wrong).is_none(), "{wrong:?}");
        }
    }
}
