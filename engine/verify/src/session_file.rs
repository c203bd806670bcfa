//! The file a resource server reads its sessions from: JSON, strict, readable by its owner alone.
//!
//! Errors name the field and what was expected there. They never repeat what stands in the file: a key in the
//! wrong place would end up in a log.

use core::fmt;
use obol_secret::file::{PrivateFile, PrivateFileError};
use obol_secret::json::{self, JsonError};
use obol_secret::text::hex_array;
use obol_token::{
    Audience, MutualAuth, Nonces, SessionId, SessionKey, SessionMaterial, Suite, VerifierSecret,
};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

use crate::session::{Session, Window};

/// The longest session file, in bytes: room for [`crate::MAX_SESSIONS`] entries.
pub const MAX_SESSION_FILE_BYTES: usize = 64 << 20;

/// The format this build reads and writes.
const VERSION: u64 = 1;

/// Why a session file was not read.
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionFileError {
    /// The file is not one of ours alone, or longer than [`MAX_SESSION_FILE_BYTES`], or cannot be read.
    File(PrivateFileError),
    /// The file says it is of another format than 1.
    Version(u64),
    /// A field is missing, unknown, repeated or has the wrong form.
    Json(JsonError),
    /// A field has the right form and the wrong contents.
    Rule {
        /// Where, as in `sessions[3].window`.
        field: String,
        /// What is wrong, without the value.
        problem: &'static str,
    },
}

impl fmt::Display for SessionFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Version(found) => {
                write!(f, "obol_rs_sessions is {found}; this build reads format {VERSION}")
            }
            Self::Json(error) => error.fmt(f),
            Self::Rule { field, problem } => write!(f, "{field}: {problem}"),
        }
    }
}

impl std::error::Error for SessionFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(error) => Some(error),
            Self::Json(error) => Some(error),
            _ => None,
        }
    }
}

impl From<JsonError> for SessionFileError {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

/// An error together with the file it is about.
#[derive(Debug)]
pub struct InSessionFile {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: SessionFileError,
}

impl fmt::Display for InSessionFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            SessionFileError::File(error) => write!(f, "the sessions cannot be read: {error}"),
            error => write!(f, "session file {}: {error}", self.path.display()),
        }
    }
}

impl std::error::Error for InSessionFile {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Reads the sessions in `path`.
pub fn read_session_file(path: &Path) -> Result<Vec<Session>, InSessionFile> {
    read_private(path)
        .and_then(|json| parse_sessions(&json))
        .map_err(|error| InSessionFile { path: path.to_owned(), error })
}

fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, SessionFileError> {
    PrivateFile::read(path, MAX_SESSION_FILE_BYTES).map_err(SessionFileError::File)
}

/// A session together with the text that it was read from, for tables that keep it sealed.
pub struct SessionEntry {
    /// The session.
    pub session: Session,
    /// A session file of its own that holds nothing but this session.
    document: Zeroizing<Vec<u8>>,
}

impl SessionEntry {
    /// A session file that holds this session alone. It holds keys.
    pub fn document(&self) -> &[u8] {
        &self.document
    }
}

impl fmt::Debug for SessionEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionEntry").field(&self.session).finish()
    }
}

/// Reads the sessions in `path`, each with its text.
pub fn read_session_entries(path: &Path) -> Result<Vec<SessionEntry>, InSessionFile> {
    read_private(path)
        .and_then(|json| parse_entries(&json))
        .map_err(|error| InSessionFile { path: path.to_owned(), error })
}

/// Reads sessions from the contents of a session file, each with its text.
pub fn parse_entries(json: &[u8]) -> Result<Vec<SessionEntry>, SessionFileError> {
    #[derive(Deserialize)]
    struct Texts<'a> {
        #[serde(borrow)]
        sessions: Vec<&'a serde_json::value::RawValue>,
    }

    let sessions = parse_sessions(json)?;
    let texts: Texts<'_> = json::parse(json)?;
    let entries = sessions.into_iter().zip(texts.sessions).map(|(session, text)| {
        let (before, after) = (&br#"{"obol_rs_sessions":1,"sessions":["#[..], &b"]}"[..]);
        let mut document = Zeroizing::new(Vec::with_capacity(before.len() + text.get().len() + after.len()));
        for part in [before, text.get().as_bytes(), after] {
            document.extend_from_slice(part);
        }
        SessionEntry { session, document }
    });
    Ok(entries.collect())
}

/// Reads sessions from the contents of a session file.
pub fn parse_sessions(json: &[u8]) -> Result<Vec<Session>, SessionFileError> {
    // The version first: a newer file may have fields that would only confuse.
    let version: VersionOnly = json::parse(json)?;
    if version.obol_rs_sessions != VERSION {
        return Err(SessionFileError::Version(version.obol_rs_sessions));
    }
    let document: Document = json::parse(json)?;
    let mut seen = HashMap::new();
    let mut sessions = Vec::with_capacity(document.sessions.len());
    for (index, entry) in document.sessions.into_iter().enumerate() {
        if seen.insert(entry.session_id, index).is_some() {
            return Err(rule(index, "session_id", "an earlier entry has the same number"));
        }
        sessions.push(entry.into_session(index)?);
    }
    Ok(sessions)
}

fn rule(index: usize, field: &str, problem: &'static str) -> SessionFileError {
    SessionFileError::Rule { field: format!("sessions[{index}].{field}"), problem }
}

#[derive(Deserialize)]
struct VersionOnly {
    obol_rs_sessions: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "obol_rs_sessions")]
    _version: u64,
    sessions: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    session_id: SessionId,
    suite: u8,
    aud: String,
    #[serde(rename = "K_session")]
    session_key: SessionKey,
    verifier_secret: VerifierSecret,
    mutual_auth: MutualAuth,
    #[serde(rename = "SEK_PK", with = "hex_array")]
    sek_public: [u8; 32],
    org_id: String,
    #[serde(default)]
    status: Status,
    window: WindowEntry,
    #[serde(default)]
    policy_epoch: u64,
    #[serde(default)]
    pop_pub: Option<PopKey>,
    #[serde(default)]
    nonces: NoncesEntry,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum NoncesEntry {
    #[default]
    Any,
    Derived,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Status {
    #[default]
    Active,
    Revoked,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowEntry {
    start: u64,
    end: u64,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct PopKey(#[serde(with = "hex_array")] [u8; 32]);

impl Entry {
    fn into_session(self, index: usize) -> Result<Session, SessionFileError> {
        let suite = Suite::from_number(self.suite)
            .ok_or_else(|| rule(index, "suite", "this build has no suite of this number"))?;
        for (name, value) in [("aud", &self.aud), ("org_id", &self.org_id)] {
            if value.is_empty() {
                return Err(rule(index, name, "must not be empty"));
            }
        }
        if self.window.end < self.window.start {
            return Err(rule(index, "window", "ends before it starts"));
        }
        let material = SessionMaterial::new(
            self.session_id,
            suite,
            self.session_key,
            self.verifier_secret,
            self.mutual_auth,
            self.sek_public,
        )
        .with_nonces(match self.nonces {
            NoncesEntry::Any => Nonces::Any,
            NoncesEntry::Derived => Nonces::Derived,
        });
        let mut session = Session::new(material, Audience::new(self.aud), self.org_id)
            .with_window(Window { start: self.window.start, end: self.window.end })
            .with_policy_epoch(self.policy_epoch);
        if let Some(PopKey(public)) = self.pop_pub {
            session = session
                .with_pop_key(&public)
                .map_err(|_| rule(index, "pop_pub", "is not a usable Ed25519 public key"))?;
        }
        if matches!(self.status, Status::Revoked) {
            session.revoke();
        }
        Ok(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SECRET: &str = "5ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7e75ec7";

    fn document() -> Value {
        json!({"obol_rs_sessions": 1, "sessions": [{
            "session_id": "00000000deadbeef", "suite": 1, "aud": "https://rs", "K_session": SECRET,
            "verifier_secret": SECRET, "mutual_auth": SECRET, "SEK_PK": SECRET, "org_id": "org",
            "status": "active", "window": {"start": 1, "end": 2}, "policy_epoch": 7
        }]})
    }

    fn error_with(change: impl FnOnce(&mut Value)) -> String {
        let mut document = document();
        change(&mut document);
        parse_sessions(document.to_string().as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_session_reads_as_written() {
        let mut document = document();
        document["sessions"][0]["status"] = json!("revoked");
        document["sessions"][0]["nonces"] = json!("derived");
        let sessions = parse_sessions(document.to_string().as_bytes()).unwrap();
        let [session] = sessions.as_slice() else { panic!("one session") };
        assert_eq!(session.session_id(), SessionId(0xDEAD_BEEF));
        assert_eq!(session.audience().uri(), "https://rs");
        assert_eq!((session.org_id(), session.policy_epoch()), ("org", 7));
        assert_eq!(session.window(), Some(Window { start: 1, end: 2 }));
        assert!(!session.is_active());
        assert_eq!(session.material().nonces(), Nonces::Derived);
    }

    #[test]
    fn errors_name_the_field() {
        type Change = fn(&mut Value);
        let cases: [(&str, Change); 14] = [
            ("obol_rs_sessions is 2", |d| d["obol_rs_sessions"] = json!(2)),
            ("missing field `obol_rs_sessions`", |d| *d = json!({"sessions": []})),
            ("sessions[0].K_session: expected 64 lower-case hex digits", |d| {
                d["sessions"][0]["K_session"] = json!(SECRET.to_uppercase());
            }),
            ("sessions[0].session_id: expected 16 lower-case hex digits", |d| {
                d["sessions"][0]["session_id"] = json!(7);
            }),
            ("sessions[0]: missing field `aud`", |d| {
                d["sessions"][0].as_object_mut().unwrap().remove("aud");
            }),
            ("sessions[0].extra: ", |d| d["sessions"][0]["extra"] = json!(SECRET)),
            ("sessions[0].suite: this build", |d| d["sessions"][0]["suite"] = json!(9)),
            ("sessions[0].status: expected `active` or `revoked`", |d| {
                d["sessions"][0]["status"] = json!(SECRET);
            }),
            ("sessions[0].nonces: expected `any` or `derived`", |d| {
                d["sessions"][0]["nonces"] = json!(SECRET);
            }),
            ("sessions[0].window: ends before", |d| d["sessions"][0]["window"]["end"] = json!(0)),
            ("sessions[0].window.end: expected u64", |d| d["sessions"][0]["window"]["end"] = json!(-1)),
            ("sessions[0].org_id: must not be empty", |d| d["sessions"][0]["org_id"] = json!("")),
            ("sessions[0].pop_pub: is not a usable", |d| {
                d["sessions"][0]["pop_pub"] = json!("01".to_owned() + &"00".repeat(31));
            }),
            ("sessions[1].session_id: an earlier entry", |d| {
                let again = d["sessions"][0].clone();
                d["sessions"].as_array_mut().unwrap().push(again);
            }),
        ];
        for (expected, change) in cases {
            let message = error_with(change);
            assert!(message.contains(expected), "{expected:?} in {message:?}");
        }
    }

    #[test]
    fn errors_never_repeat_what_the_file_says() {
        for name in
            ["session_id", "suite", "aud", "K_session", "SEK_PK", "org_id", "status", "window", "pop_pub"]
        {
            for value in [json!(SECRET), json!([SECRET]), json!({"k": SECRET}), json!({SECRET: 1})] {
                let mut document = document();
                document["sessions"][0][name] = value;
                if let Err(error) = parse_sessions(document.to_string().as_bytes()) {
                    assert!(!error.to_string().contains(&SECRET[..8]), "{error}");
                }
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions.json");
        std::fs::write(&path, document().to_string()).unwrap();
        for (mode, accepted) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match read_session_file(&path) {
                Ok(sessions) => assert!(accepted && sessions.len() == 1, "{mode:o}"),
                Err(error) => assert!(!accepted && error.to_string().contains("chmod 600"), "{error}"),
            }
        }
    }
}
