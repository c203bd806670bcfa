//! The signature of suite 1: Schnorr over ristretto255 (TBAC r41, section 3.1).
//!
//! Compressing a ristretto255 point needs an inverse square root. A batch shares one inversion among all its points
//! by multiplying with halved scalars and compressing the doubled results together.

use curve25519_dalek::{RistrettoPoint, Scalar};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::envelope::{Parts, PartsMut, Signature};
use crate::keys::{Nonces, SessionMaterial, TokenKeys};
use crate::suite::Suite;

/// Label of the deterministic nonce.
const LABEL_NONCE: &[u8] = b"tbac-schnorr-nonce-v1";

/// Whether a signature holds.
///
/// σ·G = R + h·TQS_PK is checked as compress((σ − h·tqs_sk)·G) = R: the verifier knows the signing scalar, so it needs
/// no decompression, and R is canonical because it equals a compressed point.
///
/// Where the session derives all nonces, the verifier derives r as well and compares σ with r + h·tqs_sk. R is not
/// computed again: h covers it, so another R calls for another σ, and who can compute that has tqs_sk.
pub(crate) fn holds(
    session: &SessionMaterial,
    keys: &TokenKeys,
    parts: &Parts<'_>,
    signature: Signature<'_>,
) -> bool {
    const IDENTITY: [u8; 32] = [0; 32];
    let Some(scalar) = Option::<Scalar>::from(Scalar::from_canonical_bytes(*signature.scalar)) else {
        return false;
    };
    if *signature.nonce_point == IDENTITY {
        return false;
    }
    let signing = keys.signing_scalar();
    let public = RistrettoPoint::mul_base(&signing).compress();
    let proof =
        Zeroizing::new(challenge(session, signature.nonce_point, public.as_bytes(), parts) * *signing);
    match session.nonces() {
        Nonces::Any => {
            RistrettoPoint::mul_base(&(scalar - *proof)).compress().as_bytes() == signature.nonce_point
        }
        Nonces::Derived => (*deterministic_nonce(keys, parts) + *proof).ct_eq(&scalar).into(),
    }
}

/// h = wide-reduce(SHA-512(R ‖ TQS_PK ‖ SEK_PK ‖ verifier_secret ‖ GCM_tag ‖ CT_body ‖ AAD)).
fn challenge(
    session: &SessionMaterial,
    nonce_point: &[u8; 32],
    public: &[u8; 32],
    parts: &Parts<'_>,
) -> Scalar {
    let wide: [u8; 64] = Sha512::new()
        .chain_update(nonce_point)
        .chain_update(public)
        .chain_update(session.sek_public())
        .chain_update(session.verifier_secret().expose())
        .chain_update(parts.tag)
        .chain_update(parts.ciphertext)
        .chain_update(parts.aad)
        .finalize()
        .into();
    Scalar::from_bytes_mod_order_wide(&wide)
}

/// A sealed token that lacks only its signature.
pub(crate) struct Draft {
    token: Vec<u8>,
    signing: Zeroizing<Scalar>,
    nonce: Zeroizing<Scalar>,
}

impl Draft {
    /// Chooses the nonce: `seed` reduced, or, without one, the deterministic nonce. `None` if `token` is too short
    /// to be one.
    pub(crate) fn new(token: Vec<u8>, keys: &TokenKeys, seed: Option<&[u8; 64]>) -> Option<Self> {
        let nonce = match seed {
            Some(wide) => Zeroizing::new(Scalar::from_bytes_mod_order_wide(wide)),
            None => deterministic_nonce(keys, &Parts::split(Suite::Tbac, &token)?),
        };
        Some(Self { token, signing: keys.signing_scalar(), nonce })
    }

    /// Half of R and half of TQS_PK, ready to be doubled and compressed together with the whole batch.
    fn half_points(&self) -> [RistrettoPoint; 2] {
        [&self.nonce, &self.signing].map(|scalar| RistrettoPoint::mul_base(&scalar.div_by_2()))
    }

    /// σ = r + h·tqs_sk.
    fn sign(mut self, session: &SessionMaterial, nonce_point: &[u8; 32], public: &[u8; 32]) -> Vec<u8> {
        let challenge = Parts::split(Suite::Tbac, &self.token)
            .map(|parts| challenge(session, nonce_point, public, &parts));
        let places = PartsMut::split(Suite::Tbac, &mut self.token).and_then(|parts| parts.signature);
        if let (Some(challenge), Some((nonce_place, scalar_place))) = (challenge, places) {
            *nonce_place = *nonce_point;
            *scalar_place = (*self.nonce + challenge * *self.signing).to_bytes();
        }
        self.token
    }
}

/// Signs a batch, in its order.
pub(crate) fn sign(session: &SessionMaterial, drafts: Vec<Draft>) -> Vec<Vec<u8>> {
    let points: Vec<RistrettoPoint> = drafts.iter().flat_map(Draft::half_points).collect();
    let compressed = RistrettoPoint::double_and_compress_batch(&points);
    let (pairs, _) = compressed.as_chunks::<2>();
    drafts
        .into_iter()
        .zip(pairs)
        .map(|(draft, [nonce, public])| draft.sign(session, nonce.as_bytes(), public.as_bytes()))
        .collect()
}

/// r = HMAC-SHA-512 over all that is signed, under the seed of the signing key.
#[expect(clippy::expect_used, reason = "HMAC takes keys of every length; the error type has no value")]
fn deterministic_nonce(keys: &TokenKeys, parts: &Parts<'_>) -> Zeroizing<Scalar> {
    let mac = <Hmac<Sha512> as KeyInit>::new_from_slice(keys.signing_seed())
        .expect("HMAC accepts keys of any length");
    let wide = Zeroizing::new(<[u8; 64]>::from(
        mac.chain_update(LABEL_NONCE)
            .chain_update(parts.aad)
            .chain_update(parts.tag)
            .chain_update(parts.ciphertext)
            .finalize()
            .into_bytes(),
    ));
    Zeroizing::new(Scalar::from_bytes_mod_order_wide(&wide))
}
