//! Keys: the service's own, those it signs with, and those of others that it takes at their word. Nothing of a private half is shown.

use askama::Template;
use axum::extract::Request;
use http::StatusCode;
use obol_handshake::IdentityPublic;
use obol_secret::text::to_hex;

use super::super::answer::page;
use super::super::words::span;
use super::super::{Pages, Served};
use super::{Browser, PAGE, Visit, ago, shown};
use crate::jws::KeyUse;

/// A key that the service signs with.
struct Signing {
    kid: String,
    algorithm: String,
    standing: String,
}

/// How it stands with a key, in words.
fn standing(of: KeyUse, now: u64) -> String {
    match of {
        KeyUse::Signs => "signs".to_owned(),
        KeyUse::From(from) => format!("signs in {}", span(from.saturating_sub(now))),
        KeyUse::Until(until) => {
            format!("does not sign any more; is taken away in {}", span(until.saturating_sub(now)))
        }
    }
}

/// How it stands with somebody else's keys.
struct Theirs {
    issuer: String,
    what: &'static str,
    keys: usize,
    fetched: String,
    error: Option<String>,
}

#[derive(Template)]
#[template(path = "keys.html")]
struct KeysPage<'a> {
    browser: &'a Browser,
    pin: String,
    words: String,
    suites: String,
    signing: Vec<Signing>,
    theirs: Vec<Theirs>,
    more_theirs: usize,
    epoch: Option<(u64, u64, String, String)>,
    chain: Option<String>,
}

/// All of them.
pub(in super::super) async fn show(pages: &Pages, request: Request) -> Served {
    let visit = Visit::begin(pages, &request, "/console/keys")?;
    let (at, now) = (visit.now, visit.now.secs());
    let found = visit.look_at_service(pages, move |authority| {
        let chain = authority.audit_log().map(|log| log.mark().chain().to_owned());
        let key = authority.key();
        let settings = authority.settings();
        let suites: Vec<String> = settings.suites.iter().map(|suite| suite.number().to_string()).collect();
        let pin = format!("{}#{}", settings.origin(), to_hex(&key.0));
        let policy = authority.directory().policy()?;
        let words = IdentityPublic(key.0).words();
        Ok((
            pin,
            words,
            suites.join(", "),
            authority.known_signing_keys(at)?,
            policy,
            chain,
            authority.attestors().status(),
        ))
    });
    let (pin, words, suites, signing, policy, chain, attestors) = found.await?;
    let fetched = |at: Option<u64>| at.map_or_else(|| "never".to_owned(), |at| ago(at, now));
    let mut theirs: Vec<Theirs> = attestors
        .into_iter()
        .map(|one| Theirs {
            issuer: shown(&one.issuer),
            what: "registers agents",
            keys: one.keys,
            fetched: fetched(one.keys_fetched_at),
            error: one.error.as_deref().map(shown),
        })
        .collect();
    let heard = pages.kept.events.iter().flat_map(|events| events.status());
    theirs.extend(heard.map(|one| Theirs {
        issuer: shown(&one.issuer),
        what: "tells security events",
        keys: one.keys,
        fetched: fetched(one.keys_fetched_at),
        error: one.error.as_deref().map(shown),
    }));
    let shown = KeysPage {
        browser: &visit.browser,
        pin,
        words,
        suites,
        signing: signing
            .into_iter()
            .map(|(kid, algorithm, of)| Signing { kid, algorithm, standing: standing(of, now) })
            .collect(),
        more_theirs: theirs.len().saturating_sub(PAGE),
        theirs: theirs.into_iter().take(PAGE).collect(),
        epoch: policy.map(|row| (row.epoch, row.version, shown(&row.by.to_string()), ago(row.at, now))),
        chain,
    };
    Ok(page(StatusCode::OK, &shown, ""))
}
