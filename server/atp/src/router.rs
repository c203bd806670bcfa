//! The routes under `E`, and the discovery document.

use core::fmt;
use core::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, delete, get, post};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderValue, Method, StatusCode};
use obol_atp::discovery::WELL_KNOWN;
use obol_atp::{AtpEndpoint, AtpErrorCode, AtpScope};

use crate::audit::About;
use crate::builder::{BuildError, Builder};
use crate::denied::{Denied, json};
use crate::metrics::{Route, Seen};
use crate::provider::Provider;
use crate::request;
use crate::require::RequireLayer;
use crate::secrets::SecretBook;

/// Who is at the other end of the connection, for rates and the audit log. An embedding server may set it as an extension of
/// requests; axum's `ConnectInfo` is understood as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer(pub SocketAddr);

/// A provider's routes. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    pub(crate) provider: Arc<Provider>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("endpoint", &self.provider.endpoint).finish_non_exhaustive()
    }
}

impl Router {
    /// Begins a provider whose token endpoint agents see at `endpoint`.
    pub fn builder(endpoint: AtpEndpoint) -> Builder {
        Builder::new(endpoint)
    }

    /// A layer that lets a request through only with a token for this scope.
    ///
    /// # Panics
    /// If the text is not a scope: no token could ever have it.
    #[must_use]
    #[allow(clippy::panic, reason = "a mistake in the program, found when it starts")]
    pub fn require(&self, scope: &str) -> RequireLayer {
        let Ok(scope) = AtpScope::new(scope) else { panic!("{scope:?} is not a scope") };
        RequireLayer { provider: Arc::clone(&self.provider), scope: scope.as_str().into() }
    }

    /// The route of the discovery document, to be merged into the API's own server.
    pub fn well_known(&self) -> axum::Router {
        axum::Router::new().route(WELL_KNOWN, get(document)).with_state(Arc::clone(&self.provider))
    }

    /// Takes another list of who may ask; tokens of agents and masters that are gone end with it. Blocks until the store has it.
    ///
    /// # Errors
    /// [`BuildError`] if a secret is also a JWT key, or the store cannot remember what is over from now on.
    pub fn reload(&self, mut secrets: SecretBook) -> Result<(), BuildError> {
        let provider = &self.provider;
        provider.store.admit(&mut secrets, provider.key_policy, provider.time.now())?;
        *provider.secrets.write() = Arc::new(secrets);
        Ok(())
    }

    /// Forgets what has ended and makes a new JWT key when it is time. Call it every minute.
    pub async fn maintain(&self) {
        if self.provider.store.maintain(self.provider.time.now()).await.is_err() {
            tracing::error!("the token store cannot be written; nothing is issued until a restart");
        }
    }

    /// Why no token can be issued, if none can: `token_store`, `audit_log` or `spent_set`.
    pub fn not_ready(&self) -> Option<&'static str> {
        self.provider.not_ready()
    }

    /// Metrics in the text format of Prometheus.
    pub fn metrics(&self) -> String {
        let provider = &self.provider;
        provider.metrics.render(&Seen {
            tokens_live: provider.store.kept().tokens.live(),
            replay_marks: provider.spent.marks(),
            not_ready: provider.not_ready(),
            audit: provider.auditor.seen(),
        })
    }

    /// The path that the routes belong under.
    pub fn path(&self) -> &str {
        self.provider.endpoint.path()
    }
}

/// The routes below `E`, to be nested there.
impl From<Router> for axum::Router {
    fn from(router: Router) -> Self {
        let signed = axum::Router::<Arc<Provider>>::new()
            .route("/", any(root))
            .route("/verify", any(verify))
            .route("/revoke", any(revoke))
            .route("/jwks.json", get(key_set));
        let routes = if router.provider.signed_only {
            signed
        } else {
            signed
                .route("/issue", post(master_issue))
                .route("/{id}/rotate", post(master_rotate))
                .route("/{id}", delete(master_revoke))
        };
        routes
            .fallback(|| async { Denied::new(AtpErrorCode::NotFound, "no such route") })
            .method_not_allowed_fallback(|| async { Denied::method("POST, DELETE") })
            .with_state(router.provider)
    }
}

type Shared = State<Arc<Provider>>;

/// Counts a request, holds its address to its rate, reads its body, and audits what it is refused for.
async fn handled<F>(provider: &Provider, route: Route, request: Request, work: F) -> Response
where
    F: AsyncFnOnce(&http::HeaderMap, &[u8], &mut About) -> Result<Response, Denied>,
{
    let start = Instant::now();
    let mut about = About { address: request::address(&request), ..About::default() };
    let (parts, body) = request.into_parts();
    let outcome = match provider.limit_address(about.address) {
        Err(denied) => Err(denied),
        Ok(()) => match request::body(body).await {
            Err(denied) => Err(denied),
            Ok(body) => work(&parts.headers, &body, &mut about).await,
        },
    };
    provider.metrics.count(route, outcome.as_ref().err().map(|denied| denied.code), start.elapsed());
    outcome.unwrap_or_else(|denied| {
        tracing::debug!(code = %denied.code, "refused");
        provider.auditor.refused(&denied, &about);
        denied.into_response()
    })
}

async fn root(State(provider): Shared, request: Request) -> Response {
    match *request.method() {
        Method::POST => {
            handled(&provider, Route::Issue, request, async |headers, body, about| {
                provider.issue(headers, body, about).await
            })
            .await
        }
        Method::GET if !provider.signed_only => {
            handled(&provider, Route::MasterList, request, async |headers, _, about| {
                provider.master_list(headers, about)
            })
            .await
        }
        _ => {
            handled(&provider, Route::Other, request, async |_, _, _| {
                Err(Denied::method(if provider.signed_only { "POST" } else { "GET, POST" }))
            })
            .await
        }
    }
}

async fn verify(State(provider): Shared, request: Request) -> Response {
    let is_post = request.method() == Method::POST;
    handled(&provider, Route::Verify, request, async |headers, body, about| {
        if is_post { provider.verify(headers, body, about).await } else { Err(Denied::method("POST")) }
    })
    .await
}

async fn revoke(State(provider): Shared, request: Request) -> Response {
    let is_post = request.method() == Method::POST;
    handled(&provider, Route::Revoke, request, async |headers, body, about| {
        if is_post { provider.revoke(headers, body, about).await } else { Err(Denied::method("POST")) }
    })
    .await
}

async fn key_set(State(provider): Shared) -> Response {
    json(StatusCode::OK, &provider.store.kept().keys.key_set())
}

async fn master_issue(State(provider): Shared, request: Request) -> Response {
    handled(&provider, Route::MasterIssue, request, async |headers, body, about| {
        provider.master_issue(headers, body, about).await
    })
    .await
}

async fn master_rotate(State(provider): Shared, Path(id): Path<String>, request: Request) -> Response {
    handled(&provider, Route::MasterRotate, request, async |headers, _, about| {
        provider.master_rotate(headers, &id, about).await
    })
    .await
}

async fn master_revoke(State(provider): Shared, Path(id): Path<String>, request: Request) -> Response {
    handled(&provider, Route::MasterRevoke, request, async |headers, _, about| {
        provider.master_revoke(headers, &id, about).await
    })
    .await
}

async fn document(State(provider): Shared, request: Request) -> Response {
    let etag = HeaderValue::try_from(&provider.etag).unwrap_or(HeaderValue::from_static("\"\""));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
        (ETAG, etag.clone()),
    ];
    if request.headers().get(IF_NONE_MATCH) == Some(&etag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, provider.document.clone()).into_response()
}
