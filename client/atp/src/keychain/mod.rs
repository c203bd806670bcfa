//! Where tokens and secrets are kept: the desktop's Secret Service, the kernel's keyring, or sealed files. One is chosen, at first
//! use, and it is said which.
//!
//! | `keychain` | outlives | chosen by `auto` |
//! |---|---|---|
//! | `secret-service` | a restart of the machine | where it answers within two seconds and is not locked; nobody is ever asked anything |
//! | `kernel` | no restart; three days without use at most | never |
//! | `file` | a restart of the machine | else |

mod file;
mod kernel;
#[cfg(feature = "secret-service")]
mod secret_service;

use core::str::FromStr;
use std::sync::Arc;

use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::entry::Entry;
use crate::error::AtpError;
use crate::state::State;
use file::SealedFiles;
use kernel::KernelKeyring;

/// The service that entries are filed under, as other clients of the protocol do.
const SERVICE: &str = "agentdom";
/// Remembers which one was used last.
const CHOSEN: &str = "keychain";

/// Which keychain is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum KeychainChoice {
    /// The Secret Service where it can be used, else sealed files.
    #[default]
    Auto,
    /// The Secret Service, or an error.
    SecretService,
    /// The kernel's keyring, or an error. Holds tokens, and no secrets.
    Kernel,
    /// Sealed files in the agent's folder.
    File,
}

impl FromStr for KeychainChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "secret-service" => Ok(Self::SecretService),
            "kernel" => Ok(Self::Kernel),
            "file" => Ok(Self::File),
            _ => Err("a keychain is auto, secret-service, kernel or file"),
        }
    }
}

/// The one that is used.
enum Chosen {
    #[cfg(feature = "secret-service")]
    SecretService(secret_service::SecretService),
    Kernel(KernelKeyring),
    File,
}

/// Keeps tokens and secrets.
pub(crate) struct Keychain {
    choice: KeychainChoice,
    state: State,
    files: Arc<SealedFiles>,
    chosen: OnceCell<Chosen>,
}

impl core::fmt::Debug for Keychain {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Keychain").field("choice", &self.choice).finish_non_exhaustive()
    }
}

impl Keychain {
    pub(crate) fn open(choice: KeychainChoice, state: State) -> Result<Self, AtpError> {
        let files = Arc::new(SealedFiles::open(state.clone())?);
        Ok(Self { choice, state, files, chosen: OnceCell::new() })
    }

    async fn chosen(&self) -> Result<&Chosen, AtpError> {
        self.chosen.get_or_try_init(|| self.choose()).await
    }

    async fn choose(&self) -> Result<Chosen, AtpError> {
        let chosen = match self.choice {
            KeychainChoice::File => Chosen::File,
            KeychainChoice::Kernel => Chosen::Kernel(KernelKeyring::open()?),
            KeychainChoice::SecretService => self.secret_service().await.map_err(AtpError::Keychain)?,
            KeychainChoice::Auto => match self.secret_service().await {
                Ok(service) => service,
                Err(why) => {
                    self.say_file(&why)?;
                    return Ok(Chosen::File);
                }
            },
        };
        let name = chosen.name();
        if self.is_news(name)? {
            match chosen {
                Chosen::Kernel(_) => tracing::warn!(
                    "tokens are kept in the kernel's keyring: they are gone when this machine starts again"
                ),
                _ => tracing::info!(keychain = name, "tokens are kept there"),
            }
        }
        Ok(chosen)
    }

    fn say_file(&self, why: &str) -> Result<(), AtpError> {
        if self.is_news("file")? {
            tracing::warn!(
                folder = %self.state.path("").display(),
                "tokens are kept in sealed files in this folder, whose key lies beside them: who copies the whole folder has them. The \
                 Secret Service would be better; {why}"
            );
        }
        Ok(())
    }

    /// Whether another one was used before.
    fn is_news(&self, name: &str) -> Result<bool, AtpError> {
        if self.state.read(CHOSEN)?.as_deref() == Some(name) {
            return Ok(false);
        }
        self.state.replace(CHOSEN, format!("{name}\n").as_bytes())?;
        Ok(true)
    }

    #[cfg(feature = "secret-service")]
    async fn secret_service(&self) -> Result<Chosen, String> {
        secret_service::SecretService::connect().await.map(Chosen::SecretService)
    }

    #[cfg(not(feature = "secret-service"))]
    async fn secret_service(&self) -> Result<Chosen, String> {
        core::future::ready(Err("this build cannot speak to it".to_owned())).await
    }

    /// Which one it is.
    pub(crate) async fn name(&self) -> Result<&'static str, AtpError> {
        Ok(self.chosen().await?.name())
    }

    /// The token that is kept for an account.
    pub(crate) async fn entry(&self, account: &str) -> Result<Option<Entry>, AtpError> {
        let Some(bytes) = self.get(account).await? else { return Ok(None) };
        let damaged = || {
            AtpError::Keychain(format!(
                "the entry {account} of the keychain is not a token of ours; remove it"
            ))
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|_| damaged())
    }

    pub(crate) async fn get(&self, account: &str) -> Result<Option<Zeroizing<Vec<u8>>>, AtpError> {
        match self.chosen().await? {
            #[cfg(feature = "secret-service")]
            Chosen::SecretService(service) => service.get(account).await,
            Chosen::Kernel(ring) => ring.get(account),
            Chosen::File => self.files.get(account),
        }
    }

    pub(crate) async fn set(&self, account: &str, value: &[u8]) -> Result<(), AtpError> {
        match self.chosen().await? {
            #[cfg(feature = "secret-service")]
            Chosen::SecretService(service) => service.set(account, value).await,
            Chosen::Kernel(ring) => ring.set(account, value),
            Chosen::File => self.files.set(account, value),
        }
    }

    pub(crate) async fn delete(&self, account: &str) -> Result<(), AtpError> {
        match self.chosen().await? {
            #[cfg(feature = "secret-service")]
            Chosen::SecretService(service) => service.delete(account).await,
            Chosen::Kernel(ring) => ring.delete(account),
            Chosen::File => self.files.delete(account),
        }
    }

    /// A secret; never from the kernel's keyring, which forgets.
    pub(crate) async fn secret(&self, account: &str) -> Result<Option<Zeroizing<Vec<u8>>>, AtpError> {
        match self.chosen().await? {
            Chosen::Kernel(_) => self.files.get(account),
            _ => self.get(account).await,
        }
    }

    /// Keeps a secret; where.
    pub(crate) async fn set_secret(&self, account: &str, value: &[u8]) -> Result<&'static str, AtpError> {
        match self.chosen().await? {
            Chosen::Kernel(_) => self.files.set(account, value).map(|()| Chosen::File.name()),
            chosen => self.set(account, value).await.map(|()| chosen.name()),
        }
    }

    /// What must not depend on what is chosen next time.
    pub(crate) fn files(&self) -> &SealedFiles {
        &self.files
    }
}

impl Chosen {
    fn name(&self) -> &'static str {
        match self {
            #[cfg(feature = "secret-service")]
            Self::SecretService(_) => "secret-service",
            Self::Kernel(_) => "kernel",
            Self::File => "file",
        }
    }
}
