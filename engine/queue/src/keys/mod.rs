//! The master key: what everything at rest hangs on.

use zeroize::Zeroizing;

obol_secret::key! {
    /// What everything at rest is sealed under.
    MasterKey
}

impl MasterKey {
    /// A key for one purpose outside the queue. It tells nothing about the master key nor about other purposes' keys.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        self.0.derive(purpose)
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }
}
