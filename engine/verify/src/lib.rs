//! Offline verification of single-use tokens: the cascade, the session table and the spent set.
