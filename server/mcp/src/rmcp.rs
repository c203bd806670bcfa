//! The guard around a server of the official Rust SDK.
//!
//! ```no_run
//! # use rmcp::{ServerHandler, ServiceExt as _, transport::stdio};
//! # struct MyServer;
//! # impl ServerHandler for MyServer {}
//! # async fn run(gate: obol_resource::Gate) -> Result<(), Box<dyn core::error::Error>> {
//! use obol_mcp::{ToolGuard, rmcp::Guarded};
//! use obol_resource::ToolCall;
//!
//! let guard = ToolGuard::new(gate).tool(ToolCall::new("search").action("read"));
//! Guarded::new(MyServer, guard).serve(stdio()).await?.waiting().await?;
//! # Ok(())
//! # }
//! ```

use std::borrow::Cow;
use std::sync::Arc;

use rmcp::ErrorData;
use rmcp::model::{
    CallToolRequest, CallToolResult, ClientNotification, ClientRequest, ContentBlock, MetaObject,
    ProtocolVersion, ServerCapabilities, ServerConfig, ServerResult,
};
use rmcp::service::{NotificationContext, RequestContext, RoleServer, Service};
use serde_json::Value;

use crate::capability::{Capability as _, ServerCapability};
use crate::guard::{Admitted, ToolGuard};
use crate::result::ToolResult;
use crate::{EXTENSION, ToolsCall};

/// A server whose tools run only for a token. All else passes, and the extension is advertised.
///
/// A tool finds its [`obol_resource::SpentToken`] in the request's extensions; the token itself it never sees.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    inner: S,
    guard: Arc<ToolGuard>,
}

impl<S: Service<RoleServer>> Guarded<S> {
    /// Puts the guard in front of a server.
    pub fn new(inner: S, guard: ToolGuard) -> Self {
        Self { inner, guard: Arc::new(guard) }
    }

    async fn call_tool(
        &self,
        mut request: CallToolRequest,
        mut context: RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        if self.guard.is_open(&request.params.name) {
            context.meta.0.0.remove(EXTENSION);
            return self.inner.handle_request(ClientRequest::CallToolRequest(request), context).await;
        }
        let result_type = tells_result_types(&context);
        // The SDK keeps `_meta` in the context alone; should that change, nothing gets past here all the same.
        request.params.meta = None;
        let arguments = request.params.arguments.take().unwrap_or_default();
        let admitted = match self.guard.admit(&request.params.name, arguments, &mut context.meta.0.0).await {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(to_sdk(refusal, result_type).into()),
        };
        request.params.arguments = Some(admitted.arguments().clone());
        context.extensions.insert(admitted.token().clone());
        let answer = self.inner.handle_request(ClientRequest::CallToolRequest(request), context).await;
        if admitted.is_sealed() { Ok(sealed(&admitted, answer, result_type)) } else { answer }
    }

    fn advertising(&self, mut result: ServerResult) -> ServerResult {
        match &mut result {
            ServerResult::InitializeResult(result) => self.advertise(&mut result.capabilities),
            ServerResult::DiscoverResult(result) => self.advertise(&mut result.capabilities),
            _ => {}
        }
        result
    }

    fn advertise(&self, capabilities: &mut ServerCapabilities) {
        let ours = || ServerCapability::of(self.guard.gate().verifier()).to_object();
        let extensions = capabilities.extensions.get_or_insert_default();
        extensions.entry(EXTENSION.to_owned()).or_insert_with(ours);
    }
}

impl<S: Service<RoleServer>> Service<RoleServer> for Guarded<S> {
    async fn handle_request(
        &self,
        request: ClientRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        match request {
            ClientRequest::CallToolRequest(request) => self.call_tool(request, context).await,
            // A call that the SDK could not read as one must not reach a server that reads it more generously.
            ClientRequest::CustomRequest(request) if request.method == ToolsCall::METHOD => {
                Err(ErrorData::invalid_params("the parameters of tools/call cannot be read", None))
            }
            request => Ok(self.advertising(self.inner.handle_request(request, context).await?)),
        }
    }

    async fn handle_notification(
        &self,
        notification: ClientNotification,
        context: NotificationContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.inner.handle_notification(notification, context).await
    }

    fn get_info(&self) -> ServerConfig {
        let mut info = self.inner.get_info();
        self.advertise(&mut info.capabilities);
        info
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        self.inner.supported_protocol_versions()
    }
}

/// Whether the client speaks a version of MCP in which a result names its type; older ones must not be sent it.
fn tells_result_types(context: &RequestContext<RoleServer>) -> bool {
    context
        .protocol_version()
        .is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str())
}

/// Only a whole result can be sealed: a task, a question back to the client or an error of the protocol would say in
/// the clear what the call was about.
fn sealed(admitted: &Admitted, answer: Result<ServerResult, ErrorData>, result_type: bool) -> ServerResult {
    let result = match answer {
        Ok(ServerResult::CallToolResult(result)) => from_sdk(result),
        Ok(_) => ToolResult::error("The tool did not answer in one piece"),
        Err(error) => ToolResult::error(error.message),
    };
    to_sdk(admitted.finish(result), result_type).into()
}

fn from_sdk(result: CallToolResult) -> ToolResult {
    let content = match serde_json::to_value(result.content) {
        Ok(Value::Array(content)) => content,
        _ => Vec::new(),
    };
    ToolResult {
        content,
        structured_content: result.structured_content,
        is_error: result.is_error,
        meta: result.meta.map(|meta| meta.0),
    }
}

/// For results that are made here, whose content is text.
fn to_sdk(result: ToolResult, result_type: bool) -> CallToolResult {
    let texts = result.content.iter().filter_map(|block| block.get("text")?.as_str());
    let content = texts.map(ContentBlock::text).collect();
    let mut made = if result.is_error == Some(true) {
        CallToolResult::error(content)
    } else {
        CallToolResult::success(content)
    };
    made.meta = result.meta.map(MetaObject);
    if !result_type {
        made.result_type = None;
    }
    made
}
