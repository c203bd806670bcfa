//! Per-token channel encryption (TBAC r41, section 10.2): the suite's AEAD under keys that only the holder of the
//! token's sealed `response_key` can derive.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::aead;
use crate::envelope::Jti;
use crate::kdf::{expand, hkdf_zero_salt};
use crate::names::SessionId;
use crate::secret::ResponseKey;
use crate::suite::Suite;

const LABEL_REQUEST_KEY: &[u8] = b"tbac-req-enc-v1";
const LABEL_RESPONSE_KEY: &[u8] = b"tbac-resp-enc-v1";
const LABEL_RESPONSE_IV: &[u8] = b"tbac-resp-iv-v1";
const LABEL_REQUEST_AAD: &[u8] = b"tbac-req-aad-v1";
const LABEL_RESPONSE_AAD: &[u8] = b"tbac-resp-aad-v1";

/// The message is not what the peer sealed for this token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChannelError;

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message is not sealed for this token")
    }
}

impl core::error::Error for ChannelError {}

const TAG_BYTES: usize = 16;

/// The channel keys of one token.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ChannelKeys {
    request: [u8; 32],
    response: [u8; 32],
    response_iv: [u8; 12],
    #[zeroize(skip)]
    context: [u8; 30],
    #[zeroize(skip)]
    suite: Suite,
}

impl ChannelKeys {
    /// Derives the keys of the suite 1 token `jti` in this session. For any suite there is
    /// [`crate::SessionMaterial::channel_keys`].
    pub fn derive(session_id: SessionId, jti: &Jti, response_key: &ResponseKey) -> Self {
        Self::of_suite(Suite::Tbac, session_id, jti, response_key)
    }

    /// Derives the keys of the token `jti` in a session of this suite.
    pub fn of_suite(suite: Suite, session_id: SessionId, jti: &Jti, response_key: &ResponseKey) -> Self {
        let expander = hkdf_zero_salt(response_key.expose());
        let session = session_id.as_u64().to_be_bytes();
        let mut keys =
            Self { request: [0; 32], response: [0; 32], response_iv: [0; 12], context: [0; 30], suite };
        if suite == Suite::Tbac {
            expand(&expander, &[LABEL_REQUEST_KEY, &session], &mut keys.request);
            expand(&expander, &[LABEL_RESPONSE_KEY, &session], &mut keys.response);
            expand(&expander, &[LABEL_RESPONSE_IV, &session], &mut keys.response_iv);
        } else {
            let mut all = Zeroizing::new([0; 32 + 32 + 12]);
            expand(&expander, &[suite.labels().channel, &session], &mut *all);
            let [request, response, response_iv] =
                [&mut keys.request[..], &mut keys.response[..], &mut keys.response_iv[..]];
            let places = request.iter_mut().chain(response).chain(response_iv);
            places.zip(all.iter()).for_each(|(place, byte)| *place = *byte);
        }
        for (place, byte) in keys.context.iter_mut().zip(session.iter().chain(jti.as_bytes())) {
            *place = *byte;
        }
        keys
    }

    /// `K_req`.
    pub fn request_key(&self) -> &[u8; 32] {
        &self.request
    }

    /// `K_resp`.
    pub fn response_key(&self) -> &[u8; 32] {
        &self.response
    }

    /// `IV_resp`.
    pub fn response_iv(&self) -> &[u8; 12] {
        &self.response_iv
    }

    /// What a request is bound to besides its key, for those who seal it elsewhere.
    pub fn request_aad(&self) -> Vec<u8> {
        self.aad(self.labels().0)
    }

    /// What a response is bound to besides its key, for those who seal it elsewhere.
    pub fn response_aad(&self) -> Vec<u8> {
        self.aad(self.labels().1)
    }

    /// The AEAD's name, as it stands in the `alg` of a sealed message.
    pub fn algorithm(&self) -> &'static str {
        match self.suite {
            Suite::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            _ => "AES-256-GCM",
        }
    }

    /// Seals a request under a nonce of 12 fresh random bytes.
    ///
    /// # Errors
    ///
    /// [`ChannelError`] if the message is longer than the AEAD can seal.
    pub fn seal_request(&self, iv: &[u8; 12], plaintext: &[u8]) -> Result<Vec<u8>, ChannelError> {
        self.seal(&self.request, iv, self.labels().0, plaintext)
    }

    /// Opens a request.
    ///
    /// # Errors
    ///
    /// [`ChannelError`] if it was not sealed for this token, or was changed.
    pub fn open_request(&self, iv: &[u8; 12], sealed: &[u8]) -> Result<Vec<u8>, ChannelError> {
        self.open(&self.request, iv, self.labels().0, sealed)
    }

    /// Seals the one response of this token. The nonce is fixed, so the keys are used up by it.
    ///
    /// # Errors
    ///
    /// [`ChannelError`] if the message is longer than the AEAD can seal. The keys are used up all the same.
    pub fn seal_response(self, plaintext: &[u8]) -> Result<Vec<u8>, ChannelError> {
        self.seal(&self.response, &self.response_iv, self.labels().1, plaintext)
    }

    /// Opens the response, under the nonce that came with it: a server that cannot make sure to seal only once takes a
    /// random one instead of [`Self::response_iv`] (section 10.4).
    ///
    /// # Errors
    ///
    /// [`ChannelError`] if it was not sealed for this token, or was changed.
    pub fn open_response(&self, iv: &[u8; 12], sealed: &[u8]) -> Result<Vec<u8>, ChannelError> {
        self.open(&self.response, iv, self.labels().1, sealed)
    }

    /// Ciphertext, then tag.
    fn seal(
        &self,
        key: &[u8; 32],
        iv: &[u8; 12],
        label: &[u8],
        text: &[u8],
    ) -> Result<Vec<u8>, ChannelError> {
        let mut sealed = Vec::with_capacity(text.len() + TAG_BYTES);
        sealed.extend_from_slice(text);
        let tag = aead::seal(self.suite, key, iv, &self.aad(label), &mut sealed).map_err(|_| ChannelError)?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    fn open(
        &self,
        key: &[u8; 32],
        iv: &[u8; 12],
        label: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, ChannelError> {
        let (text, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(ChannelError)?;
        let mut text = text.to_vec();
        aead::open(self.suite, key, iv, &self.aad(label), &mut text, tag).map_err(|_| ChannelError)?;
        Ok(text)
    }

    /// What begins the additional data of a request and of a response.
    fn labels(&self) -> (&'static [u8], &'static [u8]) {
        match self.suite {
            Suite::Tbac => (LABEL_REQUEST_AAD, LABEL_RESPONSE_AAD),
            suite => (suite.labels().request_aad, suite.labels().response_aad),
        }
    }

    fn aad(&self, label: &[u8]) -> Vec<u8> {
        [label, &self.context].concat()
    }
}

impl fmt::Debug for ChannelKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelKeys([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(suite: Suite, jti: u8) -> ChannelKeys {
        let response_key = ResponseKey::from_bytes([3; 32]);
        ChannelKeys::of_suite(suite, SessionId::from_u64(7), &Jti::from_random([jti; 16]), &response_key)
    }

    #[test]
    fn a_request_opens_only_under_its_own_token_and_suite() {
        for suite in Suite::ALL {
            let sealed = keys(suite, 1).seal_request(&[5; 12], b"rows").unwrap();
            assert_eq!(keys(suite, 1).open_request(&[5; 12], &sealed), Ok(b"rows".to_vec()));
            assert_eq!(keys(suite, 2).open_request(&[5; 12], &sealed), Err(ChannelError));
            assert_eq!(keys(suite, 1).open_request(&[6; 12], &sealed), Err(ChannelError));
            assert_eq!(keys(suite, 1).open_request(&[5; 12], &sealed[..15]), Err(ChannelError));
            for other in Suite::ALL.into_iter().filter(|other| *other != suite) {
                assert_eq!(keys(other, 1).open_request(&[5; 12], &sealed), Err(ChannelError));
            }
        }
    }

    #[test]
    fn request_and_response_do_not_stand_in_for_each_other() {
        for suite in Suite::ALL {
            let keys = || keys(suite, 1);
            let sealed = keys().seal_response(b"rows").unwrap();
            assert_eq!(keys().open_response(keys().response_iv(), &sealed), Ok(b"rows".to_vec()));
            assert_eq!(keys().open_response(&[5; 12], &sealed), Err(ChannelError));
            let mut random = keys();
            random.response_iv = [5; 12];
            let sealed = random.seal_response(b"rows").unwrap();
            assert_eq!(keys().open_response(&[5; 12], &sealed), Ok(b"rows".to_vec()), "a nonce of its own");
            assert_eq!(keys().open_request(keys().response_iv(), &sealed), Err(ChannelError));
        }
    }
}
