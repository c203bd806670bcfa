//! An attacker with both files and the master key. Written from the description of the formats, and not with the
//! queue's own code.
//!
//! It derives every key that whatever stands in the key file allows, at any offset and for any slot, and then tries each
//! of them at *every byte* of the database. It does not ask for an authentication tag: AES-GCM encrypts in counter mode, so a
//! sealed batch of which only the beginning is left can be read as well.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::aes::cipher::BlockCipherEncrypt;
use aes_gcm::aes::{Aes256, Block};
use aes_gcm::{Aes256Gcm, KeyInit};
use hkdf::Hkdf;
use obol_token::Envelope;
use sha2::Sha256;

pub(super) type Jti = [u8; 22];

const NONCE_BYTES: usize = 12;
const SLOT_BYTES: usize = 56;
/// Partitions are numbered from 0 and sessions from 1, and rows name them in the clear; the test has no more than this.
const PARTITIONS: u64 = 2;
const SESSION: u64 = 1;
/// A token found was issued this long ago at most, in seconds; whatever decrypts to another time is noise.
const RECENT_SECS: u64 = 24 * 3600;
/// The most that is decrypted where something was found.
const WINDOW: usize = 64 * 1024;

pub(super) struct Token {
    pub(super) jti: Jti,
    pub(super) counter: u64,
    pub(super) partition: u64,
}

#[derive(Default)]
pub(super) struct Found {
    pub(super) tokens: Vec<Token>,
    /// Session documents, which hold the keys to mint with.
    pub(super) documents: usize,
    pub(super) keys_tried: usize,
}

impl Found {
    pub(super) fn partitions(&self) -> BTreeSet<u64> {
        self.tokens.iter().map(|token| token.partition).collect()
    }
}

fn derive(store: &[u8], secrets: &[&[u8]], label: &[u8], context: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(Some(store), &secrets.concat())
        .expand_multi_info(&[label, context], &mut key)
        .unwrap();
    key
}

/// Every secret that any 56 bytes of the key file open to, whichever slot they were written for, and that slot.
fn secrets(keys: &[u8], store: &[u8], master: &[u8; 32]) -> Vec<(u32, Vec<u8>)> {
    let cipher = Aes256Gcm::new(&derive(store, &[master], b"obol-slots-v1", &[]).into());
    let slots = u32::try_from(keys.len() / 64).unwrap();
    let mut found = Vec::new();
    for place in keys.windows(SLOT_BYTES).filter(|place| place.iter().any(|byte| *byte != 0)) {
        let (salt, sealed) = place.split_at(8);
        for slot in 0..slots {
            let nonce: [u8; NONCE_BYTES] = [salt, &slot.to_le_bytes()].concat().try_into().unwrap();
            if let Ok(secret) = cipher.decrypt(&nonce.into(), Payload { msg: sealed, aad: store }) {
                found.push((slot, secret));
            }
        }
    }
    found
}

/// What a key would open.
#[derive(Clone, Copy)]
enum Opens {
    Batches { partition: u64 },
    Session,
}

/// Looks for everything that can be read.
pub(super) fn scan(database: &[u8], keys: &[u8], master: &[u8; 32]) -> Found {
    let store = &keys[12..28];
    let secrets = secrets(keys, store, master);
    let places = Places::of(database);
    let mut found = Found::default();
    // Only the first slot is ever used as the root, and it as nothing else; what the others are for is anybody's guess.
    let (roots, others): (Vec<_>, Vec<_>) = secrets.iter().partition(|(slot, _)| *slot == 0);
    for (_, root) in &roots {
        for (_, session) in &others {
            let key = derive(store, &[master, root, session], b"obol-session-v1", &SESSION.to_be_bytes());
            places.try_all(database, &key, Opens::Session, &mut found);
            for (_, own) in others.iter().filter(|(_, own)| own != session) {
                for partition in 0..PARTITIONS {
                    let key =
                        derive(store, &[root, session, own], b"obol-batch-v1", &partition.to_be_bytes());
                    places.try_all(database, &key, Opens::Batches { partition }, &mut found);
                }
            }
        }
    }
    found
}

/// Every byte at which something sealed can begin, prepared for many keys.
struct Places {
    at: Vec<usize>,
    /// The counter block under which the first block there would be sealed, if a nonce stands there.
    counters: Vec<Block>,
    /// The first eight bytes that it would be sealed to.
    sealed: Vec<u64>,
}

impl Places {
    fn of(database: &[u8]) -> Self {
        let mut places = Self { at: Vec::new(), counters: Vec::new(), sealed: Vec::new() };
        for (at, window) in database.windows(NONCE_BYTES + 16).enumerate() {
            let (nonce, sealed) = window.split_at(NONCE_BYTES);
            // Random bytes have no four zeros in a row; where that is wrong, once in billions, a row is missed.
            if nonce[..4] != [0; 4] {
                places.at.push(at);
                places.counters.push(counter_block(nonce, 2));
                places.sealed.push(u64::from_be_bytes(sealed[..8].try_into().unwrap()));
            }
        }
        places
    }

    fn try_all(&self, database: &[u8], key: &[u8; 32], opens: Opens, found: &mut Found) {
        found.keys_tried += 1;
        let cipher = Aes256::new(key.into());
        let mut streams = self.counters.clone();
        cipher.encrypt_blocks(&mut streams);
        let range = opens.first_number();
        for (number, stream) in streams.iter().enumerate() {
            let first = self.sealed[number] ^ u64::from_be_bytes(stream[..8].try_into().unwrap());
            if first >= range.start && first < range.end {
                let sealed = &database[self.at[number]..];
                let (nonce, sealed) = sealed.split_at(NONCE_BYTES);
                read(&decrypt(&cipher, nonce, &sealed[..sealed.len().min(WINDOW)]), opens, found);
            }
        }
    }
}

impl Opens {
    /// What the first eight bytes can be: a batch begins with when it was issued, a session with how many places there
    /// are (4 bytes), and the first of them (8 bytes).
    fn first_number(self) -> core::ops::Range<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        match self {
            Self::Batches { .. } => now - RECENT_SECS..now + RECENT_SECS,
            Self::Session => 0..(PARTITIONS + 1) << 32,
        }
    }
}

fn counter_block(nonce: &[u8], counter: u32) -> Block {
    let mut block = Block::default();
    block[..NONCE_BYTES].copy_from_slice(nonce);
    block[NONCE_BYTES..].copy_from_slice(&counter.to_be_bytes());
    block
}

fn decrypt(cipher: &Aes256, nonce: &[u8], sealed: &[u8]) -> Vec<u8> {
    let counters = (2..).take(sealed.len().div_ceil(16));
    let mut stream: Vec<Block> = counters.map(|counter| counter_block(nonce, counter)).collect();
    cipher.encrypt_blocks(&mut stream);
    sealed.iter().zip(stream.iter().flatten()).map(|(byte, key)| byte ^ key).collect()
}

/// Takes in as much as makes sense.
fn read(plaintext: &[u8], opens: Opens, found: &mut Found) {
    let Opens::Batches { partition } = opens else {
        let shows_a_key = plaintext.windows(9).any(|window| window == b"K_session");
        found.documents += usize::from(shows_a_key);
        return;
    };
    // When it was issued, then tokens, each after its length.
    let mut rest = &plaintext[8..];
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((token, tail)) = tail.split_at_checked(length) else { return };
        let Ok(envelope) = Envelope::parse(token) else { return };
        let [.., a, b, c, d, e, f, g, h] = envelope.iv();
        let counter = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        found.tokens.push(Token { jti: *envelope.jti().as_bytes(), counter, partition });
        rest = tail;
    }
}
