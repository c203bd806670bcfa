//! Which headers of a program's go on, and which of an answer's come back.

use http::{HeaderMap, HeaderName, HeaderValue};
use obol_probe::hop::{is_credential, is_of_a_connection, named_by_connection};

/// What else is said anew on the way: who passed it on, and which call it is.
const SAID_ANEW: [&str; 3] = ["forwarded", "idempotency-key", "via"];

/// The header by which a program logs in, if it sends one.
pub(crate) fn credential(sent: &HeaderMap) -> Option<&HeaderName> {
    sent.keys().find(|name| is_credential(name))
}

/// What goes on of a request's headers. The token takes the place of what programs log in with.
pub(crate) fn onward(sent: &HeaderMap) -> HeaderMap {
    let named = named_by_connection(sent);
    let passes = |name: &HeaderName| {
        let text = name.as_str();
        !(is_of_a_connection(name)
            || SAID_ANEW.contains(&text)
            || text.starts_with("proxy-")
            || text.starts_with("x-forwarded-")
            || text.starts_with("sec-fetch-")
            || is_credential(name)
            || named.contains(name))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in sent.iter().filter(|(name, _)| passes(name)) {
        headers.append(name, value.clone());
    }
    headers
}

/// Whether a web page of another origin asked, as browsers say of themselves: then no token is spent for it.
pub(crate) fn is_of_a_foreign_page(sent: &HeaderMap) -> bool {
    let own = |value: &HeaderValue| matches!(value.as_bytes(), b"same-origin" | b"none");
    !sent.get_all("sec-fetch-site").iter().all(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn no_login_and_nothing_of_the_connection_goes_on() {
        let sent = headers(&[
            ("accept", "*/*"),
            ("authorization", "Bearer x"),
            ("x-api-key", "x"),
            ("cookie", "a=b"),
            ("proxy-authorization", "x"),
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("host", "127.0.0.1"),
            ("transfer-encoding", "chunked"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-stainless-lang", "python"),
            ("tbac-pop", "x"),
        ]);
        assert_eq!(names(&onward(&sent)), ["accept", "x-stainless-lang"]);
        assert!(credential(&sent).is_some() && credential(&headers(&[("accept", "*/*")])).is_none());
    }

    #[test]
    fn what_is_of_the_other_connection_does_not_come_back() {
        let mut answer = headers(&[
            ("content-length", "3"),
            ("connection", "close, x-hop, content-length"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("x-ratelimit-remaining", "7"),
        ]);
        obol_probe::hop::strip_answer(&mut answer);
        assert_eq!(names(&answer), ["content-length", "x-ratelimit-remaining"]);
    }

    #[test]
    fn a_page_of_another_origin_is_known_by_what_its_browser_says() {
        for (site, is_foreign) in
            [("cross-site", true), ("same-site", true), ("none", false), ("same-origin", false)]
        {
            assert_eq!(is_of_a_foreign_page(&headers(&[("sec-fetch-site", site)])), is_foreign, "{site}");
        }
        assert!(!is_of_a_foreign_page(&HeaderMap::new()));
    }
}
