//! Who is logged in with which browser. It ends with the process: everybody logs in again.

use core::fmt;
use std::collections::HashMap;

use axum::response::Response;
use http::HeaderMap;
use http::header::COOKIE;
use obol_handshake::SystemRandom;
use obol_secret::compare::ct_eq_32;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::answer::set_cookie;
use crate::directory::Human;
use crate::id::{Bearer, LoginId, RegistrationId};
use crate::identity::Known;

/// What a browser shows who it is by. The prefix has browsers keep it to this origin, and over TLS.
pub(super) const COOKIE_NAME: &str = "__Host-obol";
/// How long a login lasts, and how long one that nobody uses, in seconds.
const LIFE_SECS: u64 = 8 * 3_600;
const IDLE_SECS: u64 = 3_600;
/// The most browsers that are logged in; one more ends the one that was used least lately.
const MAX_BROWSERS: usize = 10_000;
/// The longest header of cookies that is looked at, in bytes.
const MAX_COOKIES_BYTES: usize = 8 << 10;

/// A browser that somebody is logged in with.
#[derive(Clone)]
pub(super) struct Browser {
    key: [u8; 32],
    pub(super) human: Human,
    pub(super) name: String,
    pub(super) roles: Vec<String>,
    pub(super) login_at: u64,
    /// What its forms must say.
    form_token: Zeroizing<String>,
    /// The registration whose code was typed here.
    pub(super) typed: Option<RegistrationId>,
    /// The login of another machine whose code was.
    pub(super) typed_login: Option<LoginId>,
    /// How many codes were typed here that are none.
    wrong_codes: u32,
    since: u64,
    used_at: u64,
}

impl Browser {
    pub(super) fn form_token(&self) -> &str {
        &self.form_token
    }

    /// Whether this is what its forms say.
    pub(super) fn has_form_token(&self, said: &str) -> bool {
        let hash = |text: &str| Bearer::parse(text).map(|token| token.hash());
        match (hash(&self.form_token), hash(said)) {
            (Some(own), Some(said)) => ct_eq_32(&own, &said),
            _ => false,
        }
    }

    fn is_over(&self, now: u64) -> bool {
        now.saturating_sub(self.since) >= LIFE_SECS || now.saturating_sub(self.used_at) >= IDLE_SECS
    }
}

impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Browser").field("human", &self.human).finish_non_exhaustive()
    }
}

/// All of them, by the hash of what they show.
#[derive(Debug, Default)]
pub(super) struct Browsers(Mutex<HashMap<[u8; 32], Browser>>);

impl Browsers {
    /// Who is logged in with the browser that sent these.
    pub(super) fn find(&self, headers: &HeaderMap, now: u64) -> Option<Browser> {
        let key = Bearer::parse(&cookie(headers, COOKIE_NAME)?)?.hash();
        let mut browsers = self.0.lock();
        let browser = browsers.get_mut(&key)?;
        if browser.is_over(now) {
            browsers.remove(&key);
            return None;
        }
        browser.used_at = now;
        Some(browser.clone())
    }

    /// Somebody logged in: under a new secret, whatever the browser had before.
    pub(super) fn begin(&self, known: Known, headers: &HeaderMap, now: u64, response: &mut Response) {
        let (shown, form_token) = (Bearer::generate(&mut SystemRandom), Bearer::generate(&mut SystemRandom));
        let key = shown.hash();
        let browser = Browser {
            key,
            human: known.human,
            name: known.name,
            roles: known.roles.into_iter().collect(),
            login_at: known.login_at,
            form_token: form_token.to_text(),
            typed: None,
            typed_login: None,
            wrong_codes: 0,
            since: now,
            used_at: now,
        };
        self.end(headers);
        let mut browsers = self.0.lock();
        if browsers.len() >= MAX_BROWSERS {
            browsers.retain(|_, browser| !browser.is_over(now));
        }
        if browsers.len() >= MAX_BROWSERS {
            let oldest = browsers.values().min_by_key(|browser| browser.used_at).map(|browser| browser.key);
            oldest.map(|key| browsers.remove(&key));
        }
        browsers.insert(key, browser);
        set_cookie(response, COOKIE_NAME, &shown.to_text(), LIFE_SECS);
    }

    /// Whoever was logged in with this browser is not any more.
    pub(super) fn end(&self, headers: &HeaderMap) {
        let shown = cookie(headers, COOKIE_NAME).and_then(|cookie| Bearer::parse(&cookie));
        if let Some(shown) = shown {
            self.0.lock().remove(&shown.hash());
        }
    }

    /// Notes which registration's code was typed.
    pub(super) fn typed(&self, browser: &Browser, registration: RegistrationId) {
        if let Some(browser) = self.0.lock().get_mut(&browser.key) {
            browser.typed = Some(registration);
        }
    }

    /// The same of a login of another machine.
    pub(super) fn typed_login(&self, browser: &Browser, login: LoginId) {
        if let Some(browser) = self.0.lock().get_mut(&browser.key) {
            browser.typed_login = Some(login);
        }
    }

    /// Counts a code that is none; how many there were.
    pub(super) fn guessed(&self, browser: &Browser) -> u32 {
        let mut browsers = self.0.lock();
        let Some(browser) = browsers.get_mut(&browser.key) else { return u32::MAX };
        browser.wrong_codes = browser.wrong_codes.saturating_add(1);
        browser.wrong_codes
    }

    /// How many codes were typed with this browser that are none.
    pub(super) fn guesses(&self, browser: &Browser) -> u32 {
        self.0.lock().get(&browser.key).map_or(u32::MAX, |browser| browser.wrong_codes)
    }
}

/// The cookie of this name, if there is exactly one.
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<Zeroizing<String>> {
    let mut found = None;
    for header in headers.get_all(COOKIE) {
        let text = header.to_str().ok().filter(|text| text.len() <= MAX_COOKIES_BYTES)?;
        for pair in text.split(';') {
            let Some((_, value)) = pair.trim().split_once('=').filter(|(said, _)| *said == name) else {
                continue;
            };
            if found.replace(Zeroizing::new(value.to_owned())).is_some() {
                return None;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::SET_COOKIE;

    use super::*;

    fn known() -> Known {
        Known {
            human: Human { issuer: "https://idp.example".into(), subject: "anna".into() },
            name: "Anna".into(),
            roles: ["dev".to_owned()].into(),
            mfa: false,
            login_at: 1_000,
        }
    }

    fn begin(browsers: &Browsers, headers: &HeaderMap, now: u64) -> HeaderMap {
        let mut response = Response::default();
        browsers.begin(known(), headers, now, &mut response);
        let set = response.headers()[SET_COOKIE].to_str().unwrap().to_owned();
        assert!(set.starts_with("__Host-obol=") && set.contains("Secure; HttpOnly; SameSite=Lax"), "{set}");
        let pair = set.split(';').next().unwrap();
        HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(pair).unwrap())])
    }

    #[test]
    fn a_login_ends_by_time_by_idleness_and_by_the_next() {
        let browsers = Browsers::default();
        let first = begin(&browsers, &HeaderMap::new(), 1_000);
        assert_eq!(browsers.find(&first, 1_000 + IDLE_SECS - 1).unwrap().name, "Anna");
        assert!(browsers.find(&first, 1_000 + 3 * IDLE_SECS).is_none(), "idle");
        let second = begin(&browsers, &first, 2_000);
        for step in 1..16 {
            assert!(browsers.find(&second, 2_000 + step * 1_800).is_some(), "{step}");
        }
        assert!(
            browsers.find(&second, 2_000 + LIFE_SECS).is_none(),
            "its life is over, however much it was used"
        );
        let third = begin(&browsers, &HeaderMap::new(), 3_000);
        let fourth = begin(&browsers, &third, 3_000);
        assert!(
            browsers.find(&third, 3_000).is_none(),
            "what was there before the login is worth nothing after it"
        );
        assert!(browsers.find(&fourth, 3_000).is_some());
    }

    #[test]
    fn no_more_are_kept_than_there_may_be() {
        let browsers = Browsers::default();
        let first = begin(&browsers, &HeaderMap::new(), 1_000);
        for number in 0..u64::try_from(MAX_BROWSERS).unwrap() {
            begin(&browsers, &HeaderMap::new(), 1_001 + number % 2);
        }
        assert_eq!(browsers.0.lock().len(), MAX_BROWSERS);
        assert!(browsers.find(&first, 1_002).is_none());
    }

    #[test]
    fn a_cookie_that_is_there_twice_is_none() {
        let headers = |text: &'static str| HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(text))]);
        assert_eq!(cookie(&headers("a=1; b=2"), "b").unwrap().as_str(), "2");
        assert!(cookie(&headers("a=1; a=2"), "a").is_none());
        assert!(cookie(&headers("xa=1"), "a").is_none());
    }
}
