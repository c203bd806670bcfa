//! Tokens that were given back here and whose providers could not be told yet. They lie in sealed files, whatever the keychain is,
//! until the provider has answered or the token has ended.

use obol_atp::Host;

use super::{Client, now_ms};
use crate::entry::{Entry, Method};
use crate::error::AtpError;

/// The account of a host's tombstones, before its name.
const TOMBSTONES: &str = "__atp_revoke__:";
/// The most tombstones of one host; what ends first makes room.
const MAX_TOMBSTONES: usize = 64;

impl Client {
    /// Leaves a tombstone. The caller holds the host's lock.
    pub(super) fn bequeath(&self, host: &Host, entry: Entry) -> Result<(), AtpError> {
        let mut left = self.tombstones(host)?;
        left.push(entry);
        left.sort_by_key(|entry| core::cmp::Reverse(entry.expires_at));
        if left.len() > MAX_TOMBSTONES {
            tracing::warn!(%host, "so many tokens could not be revoked that the one that ends first is left to end");
            left.truncate(MAX_TOMBSTONES);
        }
        self.set_tombstones(host, &left)
    }

    /// Revokes what could not be revoked before; whether nothing is left. The caller holds the host's lock.
    pub(crate) async fn bury(&self, host: &Host) -> Result<bool, AtpError> {
        let before = self.tombstones(host)?;
        if before.is_empty() {
            return Ok(true);
        }
        let mut left = Vec::new();
        let mut can_reach = true;
        for entry in before {
            if entry.expires_at < now_ms() {
                continue;
            }
            let told = can_reach && self.send_revocation(host, &entry).await.unwrap_or(false);
            can_reach = told;
            if !told {
                left.push(entry);
            }
        }
        self.set_tombstones(host, &left)?;
        Ok(left.is_empty())
    }

    pub(super) async fn send_revocation(&self, host: &Host, entry: &Entry) -> Result<bool, AtpError> {
        let found = self.discover(host).await?;
        match entry.method {
            Method::Signed => {
                let endpoints = found.signed.ok_or(AtpError::NotOffered)?;
                self.revoke_signed(host, &endpoints, &entry.access_token).await
            }
            Method::Master => {
                let routes = found.master.ok_or(AtpError::NotOffered)?;
                self.revoke_by_master(host, &routes, &entry.token_id).await
            }
        }
    }

    fn tombstones(&self, host: &Host) -> Result<Vec<Entry>, AtpError> {
        let account = format!("{TOMBSTONES}{host}");
        let Some(bytes) = self.0.keychain.files().get(&account)? else { return Ok(Vec::new()) };
        serde_json::from_slice(&bytes)
            .map_err(|_| AtpError::Keychain(format!("the list of tokens of {host} to be revoked is damaged")))
    }

    fn set_tombstones(&self, host: &Host, left: &[Entry]) -> Result<(), AtpError> {
        let account = format!("{TOMBSTONES}{host}");
        // First where they are, then that there are some: what is listed and not there does no harm.
        if left.is_empty() {
            self.0.keychain.files().delete(&account)?;
        } else {
            let bytes = serde_json::to_vec(left).map_err(|error| AtpError::System(error.to_string()))?;
            self.0.keychain.files().set(&account, &zeroize::Zeroizing::new(bytes))?;
        }
        self.0.state.change_hosts(|hosts| {
            if left.is_empty() {
                hosts.revocations.remove(&host.to_string());
            } else {
                hosts.revocations.insert(host.to_string());
            }
        })
    }
}
