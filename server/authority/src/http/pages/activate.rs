//! An agent that asks to be approved: what a human sees of it, and what becomes of their word.
//!
//! A link opens the registration of an agent on the browser's own machine. For one elsewhere the human types the code that stands in its
//! terminal: a link that somebody mailed shows nothing.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use parking_lot::Mutex;

use super::answer::{Refusal, message, page, see_other};
use super::browser::Browser;
use super::grants::Granted;
use super::guard::Form;
use super::words::shown;
use super::{Pages, Served};
use crate::authority::{Confirmed, Preview, Review};
use crate::decider::Decided;
use crate::directory::{Flow, Registration, RegistrationState};
use crate::http::now;
use crate::id::{RegistrationId, UserCode};
use crate::refused::Refused;

const DAY_SECS: u64 = 86_400;
/// How many codes may be typed with one login that are none, and by everybody within a minute.
const MAX_GUESSES: u32 = 5;
const MAX_GUESSES_A_MINUTE: u32 = 50;
/// Roles that no page ticks by itself.
const NEVER_TICKED: [&str; 2] = ["operator", "privileged"];

/// Codes that are none, typed by everybody within this minute.
#[derive(Debug, Default)]
pub(super) struct Guesses(Mutex<(u64, u32)>);

impl Guesses {
    fn within(&self, now: u64) -> u32 {
        let (minute, count) = *self.0.lock();
        if minute == now / 60 { count } else { 0 }
    }

    fn count(&self, now: u64) {
        let mut known = self.0.lock();
        let (minute, count) = *known;
        *known = (now / 60, if minute == now / 60 { count.saturating_add(1) } else { 1 });
    }
}

/// Where the code is typed.
#[derive(Template)]
#[template(path = "code.html")]
struct CodePage<'a> {
    browser: &'a Browser,
    problem: &'a str,
}

pub(super) async fn ask_for_code(pages: &Pages, request: Request) -> Served {
    let browser = pages.fresh_browser(request.headers(), "/activate")?;
    Ok(page(StatusCode::OK, &CodePage { browser: &browser, problem: "" }, ""))
}

pub(super) async fn take_code(pages: &Pages, request: Request) -> Served {
    let browser = pages.browser(request.headers(), "/activate")?;
    let form = Form::read(request, pages.origin(), &browser).await?;
    let now = now();
    pages.may_guess(&browser, now.secs())?;
    let found = match UserCode::parse(form.one("code").unwrap_or_default()) {
        Some(code) => {
            let by = browser.human.clone();
            pages.run(move |authority| authority.review_reached(&code, &by, now)).await?
        }
        None => Err(Refused::NoSuchCode),
    };
    match found {
        Ok(review) => {
            let id = review.registration.id;
            let to = format!("/activate/{id}");
            pages.browsers.typed(&browser, id);
            Ok(see_other(&to))
        }
        Err(Refused::NoSuchCode) => {
            pages.guessed(&browser, now.secs());
            let problem = "No agent waits with this code. Codes are good for ten minutes: look at the agent's terminal.";
            Ok(page(StatusCode::NOT_FOUND, &CodePage { browser: &browser, problem }, ""))
        }
        Err(refused) => Err(refused.into()),
    }
}

/// One role that could be given.
struct Choice {
    role: String,
    is_ticked: bool,
    is_wanted: bool,
}

/// One thing that the agent says of itself, and what it said when it was approved before, where that was something else.
struct Said {
    what: &'static str,
    now: String,
    before: Option<String>,
}

#[derive(Template)]
#[template(path = "registration.html")]
struct RegistrationPage<'a> {
    browser: &'a Browser,
    id: &'a RegistrationId,
    words: &'a str,
    name: &'a str,
    source: &'a str,
    asked_minutes_ago: u64,
    is_here: bool,
    /// Of an agent that is known: for how many days it has been.
    known_days: Option<u64>,
    said: Vec<Said>,
    choices: Vec<Choice>,
    grants: Vec<Granted>,
    /// Of one that is an agent already: what it would get that it has not now, and what it has now and would not get.
    change: Option<(Vec<Granted>, Vec<Granted>)>,
    is_allowed: bool,
    days: u64,
    most_days: u64,
    problem: &'a str,
}

/// What was chosen on the page, or what it begins with.
struct Chosen {
    roles: Vec<String>,
    days: u64,
}

impl Chosen {
    /// As a form or an address says, where it says anything.
    fn read(form: &Form, browser: &Browser, registration: &Registration, usual_days: u64) -> Self {
        let days = form.one("days").and_then(|days| days.trim().parse().ok()).unwrap_or(usual_days);
        let own: BTreeSet<&String> = browser.roles.iter().collect();
        let ticks = |role: &&String| own.contains(*role) && !NEVER_TICKED.contains(&role.as_str());
        let roles = match form.one("chosen") {
            Some(_) => form.all("role"),
            None => registration.wanted.roles.iter().filter(ticks).cloned().collect(),
        };
        Self { roles, days }
    }
}

impl Pages {
    /// Whether a code may be typed with this browser.
    pub(super) fn may_guess(&self, browser: &Browser, now: u64) -> Result<(), Refusal> {
        if self.browsers.guesses(browser) < MAX_GUESSES && self.guesses.within(now) < MAX_GUESSES_A_MINUTE {
            return Ok(());
        }
        Err(Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many codes",
            "Too many codes were typed that are none. Log in again after a minute, and type the code exactly as the terminal shows it.",
        ))
    }

    /// Counts a code that is none.
    pub(super) fn guessed(&self, browser: &Browser, now: u64) {
        self.guesses.count(now);
        let guesses = self.browsers.guessed(browser);
        tracing::warn!(human = %browser.human, guesses, "a wrong code was typed");
    }

    fn usual_days(&self) -> u64 {
        self.authority.settings().approval_life_secs().div_ceil(DAY_SECS)
    }

    /// The registration that waits, if this browser may see it.
    async fn reviewed(&self, name: &str, browser: &Browser) -> Result<Review, Refusal> {
        let id = RegistrationId::parse(name).ok_or(Refused::NoSuchCode)?;
        let (by, now) = (browser.human.clone(), now());
        let review = self.run(move |authority| authority.review_named_reached(&id, &by, now)).await??;
        match review.registration.flow {
            Flow::Loopback(_) => Ok(review),
            Flow::Code if browser.typed.as_ref() == Some(&review.registration.id) => Ok(review),
            // Whoever has only a link has not seen the agent's terminal.
            Flow::Code | Flow::Local => Err(Refused::NoSuchCode.into()),
        }
    }

    async fn registration_page(
        &self,
        browser: &Browser,
        review: &Review,
        chosen: Chosen,
        problem: &str,
        status: StatusCode,
    ) -> Result<Response, Refusal> {
        let (asked, roles, by) = (review.clone(), chosen.roles.clone(), browser.human.clone());
        let (flow, now) = (review.registration.flow, now());
        let secs = Some(chosen.days.saturating_mul(DAY_SECS));
        let previewed =
            self.run(move |authority| authority.preview(&asked, &roles, secs, &by, flow, now)).await?;
        let (preview, problem) = match previewed {
            Ok(preview) => (preview, problem.to_owned()),
            Err(refused) => (Preview::default(), refused.to_string()),
        };
        let grants = Granted::all(&preview.grants, &preview.per_call);
        let registration = &review.registration;
        let shown = RegistrationPage {
            browser,
            id: &registration.id,
            words: &review.words,
            name: &shown(&registration.wanted.name),
            source: &registration.source,
            asked_minutes_ago: now.secs().saturating_sub(registration.created_at) / 60,
            is_here: matches!(flow, Flow::Loopback(_)),
            known_days: review
                .before
                .as_ref()
                .map(|before| now.secs().saturating_sub(before.registered_at) / DAY_SECS),
            said: said(review),
            choices: choices(browser, registration, &chosen.roles),
            change: preview.before.as_ref().map(|before| change(before, &grants)),
            grants,
            is_allowed: preview.allowed,
            days: chosen.days,
            most_days: self.usual_days(),
            problem: &problem,
        };
        let back_to = match flow {
            Flow::Loopback(port) => format!("http://127.0.0.1:{port}"),
            Flow::Code | Flow::Local => String::new(),
        };
        Ok(page(status, &shown, &back_to))
    }
}

/// What comes with a yes, and what goes.
fn change(before: &Decided, after: &[Granted]) -> (Vec<Granted>, Vec<Granted>) {
    let before = Granted::all(&before.grants, &before.per_call);
    let without = |these: &[Granted], those: &[Granted]| {
        these.iter().filter(|it| !those.contains(it)).cloned().collect()
    };
    (without(after, &before), without(&before, after))
}

/// Roles that this human could give, those that the agent asks for first.
fn choices(browser: &Browser, registration: &Registration, ticked: &[String]) -> Vec<Choice> {
    let choice = |role: &String| Choice {
        role: role.clone(),
        is_ticked: ticked.contains(role),
        is_wanted: registration.wanted.roles.contains(role),
    };
    let (mut wanted, others): (Vec<_>, Vec<_>) =
        browser.roles.iter().map(choice).partition(|choice| choice.is_wanted);
    wanted.extend(others);
    wanted
}

fn said(review: &Review) -> Vec<Said> {
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { shown(&names.join(", ")) };
    let fields = |wanted: &crate::directory::Wanted| {
        [
            ("Name", shown(&wanted.name)),
            ("Class", shown(&wanted.class)),
            ("Machine", shown(&wanted.host)),
            ("User", shown(&wanted.user)),
            ("Software", shown(&wanted.software)),
            ("Wants the roles", list(&wanted.roles)),
            ("Wants the tools", list(&wanted.tools)),
        ]
    };
    let before = review.before.as_ref().map(|before| fields(&before.wanted));
    let now = fields(&review.registration.wanted).into_iter().enumerate();
    now.map(|(place, (what, now))| {
        let before = before.as_ref().and_then(|before| before.get(place)).map(|(_, before)| before.clone());
        Said { what, before: before.filter(|before| *before != now), now }
    })
    .collect()
}

/// The page of an agent that waits.
pub(super) async fn show(pages: &Pages, name: &str, request: Request) -> Served {
    let browser = pages.fresh_browser(request.headers(), &format!("/activate/{name}"))?;
    let review = pages.reviewed(name, &browser).await?;
    let query =
        Form::of(request.uri().query().unwrap_or_default().as_bytes()).ok_or_else(Refusal::not_ours)?;
    let chosen = Chosen::read(&query, &browser, &review.registration, pages.usual_days());
    pages.registration_page(&browser, &review, chosen, "", StatusCode::OK).await
}

/// What a human said.
pub(super) async fn decide(pages: &Pages, name: &str, request: Request) -> Served {
    let browser = pages.fresh_browser(request.headers(), &format!("/activate/{name}"))?;
    let form = Form::read(request, pages.origin(), &browser).await?;
    let review = pages.reviewed(name, &browser).await?;
    match form.one("word") {
        Some("approve") => approve(pages, &browser, review, &form).await,
        Some("deny") => deny(pages, &browser, review, false).await,
        Some("foreign") => deny(pages, &browser, review, true).await,
        _ => Err(Refusal::not_ours()),
    }
}

async fn approve(pages: &Pages, browser: &Browser, review: Review, form: &Form) -> Served {
    let chosen = Chosen::read(form, browser, &review.registration, pages.usual_days());
    if chosen.roles.is_empty() || chosen.days == 0 {
        let problem = "Choose at least one role, and one day or more.";
        return pages.registration_page(browser, &review, chosen, problem, StatusCode::BAD_REQUEST).await;
    }
    let (asked, roles, by, now) = (review.clone(), chosen.roles.clone(), browser.human.clone(), now());
    let secs = Some(chosen.days.saturating_mul(DAY_SECS));
    let confirmed = pages.run(move |authority| authority.confirm(&asked, &roles, secs, &by, now)).await?;
    let id = &review.registration.id;
    match confirmed {
        Ok(Confirmed::Loopback(port, code)) => Ok(see_other(&format!(
            "http://127.0.0.1:{port}/registered?reg={id}&code={}",
            code.to_text().as_str()
        ))),
        Ok(Confirmed::Code(code)) => {
            let shown = ReturnPage {
                browser,
                name: &shown(&review.registration.wanted.name),
                code: &code.to_string(),
            };
            Ok(page(StatusCode::OK, &shown, ""))
        }
        Err(refused @ (Refused::Unavailable(_) | Refused::NoSuchCode)) => Err(refused.into()),
        Err(refused) => {
            let problem = refused.to_string();
            pages.registration_page(browser, &review, chosen, &problem, StatusCode::FORBIDDEN).await
        }
    }
}

/// The three words that have to come back.
#[derive(Template)]
#[template(path = "return.html")]
struct ReturnPage<'a> {
    browser: &'a Browser,
    name: &'a str,
    code: &'a str,
}

/// `is_foreign`: the human did not start this, so somebody may be after them.
async fn deny(pages: &Pages, browser: &Browser, review: Review, is_foreign: bool) -> Served {
    let (id, by, now) = (review.registration.id.clone(), browser.human.clone(), now());
    let denied = pages.run(move |authority| authority.deny(id, is_foreign, &by, now)).await??;
    debug_assert_eq!(denied.state, RegistrationState::Denied);
    if !is_foreign {
        let text = "The agent was denied. It can ask again.";
        return Ok(message(StatusCode::OK, "Denied", text, None));
    }
    tracing::error!(
        human = %browser.human, source = denied.source, name = denied.wanted.name,
        "a human was asked to approve an agent that they did not start; its address may register nothing for an hour"
    );
    let text = "Thank you. The agent was denied, and nothing more is taken from where it came from for an hour. Tell whoever looks after \
                this service how you came to the page: the link, the mail or the call.";
    Ok(message(StatusCode::OK, "Denied and reported", text, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_counted_by_the_minute() {
        let guesses = Guesses::default();
        for _ in 0..MAX_GUESSES_A_MINUTE {
            guesses.count(6_000);
        }
        assert_eq!((guesses.within(6_059), guesses.within(6_060)), (MAX_GUESSES_A_MINUTE, 0));
        guesses.count(6_060);
        assert_eq!(guesses.within(6_061), 1);
    }
}
