//! Comparing secrets, and a type for 32 secret bytes.

use subtle::{Choice, ConstantTimeEq as _};

/// Compares in constant time, a word at a time: four comparisons that the compiler must not merge, and not 32.
pub fn ct_eq_32(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let (ones, _) = one.as_chunks::<8>();
    let (others, _) = other.as_chunks::<8>();
    let words = ones
        .iter()
        .zip(others)
        .map(|(one, other)| u64::from_ne_bytes(*one).ct_eq(&u64::from_ne_bytes(*other)));
    words.fold(Choice::from(1), |all, word| all & word).into()
}

/// Makes a type for 32 secret bytes: no `Clone`, no revealing `Debug`, compared in constant time, wiped when dropped. It
/// reads from JSON as 64 lower-case hex digits.
#[macro_export]
macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes the 32 bytes over. The caller wipes its own copy.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes themselves, for sealing at rest and for handing to a peer that must share them.
            pub fn expose(&self) -> &[u8; 32] {
                &self.0
            }

            /// Compares in constant time.
            pub fn matches(&self, other: &[u8; 32]) -> bool {
                $crate::compare::ct_eq_32(&self.0, other)
            }
        }

        impl ::core::ops::Drop for $name {
            fn drop(&mut self) {
                $crate::wipe::wipe(&mut self.0);
            }
        }

        impl $crate::wipe::ZeroizeOnDrop for $name {}

        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }

        impl<'de> $crate::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $crate::text::hex_array::deserialize(from).map(Self)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    #![expect(unreachable_pub, reason = "the macro is for types that are public")]

    secret! {
        /// A secret of the tests.
        Key
    }

    #[test]
    fn secrets_match_in_every_bit_or_not_at_all() {
        let one = core::array::from_fn(|place| u8::try_from(place).unwrap());
        assert!(Key::from_bytes(one).matches(&one) && *Key::from_bytes(one).expose() == one);
        for bit in 0..256 {
            let mut other = one;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!Key::from_bytes(one).matches(&other), "bit {bit}");
        }
    }

    #[test]
    fn a_secret_prints_as_a_redaction_and_its_error_does_not_repeat_it() {
        assert_eq!(format!("{:?}", Key::from_bytes([7; 32])), "Key([redacted])");
        let error = serde_json::from_str::<Key>(r#""5ec7e75ec7""#).unwrap_err().to_string();
        assert!(error.contains("64 lower-case hex digits") && !error.contains("5ec7"), "{error}");
        assert!(serde_json::from_str::<Key>(&format!("{:?}", "5a".repeat(32))).unwrap().matches(&[0x5A; 32]));
    }
}
