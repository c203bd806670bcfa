//! Names that the service makes: of agents, registrations and replicas, and the codes that people type.

use core::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use obol_handshake::Random;
pub use obol_handshake::SystemRandom;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Random bytes behind a name.
const NAME_BYTES: usize = 16;
/// RFC 4648's alphabet, in lower case.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Letters of a code: no vowels, so that none spells a word, and none that looks like another.
const CODE_LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters of a code: 34 bits.
const CODE_LENGTH: usize = 8;

/// What a name begins with, and what it names.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Makes a new one.
            pub fn generate(rng: &mut dyn Random) -> Self {
                Self(generate($prefix, rng))
            }

            /// Reads one. What does not have its form is not one.
            pub fn parse(text: &str) -> Option<Self> {
                has_form(text, $prefix).then(|| Self(text.to_owned()))
            }

            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// An agent: `agt_` and 26 letters and digits. It is the `agent_instance_id` of its tokens.
    AgentId, "agt_"
}
name! {
    /// A registration that waits for a human, or waited: `reg_…`.
    RegistrationId, "reg_"
}
name! {
    /// A request for a human's yes to calls: `apr_…`.
    ApprovalId, "apr_"
}
name! {
    /// An operator elsewhere who asks to be let in, or was: `log_…`.
    LoginId, "log_"
}
name! {
    /// One running copy of a resource server: `rsr_…`.
    ReplicaId, "rsr_"
}

impl ApprovalId {
    /// What a human compares who is asked elsewhere: its first eight letters, as `K3Q7-MWNB`.
    pub fn code(&self) -> String {
        let letters: String = self.0.chars().skip("apr_".len()).take(CODE_LENGTH).collect();
        let (one, two) = letters.split_at(letters.len() / 2);
        format!("{one}-{two}").to_ascii_uppercase()
    }
}

fn generate(prefix: &str, rng: &mut dyn Random) -> String {
    let mut bytes = [0; NAME_BYTES];
    rng.fill(&mut bytes);
    let mut text = prefix.to_owned();
    let (mut held, mut bits) = (0_u32, 0_u32);
    for byte in bytes {
        held = (held << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(letter(held >> bits));
        }
    }
    text.push(letter(held << (5 - bits)));
    text
}

fn letter(five_bits: u32) -> char {
    let place = usize::try_from(five_bits & 31).unwrap_or_default();
    char::from(BASE32.get(place).copied().unwrap_or(b'a'))
}

fn has_form(text: &str, prefix: &str) -> bool {
    let letters = text.strip_prefix(prefix).unwrap_or_default();
    letters.len() == (NAME_BYTES * 8).div_ceil(5) && letters.bytes().all(|byte| BASE32.contains(&byte))
}

/// HMAC-SHA-256.
pub(crate) fn keyed_hash(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    // HMAC fills a shorter key up with zeros.
    let mut block = Zeroizing::new([0; 64]);
    block.iter_mut().zip(key).for_each(|(place, byte)| *place = *byte);
    Hmac::<Sha256>::new((&*block).into()).chain_update(text).finalize().into_bytes().into()
}

/// What a human types to find a registration: eight letters, written `KQXR-WTBN`.
#[derive(Clone, PartialEq, Eq)]
pub struct UserCode(String);

impl UserCode {
    /// Makes a new one.
    pub fn generate(rng: &mut dyn Random) -> Self {
        let mut code = String::with_capacity(CODE_LENGTH);
        while code.len() < CODE_LENGTH {
            let mut byte = [0];
            rng.fill(&mut byte);
            // 240 is the largest multiple of 20: no letter comes more often than another.
            let [byte] = byte;
            if byte < 240 {
                let place = usize::from(byte) % CODE_LETTERS.len();
                code.push(char::from(CODE_LETTERS.get(place).copied().unwrap_or(b'B')));
            }
        }
        Self(code)
    }

    /// Reads what somebody typed: in either case, with or without the dash and spaces.
    pub fn parse(typed: &str) -> Option<Self> {
        let letters: String = typed
            .chars()
            .filter(|letter| !matches!(letter, '-' | ' '))
            .map(|letter| letter.to_ascii_uppercase())
            .take(CODE_LENGTH + 1)
            .collect();
        let is_code =
            letters.len() == CODE_LENGTH && letters.bytes().all(|byte| CODE_LETTERS.contains(&byte));
        is_code.then_some(Self(letters))
    }

    /// What it is found by. The code itself is not kept: it is short enough to be tried out.
    pub(crate) fn hash(&self, key: &[u8; 32]) -> [u8; 32] {
        keyed_hash(key, self.0.as_bytes())
    }
}

impl fmt::Display for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (front, back) = self.0.split_at(CODE_LENGTH / 2);
        write!(f, "{front}-{back}")
    }
}

impl fmt::Debug for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserCode([redacted])")
    }
}

/// What a human reads on the page after a yes and types into the agent's terminal: three words, 48 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct ReturnCode(String);

impl ReturnCode {
    /// Makes a new one.
    pub fn generate(rng: &mut dyn Random) -> Self {
        let mut bytes = [0; 6];
        rng.fill(&mut bytes);
        Self(obol_handshake::words(&bytes))
    }

    /// Reads what somebody typed: in either case, with spaces or dashes between the words.
    pub fn parse(typed: &str) -> Option<Self> {
        let words: Vec<String> = typed
            .split(|between: char| between == '-' || between.is_whitespace())
            .filter(|word| !word.is_empty())
            .take(4)
            .map(str::to_ascii_lowercase)
            .collect();
        let is_word = |word: &String| word.len() == 5 && word.bytes().all(|byte| byte.is_ascii_lowercase());
        (words.len() == 3 && words.iter().all(is_word)).then(|| Self(words.join("-")))
    }

    /// What is kept of it.
    pub(crate) fn hash(&self, key: &[u8; 32]) -> [u8; 32] {
        keyed_hash(key, format!("return {}", self.0).as_bytes())
    }
}

impl fmt::Display for ReturnCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ReturnCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReturnCode([redacted])")
    }
}

/// 256 random bits that whoever holds them presents: to ask for a registration's state, to register with an invitation,
/// to join as a resource server. The service keeps the hash alone.
pub struct Bearer(Zeroizing<[u8; 32]>);

impl Bearer {
    /// Makes a new one.
    pub fn generate(rng: &mut dyn Random) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill(&mut *bytes);
        Self(bytes)
    }

    /// Reads its text form.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(obol_secret::text::from_base64url(text.as_bytes(), 43).ok()?);
        bytes.as_slice().try_into().ok().map(|bytes| Self(Zeroizing::new(bytes)))
    }

    /// Base64url.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(obol_secret::text::to_base64url(&*self.0))
    }

    /// What is kept of it.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::new().chain_update(b"obol-bearer-v1").chain_update(*self.0).finalize().into()
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_have_one_form_and_do_not_repeat() {
        let names: BTreeSet<_> = (0..1_000).map(|_| AgentId::generate(&mut SystemRandom)).collect();
        assert_eq!(names.len(), 1_000);
        for name in names {
            assert_eq!(AgentId::parse(name.as_str()), Some(name.clone()));
            assert_eq!(name.as_str().len(), 4 + 26);
            assert!(RegistrationId::parse(name.as_str()).is_none(), "of another kind");
        }
        for bad in ["", "agt_", "agt_ABCDEFGHIJKLMNOPQRSTUVWXYZ", "agt_abcdefghijklmnopqrstuvwxy1"] {
            assert!(AgentId::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let code = UserCode::generate(&mut SystemRandom);
        let shown = code.to_string();
        assert_eq!(shown.len(), 9);
        for typed in [shown.clone(), shown.to_lowercase(), shown.replace('-', ""), shown.replace('-', " ")] {
            assert_eq!(UserCode::parse(&typed), Some(code.clone()));
        }
        for bad in ["", "KQXR-WTB", "KQXR-WTBNK", "AEIO-WTBN", "KQXR-WTB1"] {
            assert!(UserCode::parse(bad).is_none(), "{bad}");
        }
        assert!(!format!("{code:?}").contains(&shown[..4]));
    }

    #[test]
    fn a_return_code_is_read_as_people_type_it() {
        let code = ReturnCode::generate(&mut SystemRandom);
        let shown = code.to_string();
        for typed in [shown.clone(), shown.to_uppercase(), format!(" {} \n", shown.replace('-', "  "))] {
            assert_eq!(ReturnCode::parse(&typed), Some(code.clone()));
        }
        for bad in ["", "babad-babad", "babad-babad-babad-babad", "babad babad bab4d", "babadbabadbabad"] {
            assert!(ReturnCode::parse(bad).is_none(), "{bad}");
        }
        assert!(!format!("{code:?}").contains(&shown[..5]));
        assert_ne!(code.hash(&[1; 32]), code.hash(&[2; 32]));
    }

    #[test]
    fn every_letter_of_a_code_comes_about_as_often() {
        let mut counts = [0_u32; 256];
        for _ in 0..5_000 {
            for letter in UserCode::generate(&mut SystemRandom).0.bytes() {
                counts[usize::from(letter)] += 1;
            }
        }
        let counts: Vec<_> = CODE_LETTERS.iter().map(|letter| counts[usize::from(*letter)]).collect();
        assert!(counts.iter().all(|count| (1_600..=2_400).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_bearer_reads_back_and_its_hash_is_its_own() {
        let (one, two) = (Bearer::generate(&mut SystemRandom), Bearer::generate(&mut SystemRandom));
        assert_eq!(Bearer::parse(&one.to_text()).unwrap().hash(), one.hash());
        assert_ne!(one.hash(), two.hash());
        assert!(Bearer::parse("short").is_none() && Bearer::parse(&"A".repeat(44)).is_none());
    }
}
