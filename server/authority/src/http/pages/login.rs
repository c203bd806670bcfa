//! To an identity provider and back. What a login begins with is kept by the browser, sealed: a stranger who begins many leaves nothing
//! here.

use askama::Template;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use obol_handshake::SystemRandom;
use obol_secret::compare::ct_eq_32;
use obol_secret::text::{from_base64url, to_base64url};
use obol_secret::{json, seal};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::answer::{Refusal, message, page, see_other, set_cookie};
use super::browser::{COOKIE_NAME, cookie};
use super::guard::{Form, place};
use super::{Pages, Served};
use crate::http::now;
use crate::identity::{Callback, Login, LoginError};

/// What the browser keeps until it comes back.
const LOGIN_COOKIE: &str = "__Host-obol-login";
const LOGIN_CONTEXT: &[u8] = b"obol-login-v1";
/// How long a login may take in the browser, in seconds.
const PATIENCE_SECS: u64 = 600;
/// The longest sealed beginning, in characters.
const MAX_BEGUN_CHARS: usize = 2_048;

/// A login that was begun.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begun {
    login: Login,
    to: String,
}

/// A provider to choose, as the page shows it.
struct Choice<'a> {
    name: &'a str,
    title: &'a str,
    issuer: &'a str,
}

/// Where humans choose a provider. Links, not a form: browsers would hold a form to the addresses that the provider leads on to.
#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    choices: Vec<Choice<'a>>,
    to: &'a str,
}

fn choose(pages: &Pages, to: &str) -> Response {
    let settings = pages.providers.all().iter().map(|one| one.settings());
    let choices = settings
        .filter_map(|one| Some(Choice { name: one.name()?, title: one.shown(), issuer: one.issuer() }));
    page(StatusCode::OK, &LoginPage { choices: choices.collect(), to }, "")
}

/// Sends the browser to the provider: the one that was chosen, the only one, or the one that whoever is logged in there came from.
pub(super) async fn begin(pages: &Pages, request: Request) -> Served {
    let query = Form::of(request.uri().query().unwrap_or_default().as_bytes());
    let asked = |name: &str| query.as_ref().and_then(|query| query.one(name));
    let to = place(asked("to")).to_owned();
    let providers = &pages.providers;
    let provider = match asked("provider") {
        Some(name) => providers.named(name),
        None => providers.only().or_else(|| {
            let browser = pages.browsers.find(request.headers(), now().secs())?;
            providers.of_issuer(&browser.human.issuer)
        }),
    };
    let Some(provider) = provider else { return Ok(choose(pages, &to)) };
    let (url, login) =
        provider.begin(&mut SystemRandom, now().secs()).await.map_err(|error| failed(&error, &to))?;
    let begun = serde_json::to_vec(&Begun { login, to }).map_err(|_| Refusal::overloaded())?;
    let sealed = seal::seal(&pages.login_key, LOGIN_CONTEXT, &begun).map_err(|_| Refusal::overloaded())?;
    let mut response = see_other(&url);
    set_cookie(&mut response, LOGIN_COOKIE, &to_base64url(&sealed), PATIENCE_SECS);
    Ok(response)
}

impl Pages {
    fn begun(&self, headers: &HeaderMap) -> Option<Begun> {
        let cookie = cookie(headers, LOGIN_COOKIE)?;
        let sealed = from_base64url(cookie.as_bytes(), MAX_BEGUN_CHARS).ok()?;
        let begun: Begun = json::parse(&seal::open(&self.login_key, LOGIN_CONTEXT, &sealed)?).ok()?;
        let age = now().secs().checked_sub(begun.login.at)?;
        (age < PATIENCE_SECS).then_some(begun)
    }
}

/// The browser is back from the one provider.
pub(super) async fn finish(pages: &Pages, request: Request) -> Served {
    answered(pages, None, request).await
}

/// The browser is back from one of several, or says so.
pub(super) async fn finish_named(pages: &Pages, name: &str, request: Request) -> Served {
    answered(pages, Some(name), request).await
}

/// Nobody is asked anything unless the answer came where the provider that this login was begun with sends it.
async fn answered(pages: &Pages, came_to: Option<&str>, request: Request) -> Served {
    let query = Form::of(request.uri().query().unwrap_or_default().as_bytes());
    let query = query.ok_or_else(Refusal::not_ours)?;
    let text = |name: &str| query.one(name).map(str::to_owned);
    let back = Callback { code: text("code"), state: text("state"), iss: text("iss"), error: text("error") };
    let Some(begun) = pages.begun(request.headers()) else { return Err(not_begun()) };
    if !is_same(back.state.as_deref().unwrap_or_default(), &begun.login.state) {
        return Err(not_begun());
    }
    let now = now();
    let Begun { login, to } = begun;
    let Some(provider) = pages.providers.answered(&login, came_to) else {
        tracing::warn!(
            came_to,
            begun_with = login.issuer,
            "an answer came to the address of another provider"
        );
        return Err(not_begun());
    };
    let finished = provider.finish(login, back, now.secs()).await;
    let known = finished.map_err(|error| failed(&error, &to))?;
    let person = known.person(now.secs());
    pages.run(move |authority| authority.know_person(&person, now)).await??;
    tracing::info!(human = %known.human, "logged in");
    let mut response = see_other(&to);
    pages.browsers.begin(known, request.headers(), now.secs(), &mut response);
    set_cookie(&mut response, LOGIN_COOKIE, "", 0);
    Ok(response)
}

/// In constant time: whoever guesses learns nothing.
fn is_same(one: &str, other: &str) -> bool {
    ct_eq_32(&Sha256::digest(one).into(), &Sha256::digest(other).into())
}

fn not_begun() -> Refusal {
    Refusal::page(message(
        StatusCode::FORBIDDEN,
        "The login failed",
        "This browser did not begin this login, or began it more than ten minutes ago. If you followed a link here, do not \
         follow it again.",
        Some(("/login", "Log in")),
    ))
}

fn failed(error: &LoginError, to: &str) -> Refusal {
    tracing::warn!(%error, "nobody was logged in");
    let (status, text) = match error {
        LoginError::Unreachable(_) => (
            StatusCode::BAD_GATEWAY,
            "The identity provider does not answer. Try again in a moment; if it goes on, the service's log says why.".to_owned(),
        ),
        LoginError::Said(said) => {
            (StatusCode::FORBIDDEN, format!("The identity provider says that there was no login: {said}."))
        }
        LoginError::NotTrusted(_) => (
            StatusCode::FORBIDDEN,
            "The identity provider's answer cannot be trusted, so you are not logged in. The service's log says why.".to_owned(),
        ),
    };
    let again = format!("/login?to={to}");
    Refusal::page(message(status, "The login failed", &text, Some((&again, "Try again"))))
}

/// Whoever is logged in with this browser is not any more.
pub(super) async fn end(pages: &Pages, request: Request) -> Served {
    let headers = request.headers().clone();
    let browser = pages.browser(&headers, "/activate")?;
    Form::read(request, pages.origin(), &browser).await?;
    pages.browsers.end(&headers);
    let mut response: Response = message(
        StatusCode::OK,
        "Logged out",
        "You are logged out here. You may still be logged in at the identity provider.",
        Some(("/login", "Log in as somebody else")),
    );
    set_cookie(&mut response, COOKIE_NAME, "", 0);
    Ok(response)
}
