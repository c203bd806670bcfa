//! The resource server's side: a tower layer, an axum extractor and a verification service.
