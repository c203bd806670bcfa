//! `obol verify --jsonl`: one request a line on stdin, one answer a line on stdout, in order. For conformance suites
//! and for comparing implementations; not for serving.
//!
//! Spent tokens and consumed parents last for the process, or for one line where it says `fresh`. A line that cannot
//! be read is answered `INVALID_REQUEST` and never stops the stream. Real time and real randomness are used only
//! where a field is absent, so that known answers can be reproduced.

mod mint;
mod verify;

use std::io::{self, BufRead, Read as _, Write};
use std::sync::Arc;

use obol_token::text::hex_array;
use obol_token::{MutualAuth, SessionId, SessionKey, SessionMaterial, Suite, VerifierSecret};
use obol_verify::{Clock, ConsumedParents, Denial, MemorySpentSet, SpentSet};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

/// The longest line, in bytes without its end.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// Answers every line of `input` on `output` until the input ends.
///
/// # Errors
///
/// Those of the two streams. A line that cannot be read is answered, and is not an error.
pub fn run(mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let mut stores = Stores::new();
    let mut line = Vec::new();
    while let Some(read) = read_line(&mut input, &mut line)? {
        let answer = read.and_then(|()| answer(&line, &mut stores));
        let answer = answer.unwrap_or_else(Answer::invalid);
        serde_json::to_writer(&mut output, &answer)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

/// What lasts from line to line.
struct Stores {
    spent: Arc<dyn SpentSet>,
    parents: Arc<ConsumedParents>,
}

impl Stores {
    /// Empty stores that never forget by time: each line brings a clock of its own.
    fn new() -> Self {
        Self {
            spent: Arc::new(MemorySpentSet::unfenced(Arc::new(TimeOfLine(0)), u64::MAX)),
            parents: Arc::new(ConsumedParents::keeping_for(u64::MAX)),
        }
    }
}

/// The time at which a line is answered, which may be any: it does not pass meanwhile.
#[derive(Debug)]
struct TimeOfLine(u64);

impl Clock for TimeOfLine {
    fn now(&self) -> u64 {
        self.0
    }

    fn monotonic(&self) -> u64 {
        0
    }
}

/// Why a line cannot be answered.
type Invalid = String;

/// The next line, without its end; `None` when there is no more. A line that is too long is read to its end and
/// thrown away.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<Result<(), Invalid>>> {
    line.clear();
    let limit = MAX_LINE_BYTES as u64 + 1;
    if input.by_ref().take(limit).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > MAX_LINE_BYTES {
        skip_line(input)?;
        return Ok(Some(Err(format!("the line is longer than {MAX_LINE_BYTES} bytes"))));
    }
    Ok(Some(Ok(())))
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let (length, done) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(length);
        if done {
            return Ok(());
        }
    }
}

#[derive(Deserialize)]
struct OperationOnly {
    op: String,
}

fn answer(line: &[u8], stores: &mut Stores) -> Result<Answer, Invalid> {
    match parse::<OperationOnly>(line)?.op.as_str() {
        "verify" => verify::answer(parse(line)?, stores),
        "mint" => mint::answer(parse(line)?),
        "reset" => {
            let Reset { .. } = parse(line)?;
            *stores = Stores::new();
            Ok(Answer::Done { ok: true })
        }
        _ => Err("op: expected `verify`, `mint` or `reset`".to_owned()),
    }
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, Invalid> {
    obol_secret::json::parse(line).map_err(|error| format!("{}: {}", error.field, error.problem))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    #[serde(rename = "op")]
    _op: IgnoredAny,
}

/// What is written for a line.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Verified { ok: bool, scope: Box<obol_token::Scope>, jti: String, session_id: String },
    Minted { ok: bool, token_b64url: String },
    Done { ok: bool },
    Refused { ok: bool, code: &'static str, failed_check: &'static str },
    Failed { ok: bool, code: &'static str, failed_check: &'static str, error: String },
}

impl Answer {
    fn invalid(error: Invalid) -> Self {
        Self::Failed { ok: false, code: "INVALID_REQUEST", failed_check: "JSONL", error }
    }

    fn refused(denial: &Denial) -> Self {
        Self::Refused { ok: false, code: denial.code.as_str(), failed_check: denial.failed_check.as_str() }
    }
}

/// A session as a line gives it. Minting uses its keys, verifying all of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionFields {
    #[serde(rename = "K_session")]
    session_key: SessionKey,
    verifier_secret: VerifierSecret,
    mutual_auth: MutualAuth,
    #[serde(rename = "SEK_PK", with = "hex_array")]
    sek_public: [u8; 32],
    session_id: SessionId,
    #[serde(default = "default_suite")]
    suite: u8,
    org_id: String,
    /// Anything but `active` is not active.
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    window: Option<WindowFields>,
    #[serde(default)]
    pop_pub: Option<PopKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowFields {
    start: u64,
    #[serde(default)]
    duration: Option<u64>,
    #[serde(default)]
    end: Option<u64>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct PopKey(#[serde(with = "hex_array")] [u8; 32]);

/// The suite of a line that does not say: TBAC r41.
fn default_suite() -> u8 {
    Suite::Tbac.number()
}

impl SessionFields {
    /// The keys, and what only verifying needs.
    fn split(self) -> Result<(SessionMaterial, SessionRules), Invalid> {
        let suite = Suite::from_number(self.suite).ok_or("session.suite: expected 1, 2, 3 or 4")?;
        let material = SessionMaterial::new(
            self.session_id,
            suite,
            self.session_key,
            self.verifier_secret,
            self.mutual_auth,
            self.sek_public,
        );
        let Self { org_id, status, window, pop_pub, .. } = self;
        Ok((material, SessionRules { org_id, status, window, pop_pub }))
    }
}

/// What a session allows, beside its keys.
struct SessionRules {
    org_id: String,
    status: Option<String>,
    window: Option<WindowFields>,
    pop_pub: Option<PopKey>,
}
