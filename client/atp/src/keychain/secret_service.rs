//! The desktop's Secret Service over the session bus: gnome-keyring, KWallet, KeePassXC. Nobody is asked to unlock anything: what is
//! locked is not used.

use core::time::Duration;
use std::collections::HashMap;

use secret_service::{EncryptionType, Item, SecretService as Service};
use zeroize::Zeroizing;

use super::SERVICE;
use crate::error::AtpError;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct SecretService(Service<'static>);

impl SecretService {
    /// Connects, or says why not.
    pub(super) async fn connect() -> Result<Self, String> {
        let connect = async {
            let service = Service::connect(EncryptionType::Dh).await?;
            let is_locked = service.get_default_collection().await?.is_locked().await?;
            Ok::<_, secret_service::Error>((service, is_locked))
        };
        match tokio::time::timeout(PATIENCE, connect).await {
            Err(_) => Err("it does not answer".to_owned()),
            Ok(Err(error)) => Err(format!("it cannot be used: {error}")),
            Ok(Ok((_, true))) => Err("it is locked".to_owned()),
            Ok(Ok((service, false))) => Ok(Self(service)),
        }
    }

    pub(super) async fn get(&self, account: &str) -> Result<Option<Zeroizing<Vec<u8>>>, AtpError> {
        within(async {
            match self.find(account).await?.first() {
                Some(item) => Ok(Some(Zeroizing::new(item.get_secret().await?))),
                None => Ok(None),
            }
        })
        .await
    }

    pub(super) async fn set(&self, account: &str, value: &[u8]) -> Result<(), AtpError> {
        within(async {
            let collection = self.0.get_default_collection().await?;
            collection.ensure_unlocked().await?;
            let label = format!("{SERVICE} {account}");
            collection.create_item(&label, attributes(account), value, true, "text/plain").await.map(drop)
        })
        .await?;
        // A service that says yes and keeps nothing would lose a token without a word.
        if self.get(account).await?.is_some_and(|kept| kept.as_slice() == value) {
            return Ok(());
        }
        Err(AtpError::Keychain("the Secret Service did not keep what it was given".to_owned()))
    }

    pub(super) async fn delete(&self, account: &str) -> Result<(), AtpError> {
        within(async {
            for item in self.find(account).await? {
                item.delete().await?;
            }
            Ok(())
        })
        .await
    }

    async fn find(&self, account: &str) -> Result<Vec<Item<'_>>, secret_service::Error> {
        let found = self.0.search_items(attributes(account)).await?;
        if found.unlocked.is_empty() && !found.locked.is_empty() {
            return Err(secret_service::Error::Locked);
        }
        Ok(found.unlocked)
    }
}

fn attributes(account: &str) -> HashMap<&str, &str> {
    HashMap::from([("service", SERVICE), ("account", account)])
}

async fn within<T>(work: impl Future<Output = Result<T, secret_service::Error>>) -> Result<T, AtpError> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(outcome) => {
            outcome.map_err(|error| AtpError::Keychain(format!("the Secret Service cannot be used: {error}")))
        }
        Err(_) => Err(AtpError::Keychain("the Secret Service does not answer".to_owned())),
    }
}
