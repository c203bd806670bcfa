//! Who may be told what, as the file of security events says it.

use serde::Deserialize;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::hook::HookKey;
use crate::jws::Algorithm;
use crate::notices::Topic;
use crate::outbound::Target;

/// The most of each kind.
const MAX_EACH: usize = 32;
/// The longest name of one who is told.
const MAX_NAME_BYTES: usize = 64;

/// Who is told.
#[derive(Debug, Default)]
pub(in crate::ssf) struct TellSettings {
    pub(in crate::ssf) receivers: Vec<ReceiverSettings>,
    pub(in crate::ssf) hooks: Vec<HookSettings>,
}

/// One who may hold streams.
#[derive(Debug)]
pub(in crate::ssf) struct ReceiverSettings {
    pub(in crate::ssf) name: String,
    /// SHA-256 of the text of its bearer token.
    token_hash: [u8; 32],
    /// Where tokens may be pushed to: these origins alone.
    push: Vec<Target>,
    pub(in crate::ssf) algorithm: Algorithm,
}

/// One who is told by requests that are signed with a shared secret.
#[derive(Debug)]
pub(in crate::ssf) struct HookSettings {
    pub(in crate::ssf) name: String,
    pub(in crate::ssf) url: Target,
    pub(in crate::ssf) key: HookKey,
    pub(in crate::ssf) tells: Vec<Topic>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::ssf) struct FileReceiver {
    name: String,
    token_sha256: String,
    #[serde(default)]
    push: Vec<String>,
    algorithm: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::ssf) struct FileHook {
    name: String,
    url: String,
    secret: String,
    tells: Vec<Topic>,
}

impl TellSettings {
    pub(in crate::ssf) fn read(receivers: Vec<FileReceiver>, hooks: Vec<FileHook>) -> Result<Self, String> {
        if receivers.len() > MAX_EACH || hooks.len() > MAX_EACH {
            return Err(format!("at most {MAX_EACH} receivers and as many webhooks"));
        }
        let receivers = receivers.into_iter().map(FileReceiver::read).collect::<Result<Vec<_>, _>>()?;
        let hooks = hooks.into_iter().map(FileHook::read).collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<&str> = receivers.iter().map(|one| one.name.as_str()).collect();
        names.extend(hooks.iter().map(|one| one.name.as_str()));
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [one, next] if one == next)) {
            return Err("a receiver or webhook is named twice".to_owned());
        }
        Ok(Self { receivers, hooks })
    }

    pub(in crate::ssf) fn targets(&self) -> impl Iterator<Item = &Target> {
        let pushed = self.receivers.iter().flat_map(|one| &one.push);
        pushed.chain(self.hooks.iter().map(|hook| &hook.url))
    }

    pub(in crate::ssf) fn is_empty(&self) -> bool {
        self.receivers.is_empty() && self.hooks.is_empty()
    }

    /// The receiver that holds this bearer token. Every one is compared, in constant time.
    pub(in crate::ssf) fn receiver(&self, token: &str) -> Option<&ReceiverSettings> {
        let hash = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let mut found = None;
        for receiver in &self.receivers {
            if receiver.token_hash.ct_eq(hash.as_ref()).into() {
                found = Some(receiver);
            }
        }
        found
    }

    pub(in crate::ssf) fn receiver_named(&self, name: &str) -> Option<&ReceiverSettings> {
        self.receivers.iter().find(|receiver| receiver.name == name)
    }
}

impl ReceiverSettings {
    /// Whether tokens may be pushed there.
    pub(in crate::ssf) fn may_push_to(&self, target: &Target) -> bool {
        self.push.iter().any(|allowed| allowed.has_origin_of(target))
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_plain) {
        true => Ok(()),
        false => Err(format!("a name has 1 to {MAX_NAME_BYTES} characters of A-Z a-z 0-9 . _ -")),
    }
}

impl FileReceiver {
    fn read(self) -> Result<ReceiverSettings, String> {
        check_name(&self.name)?;
        let about =
            |what: &str, why: &dyn core::fmt::Display| format!("receiver {}: {what}: {why}", self.name);
        let token_hash = obol_secret::text::from_hex(&self.token_sha256.to_ascii_lowercase())
            .ok_or_else(|| about("token_sha256", &"64 hexadecimal digits: SHA-256 of its bearer token"))?;
        let target = |text: &String| Target::parse(text).map_err(|error| about("push", &error));
        let push = self.push.iter().map(target).collect::<Result<_, _>>()?;
        let algorithm = match self.algorithm.as_deref() {
            None | Some("RS256") => Algorithm::Rs256,
            Some("ES256") => Algorithm::Es256,
            Some(_) => return Err(about("algorithm", &"RS256 or ES256")),
        };
        Ok(ReceiverSettings { token_hash, push, algorithm, name: self.name })
    }
}

impl FileHook {
    fn read(self) -> Result<HookSettings, String> {
        check_name(&self.name)?;
        let secret = Zeroizing::new(self.secret);
        let about =
            |what: &str, why: &dyn core::fmt::Display| format!("webhook {}: {what}: {why}", self.name);
        let url = Target::parse(&self.url).map_err(|error| about("url", &error))?;
        let key = HookKey::read(&secret).ok_or_else(|| {
            about("secret", &"whsec_ and base64 of 24 to 64 random bytes, or a text of 32 to 128 characters")
        })?;
        if self.tells.is_empty() {
            return Err(about("tells", &"sessions, alarms, approvals"));
        }
        Ok(HookSettings { url, key, tells: self.tells, name: self.name })
    }
}
