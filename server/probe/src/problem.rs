//! Where the errors of all servers are explained.

/// The page that explains every code. `obol errors` writes it.
pub const CATALOGUE: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/errors.md");

/// The URI that names a kind of error, as `type` of a problem document (RFC 9457) has it: the code's place in the
/// catalogue.
pub fn type_uri(code: &str) -> String {
    format!("{CATALOGUE}#{}", code.to_ascii_lowercase())
}

/// The same of a code in one part of the catalogue, where another part may have a code of that name.
pub fn type_uri_in(part: &str, code: &str) -> String {
    format!("{CATALOGUE}#{part}-{}", code.to_ascii_lowercase())
}
