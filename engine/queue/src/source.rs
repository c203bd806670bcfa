//! Where tokens come from: TBAC tokens of the session's suite, or another format's that an embedder brings.
//!
//! To the queue a token is bytes. Whoever makes them is asked for a batch at a time, on the refiller's thread.

use core::fmt;

use obol_secret::wipe::wipe;
use obol_token::{Jti, Minter, ResponseKey, SessionId, TokenSeed, Validity};
use zeroize::Zeroizing;

use crate::grant::Grant;
use crate::store::{BatchError, Draft};

/// Makes tokens for a queue ([`QueueBuilder::token_source`](crate::QueueBuilder::token_source)).
///
/// Each token must be one that was never given before, also by an earlier process: the queue hands out each of the
/// tokens it was given once, but does not compare them. [`Order::first_number`] is there to build on.
pub trait TokenSource: Send + Sync + fmt::Debug + 'static {
    /// Makes [`Order::count`] tokens and puts them into `tokens`, the first to be handed out first. On an error the
    /// queue gives up the whole batch and asks again later, waiting longer each time.
    ///
    /// # Errors
    ///
    /// [`SourceError`], whose text goes into the log.
    fn mint(&self, order: &Order<'_>, tokens: &mut Tokens<'_>) -> Result<(), SourceError>;
}

/// A batch that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    pub(crate) grant: &'a Grant,
    pub(crate) session_id: SessionId,
    pub(crate) count: u16,
    pub(crate) validity: Validity,
    pub(crate) policy_epoch: u64,
    /// The minting instance: the first bytes of the store's id.
    pub(crate) instance: [u8; 4],
    pub(crate) first_number: u64,
}

impl Order<'_> {
    /// How many tokens.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The session they are for.
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// The tool they are for.
    pub fn tool(&self) -> &str {
        &self.grant.scope.tool
    }

    /// The resource server they are for.
    pub fn audience(&self) -> &str {
        self.grant.audience.as_str()
    }

    /// When they are issued, in Unix seconds.
    pub fn issued_at(&self) -> u64 {
        self.validity.issued_at
    }

    /// When they end, in Unix seconds.
    pub fn expires_at(&self) -> u64 {
        self.validity.expires_at
    }

    /// The policy epoch they are issued under.
    pub fn policy_epoch(&self) -> u64 {
        self.policy_epoch
    }

    /// The first of [`Self::count`] numbers that belong to this batch alone, in this store, for ever.
    pub fn first_number(&self) -> u64 {
        self.first_number
    }
}

/// Takes the tokens of one batch.
pub struct Tokens<'a>(pub(crate) &'a mut Draft);

impl Tokens<'_> {
    /// Adds a token of at most 65,535 bytes.
    ///
    /// # Errors
    ///
    /// [`SourceError`] for a longer one, or one more than was asked for.
    pub fn push(&mut self, token: &[u8]) -> Result<(), SourceError> {
        if self.0.push(token) {
            Ok(())
        } else {
            Err(SourceError::new("a token is longer than 65,535 bytes, or one more than was asked for"))
        }
    }
}

impl fmt::Debug for Tokens<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("filled", &self.0.filled()).finish_non_exhaustive()
    }
}

/// Why a source could not make tokens. The text is for the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceError(pub(crate) String);

impl SourceError {
    /// An error that says this.
    pub fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for SourceError {}

impl From<SourceError> for BatchError {
    fn from(SourceError(why): SourceError) -> Self {
        Self::Source(why)
    }
}

/// TBAC tokens of the session's suite.
#[derive(Debug)]
pub(crate) struct Tbac;

/// Random bytes in each token: its name and its response key.
const RANDOM_BYTES: usize = 16 + 32;

impl TokenSource for Tbac {
    fn mint(&self, order: &Order<'_>, out: &mut Tokens<'_>) -> Result<(), SourceError> {
        let grant = order.grant;
        let minter =
            Minter::new(&grant.material, &grant.scope, order.policy_epoch).map_err(SourceError::new)?;
        let seeds = seeds(order.instance, order.first_number, order.count)?;
        let mut tokens = minter.mint(order.validity, &seeds).map_err(SourceError::new)?;
        let pushed = tokens.iter().try_for_each(|token| out.push(token));
        tokens.iter_mut().for_each(|token| wipe(token));
        pushed
    }
}

/// What makes a token unlike every other of this store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenNumber {
    pub(crate) instance: [u8; 4],
    pub(crate) number: u64,
}

/// One TBAC token of the grant's scope.
pub(crate) fn mint_one(
    grant: &Grant,
    policy_epoch: u64,
    validity: Validity,
    TokenNumber { instance, number }: TokenNumber,
) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let minter = Minter::new(&grant.material, &grant.scope, policy_epoch).map_err(SourceError::new)?;
    let mut tokens = minter.mint(validity, &seeds(instance, number, 1)?).map_err(SourceError::new)?;
    tokens.pop().map(Zeroizing::new).ok_or_else(|| SourceError::new("no token was made"))
}

fn seeds(instance: [u8; 4], first_number: u64, count: u16) -> Result<Vec<TokenSeed>, SourceError> {
    let mut random = Zeroizing::new(vec![0; RANDOM_BYTES * usize::from(count)]);
    getrandom::fill(&mut random).map_err(|_| SourceError::new(BatchError::Randomness))?;
    let (chunks, _) = random.as_chunks::<RANDOM_BYTES>();
    let numbered = (first_number..).zip(chunks);
    Ok(numbered.map(|(number, chunk)| seed(instance, number, chunk)).collect())
}

fn seed(instance: [u8; 4], number: u64, random: &[u8; RANDOM_BYTES]) -> TokenSeed {
    let (jti, response_key) = random.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    let mut iv = [0; 12];
    for (place, byte) in iv.iter_mut().zip(instance.into_iter().chain(number.to_be_bytes())) {
        *place = byte;
    }
    TokenSeed {
        jti: Jti::from_random(*jti),
        iv,
        response_key: ResponseKey::from_bytes(response_key.try_into().unwrap_or([0; 32])),
        nonce: None,
    }
}
