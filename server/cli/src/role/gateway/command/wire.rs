//! What the gateway and its helper say to each other, over a pair of sockets that nobody else has.
//!
//! At first the gateway says which programs there are, once. Then it asks, one at a time, with a number; the answer is
//! what the program printed, or why there is nothing.

use std::io::{self, Read, Write};

use obol_secret::wipe::Wiped;

use super::run::MAX_PRINTED_BYTES;

/// The most that is said of programs, in bytes.
const MAX_COMMANDS_BYTES: usize = 1 << 20;
const PRINTED: u8 = 1;
const FAILED: u8 = 0;

/// What came of one run.
pub(super) type Answer = Result<Wiped, String>;

pub(super) fn write_commands(to: &mut impl Write, commands: &[Vec<String>]) -> io::Result<()> {
    let text = serde_json::to_vec(commands)?;
    write_text(to, &text)
}

pub(super) fn read_commands(from: &mut impl Read) -> io::Result<Vec<Vec<String>>> {
    let text = read_text(from, MAX_COMMANDS_BYTES)?;
    obol_secret::json::parse(&text).map_err(|error| io::Error::other(error.to_string()))
}

pub(super) fn write_number(to: &mut impl Write, number: u16) -> io::Result<()> {
    to.write_all(&number.to_le_bytes())
}

pub(super) fn read_number(from: &mut impl Read) -> io::Result<u16> {
    let mut number = [0; 2];
    from.read_exact(&mut number)?;
    Ok(u16::from_le_bytes(number))
}

pub(super) fn write_answer(to: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let (kind, text) = match answer {
        Ok(printed) => (PRINTED, &**printed),
        Err(why) => (FAILED, why.as_bytes()),
    };
    to.write_all(&[kind])?;
    write_text(to, text.get(..MAX_PRINTED_BYTES).unwrap_or(text))
}

pub(super) fn read_answer(from: &mut impl Read) -> io::Result<Answer> {
    let mut kind = [0; 1];
    from.read_exact(&mut kind)?;
    let text = read_text(from, MAX_PRINTED_BYTES)?;
    match kind {
        [PRINTED] => Ok(Ok(text)),
        [FAILED] => Ok(Err(String::from_utf8_lossy(&text).into_owned())),
        _ => Err(io::Error::other("an answer of an unknown kind")),
    }
}

fn write_text(to: &mut impl Write, text: &[u8]) -> io::Result<()> {
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(text)
}

fn read_text(from: &mut impl Read, most: usize) -> io::Result<Wiped> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(io::Error::other)?;
    if length > most {
        return Err(io::Error::other("longer than it may be"));
    }
    let mut text = Wiped::new(vec![0; length]);
    from.read_exact(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_heard_and_nothing_longer() {
        let mut said = Vec::new();
        let commands = vec![vec!["/bin/a".to_owned(), "b\n".to_owned()], vec!["/bin/c".to_owned()]];
        write_commands(&mut said, &commands).unwrap();
        write_number(&mut said, 513).unwrap();
        write_answer(&mut said, &Ok(Wiped::new(b"a-secret".to_vec()))).unwrap();
        write_answer(&mut said, &Err("why".to_owned())).unwrap();
        let mut heard = said.as_slice();
        assert_eq!(read_commands(&mut heard).unwrap(), commands);
        assert_eq!(read_number(&mut heard).unwrap(), 513);
        assert_eq!(&*read_answer(&mut heard).unwrap().unwrap(), b"a-secret");
        assert_eq!(read_answer(&mut heard).unwrap().unwrap_err(), "why");
        assert!(heard.is_empty());
        for wrong in [&[1, 0xff, 0xff, 0xff, 0xff][..], &[2, 0, 0, 0, 0], &[1, 4, 0, 0, 0, b'a'], &[1, 0]] {
            assert!(read_answer(&mut &*wrong).is_err(), "{wrong:?}");
        }
    }
}
