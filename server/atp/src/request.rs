//! What arrives: bodies within their bounds, credentials from headers, and the address of who asks.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use obol_atp::{AtpErrorCode, MAX_BODY_BYTES};

use crate::denied::Denied;
use crate::router::Peer;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The whole body, at most [`MAX_BODY_BYTES`].
pub(crate) async fn body(body: Body) -> Result<Vec<u8>, Denied> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    match collected {
        Ok(Ok(bytes)) => Ok(bytes.to_bytes().to_vec()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Denied::new(AtpErrorCode::TooLarge, "the body is longer than 8192 bytes"))
        }
        _ => Err(Denied::new(AtpErrorCode::InvalidRequest, "body: did not arrive")),
    }
}

/// Refuses a body that does not say that it is JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> Result<(), Denied> {
    let kind = single(headers, &CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    let fits = match kind.split_once(';') {
        None => kind.trim() == "application/json",
        Some((kind, parameter)) => kind.trim() == "application/json" && parameter.trim() == "charset=utf-8",
    };
    if fits {
        Ok(())
    } else {
        Err(Denied::new(AtpErrorCode::UnsupportedMediaType, "the body must be application/json"))
    }
}

/// The token in `Authorization: Bearer`. `Some("")` for a header that holds something else.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?;
    let token = single(headers, &AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    Some(token.unwrap_or_default())
}

/// The master in `Authorization: Bearer` or `X-Api-Key`.
pub(crate) fn master(headers: &HeaderMap) -> Option<&str> {
    bearer(headers).filter(|token| !token.is_empty()).or_else(|| single(headers, &API_KEY))
}

/// A header that is there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Who asks, as far as this process can tell. Requests of an embedding server that tells nothing share one name.
pub(crate) fn address(request: &Request) -> Option<IpAddr> {
    let extensions = request.extensions();
    let peer = extensions.get::<Peer>().map(|peer| peer.0);
    peer.or_else(|| extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0))
        .map(|address| network(address.ip()))
}

/// One host of IPv6 has a whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => {
                let [a, b, c, d, ..] = v6.segments();
                core::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_is_there_twice_is_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        headers.append(AUTHORIZATION, "bearer a.b.c".parse().unwrap());
        assert_eq!(bearer(&headers), Some("a.b.c"));
        headers.append(AUTHORIZATION, "Bearer other".parse().unwrap());
        assert_eq!(bearer(&headers), Some(""));
    }

    #[test]
    fn addresses_of_one_host_count_as_one() {
        assert_eq!(network("2001:db8::1".parse().unwrap()), network("2001:db8::ffff:1".parse().unwrap()));
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
