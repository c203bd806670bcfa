//! Any bytes as what comes from the network on a stream: cut in any way it gives the same messages, holds no more than one, and
//! after an error none. What a message holds is read as an item and as a word: what is read is written the same way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_fuzz::seeds;
use obol_stream::{Frames, Item, Word};

const MAX_BYTES: usize = 4_096;

/// Every message, and whether there was an error behind them.
fn messages<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    let (mut frames, mut found) = (Frames::new(MAX_BYTES), Vec::new());
    for piece in pieces {
        frames.push(piece);
        loop {
            match frames.next_message() {
                Ok(Some(message)) => {
                    assert!(message.len() <= MAX_BYTES);
                    found.push(message);
                }
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

fuzz_target!(init: seeds::write_if_asked("stream"), |data: &[u8]| {
    let Some((size, stream)) = data.split_first() else { return };
    let (whole, failed) = messages(core::iter::once(stream));
    let (cut, also) = messages(stream.chunks(usize::from(*size) + 1));
    assert_eq!(whole, cut);
    // A line that is too long shows as soon as it is, or once its end has come.
    assert!(!failed || also);
    for message in whole.iter().map(Vec::as_slice).chain([stream]) {
        if let Ok(item) = Item::read(message) {
            let written = item.to_bytes();
            assert_eq!(*Item::read(&written).expect("what is written is read").to_bytes(), *written);
        }
        if let Ok(word) = Word::read(message) {
            assert_eq!(Word::read(&word.to_bytes()), Ok(word));
        }
    }
});
