//! What both sides say in clear before any key is used, and the prologue that binds it to the transcript.

use obol_token::Suite;

use crate::error::HandshakeError;
use crate::keys::KeyId;

/// The only version of the handshake.
pub(crate) const VERSION: u8 = 1;

/// The longest origin of a service, in bytes of UTF-8.
pub const MAX_ORIGIN_BYTES: usize = 512;

/// What precedes the header in the prologue.
const LABEL: &[u8] = b"obol-handshake-v1\0";

/// What a handshake is for. The number is in the transcript, so that a proof made for one purpose is refused on the
/// route of another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Purpose {
    /// 1: an agent opens a session.
    Session,
    /// 2: an agent registers.
    Register,
    /// 3: a resource server joins.
    Join,
    /// 4: an agent's stream of events.
    AgentStream,
    /// 5: a resource server's stream of sessions, revocations and epochs.
    ResourceStream,
    /// 6: an agent asks a human to approve a call.
    Approval,
    /// 7: an agent replaces its identity key.
    RotateKey,
    /// 8: an agent ends its registration.
    Deregister,
    /// 9: an operator elsewhere asks to be let in, or leaves.
    Login,
    /// 10: an operator elsewhere, who was let in, asks for something.
    Operate,
}

impl Purpose {
    /// Every purpose, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Session,
        Self::Register,
        Self::Join,
        Self::AgentStream,
        Self::ResourceStream,
        Self::Approval,
        Self::RotateKey,
        Self::Deregister,
        Self::Login,
        Self::Operate,
    ];

    /// The number on the wire, 1 to 10.
    pub const fn number(self) -> u8 {
        match self {
            Self::Session => 1,
            Self::Register => 2,
            Self::Join => 3,
            Self::AgentStream => 4,
            Self::ResourceStream => 5,
            Self::Approval => 6,
            Self::RotateKey => 7,
            Self::Deregister => 8,
            Self::Login => 9,
            Self::Operate => 10,
        }
    }

    /// The purpose with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.number() == number)
    }
}

/// The suites a client can speak: a set of [`Suite`], on the wire one bit for each, the lowest for suite 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SuiteOffer(u8);

impl SuiteOffer {
    /// The set of `suites`.
    pub fn of(suites: &[Suite]) -> Self {
        Self(suites.iter().fold(0, |mask, suite| mask | Self::bit(*suite)))
    }

    /// Whether `suite` is in it.
    pub const fn has(self, suite: Suite) -> bool {
        self.0 & Self::bit(suite) != 0
    }

    const fn bit(suite: Suite) -> u8 {
        1 << (suite.number() - 1)
    }
}

/// The first 12 bytes of message A.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the handshake is for.
    pub purpose: Purpose,
    /// The suite that the client starts with.
    pub suite: Suite,
    /// All suites that the client could speak. Bits of suites that do not exist yet stay as they came.
    pub offer: SuiteOffer,
    /// Which of the service's static keys the client means.
    pub authority_key: KeyId,
}

impl Header {
    /// Bytes of a header.
    pub const BYTES: usize = 12;

    /// Reads a header.
    ///
    /// # Errors
    ///
    /// On another version, an unknown purpose or suite, or a suite that is not in the offer.
    pub fn read(bytes: &[u8; Self::BYTES]) -> Result<Self, HandshakeError> {
        let [version, purpose, suite, offer, authority_key @ ..] = *bytes;
        if version != VERSION {
            return Err(HandshakeError::Version(version));
        }
        let purpose = Purpose::from_number(purpose).ok_or(HandshakeError::Purpose(purpose))?;
        let offer = SuiteOffer(offer);
        let suite = Suite::from_number(suite)
            .filter(|suite| offer.has(*suite))
            .ok_or(HandshakeError::Suite(suite))?;
        Ok(Self { purpose, suite, offer, authority_key: KeyId(authority_key) })
    }

    /// The header as it is sent.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let [k0, k1, k2, k3, k4, k5, k6, k7] = self.authority_key.0;
        [VERSION, self.purpose.number(), self.suite.number(), self.offer.0, k0, k1, k2, k3, k4, k5, k6, k7]
    }
}

/// What both sides must agree on before the first message, as far as it is not a key: the header, and the name of the
/// service as the client knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prologue {
    header: Header,
    origin: String,
}

impl Prologue {
    /// Puts a prologue together. `origin` is that of the service, such as `https://as.example`, byte for byte.
    ///
    /// # Errors
    ///
    /// If the origin is empty or longer than [`MAX_ORIGIN_BYTES`], or the suite is not in the offer.
    pub fn new(header: Header, origin: &str) -> Result<Self, HandshakeError> {
        if origin.is_empty() || origin.len() > MAX_ORIGIN_BYTES {
            return Err(HandshakeError::Origin);
        }
        if !header.offer.has(header.suite) {
            return Err(HandshakeError::Suite(header.suite.number()));
        }
        Ok(Self { header, origin: origin.to_owned() })
    }

    /// The header in it.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// `obol-handshake-v1` ‖ 00 ‖ header ‖ u16 BE length of the origin ‖ origin.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let length = u16::try_from(self.origin.len()).unwrap_or(u16::MAX); // `new` bounds it
        [LABEL, &self.header.to_bytes(), &length.to_be_bytes(), self.origin.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_as_it_was_written() {
        for purpose in Purpose::ALL {
            for suite in Suite::ALL {
                let header = Header {
                    purpose,
                    suite,
                    offer: SuiteOffer::of(&Suite::ALL),
                    authority_key: KeyId([9; 8]),
                };
                assert_eq!(Header::read(&header.to_bytes()), Ok(header));
            }
        }
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let good = Header {
            purpose: Purpose::Session,
            suite: Suite::AesGcm,
            offer: SuiteOffer::of(&[Suite::AesGcm, Suite::Tbac]),
            authority_key: KeyId([0; 8]),
        }
        .to_bytes();
        let with = |place: usize, byte: u8| {
            let mut bytes = good;
            bytes[place] = byte;
            Header::read(&bytes).unwrap_err()
        };
        assert_eq!(with(0, 2), HandshakeError::Version(2));
        assert_eq!(with(1, 0), HandshakeError::Purpose(0));
        assert_eq!(with(1, 11), HandshakeError::Purpose(11));
        assert_eq!(with(2, 5), HandshakeError::Suite(5));
        assert_eq!(with(2, 4), HandshakeError::Suite(4), "not offered");
    }

    #[test]
    fn prologues_that_differ_anywhere_have_different_bytes() {
        let header = |suite, offer| Header {
            purpose: Purpose::Session,
            suite,
            offer: SuiteOffer::of(offer),
            authority_key: KeyId([1; 8]),
        };
        let bytes = |header, origin| Prologue::new(header, origin).unwrap().to_bytes();
        let all = [
            bytes(header(Suite::Tbac, &[Suite::Tbac]), "https://as.example"),
            bytes(header(Suite::Tbac, &Suite::ALL), "https://as.example"),
            bytes(header(Suite::AesGcm, &Suite::ALL), "https://as.example"),
            bytes(header(Suite::AesGcm, &Suite::ALL), "https://as.example:8443"),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
