//! The first frame each way, always JSON: which version of the protocol, and which codec after it.
//!
//! ```text
//! client: {"obol":1,"codec":"json","client":"my-agent/2.0"}
//! server: {"obol":1,"codec":"json","server":"obol/0.1.0"}
//!     or: {"obol":1,"error":{"code":"UNKNOWN_CODEC","message":"…"}}, and closes
//! ```
//!
//! The server answers with the codec asked for. One that lacks it may answer `json`, which everyone speaks; the
//! server's word is what counts after that. Members that a version does not know are ignored, so that a hello can grow.

use core::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::codec::{Codec, from_object, write_json};
use crate::frame::{EncodeError, EncodedFrame};
use crate::names::PeerName;
use crate::numbers::whole_number;
use crate::refusal::one_line;

/// The version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION: u32 = 1;

#[derive(Serialize)]
struct Hello<'a> {
    obol: u32,
    codec: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
}

#[derive(Serialize)]
struct Refused<'a> {
    obol: u32,
    error: RefusedBecause<'a>,
}

#[derive(Serialize)]
struct RefusedBecause<'a> {
    code: &'a str,
    message: &'a str,
}

/// A hello of any version: only `obol` has a fixed meaning before the version is known.
#[derive(Deserialize)]
struct ReceivedHello<'body> {
    #[serde(borrow)]
    obol: Option<&'body RawValue>,
    #[serde(borrow)]
    codec: Option<&'body RawValue>,
    #[serde(borrow)]
    client: Option<&'body RawValue>,
    #[serde(borrow)]
    server: Option<&'body RawValue>,
    #[serde(borrow)]
    error: Option<&'body RawValue>,
}

#[derive(Deserialize)]
struct ReceivedError {
    code: String,
    #[serde(default)]
    message: String,
}

impl<'body> ReceivedHello<'body> {
    fn read(body: &'body [u8]) -> Result<Self, String> {
        from_object(str::from_utf8(body).map_err(|_| "not UTF-8".to_owned())?)
    }

    fn version(&self) -> Option<u64> {
        whole_number(&mut serde_json::Deserializer::from_str(self.obol?.get())).ok()
    }
}

fn text_of(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

fn encode<T: Serialize>(hello: &T) -> Result<EncodedFrame, EncodeError> {
    EncodedFrame::write(|frame| write_json(frame, hello))
}

/// What the client opens with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The codec asked for.
    pub codec: Codec,
    /// Who is calling.
    pub client: PeerName,
}

impl ClientHello {
    /// Writes the hello.
    ///
    /// # Errors
    ///
    /// None that a valid hello can cause.
    pub fn encode(&self) -> Result<EncodedFrame, EncodeError> {
        encode(&Hello {
            obol: PROTOCOL_VERSION,
            codec: self.codec.name(),
            client: Some(self.client.as_str()),
            server: None,
        })
    }

    /// Reads a client's hello, for the server.
    ///
    /// # Errors
    ///
    /// [`HelloRefusal`], to be sent to the client before closing.
    pub fn decode(body: &[u8]) -> Result<Self, HelloRefusal> {
        use HelloRefusalCode::{InvalidClientName, MalformedHello, UnknownCodec, UnsupportedVersion};
        let hello = ReceivedHello::read(body).map_err(|problem| {
            HelloRefusal::new(
                MalformedHello,
                format!("the first frame must be {{\"obol\":1,\"codec\":…,\"client\":…}}: {problem}"),
            )
        })?;
        match hello.version() {
            Some(version) if version == u64::from(PROTOCOL_VERSION) => {}
            Some(version) => {
                let message =
                    format!("this daemon speaks version 1, not {version}; use a client of its version");
                return Err(HelloRefusal::new(UnsupportedVersion, message));
            }
            None => {
                let message = "the first frame must say \"obol\":1, the version of the protocol";
                return Err(HelloRefusal::new(MalformedHello, message));
            }
        }
        let codec = text_of(hello.codec)
            .as_deref()
            .and_then(Codec::from_name)
            .ok_or_else(|| HelloRefusal::new(UnknownCodec, "codec must be \"json\" or \"bincode\""))?;
        let client = text_of(hello.client)
            .and_then(|name| PeerName::new(name).ok())
            .ok_or_else(|| HelloRefusal::new(InvalidClientName, PEER_NAME_RULE))?;
        Ok(Self { codec, client })
    }

    /// Reads the server's answer to this hello, for the client.
    ///
    /// # Errors
    ///
    /// [`HelloError`] when the server refused, speaks another version, or cannot be understood.
    pub fn answered(&self, body: &[u8]) -> Result<ServerHello, HelloError> {
        let hello = ReceivedHello::read(body).map_err(|problem| HelloError::Malformed(one_line(problem)))?;
        // A refusal first: a server of another version says so in words.
        if let Some(error) = hello.error {
            let error: ReceivedError =
                from_object(error.get()).map_err(|problem| HelloError::Malformed(one_line(problem)))?;
            return Err(HelloError::Refused { code: one_line(error.code), message: one_line(error.message) });
        }
        match hello.version() {
            Some(version) if version == u64::from(PROTOCOL_VERSION) => {}
            Some(version) => return Err(HelloError::UnsupportedVersion { version }),
            None => return Err(HelloError::Malformed("it does not say \"obol\":1".to_owned())),
        }
        let codec = text_of(hello.codec)
            .as_deref()
            .and_then(Codec::from_name)
            .filter(|codec| *codec == self.codec || *codec == Codec::Json)
            .ok_or(HelloError::UnexpectedCodec { asked: self.codec })?;
        let server = text_of(hello.server)
            .and_then(|name| PeerName::new(name).ok())
            .ok_or_else(|| HelloError::Malformed("the server's name is missing or not allowed".to_owned()))?;
        Ok(ServerHello { codec, server })
    }
}

const PEER_NAME_RULE: &str =
    "client must be 1 to 128 bytes of visible ASCII without spaces, like \"name/version\"";

/// What the server answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHello {
    /// The codec of every frame that follows.
    pub codec: Codec,
    /// Who is answering: `obol/x.y.z`.
    pub server: PeerName,
}

impl ServerHello {
    /// Writes the answer.
    ///
    /// # Errors
    ///
    /// None that a valid hello can cause.
    pub fn encode(&self) -> Result<EncodedFrame, EncodeError> {
        encode(&Hello {
            obol: PROTOCOL_VERSION,
            codec: self.codec.name(),
            client: None,
            server: Some(self.server.as_str()),
        })
    }
}

/// Why a server turns a client away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HelloRefusalCode {
    /// The first frame is not a hello.
    MalformedHello,
    /// The client speaks another version.
    UnsupportedVersion,
    /// The client asks for a codec that does not exist.
    UnknownCodec,
    /// The client's name breaks its rule.
    InvalidClientName,
    /// The client runs as a user whom this daemon does not serve.
    UserNotServed,
    /// Too many connections.
    Overloaded,
    /// The daemon is stopping.
    Unavailable,
}

impl HelloRefusalCode {
    /// Every code.
    pub const ALL: [Self; 7] = [
        Self::MalformedHello,
        Self::UnsupportedVersion,
        Self::UnknownCodec,
        Self::InvalidClientName,
        Self::UserNotServed,
        Self::Overloaded,
        Self::Unavailable,
    ];

    /// The stable name, as `error.code` carries it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MalformedHello => "MALFORMED_HELLO",
            Self::UnsupportedVersion => "UNSUPPORTED_VERSION",
            Self::UnknownCodec => "UNKNOWN_CODEC",
            Self::InvalidClientName => "INVALID_CLIENT_NAME",
            Self::UserNotServed => "USER_NOT_SERVED",
            Self::Overloaded => "OVERLOADED",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// How a server turns a client away: sent in place of its hello, before it closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloRefusal {
    code: HelloRefusalCode,
    message: String,
}

impl HelloRefusal {
    /// A refusal. `message` says what to do about it, in one line.
    pub fn new(code: HelloRefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: one_line(message.into()) }
    }

    /// Why.
    pub const fn code(&self) -> HelloRefusalCode {
        self.code
    }

    /// What is wrong and what to do, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Writes the refusal.
    ///
    /// # Errors
    ///
    /// None: a refusal always fits a frame.
    pub fn encode(&self) -> Result<EncodedFrame, EncodeError> {
        let error = RefusedBecause { code: self.code.name(), message: &self.message };
        encode(&Refused { obol: PROTOCOL_VERSION, error })
    }
}

impl fmt::Display for HelloRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl core::error::Error for HelloRefusal {}

/// Why a client cannot go on after the server's first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HelloError {
    /// The server turned this client away.
    Refused {
        /// The server's code; see [`HelloRefusalCode::name`]. A newer server may use others.
        code: String,
        /// The server's words.
        message: String,
    },
    /// The server speaks another version.
    UnsupportedVersion {
        /// The server's version.
        version: u64,
    },
    /// The server chose a codec that is neither the one asked for nor `json`.
    UnexpectedCodec {
        /// The codec asked for.
        asked: Codec,
    },
    /// The server's first frame is not a hello.
    Malformed(String),
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, message } => write!(f, "the daemon refused this client: {code}: {message}"),
            Self::UnsupportedVersion { version } => {
                write!(
                    f,
                    "the daemon speaks version {version} and this client version 1; use the same release of both"
                )
            }
            Self::UnexpectedCodec { asked } => {
                write!(f, "the daemon answered with another codec than {asked}; ask for json")
            }
            Self::Malformed(problem) => {
                write!(f, "what answers is not an Obol daemon ({problem}); check the path of the socket")
            }
        }
    }
}

impl core::error::Error for HelloError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello(codec: Codec) -> ClientHello {
        ClientHello { codec, client: PeerName::new("test/1").unwrap() }
    }

    fn refusal_of(body: &str) -> HelloRefusal {
        ClientHello::decode(body.as_bytes()).unwrap_err()
    }

    #[test]
    fn hellos_are_written_as_the_contract_says() {
        let client = hello(Codec::Bincode).encode().unwrap();
        assert_eq!(client.body(), br#"{"obol":1,"codec":"bincode","client":"test/1"}"#);
        let server = ServerHello { codec: Codec::Json, server: PeerName::new("obol/0.1.0").unwrap() };
        assert_eq!(server.encode().unwrap().body(), br#"{"obol":1,"codec":"json","server":"obol/0.1.0"}"#);
        let refusal = HelloRefusal::new(HelloRefusalCode::Overloaded, "try later");
        let expected = br#"{"obol":1,"error":{"code":"OVERLOADED","message":"try later"}}"#;
        assert_eq!(refusal.encode().unwrap().body(), expected);
    }

    #[test]
    fn both_sides_agree_on_each_codec() {
        for codec in [Codec::Json, Codec::Bincode] {
            let received = ClientHello::decode(hello(codec).encode().unwrap().body()).unwrap();
            assert_eq!(received, hello(codec));
            let answer = ServerHello { codec, server: PeerName::new("obol/0.1.0").unwrap() };
            assert_eq!(hello(codec).answered(answer.encode().unwrap().body()).unwrap(), answer);
        }
    }

    #[test]
    fn a_refused_hello_says_why() {
        use HelloRefusalCode::*;
        for (body, code) in [
            ("", MalformedHello),
            ("[1,\"json\",\"a/1\"]", MalformedHello),
            ("{}", MalformedHello),
            (r#"{"obol":"1","codec":"json","client":"a/1"}"#, MalformedHello),
            (r#"{"obol":1,"obol":1,"codec":"json","client":"a/1"}"#, MalformedHello),
            (r#"{"obol":1,"codec":"json","client":"a/1"} x"#, MalformedHello),
            (r#"{"obol":2,"codec":{"any":"thing"}}"#, UnsupportedVersion),
            (r#"{"obol":1,"codec":"cbor","client":"a/1"}"#, UnknownCodec),
            (r#"{"obol":1,"client":"a/1"}"#, UnknownCodec),
            (r#"{"obol":1,"codec":"json"}"#, InvalidClientName),
            (r#"{"obol":1,"codec":"json","client":""}"#, InvalidClientName),
            (r#"{"obol":1,"codec":"json","client":"a b"}"#, InvalidClientName),
        ] {
            assert_eq!(refusal_of(body).code(), code, "{body}");
        }
        let long = format!(r#"{{"obol":1,"codec":"json","client":"{}"}}"#, "x".repeat(129));
        assert_eq!(refusal_of(&long).code(), InvalidClientName);
    }

    #[test]
    fn a_hello_may_grow() {
        let body = br#"{"obol":1,"codec":"json","client":"a/1","later":{"more":[]}}"#;
        assert!(ClientHello::decode(body).is_ok());
    }

    #[test]
    fn a_refusal_reaches_the_client_in_the_servers_words() {
        let refusal = refusal_of(r#"{"obol":9}"#);
        let error = hello(Codec::Json).answered(refusal.encode().unwrap().body()).unwrap_err();
        let expected =
            HelloError::Refused { code: "UNSUPPORTED_VERSION".into(), message: refusal.message().into() };
        assert_eq!(error, expected);
        assert!(error.to_string().contains("version 1, not 9"), "{error}");
    }

    #[test]
    fn a_server_may_fall_back_to_json_but_to_nothing_else() {
        let json = br#"{"obol":1,"codec":"json","server":"obol/1"}"#;
        assert_eq!(hello(Codec::Bincode).answered(json).unwrap().codec, Codec::Json);
        let bincode = br#"{"obol":1,"codec":"bincode","server":"obol/1"}"#;
        let error = hello(Codec::Json).answered(bincode).unwrap_err();
        assert_eq!(error, HelloError::UnexpectedCodec { asked: Codec::Json });
    }

    #[test]
    fn a_server_of_another_version_or_no_server_at_all_is_recognised() {
        let newer = br#"{"obol":2,"codec":"json","server":"obol/9"}"#;
        let error = hello(Codec::Json).answered(newer).unwrap_err();
        assert_eq!(error, HelloError::UnsupportedVersion { version: 2 });
        for body in [&b"HTTP/1.1 400 Bad Request"[..], b"{}", b"\xff", br#"{"obol":1,"codec":"json"}"#] {
            let error = hello(Codec::Json).answered(body).unwrap_err();
            assert!(matches!(error, HelloError::Malformed(_)), "{error}");
        }
    }

    proptest! {
        #[test]
        fn garbage_in_place_of_a_hello_never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ClientHello::decode(&body);
            let _ = hello(Codec::Json).answered(&body);
        }
    }
}
