// Types of @obol/agent. What each member does is in README.md and docs/agent.md.

/** Where tokens of an audience may go, for sessions that were made by hand. */
export interface Route {
  audience: string;
  tools: string[];
  /** The origin, and a path that all requests lie under; the audience itself where it is left out. */
  url?: string;
  method?: string;
  /** A pattern: `*` is one segment, `**` any number. */
  path?: string;
  /** A gateway that the request goes to instead. */
  via?: string;
  /** Bodies of these tools are sealed. */
  sealed?: boolean;
}

export interface AgentOptions {
  /** The sidecar's socket; else `OBOL_ENDPOINT_SOCKET`, the user's, the system's. */
  socket?: string;
  /** The authenticator's socket; else `OBOL_AUTH_SOCKET`, or `auth.sock` beside the sidecar's. */
  authSocket?: string;
  /** The user the daemons run as, by number or name; else `OBOL_ENDPOINT_USER`. */
  user?: string | number;
  routes?: Route[];
  /** Milliseconds for a whole call; 30,000 if nothing is said. */
  timeout?: number;
  /** How the daemons' logs call this program: `name/version`. */
  client?: string;
  environment?: Record<string, string | undefined>;
}

export interface CallOptions {
  /** Milliseconds. */
  timeout?: number;
  signal?: AbortSignal;
}

export interface Prompt {
  /** What the human types. */
  code: string;
  /** The agent's key; the human must see the same. */
  words: string;
  expiresAt: string;
  /** Where they decide in a browser on this machine; absent where whoever runs the service decides. */
  page?: string;
}

export interface RegisterOptions extends CallOptions {
  name?: string;
  class?: string;
  roles?: string[];
  tools?: string[];
  /** Of an invitation. */
  ticket?: string;
  /** Shows a human what to do; prints to standard error if left out. */
  onPrompt?(prompt: Prompt): void | Promise<void>;
  /** False: throws `APPROVAL_PENDING` instead of waiting for the human. */
  wait?: boolean;
}

export interface Registration {
  agentId: string;
  /** When a human has to approve again, in ISO 8601, where that is known. */
  expiresAt: string | null;
}

export interface SessionInfo {
  sessionId: string;
  agentInstanceId: string;
  establishedAt: string;
  algorithmSuite: 1 | 2 | 3 | 4;
  expiresAt: string;
  approvalExpiresAt?: string;
}

export interface TokenStatus {
  queueDepth: number;
  /** Seconds. */
  ttl: number;
  sessionActive: boolean;
  renewalPending: boolean;
  retryAfterMs?: number;
  /** Of each tool, where all were asked about. */
  tools?: Record<string, number>;
  /** Bodies of the tool that was asked about are sealed. */
  sealed?: boolean;
}

export interface DequeueOptions extends CallOptions {
  audience?: string;
  /** The call's arguments, where the grant asks for a proof of possession. */
  arguments?: Record<string, unknown>;
  /** Their hash, where that is known. */
  popFor?: string;
  /** The token of a call that a human said yes to. */
  approvalId?: string;
}

export interface ApprovalPrompt {
  /** What the human decides by: `obol approve ID`. */
  approvalId: string;
  /** Until when they may. */
  expiresAt: string;
  /** Where they decide in a browser, where there is such a page. */
  page?: string;
}

/** How a human is asked for a yes to a call. */
export interface ApprovalOptions {
  /** Why the call is made: the human reads it, as the agent's word. */
  purpose?: string;
  /** What the call takes of its grant; what is not said is as the grant has it. */
  action?: string | string[];
  resource?: string;
  constraints?: Record<string, unknown>;
  /** False: the human does not see the arguments, as for a server that does not see bodies. */
  showArguments?: boolean;
  /** Asks also where a token is to be had without: for what such tokens do not allow. */
  always?: boolean;
  /** Milliseconds to wait for the human; six minutes if nothing is said. The call's own time begins after it. */
  timeout?: number;
  /** Shows a human what waits for them; prints to standard error if left out. */
  onPrompt?(prompt: ApprovalPrompt): void | Promise<void>;
}

/** A call that a human is asked about; what is not said is as the grant has it. */
export interface ApprovedCall {
  tool: string;
  /** The resource server, if the tool is granted for several. */
  audience?: string;
  action?: string | string[];
  resource?: string;
  constraints?: Record<string, unknown>;
  /** The human sees them, and a call with others is refused. */
  arguments?: Record<string, unknown>;
  /** How often it may be made; once if nothing is said. */
  count?: number;
}

export interface ApprovalRequestOptions {
  /** Why the calls are made: the human reads it, as the agent's word. */
  purpose?: string;
  /** Milliseconds, in whole seconds, for which they may be made after the yes; five minutes if nothing is said, which is the longest. */
  lifetime?: number;
  /** How often each call may be made, unless the call sets its own count. */
  count?: number;
  /** Milliseconds to wait for the human; six minutes if nothing is said. */
  timeout?: number;
  signal?: AbortSignal;
  /** Shows a human what waits for them; prints to standard error if left out. */
  onPrompt?(prompt: ApprovalPrompt): void | Promise<void>;
}

/** A yes to calls. */
export interface Approved {
  approvalId: string;
  /** What each call is drawn by, in the order in which they were asked for: the option `approvalId`. */
  calls: string[];
  /** Until when. */
  expiresAt: string;
}

/** As the platform's; `body` may also be an async iterable, which is sent once. */
export interface FetchInit extends Omit<RequestInit, "body"> {
  body?: RequestInit["body"] | AsyncIterable<Uint8Array | string>;
  tool?: string;
  audience?: string;
  /** Sent as `Idempotency-Key`: the server runs the call once, however often it is sent. */
  idempotencyKey?: string;
  /** Whether a human is asked where the call takes a yes; `"never"` if left out: `APPROVAL_REQUIRED`. */
  approval?: "never" | "wait" | ApprovalOptions;
  /** The call is one that a human said yes to before. */
  approvalId?: string;
  timeout?: number;
}

/** A token that was drawn. It shows nothing of itself unless asked. */
export class Token {
  readonly tool: string;
  /** Unix seconds. */
  readonly expiresAt: number;
  reveal(): string;
  authorization(): string;
  proof(): string | null;
  channel(): Record<string, string> | null;
  toString(): string;
  toJSON(): string;
}

/** What can go wrong; `code` is stable. */
export class AgentError extends Error {
  readonly code: string;
  readonly retryAfterMs?: number;
  readonly registration?: Prompt;
  /** Of a call that a human has yet to say yes to. */
  readonly approvalId?: string;
}

export class Agent {
  constructor(options?: AgentOptions);
  register(options?: RegisterOptions): Promise<Registration>;
  authenticate(options?: CallOptions): Promise<SessionInfo>;
  ensureAuthenticated(options?: RegisterOptions): Promise<SessionInfo>;
  /** Asks a human for one yes to several calls, and waits. */
  requestApproval(calls: ApprovedCall | ApprovedCall[], options?: ApprovalRequestOptions): Promise<Approved>;
  dequeueToken(tool: string, options?: DequeueOptions): Promise<Token>;
  tokenStatus(tool?: string, options?: CallOptions): Promise<TokenStatus>;
  sessionInfo(options?: CallOptions): Promise<SessionInfo>;
  fetch(input: string | URL | Request, init?: FetchInit): Promise<Response>;
  close(): Promise<void>;
}
