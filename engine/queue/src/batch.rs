//! A batch on its way: `Grant → MintedBatch → StoredBatch → ClaimedBatch → Token`.
//!
//! Each state can be made only from the one before it, and `StoredBatch` and `ClaimedBatch` only with the proof
//! of a durable commit ([`crate::store::Committed`]). So the compiler keeps the order that matters: nothing is
//! handed out before its removal from the store is on the disk.

use std::fmt;

use obol_token::{Jti, Minter, ResponseKey, SessionId, TokenSeed, Validity};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::seal::SealingKey;
use crate::session::Grant;
use crate::store::Committed;

/// Where a batch lies in the store. Rows of a partition sort by expiry, so the oldest is claimed first and the
/// expired ones are a range.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct BatchKey {
    pub(crate) partition: u64,
    /// When the tokens end, in Unix seconds.
    pub(crate) expires_at: u64,
    /// Unique in the store for ever.
    pub(crate) sequence: u64,
}

impl BatchKey {
    /// What the sealed bytes are bound to: a row moved elsewhere does not open.
    fn context(&self, count: u16) -> [u8; 26] {
        let mut context = [0; 26];
        let parts = [self.partition, self.expires_at, self.sequence].map(u64::to_be_bytes);
        let bytes = parts.as_flattened().iter().chain(&count.to_be_bytes()).copied().collect::<Vec<u8>>();
        context.copy_from_slice(&bytes);
        context
    }
}

/// Why a batch could not be minted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum BatchError {
    Mint(obol_token::MintError),
    Randomness,
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mint(error) => error.fmt(f),
            Self::Randomness => f.write_str("the system's random number generator failed"),
        }
    }
}

/// A sealed batch as it stands in a row.
#[derive(PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: BatchKey,
    pub(crate) count: u16,
    pub(crate) sealed: Vec<u8>,
}

/// Freshly minted and sealed, not stored yet.
pub(crate) struct MintedBatch {
    row: Row,
}

/// What all batches of one partition have in common when they are minted.
pub(crate) struct Mint<'a> {
    pub(crate) grant: &'a Grant,
    pub(crate) partition: u64,
    pub(crate) policy_epoch: u64,
    pub(crate) validity: Validity,
    /// First four bytes of every AEAD nonce: the minting instance.
    pub(crate) instance: [u8; 4],
    pub(crate) key: &'a SealingKey,
}

impl Mint<'_> {
    /// Mints and seals `count` tokens. `sequence` is the batch's place; `first_counter` begins the run of `count`
    /// nonce counters that belong to it alone.
    pub(crate) fn batch(
        &self,
        count: u16,
        sequence: u64,
        first_counter: u64,
    ) -> Result<MintedBatch, BatchError> {
        let seeds = self.seeds(count, first_counter)?;
        let minter = Minter::new(&self.grant.material, &self.grant.scope, self.policy_epoch)
            .map_err(BatchError::Mint)?;
        let tokens = minter.mint(self.validity, &seeds).map_err(BatchError::Mint)?;
        let key = BatchKey { partition: self.partition, expires_at: self.validity.expires_at, sequence };
        let plaintext = pack(self.validity.issued_at, self.policy_epoch, &tokens);
        for mut token in tokens {
            token.zeroize();
        }
        let sealed = self.key.seal(&key.context(count), &plaintext).map_err(|_| BatchError::Randomness)?;
        Ok(MintedBatch { row: Row { key, count, sealed } })
    }

    fn seeds(&self, count: u16, first_counter: u64) -> Result<Vec<TokenSeed>, BatchError> {
        const RANDOM: usize = 16 + 32;
        let mut random = Zeroizing::new(vec![0; RANDOM * usize::from(count)]);
        getrandom::fill(&mut random).map_err(|_| BatchError::Randomness)?;
        let (chunks, _) = random.as_chunks::<RANDOM>();
        Ok((first_counter..).zip(chunks).map(|(counter, chunk)| self.seed(counter, chunk)).collect())
    }

    fn seed(&self, counter: u64, random: &[u8; 48]) -> TokenSeed {
        let (jti, response_key) = random.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        let mut iv = [0; 12];
        for (place, byte) in iv.iter_mut().zip(self.instance.into_iter().chain(counter.to_be_bytes())) {
            *place = byte;
        }
        TokenSeed {
            jti: Jti::from_random(*jti),
            iv,
            response_key: ResponseKey::from_bytes(response_key.try_into().unwrap_or([0; 32])),
            nonce: None,
        }
    }
}

impl MintedBatch {
    pub(crate) fn row(&self) -> &Row {
        &self.row
    }

    /// The row has been written in the commit that the proof stands for.
    pub(crate) fn stored(self, _proof: &Committed) -> StoredBatch {
        StoredBatch { sequence: self.row.key.sequence, count: self.row.count }
    }
}

/// Durably in the store.
pub(crate) struct StoredBatch {
    pub(crate) sequence: u64,
    pub(crate) count: u16,
}

/// Taken out of the store in a transaction that is not committed yet; opens nothing.
pub(crate) struct UnconfirmedClaim {
    row: Row,
}

impl UnconfirmedClaim {
    pub(crate) fn new(row: Row) -> Self {
        Self { row }
    }

    pub(crate) fn count(&self) -> u16 {
        self.row.count
    }

    /// The removal has been made durable by the commit that the proof stands for.
    pub(crate) fn confirm(self, _proof: &Committed) -> ClaimedBatch {
        ClaimedBatch { row: self.row }
    }
}

/// Durably out of the store: its tokens may be handed out, once each, by this process alone.
pub(crate) struct ClaimedBatch {
    row: Row,
}

impl ClaimedBatch {
    pub(crate) fn count(&self) -> u16 {
        self.row.count
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.row.key.sequence
    }

    /// Opens the batch; `None` where its keys were destroyed or the row is damaged, in which case it is burned.
    pub(crate) fn open(self, key: &SealingKey) -> Option<OpenBatch> {
        let plaintext = key.open(&self.row.key.context(self.row.count), &self.row.sealed)?;
        unpack(&plaintext, self.row.count, self.row.key.expires_at)
    }
}

/// The tokens of a claimed batch, oldest first.
pub(crate) struct OpenBatch {
    pub(crate) expires_at: u64,
    pub(crate) issued_at: u64,
    pub(crate) policy_epoch: u64,
    pub(crate) tokens: Vec<TokenBytes>,
}

/// One token's bytes; wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct TokenBytes(pub(crate) Box<[u8]>);

/// issue time ‖ policy epoch ‖ (length ‖ token)…, integers big-endian.
fn pack(issued_at: u64, policy_epoch: u64, tokens: &[Vec<u8>]) -> Zeroizing<Vec<u8>> {
    let size = 16 + tokens.iter().map(|token| 2 + token.len()).sum::<usize>();
    let mut out = Zeroizing::new(Vec::with_capacity(size));
    out.extend_from_slice(&issued_at.to_be_bytes());
    out.extend_from_slice(&policy_epoch.to_be_bytes());
    for token in tokens {
        // A token is at most MAX_TOKEN_BYTES, which fits.
        let length = u16::try_from(token.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(token);
    }
    out
}

fn unpack(plaintext: &[u8], count: u16, expires_at: u64) -> Option<OpenBatch> {
    let (issued_at, rest) = plaintext.split_first_chunk::<8>()?;
    let (policy_epoch, mut rest) = rest.split_first_chunk::<8>()?;
    let mut tokens = Vec::with_capacity(usize::from(count));
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let (token, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        tokens.push(TokenBytes(token.into()));
        rest = tail;
    }
    (rest.is_empty() && tokens.len() == usize::from(count)).then_some(OpenBatch {
        expires_at,
        issued_at: u64::from_be_bytes(*issued_at),
        policy_epoch: u64::from_be_bytes(*policy_epoch),
        tokens,
    })
}

/// A token that has been handed out: the last state on the agent's side. It exists once; dropping it wipes it.
pub struct Token {
    bytes: TokenBytes,
    session_id: SessionId,
    expires_at: u64,
}

impl Token {
    pub(crate) fn new(bytes: TokenBytes, session_id: SessionId, expires_at: u64) -> Self {
        Self { bytes, session_id, expires_at }
    }

    /// The token's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes.0
    }

    /// The token as it travels: base64url without padding. Wiped when dropped.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(obol_token::text::to_base64url(&self.bytes.0))
    }

    /// The session the token was minted in.
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// When the token ends, in Unix seconds.
    pub fn expires_at(&self) -> u64 {
        self.expires_at
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("session_id", &self.session_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
