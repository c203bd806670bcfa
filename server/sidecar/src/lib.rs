//! The Token Queue Service: the agent's socket and the operator's socket over a durable token queue.
