//! Tokens in good order, from the token library's own minter.

use obol_token::{Jti, Minter, ResponseKey, SessionMaterial, TokenSeed, Validity};

use crate::scope::scope;
use crate::{LIFE_SECS, NOW};

/// Mints `count` tokens of the standard scope, issued at [`NOW`]; `first` names the first.
pub fn mint(session: &SessionMaterial, first: u64, count: usize) -> Vec<Vec<u8>> {
    mint_at(session, first, count, NOW)
}

/// The same, issued at another time in Unix seconds.
pub fn mint_at(session: &SessionMaterial, first: u64, count: usize, issued_at: u64) -> Vec<Vec<u8>> {
    let seeds: Vec<TokenSeed> = (first..).take(count).map(seed).collect();
    let validity = Validity { issued_at, expires_at: issued_at + LIFE_SECS };
    let minter = Minter::new(session, &scope(), 1).expect("the scope is sound");
    minter.mint(validity, &seeds).expect("the scope is sound")
}

/// Seeds as a refiller makes them, from 48 random bytes each.
pub fn seeds(random: &[u8]) -> Vec<TokenSeed> {
    let (chunks, _) = random.as_chunks::<48>();
    let seeds = (0_u64..).zip(chunks).map(|(counter, chunk)| {
        let (jti, response_key) = chunk.split_first_chunk::<16>().expect("a chunk is longer");
        let response_key = ResponseKey::from_bytes(response_key.try_into().expect("32 bytes are left"));
        TokenSeed { jti: Jti::from_random(*jti), iv: iv(counter), response_key, nonce: None }
    });
    seeds.collect()
}

fn seed(number: u64) -> TokenSeed {
    let mut name = [0; 16];
    name.split_at_mut(8).1.copy_from_slice(&number.to_be_bytes());
    let response_key = ResponseKey::from_bytes([5; 32]);
    TokenSeed { jti: Jti::from_random(name), iv: iv(number), response_key, nonce: None }
}

fn iv(number: u64) -> [u8; 12] {
    let mut iv = [0; 12];
    iv.split_at_mut(4).1.copy_from_slice(&number.to_be_bytes());
    iv
}
