//! What a request must show before it changes anything: that a page of ours sent it, and that it was shown to whoever sends it.

use core::time::Duration;

use axum::extract::Request;
use http::header::{CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::answer::Refusal;
use super::browser::Browser;

/// The longest form, in bytes.
const MAX_FORM_BYTES: usize = 16 << 10;
/// The most fields of one.
const MAX_FIELDS: usize = 256;
/// How long a form may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// A form that a page of ours sent.
#[derive(Debug)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// The form in this request, if a page of ours sent it and it was shown to this browser.
    pub(super) async fn read(request: Request, origin: &str, browser: &Browser) -> Result<Self, Refusal> {
        if !is_ours(request.headers(), origin) {
            return Err(Refusal::not_ours());
        }
        let kind =
            request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.split(';').next() != Some("application/x-www-form-urlencoded") {
            return Err(Refusal::not_ours());
        }
        let too_long = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "Too long", "The form is too long.");
        let body = Limited::new(request.into_body(), MAX_FORM_BYTES).collect();
        let body = tokio::time::timeout(PATIENCE, body).await.map_err(|_| Refusal::not_ours())?;
        let form = Self::of(&body.map_err(|_| too_long())?.to_bytes()).ok_or_else(too_long)?;
        match form.one("token").is_some_and(|token| browser.has_form_token(token)) {
            true => Ok(form),
            false => Err(Refusal::not_ours()),
        }
    }

    /// The fields of a text, as forms and addresses have them.
    pub(super) fn of(text: &[u8]) -> Option<Self> {
        let fields: Vec<_> = form_urlencoded::parse(text).take(MAX_FIELDS + 1).collect();
        let owned = fields.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned()));
        let fields: Vec<_> = owned.collect();
        (fields.len() <= MAX_FIELDS).then_some(Self(fields))
    }

    /// The field of this name, if there is exactly one.
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(said, _)| said == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    /// Every field of this name.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(said, _)| said == name).map(|(_, value)| value.clone()).collect()
    }
}

/// Whether the browser says that a page of ours sent it. One that says neither is not believed.
fn is_ours(headers: &HeaderMap, origin: &str) -> bool {
    let site = headers.get(HeaderName::from_static("sec-fetch-site")).map(HeaderValue::as_bytes);
    let from = headers.get(ORIGIN).map(HeaderValue::as_bytes);
    let is_site = site.is_none_or(|site| site == b"same-origin");
    let is_origin = from.is_none_or(|from| from == origin.as_bytes());
    is_site && is_origin && (site.is_some() || from.is_some())
}

/// A place on these pages to go to, as somebody else may have written it: nothing that leads away.
pub(super) fn place(said: Option<&str>) -> &str {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-' | b'.');
    said.filter(|to| {
        to.len() <= 256 && to.starts_with('/') && !to.starts_with("//") && to.bytes().all(is_plain)
    })
    .unwrap_or("/activate")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(site: Option<&'static str>, origin: Option<&'static str>) -> HeaderMap {
        let site =
            site.map(|site| (HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static(site)));
        let origin = origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin)));
        site.into_iter().chain(origin).collect()
    }

    #[test]
    fn only_what_a_page_of_ours_sent_is_ours() {
        let own = "https://as.example";
        assert!(is_ours(&headers(Some("same-origin"), None), own));
        assert!(is_ours(&headers(None, Some(own)), own));
        assert!(is_ours(&headers(Some("same-origin"), Some(own)), own));
        for (site, origin) in [
            (None, None),
            (Some("cross-site"), Some(own)),
            (Some("same-site"), None),
            (Some("none"), None),
            (Some("same-origin"), Some("https://evil.example")),
            (None, Some("null")),
            (None, Some("https://as.example.evil.example")),
        ] {
            assert!(!is_ours(&headers(site, origin), own), "{site:?} {origin:?}");
        }
    }

    #[test]
    fn no_address_leads_away() {
        assert_eq!(place(Some("/activate/reg_abc")), "/activate/reg_abc");
        for bad in [
            None,
            Some("https://evil.example"),
            Some("//evil.example"),
            Some("/\\evil.example"),
            Some("/a?b=//evil"),
            Some("javascript:x"),
            Some("/a\r\nSet-Cookie: x=1"),
            Some(""),
        ] {
            assert_eq!(place(bad), "/activate", "{bad:?}");
        }
    }

    #[test]
    fn a_field_that_is_there_twice_is_none() {
        let form = Form::of(b"a=1&b=2&b=3&c=%3Cx%3E").unwrap();
        assert_eq!((form.one("a"), form.one("b"), form.one("c")), (Some("1"), None, Some("<x>")));
        assert_eq!(form.all("b"), ["2", "3"]);
        assert!(Form::of("a=1&".repeat(300).as_bytes()).is_none());
    }
}
