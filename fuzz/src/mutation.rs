//! Turns one token into another: everything somebody can do who has tokens and no keys.

use crate::cursor::Cursor;

/// Where a token's fields begin. Those from 120 on hold for one suite or the other; the last one is the ciphertext.
const PLACES: [usize; FIELDS as usize] =
    [0, 1, 2, 3, 4, 12, 16, 24, 32, 40, 48, 80, 102, 104, 120, 136, 152, 184];
/// How many there are.
pub const FIELDS: u8 = 18;
/// The 64-bit numbers among them.
const NUMBERS: [usize; 5] = [4, 16, 24, 32, 40];
const NONCE_POINT: usize = 104;
const SIGNATURE: usize = 152;
const JTI_PAD: usize = 102;
/// The order of ristretto255, least byte first.
const ORDER: [u8; 32] = [
    0xED, 0xD3, 0xF5, 0x5C, 0x1A, 0x63, 0x12, 0x58, 0xD6, 0x9C, 0xF7, 0xA2, 0xDE, 0xF9, 0xDE, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// The most steps taken for one input.
const MAX_STEPS: usize = 16;
/// The number of different steps on a token's bytes, and on its text.
pub const BYTE_STEPS: u8 = 16;
pub const TEXT_STEPS: u8 = 7;

/// Changes `token` as the input says; `others` are tokens to take parts from.
pub fn mutate(token: &mut Vec<u8>, others: &[Vec<u8>], input: &mut Cursor<'_>) {
    let steps = usize::from(input.byte()) % MAX_STEPS;
    for _ in 0..steps {
        step(token, others, input);
    }
}

/// A byte of the token: near the beginning of a field half of the time, any otherwise.
fn place(length: usize, input: &mut Cursor<'_>) -> usize {
    match input.byte() {
        choice if choice % 2 == 1 => {
            let field = PLACES[usize::from(input.byte()) % PLACES.len()];
            (field + usize::from(choice >> 6)) % length.max(1)
        }
        _ => input.below(length),
    }
}

fn step(token: &mut Vec<u8>, others: &[Vec<u8>], input: &mut Cursor<'_>) {
    let length = token.len();
    match input.byte() % BYTE_STEPS {
        0 => flip(token, place(length, input), input.byte()),
        1 => put(token, place(length, input), &[input.byte()]),
        2 => token.truncate(place(length, input)),
        3 => token.extend_from_slice({
            let count = usize::from(input.byte());
            input.bytes(count)
        }),
        4 => token.insert(place(length, input), input.byte()),
        5 => {
            let from = place(length, input);
            token.drain(from..(from + usize::from(input.byte())).min(length));
        }
        // Whole fields of another token, in their places.
        6 => {
            let other = &others[input.below(others.len())];
            let first = input.below(PLACES.len());
            let last = first + usize::from(input.byte()) % (PLACES.len() - first);
            let end = PLACES.get(last + 1).copied().unwrap_or(other.len()).min(other.len());
            let from = PLACES[first];
            if last + 1 == PLACES.len() {
                token.truncate(from);
                token.resize(from, 0);
                token.extend_from_slice(&other[from.min(end)..end]);
            } else {
                put(token, from, &other[from.min(end)..end]);
            }
        }
        // Any bytes of another token, anywhere.
        7 => {
            let other = &others[input.below(others.len())];
            let from = input.below(other.len());
            let until = (from + usize::from(input.byte())).min(other.len());
            put(token, input.below(length), &other[from..until]);
        }
        8 => {
            let (one, two) = (input.below(length), input.below(length));
            if length > 0 {
                token.swap(one, two);
            }
        }
        9 => add_order(token),
        10 => negate_signature(token),
        11 => put(token, NONCE_POINT, &[0; 32]),
        12 => put(token, SIGNATURE, &[0; 32]),
        13 => put(token, NUMBERS[input.below(NUMBERS.len())], &input.u64().to_be_bytes()),
        14 => put(token, input.below(4), &[input.byte()]),
        // A letter whose low bits mean nothing: 16 bytes are 22 letters and four bits.
        _ => {
            if let Some(last) = token.get_mut(JTI_PAD - 1) {
                let value = LETTERS.iter().position(|letter| letter == last).unwrap_or(0);
                *last = LETTERS[value & 0x30 | usize::from(input.byte()) & 0x0F];
            }
        }
    }
}

fn put(token: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in token.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}

fn flip(token: &mut [u8], at: usize, bit: u8) {
    if let Some(byte) = token.get_mut(at) {
        *byte ^= 1 << (bit % 8);
    }
}

/// The same number modulo the order, in bytes that are not reduced.
fn add_order(token: &mut [u8]) {
    let mut carry = 0;
    for (byte, order) in token.iter_mut().skip(SIGNATURE).zip(ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
}

fn negate_signature(token: &mut [u8]) {
    let mut borrow = 0;
    for (byte, order) in token.iter_mut().skip(SIGNATURE).zip(ORDER) {
        let difference = i16::from(order) - i16::from(*byte) - borrow;
        borrow = i16::from(difference < 0);
        *byte = difference.rem_euclid(256).to_le_bytes()[0];
    }
}

/// What a parser that means well would do before it looks: the planted defect of the control.
pub fn forgive(token: &mut [u8]) {
    put(token, JTI_PAD, &[0, 0]);
}

/// Changes a token's text as the input says.
pub fn mutate_text(text: &mut Vec<u8>, input: &mut Cursor<'_>) {
    let steps = usize::from(input.byte()) % 4;
    for _ in 0..steps {
        let at = input.below(text.len());
        match input.byte() % TEXT_STEPS {
            0 => text.push(b'='),
            1 => text.insert(at, b" \n\r\t\0"[input.below(5)]),
            2 => text.iter_mut().for_each(|letter| match letter {
                b'-' => *letter = b'+',
                b'_' => *letter = b'/',
                _ => {}
            }),
            // Bits behind the last byte.
            3 => {
                if let Some(last) = text.last_mut() {
                    let value = LETTERS.iter().position(|letter| letter == last).unwrap_or(0);
                    *last = LETTERS[value ^ usize::from(input.byte()) & 0x0F];
                }
            }
            4 => {
                if let Some(letter) = text.get_mut(at) {
                    *letter ^= 0x20;
                }
            }
            5 => text.insert(at, input.byte()),
            _ => text.truncate(at),
        }
    }
}
