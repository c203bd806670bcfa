//! Bodies that are a call's arguments: what a proof is asked over, and what is sealed.

use core::fmt;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use obol_ipc::message::TokenChannel;
use obol_ipc::names::ChannelAlgorithm;
use obol_ipc::proof::ArgumentsHash;
use obol_ipc::secret::ChannelText;
use obol_secret::json::{Bounds, ReadArguments, canonical, parse_within};
use obol_secret::text::from_base64url;
use obol_secret::wipe::Wiped;
use obol_token::{Suite, aead};
use sha2::{Digest as _, Sha256};

use crate::body::ResponseBody;
use crate::error::{Code, Error};

/// The type of a sealed body.
pub(crate) const SEALED: HeaderValue = HeaderValue::from_static("application/vnd.obol.sealed");
/// In a sealed answer: the type of what is sealed.
const SEALED_TYPE: HeaderName = HeaderName::from_static("tbac-sealed-type");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// The longest plaintext.
const MAX_PLAIN_BYTES: usize = 1 << 20;
const IV_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// What stands for no body.
const NOTHING: Bytes = Bytes::from_static(b"{}");
/// The longest key or additional data, in bytes.
const MAX_PART_BYTES: usize = 1 << 10;

/// The arguments, where a body is that: one JSON object, or nothing.
fn read(body: &Bytes) -> Option<ReadArguments> {
    if body.is_empty() {
        return Some(ReadArguments::default());
    }
    let is_object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if !is_object || body.len() > MAX_PLAIN_BYTES {
        return None;
    }
    parse_within(body, Bounds::REQUEST).ok()
}

/// What a proof is asked over: SHA-256 of the arguments in canonical form, where they have one.
pub(crate) fn hash(body: &Bytes) -> Option<ArgumentsHash> {
    let arguments = read(body).filter(|arguments| !arguments.rounded)?;
    let canonical = canonical(&arguments.map)?;
    Some(ArgumentsHash::from_bytes(Sha256::digest(canonical).into()))
}

/// The arguments as a human is shown them: a JSON object that has a canonical form. `None` where there is nothing to show.
pub(crate) fn shown(body: &Bytes) -> Option<String> {
    hash(body).filter(|_| !body.is_empty())?;
    String::from_utf8(body.to_vec()).ok()
}

/// The channel of one token: seals the arguments of its call, and opens what is answered.
pub struct Channel {
    suite: Suite,
    request: Keys,
    response: Keys,
}

struct Keys {
    key: Wiped,
    aad: Vec<u8>,
}

impl Keys {
    fn of(key: &ChannelText, aad: &ChannelText) -> Result<Self, Error> {
        let read = |text: &ChannelText| {
            from_base64url(text.expose().as_bytes(), MAX_PART_BYTES).map_err(|_| nonsense())
        };
        let keys = Self { key: Wiped::new(read(key)?), aad: read(aad)? };
        keys.key().map(|_| ())?;
        Ok(keys)
    }

    fn key(&self) -> Result<&[u8; 32], Error> {
        <&[u8; 32]>::try_from(&self.key[..]).map_err(|_| nonsense())
    }
}

fn nonsense() -> Error {
    Error::new(Code::ProtocolError, "the sidecar's channel keys cannot be used; check its version")
}

fn failed(why: &str) -> Error {
    let message = format!(
        "the answer {why}, although the request was sealed; it is not trusted, and the call may have been carried out"
    );
    Error::new(Code::ChannelFailed, message)
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channel([redacted])")
    }
}

impl Channel {
    /// The AEAD's name, as it stands beside what is sealed.
    pub const fn algorithm(&self) -> &'static str {
        match self.suite {
            Suite::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            _ => "AES-256-GCM",
        }
    }

    /// Seals the arguments of the call, once: nonce, ciphertext, tag.
    ///
    /// # Errors
    ///
    /// [`Code::InvalidArgument`] where they are no object of JSON of at most 1 MiB.
    pub fn seal_arguments(&self, arguments: &[u8]) -> Result<Bytes, Error> {
        self.seal(Some(&Bytes::copy_from_slice(arguments)), "the tool")
    }

    /// Opens what was answered: nonce, ciphertext, tag. `None` where it was not sealed for this token.
    pub fn open_result(&self, sealed: &[u8]) -> Option<Bytes> {
        self.open(sealed)
    }

    pub(crate) fn of(channel: &TokenChannel) -> Result<Self, Error> {
        let suite = match channel.alg {
            ChannelAlgorithm::ChaCha20Poly1305 => Suite::ChaCha20Poly1305,
            _ => Suite::AesGcm,
        };
        Ok(Self {
            suite,
            request: Keys::of(&channel.request_key, &channel.request_aad)?,
            response: Keys::of(&channel.response_key, &channel.response_aad)?,
        })
    }

    /// Seals a body: nonce, ciphertext, tag. `body` is `None` for a stream.
    pub(crate) fn seal(&self, body: Option<&Bytes>, tool: &str) -> Result<Bytes, Error> {
        let body = body.filter(|body| read(body).is_some()).ok_or_else(|| {
            let message = format!("the body: {tool} takes sealed arguments, a JSON object or nothing");
            Error::new(Code::InvalidArgument, message)
        })?;
        let cannot = || Error::new(Code::ChannelFailed, "the body cannot be sealed; nothing was sent");
        let mut iv = [0; IV_BYTES];
        getrandom::fill(&mut iv).map_err(|_| cannot())?;
        let mut text = if body.is_empty() { NOTHING.to_vec() } else { body.to_vec() };
        let Keys { aad, .. } = &self.request;
        let tag = aead::seal(self.suite, self.request.key()?, &iv, aad, &mut text).map_err(|_| cannot())?;
        Ok([&iv[..], &text, &tag].concat().into())
    }

    /// Opens a body, under the nonce that it begins with.
    fn open(&self, sealed: &[u8]) -> Option<Bytes> {
        let (iv, rest) = sealed.split_first_chunk::<IV_BYTES>()?;
        let (text, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        let mut text = text.to_vec();
        let key = self.response.key().ok()?;
        aead::open(self.suite, key, iv, &self.response.aad, &mut text, tag).ok()?;
        Some(text.into())
    }

    /// Opens an answer. One that is not a success may be in the clear, as refusals are. The outer error: it did not come whole.
    pub(crate) async fn open_answer(
        &self,
        response: Response<ResponseBody>,
    ) -> Result<Result<Response<ResponseBody>, Error>, Error> {
        if response.headers().get(CONTENT_TYPE) != Some(&SEALED) {
            // A refusal comes from whoever stands in front as well, and 204 has no body.
            let may_be_clear = !response.status().is_success() || response.status() == StatusCode::NO_CONTENT;
            return Ok(if may_be_clear { Ok(response) } else { Err(failed("is not sealed")) });
        }
        let (mut parts, body) = response.into_parts();
        let sealed = match body.collect_up_to(MAX_PLAIN_BYTES + IV_BYTES + TAG_BYTES).await {
            Err(error) if error.code() == Code::InvalidArgument => {
                return Ok(Err(failed("is longer than a sealed one may be")));
            }
            sealed => sealed?,
        };
        let Some(text) = self.open(&sealed) else { return Ok(Err(failed("does not open"))) };
        let kind = parts.headers.remove(SEALED_TYPE).unwrap_or(BYTES);
        parts.headers.insert(CONTENT_TYPE, kind);
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        Ok(Ok(Response::from_parts(parts, ResponseBody::there(text))))
    }
}

/// The type without its parameters, in lower case where it is a usual one.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(CONTENT_TYPE)?.as_bytes().split(|byte| *byte == b';').next().map(<[u8]>::trim_ascii)
}
