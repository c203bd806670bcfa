//! Per-token channel encryption (TBAC r41, section 10.2): AES-256-GCM under keys that only the holder of the
//! token's sealed `response_key` can derive.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit};
use core::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::envelope::{Jti, SessionId};
use crate::keys::{ResponseKey, expand, hkdf_zero_salt};

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

/// The channel keys of one token.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ChannelKeys {
    request: [u8; 32],
    response: [u8; 32],
    response_iv: [u8; 12],
    #[zeroize(skip)]
    context: [u8; 30],
}

impl ChannelKeys {
    /// Derives the keys of the token `jti` in this session.
    pub fn derive(session_id: SessionId, jti: &Jti, response_key: &ResponseKey) -> Self {
        let expander = hkdf_zero_salt(response_key.expose());
        let session = session_id.0.to_be_bytes();
        let mut keys = Self { request: [0; 32], response: [0; 32], response_iv: [0; 12], context: [0; 30] };
        expand(&expander, &[LABEL_REQUEST_KEY, &session], &mut keys.request);
        expand(&expander, &[LABEL_RESPONSE_KEY, &session], &mut keys.response);
        expand(&expander, &[LABEL_RESPONSE_IV, &session], &mut keys.response_iv);
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

    /// What a response is bound to besides its key, for those who seal it elsewhere.
    pub fn response_aad(&self) -> Vec<u8> {
        self.aad(LABEL_RESPONSE_AAD)
    }

    /// Seals a request under a nonce of 12 fresh random bytes.
    pub fn seal_request(&self, iv: &[u8; 12], plaintext: &[u8]) -> Result<Vec<u8>, ChannelError> {
        let aad = self.aad(LABEL_REQUEST_AAD);
        Aes256Gcm::new((&self.request).into())
            .encrypt(iv.into(), Payload { msg: plaintext, aad: &aad })
            .map_err(|_| ChannelError)
    }

    /// Opens a request.
    pub fn open_request(&self, iv: &[u8; 12], sealed: &[u8]) -> Result<Vec<u8>, ChannelError> {
        let aad = self.aad(LABEL_REQUEST_AAD);
        Aes256Gcm::new((&self.request).into())
            .decrypt(iv.into(), Payload { msg: sealed, aad: &aad })
            .map_err(|_| ChannelError)
    }

    /// Seals the one response of this token. The nonce is fixed, so the keys are used up by it.
    pub fn seal_response(self, plaintext: &[u8]) -> Result<Vec<u8>, ChannelError> {
        let aad = self.response_aad();
        Aes256Gcm::new((&self.response).into())
            .encrypt((&self.response_iv).into(), Payload { msg: plaintext, aad: &aad })
            .map_err(|_| ChannelError)
    }

    /// Opens the response.
    pub fn open_response(&self, sealed: &[u8]) -> Result<Vec<u8>, ChannelError> {
        let aad = self.response_aad();
        Aes256Gcm::new((&self.response).into())
            .decrypt((&self.response_iv).into(), Payload { msg: sealed, aad: &aad })
            .map_err(|_| ChannelError)
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

    fn keys(jti: u8) -> ChannelKeys {
        ChannelKeys::derive(SessionId(7), &Jti::from_random([jti; 16]), &ResponseKey::from_bytes([3; 32]))
    }

    #[test]
    fn a_request_opens_only_under_its_own_token() {
        let sealed = keys(1).seal_request(&[5; 12], b"rows").unwrap();
        assert_eq!(keys(1).open_request(&[5; 12], &sealed), Ok(b"rows".to_vec()));
        assert_eq!(keys(2).open_request(&[5; 12], &sealed), Err(ChannelError));
        assert_eq!(keys(1).open_request(&[6; 12], &sealed), Err(ChannelError));
    }

    #[test]
    fn request_and_response_do_not_stand_in_for_each_other() {
        let sealed = keys(1).seal_response(b"rows").unwrap();
        assert_eq!(keys(1).open_response(&sealed), Ok(b"rows".to_vec()));
        assert_eq!(keys(1).open_request(keys(1).response_iv(), &sealed), Err(ChannelError));
    }
}
