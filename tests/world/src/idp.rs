//! An identity provider as far as its security events go: it serves what it says of itself and its keys, and signs.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use obol_secret::text::to_base64url;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::now;

/// See the module's header. It serves until the process ends.
pub struct Idp {
    /// Its name.
    pub issuer: String,
    published: Arc<Mutex<String>>,
    key: Ed25519KeyPair,
}

impl Idp {
    /// One on this machine, which publishes its own key.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let x = to_base64url(key.public_key().as_ref());
        let own = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "own", "use": "sig", "x": x }] });
        let published = Arc::new(Mutex::new(own.to_string()));
        let (served, name) = (Arc::clone(&published), issuer.clone());
        std::thread::spawn(move || serve(&listener, &name, &served));
        Self { issuer, published, key }
    }

    /// Publishes these keys and no others.
    pub fn publish(&self, keys: &Value) {
        *self.published.lock().unwrap() = keys.to_string();
    }

    /// What a token says of somebody, for a service that is known as this.
    pub fn claims(&self, audience: &str, jti: &str, event: &str, about: &Value) -> Value {
        json!({
            "iss": self.issuer, "aud": audience, "jti": jti, "iat": now(), "sub_id": about,
            "events": { event: { "event_timestamp": now() } },
        })
    }

    /// A token of it, by its own key.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "EdDSA", "kid": "own", "typ": "secevent+jwt" });
        let part = |value: &Value| to_base64url(value.to_string().as_bytes());
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = to_base64url(self.key.sign(message.as_bytes()).as_ref());
        format!("{message}.{signature}")
    }
}

fn serve(listener: &TcpListener, issuer: &str, keys: &Mutex<String>) {
    for mut stream in listener.incoming().flatten() {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
            head.extend(byte);
        }
        let body = match head.starts_with(b"GET /.well-known/ssf-configuration ") {
            true => json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/jwks") }).to_string(),
            false => keys.lock().unwrap().clone(),
        };
        let length = body.len();
        let _gone = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
    }
}
