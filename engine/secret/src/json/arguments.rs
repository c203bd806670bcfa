//! A call's arguments as a document brings them, and whether their numbers mean the same to everybody.
//!
//! JSON leaves open how exact a number is. One reader keeps every digit, another rounds to the nearest double, and the
//! canonical form (RFC 8785) knows doubles only. So `{"to":9007199254740993}` and `{"to":9007199254740992}` have one
//! canonical form, and a proof of possession over the one would pass for the other. Such numbers have no canonical form
//! here.

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

/// The largest whole number up to which doubles leave none out. Beyond it a number may have been rounded.
const MAX_EXACT: u64 = 1 << 53;

/// Arguments read from a document, to the letter ([`super::parse`]).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ReadArguments {
    /// The arguments.
    pub map: Map<String, Value>,
    /// Whether a number among them was rounded when it was read, so that somebody who reads the document itself may see
    /// another one.
    pub rounded: bool,
}

impl<'de> Deserialize<'de> for ReadArguments {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(from)?.get();
        let map = super::parse(text.as_bytes()).map_err(|error| D::Error::custom(error.problem))?;
        Ok(Self { map, rounded: !numbers(text).all(is_kept) })
    }
}

/// The canonical form of arguments (RFC 8785), if they have one: only if every number is one that everybody reads alike.
pub fn canonical(arguments: &Map<String, Value>) -> Option<Vec<u8>> {
    if !arguments.values().all(is_exact) {
        return None;
    }
    serde_json_canonicalizer::to_vec(arguments).ok()
}

fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => number_is_exact(number),
        Value::Array(values) => values.iter().all(is_exact),
        Value::Object(fields) => fields.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

fn number_is_exact(number: &Number) -> bool {
    match (number.as_u64(), number.as_i64()) {
        (Some(number), _) => number <= MAX_EXACT,
        (None, Some(number)) => number.unsigned_abs() <= MAX_EXACT,
        // Whole numbers of more than 64 bits are read as doubles.
        #[expect(clippy::cast_precision_loss, reason = "it is a power of two")]
        (None, None) => number.as_f64().is_some_and(|number| number.abs() <= MAX_EXACT as f64),
    }
}

/// The numbers of a document that is known to be JSON.
fn numbers(json: &str) -> impl Iterator<Item = &str> {
    let belongs = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    let mut rest = json;
    core::iter::from_fn(move || {
        loop {
            let place = rest.find(|sign: char| sign == '"' || sign == '-' || sign.is_ascii_digit())?;
            rest = rest.get(place..)?;
            if let Some(inside) = rest.strip_prefix('"') {
                rest = behind_string(inside)?;
                continue;
            }
            let end = rest.bytes().position(|byte| !belongs(byte)).unwrap_or(rest.len());
            let (number, behind) = rest.split_at_checked(end)?;
            rest = behind;
            return Some(number);
        }
    })
}

/// What follows a string, given what follows its first quotation mark.
fn behind_string(inside: &str) -> Option<&str> {
    let mut escaped = false;
    let end = inside.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    inside.get(end + 1..)
}

/// Whether a number keeps its value when it is read as a double and written in the canonical form of that. Where two shortest texts are
/// as near to it, writers of JSON and the canonical form take the even one, and Rust's own formatting does not.
fn is_kept(number: &str) -> bool {
    let Ok(double) = number.parse::<f64>() else { return false };
    let form = serde_json_canonicalizer::to_string(&double);
    double.is_finite() && form.is_ok_and(|form| decimal(number) == decimal(&form))
}

/// A number without its sign, as digits that neither begin nor end with 0 and the power of ten of the last one.
fn decimal(number: &str) -> Option<(String, i64)> {
    let number = number.trim_start_matches('-');
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [whole, fraction].concat();
    let digits = all.trim_end_matches('0');
    if digits.is_empty() {
        return Some((String::new(), 0));
    }
    let exponent: i64 = exponent.parse().ok()?;
    let zeros = i64::try_from(all.len() - digits.len()).ok()?;
    let last = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(zeros)?;
    Some((digits.trim_start_matches('0').to_owned(), last))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> ReadArguments {
        parse(text.as_bytes()).unwrap()
    }

    fn rounded(number: &str) -> bool {
        read(&format!(r#"{{"n":{number}}}"#)).rounded
    }

    #[test]
    fn numbers_that_everybody_reads_alike_have_a_canonical_form() {
        for (number, form) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("9007199254740992", "9007199254740992"),
            ("-9007199254740992", "-9007199254740992"),
            ("1.50", "1.5"),
            ("1e2", "100"),
            ("100.0", "100"),
            ("0.1", "0.1"),
            ("1E-7", "1e-7"),
            ("5e-324", "5e-324"),
            ("0.000001", "0.000001"),
            ("4503599627370495.5", "4503599627370495.5"),
            // As near to .2 as to .3.
            ("999761033393354.2", "999761033393354.2"),
            ("562949953421312.2", "562949953421312.2"),
        ] {
            let read = read(&format!(r#"{{"n":{number}}}"#));
            assert!(!read.rounded, "{number}");
            assert_eq!(canonical(&read.map), Some(format!(r#"{{"n":{form}}}"#).into_bytes()), "{number}");
        }
    }

    #[test]
    fn whole_numbers_beyond_2_to_the_53_have_no_canonical_form_wherever_they_stand() {
        for number in [
            "9007199254740993",
            "-9007199254740993",
            "9007199254740994",
            "1000000000000000001",
            "18446744073709551615",
            "18446744073709551617",
            "-9223372036854775809",
            "1e300",
        ] {
            for text in [format!(r#"{{"n":{number}}}"#), format!(r#"{{"a":[1,{{"b":[{number}]}}]}}"#)] {
                assert_eq!(canonical(&read(&text).map), None, "{text}");
            }
        }
    }

    #[test]
    fn a_number_that_is_rounded_when_read_is_told() {
        for number in [
            "0.10000000000000001",
            "0.1000000000000000055511151231257827",
            "1.0000000000000000001",
            "3e-324",
            "1e-400",
            "9007199254740991.4",
            "9007199254740993",
            "18446744073709551617",
            "4503599627370495.51",
        ] {
            assert!(rounded(number), "{number}");
            assert!(read(&format!(r#"{{"s":"\\\"7","a":[{{"b":{number}}}]}}"#)).rounded, "{number}");
        }
        assert!(!read(r#"{"0.10000000000000001":"0.10000000000000001\\\"-1e999","b":[true,null]}"#).rounded);
    }

    #[test]
    fn arguments_are_read_to_the_letter() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":1,"\u0062":2}}"#, "[1]", "null", "{"] {
            assert!(parse::<ReadArguments>(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_shortest_form_of_a_double_is_never_rounded(double in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL) {
            prop_assert!(is_kept(&json_text(double)), "{}", double);
            let canonical = serde_json_canonicalizer::to_string(&double).unwrap();
            prop_assert!(is_kept(&canonical), "{}", double);
        }

        #[test]
        fn whole_numbers_up_to_2_to_the_53_are_never_rounded(number in 0..=MAX_EXACT, bits in 0_u32..53) {
            let number = number >> bits;
            let negative = format!("-{number}.0");
            prop_assert!(is_kept(&number.to_string()) && is_kept(&negative));
            prop_assert!(is_exact(&Value::from(number)));
        }
    }

    fn json_text(double: f64) -> String {
        serde_json::to_string(&double).unwrap()
    }
}
