//! What a browser gets: pages with the headers that keep them what they are, and refusals that are pages too.

use askama::Template;
use axum::body::Body;
use axum::response::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::directory::Unavailable;
use crate::refused::Refused;

/// The places that every page leads to.
pub(super) const PLACES: [(&str, &str); 9] = [
    ("/console", "Overview"),
    ("/console/approvals", "Waiting calls"),
    ("/console/agents", "Agents"),
    ("/console/sessions", "Sessions"),
    ("/console/servers", "Servers"),
    ("/console/policies", "Policies"),
    ("/console/audit", "Audit"),
    ("/console/keys", "Keys"),
    ("/activate", "Approve by code"),
];

/// Why somebody gets another page than they asked for.
#[derive(Debug)]
pub(super) struct Refusal(Box<Response>);

/// A page that says something, and perhaps where to go on.
#[derive(Template)]
#[template(path = "message.html")]
struct Message<'a> {
    title: &'a str,
    text: &'a str,
    link: Option<(&'a str, &'a str)>,
}

/// A page with a heading, a text, and perhaps a link: where to, and what it is called.
pub(super) fn message(status: StatusCode, title: &str, text: &str, link: Option<(&str, &str)>) -> Response {
    page(status, &Message { title, text, link }, "")
}

/// A page. `also_to` is one more origin that its forms may lead to.
pub(super) fn page(status: StatusCode, template: &impl Template, also_to: &str) -> Response {
    let (status, text) = match template.render() {
        Ok(text) => (status, text),
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "The page could not be written.".to_owned())
        }
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    protected(response, also_to)
}

/// Sends the browser to another page of ours, or to the provider.
pub(super) fn see_other(to: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let to = HeaderValue::try_from(to).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(LOCATION, to);
    protected(response, "")
}

/// Nothing is loaded but our stylesheet, forms lead here alone, nobody frames it, and nobody else learns its address. Browsers that
/// apply `form-action` also to where a form's answer leads need that origin too. Under `no-referrer` they would send `Origin: null` with
/// forms.
fn protected(mut response: Response, also_to: &str) -> Response {
    let policy = format!(
        "default-src 'none'; style-src 'self'; form-action 'self' {also_to}; frame-ancestors 'none'; base-uri 'none'"
    );
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (X_FRAME_OPTIONS, "DENY"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Has the browser keep something for this origin alone, so many seconds; 0 makes it forget.
pub(super) fn set_cookie(response: &mut Response, name: &str, value: &str, secs: u64) {
    let cookie = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={secs}");
    if let Ok(mut cookie) = HeaderValue::try_from(cookie) {
        cookie.set_sensitive(true);
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

impl Refusal {
    pub(super) fn new(status: StatusCode, title: &str, text: &str) -> Self {
        Self(Box::new(message(status, title, text, None)))
    }

    pub(super) fn page(response: Response) -> Self {
        Self(Box::new(response))
    }

    /// They log in first, and come back.
    pub(super) fn login(to: &str) -> Self {
        Self(Box::new(see_other(&format!("/login?to={to}"))))
    }

    pub(super) fn overloaded() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too much to do",
            "The service has too much to do. Try again.",
        )
    }

    /// What it takes could not be read, or policy could not decide. Strangers are not told why; the log is.
    fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "That cannot be done now",
            "Nothing was done. Whoever runs the service finds the reason in its log.",
        )
    }

    pub(super) fn too_many() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests", "Wait a few seconds, then try again.")
    }

    pub(super) fn not_ours() -> Self {
        Self::page(message(
            StatusCode::FORBIDDEN,
            "Nothing was done",
            "This was not sent by a page of this service, or that page is too old. Open the page again, and decide there.",
            Some(("/console", "Console")),
        ))
    }

    pub(super) fn into_page(self) -> Response {
        *self.0
    }
}

impl From<Unavailable> for Refusal {
    fn from(error: Unavailable) -> Self {
        Refused::from(error).into()
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let status = match &refused {
            Refused::Unavailable(why) => {
                tracing::error!(why, "a page could not be answered");
                return Self::unavailable();
            }
            Refused::NoSuchCode | Refused::NoSuchApproval | Refused::Unknown(_) => StatusCode::NOT_FOUND,
            Refused::Malformed(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::FORBIDDEN,
        };
        let text = refused.to_string();
        let mut letters = text.chars();
        let text =
            letters.next().map(char::to_uppercase).into_iter().flatten().chain(letters).collect::<String>();
        let back = Some(("/console", "Console"));
        Self(Box::new(message(status, "That cannot be done", &format!("{text}."), back)))
    }
}
