//! `obol atp secret`: changes the operator's file of secrets. A running provider reads it again on SIGHUP.

use std::path::Path;

use obol_atp_server::{MAX_SECRETS_FILE_BYTES, SecretBook};
use obol_secret::file::change;
use obol_secret::text::{to_base64url, to_hex};
use obol_secret::wipe::Wiped;
use obol_session::clock::{Clock as _, SystemClock};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::exit::{Failure, Outcome};
use crate::output;
use crate::sessions::create::write_new;
use crate::settings::args::Output;
use crate::settings::args::atp::{OneAgent, SecretCommand, Whose};

/// The longest time that an old secret is kept, in seconds: 90 days.
const MAX_KEEP_SECS: u64 = 90 * 86_400;

pub(super) fn run(command: &SecretCommand) -> Outcome {
    match command {
        SecretCommand::New { whose, scope, output } => new(whose, scope, *output),
        SecretCommand::Rotate { whose, keep, output } => rotate(whose, keep, *output),
        SecretCommand::Retire { whose, now, output } => retire(whose, *now, *output),
        SecretCommand::Disable { agent, output } => set_status(agent, Status::Disabled, *output),
        SecretCommand::Enable { agent, output } => set_status(agent, Status::Active, *output),
    }
}

fn new(whose: &Whose, scopes: &[String], output: Output) -> Outcome {
    let secret = generate()?;
    let add = |book: &mut Book| add(book, whose, scopes, &secret);
    if std::fs::symlink_metadata(&whose.secrets).is_ok() {
        edit(&whose.secrets, add)?;
    } else {
        begin(&whose.secrets, add)?;
    }
    print(&secret, output)
}

fn add(book: &mut Book, whose: &Whose, scopes: &[String], secret: &str) -> Outcome {
    let row = json!({ "secret": secret });
    if let Some(name) = &whose.who.master {
        if scopes.is_empty() {
            return Err(Failure::usage("a master needs --scope, which limits what it can give out"));
        }
        if book.find("masters", "name", name).is_some() {
            return Err(exists("master"));
        }
        let hash = to_hex(&Sha256::digest(secret.as_bytes()));
        book.list("masters")?.push(json!({ "name": name, "sha256": hash, "scopes": scopes }));
    } else if let Some(agent) = &whose.who.agent {
        if book.find("agents", "agent_id", agent).is_some() {
            return Err(exists("agent"));
        }
        let mut entry = json!({ "agent_id": agent, "secrets": [row] });
        if let (false, Some(entry)) = (scopes.is_empty(), entry.as_object_mut()) {
            entry.insert("scopes".to_owned(), json!(scopes));
        }
        book.list("agents")?.push(entry);
    } else {
        if !scopes.is_empty() {
            return Err(Failure::usage("a shared secret has no scopes; --scope is for agents and masters"));
        }
        let shared = book.list("shared")?;
        if !shared.is_empty() {
            return Err(exists("shared secret"));
        }
        shared.push(row);
    }
    Ok(())
}

fn exists(what: &str) -> Failure {
    Failure::usage(format_args!("this {what} already exists; use `obol atp secret rotate`"))
}

fn rotate(whose: &Whose, keep: &str, output: Output) -> Outcome {
    let keep = seconds(keep)?;
    let secret = generate()?;
    edit(&whose.secrets, |book| {
        if let Some(name) = &whose.who.master {
            let master = book.find("masters", "name", name).ok_or_else(|| missing("master"))?;
            master.insert("sha256".to_owned(), json!(to_hex(&Sha256::digest(secret.as_bytes()))));
            return Ok(());
        }
        let until = now()?.saturating_add(keep);
        let secrets = book.secrets_of(whose)?;
        secrets.truncate(1);
        for old in secrets.iter_mut().filter_map(Value::as_object_mut) {
            old.insert("until".to_owned(), json!(until));
        }
        secrets.insert(0, json!({ "secret": *secret }));
        Ok(())
    })?;
    print(&secret, output)
}

fn retire(whose: &Whose, end_tokens: bool, output: Output) -> Outcome {
    edit(&whose.secrets, |book| {
        if let Some(name) = &whose.who.master {
            let masters = book.list("masters")?;
            let before = masters.len();
            masters.retain(|master| master.get("name") != Some(&json!(name)));
            return if masters.len() == before { Err(missing("master")) } else { Ok(()) };
        }
        let secrets = book.secrets_of(whose)?;
        if secrets.len() < 2 {
            return Err(only_one(end_tokens));
        }
        secrets.truncate(1);
        if let (true, Some(agent)) = (end_tokens, &whose.who.agent) {
            let now = now()?;
            let agent = book.find("agents", "agent_id", agent).ok_or_else(|| missing("agent"))?;
            agent.insert("tokens_after".to_owned(), json!(now));
        }
        Ok(())
    })?;
    if output.json {
        output::json(&json!({ "retired": true }));
    }
    Ok(())
}

/// Nothing was ended, and whoever meant to end something urgently must see that.
fn only_one(end_tokens: bool) -> Failure {
    Failure::usage(if end_tokens {
        "nothing was changed: this agent has only one secret, which would stay valid. To cut the agent off, use `obol atp secret disable`. To replace a secret that was copied, use `obol atp secret rotate --keep 0s`, then run this again"
    } else {
        "there is no older secret; rotate first"
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Active,
    Disabled,
}

/// Cuts an agent off, or lets it in again. What it had from before stays over.
fn set_status(agent: &OneAgent, status: Status, output: Output) -> Outcome {
    let is_disabled = status == Status::Disabled;
    edit(&agent.secrets, |book| {
        let now = now()?;
        let entry = book.find("agents", "agent_id", &agent.agent).ok_or_else(unknown_agent)?;
        let before = entry.get("tokens_after").and_then(Value::as_u64).unwrap_or(0);
        // What it is given from now on, in this very second, must hold where it is let in again.
        let after = before.max(if is_disabled { now } else { now.saturating_sub(1) });
        entry.insert("status".to_owned(), json!(if is_disabled { "disabled" } else { "active" }));
        entry.insert("tokens_after".to_owned(), json!(after));
        Ok(())
    })?;
    if output.json {
        output::json(&json!({ "disabled": is_disabled }));
    }
    Ok(())
}

fn unknown_agent() -> Failure {
    Failure::usage(
        "nothing was changed: the file has no such agent. An agent that signs with the shared secret can take any name; end that secret with `obol atp secret rotate --shared --keep 0s`",
    )
}

fn missing(what: &str) -> Failure {
    Failure::usage(format_args!("the file has no such {what}; use `obol atp secret new`"))
}

fn print(secret: &str, output: Output) -> Outcome {
    if output.json {
        output::json(&json!({ "secret": secret }));
        return Ok(());
    }
    output::token(secret)
}

/// 32 random bytes as base64url.
fn generate() -> Outcome<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(Failure::other)?;
    Ok(Zeroizing::new(to_base64url(bytes.as_slice())))
}

/// To the second as a provider counts it: what ends now must end what was issued a moment ago.
fn now() -> Outcome<u64> {
    match SystemClock::new().now_ms() / 1_000 {
        0 => Err(Failure::other("this machine's clock is set before 1970; set it right")),
        now => Ok(now),
    }
}

/// A number and s, m, h or d.
fn seconds(text: &str) -> Outcome<u64> {
    let wrong = || Failure::usage("a time is a number and s, m, h or d, such as 24h, of at most 90 days");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let each = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    number.checked_mul(each).filter(|seconds| *seconds <= MAX_KEEP_SECS).ok_or_else(wrong)
}

/// Changes the file, whole or not at all, and only to what can be read.
fn edit(path: &Path, work: impl FnOnce(&mut Book) -> Outcome) -> Outcome {
    change(path, MAX_SECRETS_FILE_BYTES, |text| Book::changed(text, work))
}

/// Makes the file.
fn begin(path: &Path, work: impl FnOnce(&mut Book) -> Outcome) -> Outcome {
    let text = Book::changed(br#"{"obol_atp":1}"#, work)?;
    write_new(path, &text)
}

/// The file's document as it is, so that what this build does not change stays where it was.
struct Book {
    document: Map<String, Value>,
}

impl Book {
    /// The text of another file.
    fn changed(text: &[u8], work: impl FnOnce(&mut Self) -> Outcome) -> Outcome<Wiped> {
        SecretBook::parse(text).map_err(Failure::usage)?;
        let document = serde_json::from_slice(text)
            .map_err(|_| Failure::usage("the secrets file is not a JSON object"))?;
        let mut book = Self { document };
        work(&mut book)?;
        let text = Wiped::new(serde_json::to_vec_pretty(&book.document).map_err(Failure::other)?);
        SecretBook::parse(&text).map_err(Failure::usage)?;
        Ok(text)
    }

    fn list(&mut self, name: &str) -> Outcome<&mut Vec<Value>> {
        let list = self.document.entry(name).or_insert_with(|| json!([])).as_array_mut();
        list.ok_or_else(|| Failure::usage(format_args!("{name} is not a list in the secrets file")))
    }

    fn find(&mut self, list: &str, member: &str, value: &str) -> Option<&mut Map<String, Value>> {
        let rows = self.document.get_mut(list)?.as_array_mut()?.iter_mut();
        rows.filter_map(Value::as_object_mut)
            .find(|row| row.get(member).and_then(Value::as_str) == Some(value))
    }

    /// The secrets of an agent, or the shared ones; there is one at least.
    fn secrets_of(&mut self, whose: &Whose) -> Outcome<&mut Vec<Value>> {
        let secrets = match &whose.who.agent {
            Some(agent) => self.find("agents", "agent_id", agent).and_then(|agent| agent.get_mut("secrets")),
            None => self.document.get_mut("shared"),
        };
        let secrets = secrets.and_then(Value::as_array_mut).filter(|secrets| !secrets.is_empty());
        secrets.ok_or_else(|| missing(if whose.who.shared { "shared secret" } else { "agent" }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        assert_eq!(seconds("24h").ok(), Some(86_400));
        assert_eq!(seconds("0s").ok(), Some(0));
        for wrong in ["", "h", "24", "1w", "-1h", "91d", "99999999999999999999d", "1é"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
