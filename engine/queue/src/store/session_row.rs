//! A session's row: a clear header, then the session document and its partitions, sealed.

use obol_token::SessionId;
use zeroize::Zeroizing;

use crate::keys::{NoRandomness, SealingKey};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 22;

/// What can be read without keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SessionHeader {
    /// A flush ended the session.
    pub(crate) is_flushed: bool,
    pub(crate) order: u64,
    pub(crate) expires_at: u64,
    pub(crate) slot: u32,
}

/// Where a grant's tokens lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PartitionPlace {
    pub(crate) id: u64,
    pub(crate) slot: u32,
}

/// What the sealed part holds: a place for each grant, in the document's order, and the document.
pub(crate) struct SealedSession {
    pub(crate) places: Vec<PartitionPlace>,
    pub(crate) document: Zeroizing<Vec<u8>>,
}

impl SessionHeader {
    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.push(VERSION);
        bytes.push(u8::from(self.is_flushed));
        bytes.extend_from_slice(&self.order.to_be_bytes());
        bytes.extend_from_slice(&self.expires_at.to_be_bytes());
        bytes.extend_from_slice(&self.slot.to_be_bytes());
        bytes.try_into().unwrap_or([0; HEADER_BYTES])
    }

    /// Splits a row; `None` where it is not one of ours.
    pub(crate) fn split(row: &[u8]) -> Option<(Self, &[u8])> {
        let (version, rest) = row.split_first()?;
        let (state, rest) = rest.split_first()?;
        let (order, rest) = rest.split_first_chunk()?;
        let (expires_at, rest) = rest.split_first_chunk()?;
        let (slot, sealed) = rest.split_first_chunk()?;
        let is_flushed = match (*version, *state) {
            (VERSION, 0) => false,
            (VERSION, 1) => true,
            _ => return None,
        };
        let header = Self {
            is_flushed,
            order: u64::from_be_bytes(*order),
            expires_at: u64::from_be_bytes(*expires_at),
            slot: u32::from_be_bytes(*slot),
        };
        Some((header, sealed))
    }

    /// The row of a session that was flushed: nothing but its header.
    pub(crate) fn tombstone(self) -> Vec<u8> {
        Self { is_flushed: true, ..self }.to_bytes().to_vec()
    }

    fn context(self, id: SessionId) -> Vec<u8> {
        [id.as_u64().to_be_bytes().as_slice(), &self.to_bytes()].concat()
    }

    /// Seals a whole row.
    pub(crate) fn seal(
        self,
        id: SessionId,
        key: &SealingKey,
        places: &[PartitionPlace],
        document: &[u8],
    ) -> Result<Vec<u8>, NoRandomness> {
        let count = u32::try_from(places.len()).unwrap_or(u32::MAX);
        let mut plaintext = Zeroizing::new(Vec::with_capacity(4 + 12 * places.len() + document.len()));
        plaintext.extend_from_slice(&count.to_be_bytes());
        for place in places {
            plaintext.extend_from_slice(&place.id.to_be_bytes());
            plaintext.extend_from_slice(&place.slot.to_be_bytes());
        }
        plaintext.extend_from_slice(document);
        let sealed = key.seal(&self.context(id), &plaintext)?;
        Ok([self.to_bytes().as_slice(), &sealed].concat())
    }

    /// Opens the sealed part; `None` where the session's keys were destroyed or the row is damaged.
    pub(crate) fn open(self, id: SessionId, key: &SealingKey, sealed: &[u8]) -> Option<SealedSession> {
        let plaintext = key.open(&self.context(id), sealed)?;
        let (count, rest) = plaintext.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
        let (places, document) = rest.split_at_checked(count.checked_mul(12)?)?;
        let (places, _) = places.as_chunks::<12>();
        let places = places
            .iter()
            .filter_map(|place| {
                let (id, slot) = place.split_first_chunk::<8>()?;
                let slot = <[u8; 4]>::try_from(slot).ok()?;
                Some(PartitionPlace { id: u64::from_be_bytes(*id), slot: u32::from_be_bytes(slot) })
            })
            .collect();
        Some(SealedSession { places, document: Zeroizing::new(document.to_vec()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SlotSecret;

    #[test]
    fn a_row_opens_only_for_its_session_and_unchanged() {
        let key = SealingKey::for_batches(
            &[0; 16],
            &SlotSecret([1; 32]),
            &SlotSecret([2; 32]),
            &SlotSecret([3; 32]),
            0,
        );
        let header = SessionHeader { is_flushed: false, order: 1, expires_at: 2, slot: 3 };
        let places = [PartitionPlace { id: 9, slot: 4 }, PartitionPlace { id: 10, slot: 5 }];
        let row = header.seal(SessionId::from_u64(7), &key, &places, b"{}").unwrap();
        let (read, sealed) = SessionHeader::split(&row).unwrap();
        assert_eq!(read, header);
        let opened = read.open(SessionId::from_u64(7), &key, sealed).unwrap();
        assert_eq!(
            (opened.places.as_slice(), opened.document.as_slice()),
            (places.as_slice(), b"{}".as_slice())
        );
        assert!(read.open(SessionId::from_u64(8), &key, sealed).is_none());
        assert!(
            SessionHeader { expires_at: 99, ..read }.open(SessionId::from_u64(7), &key, sealed).is_none()
        );
        assert!(SessionHeader::split(&row[..20]).is_none());
    }
}
