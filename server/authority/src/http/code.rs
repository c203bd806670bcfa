//! The codes of what is refused in clear. Programs may depend on them, so they never change.

use http::StatusCode;

macro_rules! codes {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal, $status:ident; )+) => {
        /// Why a request was refused in clear: a problem document has it as `code`, an answer about a stream of events as `err`.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[non_exhaustive]
        pub enum ProblemCode { $( $(#[$doc])* $variant, )+ }

        impl ProblemCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )+];

            /// The stable name.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $name, )+ }
            }

            pub(super) const fn status(self) -> StatusCode {
                match self { $( Self::$variant => StatusCode::$status, )+ }
            }
        }
    };
}

codes! {
    /// The message is not as it must be.
    Malformed = "MALFORMED", BAD_REQUEST;
    /// The header with the token to ask with is missing.
    PollToken = "POLL_TOKEN", UNAUTHORIZED;
    /// No receiver has this token.
    Unauthorized = "UNAUTHORIZED", UNAUTHORIZED;
    /// No such route.
    NotFound = "NOT_FOUND", NOT_FOUND;
    /// No such registration.
    NoSuchRegistration = "NO_SUCH_REGISTRATION", NOT_FOUND;
    /// No such request for a human's yes.
    NoSuchApproval = "NO_SUCH_APPROVAL", NOT_FOUND;
    /// No such stream.
    NoSuchStream = "NO_SUCH_STREAM", NOT_FOUND;
    /// The route knows no such method.
    Method = "METHOD", METHOD_NOT_ALLOWED;
    /// The message took too long.
    TooSlow = "TOO_SLOW", REQUEST_TIMEOUT;
    /// The service does not speak the suite.
    Suite = "SUITE", CONFLICT;
    /// The handshake took too long.
    CookieExpired = "COOKIE_EXPIRED", CONFLICT;
    /// The handshake was used for another message.
    HandshakeUsed = "HANDSHAKE_USED", CONFLICT;
    /// The receiver has a stream already.
    TooManyStreams = "TOO_MANY_STREAMS", CONFLICT;
    /// The message is too long.
    TooLarge = "TOO_LARGE", PAYLOAD_TOO_LARGE;
    /// Not the content type of handshakes.
    ContentType = "CONTENT_TYPE", UNSUPPORTED_MEDIA_TYPE;
    /// The message is for another key than the service's.
    UnknownAuthorityKey = "UNKNOWN_AUTHORITY_KEY", MISDIRECTED_REQUEST;
    /// The request names another machine, on a loopback address.
    ForeignHost = "FOREIGN_HOST", MISDIRECTED_REQUEST;
    /// Too many requests from there.
    TooMany = "TOO_MANY", TOO_MANY_REQUESTS;
    /// Asked again too soon.
    SlowDown = "SLOW_DOWN", TOO_MANY_REQUESTS;
    /// Too much to do for everybody.
    Overloaded = "OVERLOADED", SERVICE_UNAVAILABLE;
    /// It cannot be done now.
    Unavailable = "UNAVAILABLE", SERVICE_UNAVAILABLE;
}

impl ProblemCode {
    /// The status it comes with.
    pub const fn http_status(self) -> u16 {
        self.status().as_u16()
    }
}
