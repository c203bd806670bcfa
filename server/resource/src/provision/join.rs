//! Purpose 3: a copy of a resource server joins, once.

use obol_handshake::{IdentityKey, Purpose};
use obol_secret::json::parse;
use obol_uplink::{AuthError, Caller, Greeted, Uplink};
use serde::Deserialize;
use serde_json::{Value, json};

/// What the service says of a copy that has joined.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Joined {
    /// The copy's id.
    pub rs_id: String,
    /// The resource server that it is a copy of.
    pub audience: String,
}

struct Joining<'a> {
    key: &'a IdentityKey,
    code: &'a str,
}

impl Caller for Joining<'_> {
    fn key(&self) -> IdentityKey {
        IdentityKey::from_bytes(self.key.expose())
    }

    fn payload(&self, _greeted: &Greeted) -> Result<Value, AuthError> {
        Ok(json!({ "code": self.code }))
    }
}

/// Joins with the code that an operator of the service made. `now` in Unix seconds.
///
/// # Errors
///
/// [`AuthError`].
pub async fn join(uplink: &mut Uplink, key: &IdentityKey, code: &str, now: u64) -> Result<Joined, AuthError> {
    let mut caller = Joining { key, code };
    let (_, document) = uplink.carry_out(Purpose::Join, "/v1/resource-servers", now, &mut caller).await?;
    parse(&document).map_err(|error| AuthError::Answer(error.to_string()))
}
