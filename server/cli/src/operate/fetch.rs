//! `obol fetch`: one request with a token, as an agent.

use core::time::Duration;
use std::fs::File;
use std::io::{Read as _, Write as _};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use obol_agent::{Agent, AgentBuilder, Approval, CallOptions, Code, Error, Redirect, ResponseBody, read_url};

use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::routes::routes;
use crate::settings::args::fetch::{AgentSockets, FetchArgs, WhetherAsked};

/// The longest body that is sent, in bytes.
const MAX_BODY_BYTES: u64 = 16 << 20;

/// `obol fetch`.
pub(crate) fn run(args: &FetchArgs) -> Outcome {
    let request = request(args)?;
    let options = options(args);
    output::must_be_open()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let agent = connect(args).await?;
        let response = agent.fetch_with(request, &options).await?;
        print(args, response).await
    });
    runtime.shutdown_background();
    outcome
}

async fn connect(args: &FetchArgs) -> Outcome<Agent> {
    let mut builder = builder(&args.sockets);
    if let Some(file) = &args.ca_file {
        builder = builder.ca_file(file);
    }
    if let Some(file) = &args.routes {
        builder = builder.routes(routes(file)?);
    }
    Ok(builder.connect().await?)
}

/// An agent at these sockets.
pub(super) fn builder(sockets: &AgentSockets) -> AgentBuilder {
    let mut builder = Agent::builder().name(concat!("obol-cli/", env!("CARGO_PKG_VERSION")));
    if let Some(socket) = &sockets.socket {
        builder = builder.socket(socket);
    }
    if let Some(socket) = &sockets.auth_socket {
        builder = builder.auth_socket(socket);
    }
    builder
}

/// How a human is asked.
fn approval(args: &FetchArgs) -> Approval {
    let mut approval = Approval::wait().show_arguments(!args.no_show_arguments);
    if let Some(purpose) = &args.purpose {
        approval = approval.purpose(purpose);
    }
    if let Some(resource) = &args.resource {
        approval = approval.resource(resource);
    }
    let approval = args.action.iter().fold(approval, Approval::action);
    if args.always { approval.always() } else { approval }
}

fn request(args: &FetchArgs) -> Outcome<Request<Vec<u8>>> {
    let body = args.data.as_deref().map(data).transpose()?;
    let method = match (args.method.as_deref(), &body) {
        (Some(method), _) => method.parse::<Method>().map_err(Failure::usage)?,
        (None, Some(_)) => Method::POST,
        (None, None) => Method::GET,
    };
    let mut request = Request::builder().method(method).uri(read_url(&args.url)?);
    for header in &args.header {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| Failure::usage(format_args!("--header {header:?} is not NAME: VALUE")))?;
        request = request.header(name.trim(), value.trim());
    }
    let has_body = body.is_some();
    let mut request = request.body(body.unwrap_or_default()).map_err(Failure::usage)?;
    if has_body {
        request.headers_mut().entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    Ok(request)
}

/// A body that is text, or is in a file.
fn data(said: &str) -> Outcome<Vec<u8>> {
    let Some(file) = said.strip_prefix('@') else { return Ok(said.as_bytes().to_vec()) };
    let wrong = |why: &dyn core::fmt::Display| Failure::usage(format_args!("the body in {file}: {why}"));
    let mut bytes = Vec::new();
    let read = match file {
        "-" => std::io::stdin().lock().take(MAX_BODY_BYTES + 1).read_to_end(&mut bytes),
        _ => File::open(file).and_then(|file| file.take(MAX_BODY_BYTES + 1).read_to_end(&mut bytes)),
    };
    read.map_err(|error| wrong(&error))?;
    if bytes.len() as u64 > MAX_BODY_BYTES {
        return Err(wrong(&format_args!("longer than {MAX_BODY_BYTES} bytes")));
    }
    Ok(bytes)
}

fn options(args: &FetchArgs) -> CallOptions {
    let mut options = CallOptions::new().timeout(Duration::from_secs(args.timeout));
    if let Some(tool) = &args.tool {
        options = options.tool(tool);
    }
    if let Some(audience) = &args.audience {
        options = options.audience(audience);
    }
    if let Some(key) = &args.idempotency_key {
        options = options.idempotency_key(key);
    }
    if args.approval == WhetherAsked::Wait {
        options = options.approval(approval(args));
    }
    if let Some(id) = &args.approval_id {
        options = options.approval_id(id);
    }
    options.redirect(if args.no_redirect { Redirect::Manual } else { Redirect::Follow })
}

/// The body goes to standard output as it comes; the exit code says what the status means.
async fn print(args: &FetchArgs, response: Response<ResponseBody>) -> Outcome {
    let (parts, mut body) = response.into_parts();
    let mut to = std::io::stdout().lock();
    if args.include {
        write!(to, "HTTP/1.1 {}\r\n", parts.status)?;
        for (name, value) in &parts.headers {
            write!(to, "{name}: ")?;
            to.write_all(value.as_bytes())?;
            to.write_all(b"\r\n")?;
        }
        to.write_all(b"\r\n")?;
    }
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            to.write_all(&data)?;
        }
    }
    to.flush()?;
    let status = parts.status;
    let exit = match status {
        _ if status.as_u16() < 400 => return Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Denied,
        StatusCode::SERVICE_UNAVAILABLE => Exit::Unavailable,
        _ => Exit::Other,
    };
    Err(Failure::new(exit, format_args!("the server answered {status}")))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(exit_of(error.code()), error.message()).named(error.code().as_str(), error.retry_after())
    }
}

fn exit_of(code: Code) -> Exit {
    match code {
        Code::PolicyDeny
        | Code::ApprovalRequired
        | Code::ApprovalDenied
        | Code::Suspended
        | Code::Revoked
        | Code::AuthorityRefused
        | Code::TokenStolen
        | Code::UserNotServed
        | Code::UntrustedDaemon => Exit::Denied,
        Code::NoSession
        | Code::SessionFlushed
        | Code::NotRegistered
        | Code::ApprovalPending
        | Code::ApprovalExpired
        | Code::Expired => Exit::Login,
        Code::InvalidArgument | Code::MethodNotAllowed | Code::UnknownDestination | Code::ToolRequired => {
            Exit::Usage
        }
        Code::QueueEmpty
        | Code::Overloaded
        | Code::Unavailable
        | Code::AuthorityUnreachable
        | Code::DaemonUnreachable
        | Code::Unreachable
        | Code::Timeout => Exit::Unavailable,
        _ => Exit::Other,
    }
}
