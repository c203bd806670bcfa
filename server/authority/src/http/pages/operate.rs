//! An operator of another machine who asks to be let in: what a human sees of it, and what becomes of their word.
//!
//! As with agents, a link opens what was asked for on the browser's own machine, and for another machine the human types the code
//! that stands in its terminal. A yes has to come back there before it is worth anything.

use askama::Template;
use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;

use super::answer::{Refusal, message, page, see_other};
use super::browser::Browser;
use super::guard::Form;
use super::{Pages, Served};
use crate::authority::Confirmed;
use crate::directory::Flow;
use crate::http::now;
use crate::id::{LoginId, UserCode};
use crate::refused::Refused;
use crate::remote::AskedLogin;

/// Where the code is typed.
#[derive(Template)]
#[template(path = "operate_code.html")]
struct CodePage<'a> {
    browser: &'a Browser,
    problem: &'a str,
}

pub(super) async fn ask_for_code(pages: &Pages, request: Request) -> Served {
    let browser = pages.fresh_browser(request.headers(), "/operate")?;
    Ok(page(StatusCode::OK, &CodePage { browser: &browser, problem: "" }, ""))
}

pub(super) async fn take_code(pages: &Pages, request: Request) -> Served {
    let browser = pages.fresh_browser(request.headers(), "/operate")?;
    let form = Form::read(request, pages.origin(), &browser).await?;
    let now = now();
    pages.may_guess(&browser, now.secs())?;
    let found = match UserCode::parse(form.one("code").unwrap_or_default()) {
        Some(code) => pages.run(move |authority| authority.review_login_coded(&code, now)).await?,
        None => Err(Refused::NoSuchCode),
    };
    match found {
        Ok(asked) => {
            let to = format!("/operate/{}", asked.id);
            pages.browsers.typed_login(&browser, asked.id);
            Ok(see_other(&to))
        }
        Err(Refused::NoSuchCode) => {
            pages.guessed(&browser, now.secs());
            let problem =
                "Nobody asks to log in with this code. Codes are good for ten minutes: look at the terminal.";
            Ok(page(StatusCode::NOT_FOUND, &CodePage { browser: &browser, problem }, ""))
        }
        Err(refused) => Err(refused.into()),
    }
}

#[derive(Template)]
#[template(path = "operate.html")]
struct LoginPage<'a> {
    browser: &'a Browser,
    asked: &'a AskedLogin,
    words: &'a str,
    asked_minutes_ago: u64,
    is_here: bool,
    may: bool,
    minutes: u64,
}

fn no_such_login() -> Refusal {
    Refusal::page(message(
        StatusCode::NOT_FOUND,
        "No such terminal waits",
        "The ten minutes are over, or it was already decided. Run obol login again and open the address it prints.",
        Some(("/console", "Console")),
    ))
}

impl Pages {
    /// The login that waits, if this browser may see it.
    async fn asked_login(&self, name: &str, browser: &Browser) -> Result<AskedLogin, Refusal> {
        let id = LoginId::parse(name).ok_or_else(no_such_login)?;
        let now = now();
        let asked = match self.run(move |authority| authority.review_login(&id, now)).await? {
            Err(Refused::NoSuchCode) => return Err(no_such_login()),
            asked => asked?,
        };
        match asked.flow {
            Flow::Loopback(_) => Ok(asked),
            Flow::Code if browser.typed_login.as_ref() == Some(&asked.id) => Ok(asked),
            // Whoever has only a link has not seen the terminal.
            Flow::Code | Flow::Local => Err(no_such_login()),
        }
    }
}

/// The page of somebody who asks to be let in.
pub(super) async fn show(pages: &Pages, name: &str, request: Request) -> Served {
    let browser = pages.fresh_browser(request.headers(), &format!("/operate/{name}"))?;
    let asked = pages.asked_login(name, &browser).await?;
    let by = browser.human.clone();
    let may = match pages.run(move |authority| authority.may_log_in(&by)).await? {
        Ok(()) => true,
        Err(Refused::MayNotLogIn) => false,
        Err(refused) => return Err(refused.into()),
    };
    let shown = LoginPage {
        browser: &browser,
        asked: &asked,
        words: &asked.key.words(),
        asked_minutes_ago: now().secs().saturating_sub(asked.asked_at) / 60,
        is_here: matches!(asked.flow, Flow::Loopback(_)),
        may,
        minutes: pages.authority.settings().login_secs / 60,
    };
    let back_to = match asked.flow {
        Flow::Loopback(port) => format!("http://127.0.0.1:{port}"),
        Flow::Code | Flow::Local => String::new(),
    };
    Ok(page(StatusCode::OK, &shown, &back_to))
}

/// What a human said.
pub(super) async fn decide(pages: &Pages, name: &str, request: Request) -> Served {
    let browser = pages.fresh_browser(request.headers(), &format!("/operate/{name}"))?;
    let form = Form::read(request, pages.origin(), &browser).await?;
    let asked = pages.asked_login(name, &browser).await?;
    match form.one("word") {
        Some("approve") => approve(pages, &browser, asked).await,
        Some("deny") => deny(pages, &browser, asked, false).await,
        Some("foreign") => deny(pages, &browser, asked, true).await,
        _ => Err(Refusal::not_ours()),
    }
}

async fn approve(pages: &Pages, browser: &Browser, asked: AskedLogin) -> Served {
    let (by, id, now) = (browser.human.clone(), asked.id.clone(), now());
    let confirmed = pages.run(move |authority| authority.confirm_login(&asked, &by, now)).await??;
    match confirmed {
        Confirmed::Loopback(port, code) => Ok(see_other(&format!(
            "http://127.0.0.1:{port}/logged-in?login={id}&code={}",
            code.to_text().as_str()
        ))),
        Confirmed::Code(code) => {
            let shown = ReturnPage { browser, name: "obol login", code: &code.to_string() };
            Ok(page(StatusCode::OK, &shown, ""))
        }
    }
}

/// The three words that have to come back.
#[derive(Template)]
#[template(path = "operate_return.html")]
struct ReturnPage<'a> {
    browser: &'a Browser,
    name: &'a str,
    code: &'a str,
}

/// `is_foreign`: the human did not start this, so somebody may be after them.
async fn deny(pages: &Pages, browser: &Browser, asked: AskedLogin, is_foreign: bool) -> Served {
    let (id, by, now) = (asked.id, browser.human.clone(), now());
    pages.run(move |authority| authority.deny_login(&id, is_foreign, &by, now)).await??;
    let (title, text) = match is_foreign {
        false => ("Denied", "Nobody was let in. It can be asked for again."),
        true => (
            "Denied and reported",
            "Thank you. Nobody was let in, and nothing more is taken from where it came from for an hour. Tell whoever looks after \
             this service how you came to the page: the link, the mail or the call.",
        ),
    };
    let response: Response = message(StatusCode::OK, title, text, None);
    Ok(response)
}
