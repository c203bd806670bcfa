//! A durable queue of single-use tokens on redb: mint, store, claim, hand out once, flush for good.
