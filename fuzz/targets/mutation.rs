//! Valid tokens, changed by somebody who has tokens and no keys: none is accepted unless it is, byte for byte, one that
//! was minted; no refusal burns the original; the original is accepted exactly once.
//!
//! Input: which token, whether it travels as text, how it is presented, and the steps of the change.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_fuzz::cursor::Cursor;
use obol_fuzz::world::{CLOCK_SKEW_SECS, LIFE_SECS, NOW, RESOURCE, Server, TOOL, World};
use obol_fuzz::{control, mutation, patterns, seeds, text};
use obol_verify::{Code, Denial, Request, Spent};

fuzz_target!(init: seeds::write_if_asked("mutation"), |data: &[u8]| {
    let world = World::get();
    let mut input = Cursor(data);
    let original = &world.tokens[usize::from(input.byte()) % world.tokens.len()];
    let as_text = input.byte() % 2 == 1;
    let server = world.server();

    refuse_for_the_wrong_request(&server, original, &mut input);
    let mutant = Mutant::make(world, original, as_text, &mut input);
    let minted = mutant.minted(world);
    match minted {
        // The way back to a token that was minted, its own or another's.
        Some(token) => accept_once(&server, token, 1),
        None => refuse(&server, &mutant, 0),
    }
    if minted != Some(original) {
        accept_once(&server, original, 1 + usize::from(minted.is_some()));
    }
    if minted.is_none() {
        refuse(&server, &mutant, 1);
    }
});

enum Mutant {
    Bytes(Vec<u8>),
    Text(Vec<u8>),
}

impl Mutant {
    fn make(world: &World, original: &[u8], as_text: bool, input: &mut Cursor<'_>) -> Self {
        let mut token = original.to_vec();
        mutation::mutate(&mut token, &world.tokens, input);
        if !as_text {
            return Self::Bytes(token);
        }
        let mut letters = text::to_base64url(&token);
        mutation::mutate_text(&mut letters, input);
        Self::Text(letters)
    }

    /// The token that this is, if it was ever minted.
    fn minted<'a>(&self, world: &'a World) -> Option<&'a Vec<u8>> {
        world.tokens.iter().find(|token| match self {
            Self::Bytes(bytes) => bytes == *token,
            Self::Text(letters) => *letters == text::to_base64url(token),
        })
    }

    fn present(&self, server: &Server) -> Result<Spent, Denial> {
        match self {
            Self::Bytes(bytes) if control::planted() => {
                let mut bytes = bytes.clone();
                mutation::forgive(&mut bytes);
                server.accept(&bytes, &request())
            }
            Self::Bytes(bytes) => server.accept(bytes, &request()),
            Self::Text(letters) => server.accept_text(letters, &request()),
        }
    }
}

fn request() -> Request<'static> {
    Request { action: Some("read"), resource: Some("docs/a"), ..Request::new(TOOL) }
}

fn refuse(server: &Server, mutant: &Mutant, spent: usize) {
    assert!(mutant.present(server).is_err(), "a token nobody minted was accepted");
    assert_eq!(server.spent(), spent, "a forged token was marked as spent");
}

fn accept_once(server: &Server, token: &[u8], spent: usize) {
    let accepted = server.accept(token, &request());
    assert!(accepted.is_ok(), "a good token was refused: {accepted:?}");
    assert_eq!(server.spent(), spent);
    let code = server.accept(token, &request()).err().map(|denial| denial.code);
    assert_eq!(code, Some(Code::TokenReplayed), "a token was accepted twice");
    assert_eq!(server.spent(), spent);
}

/// Presents a good token at the wrong time, or for something that it may not allow. What is refused is not burned.
fn refuse_for_the_wrong_request(server: &Server, token: &[u8], input: &mut Cursor<'_>) {
    let kind = input.byte() % 8;
    if kind == 0 {
        return;
    }
    let now = input.u16();
    let name = String::from_utf8_lossy(input.bytes(8)).into_owned();
    let mut presented = request();
    let allowed = match kind {
        1..=3 => {
            let now = NOW - u64::from(u16::MAX / 2) + u64::from(now);
            server.clock.set(now);
            now + CLOCK_SKEW_SECS >= NOW && now <= NOW + LIFE_SECS + CLOCK_SKEW_SECS
        }
        4 => {
            presented.tool = &name;
            name == TOOL
        }
        5 => {
            presented.action = Some(&name);
            name == "read"
        }
        _ => {
            presented.resource = Some(&name);
            patterns::resource_is_within(&patterns::segments(&name), &patterns::segments(RESOURCE))
        }
    };
    if !allowed {
        assert!(server.accept(token, &presented).is_err(), "a token allowed what it does not allow");
        assert_eq!(server.spent(), 0, "a refusal burned a token");
    }
    server.clock.set(NOW);
}
