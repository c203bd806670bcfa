//! The canonical bytes of a scope (TBAC r41, appendix A): what `priv_sig` covers.

use std::collections::BTreeMap;

use super::{Constraints, Scope, ScopeError};
use crate::tlv::{self, Field, MAX_VALUE_BYTES, OrderedReader, Reader, TlvError};

pub(super) mod tag {
    pub(in super::super) const ISS: u8 = 0x01;
    pub(in super::super) const SUB: u8 = 0x02;
    pub(in super::super) const AGENT_INSTANCE_ID: u8 = 0x03;
    pub(in super::super) const TOOL: u8 = 0x04;
    pub(in super::super) const ACTION: u8 = 0x05;
    pub(in super::super) const RESOURCE: u8 = 0x06;
    pub(in super::super) const CONSTRAINTS: u8 = 0x07;
    pub(in super::super) const DELEGATION_DEPTH: u8 = 0x08;
    pub(in super::super) const PARENT_TOKEN_HASH: u8 = 0x09;
    pub(in super::super) const REQUIRE_POP: u8 = 0x0A;
    pub(in super::super) const AUD: u8 = 0x0B;
    pub(in super::super) const ORG_ID: u8 = 0x0C;
    pub(in super::super) const TRUST_LEVEL: u8 = 0x0D;
    pub(in super::super) const HUMAN_CONFIRMED_AT: u8 = 0x0E;
    pub(in super::super) const APPROVAL_DIGEST: u8 = 0x0F;
    pub(in super::super) const PURPOSE: u8 = 0x10;
    pub(in super::super) const TXN_ID: u8 = 0x11;
    pub(in super::super) const USER_RAW_INTENT: u8 = 0x12;
    pub(in super::super) const INTENT_HASH: u8 = 0x13;

    pub(super) mod constraint {
        pub(in super::super) const MAX_ROWS: u8 = 0x01;
        pub(in super::super) const MAX_CALLS: u8 = 0x02;
        pub(in super::super) const TIME_WINDOW_SEC: u8 = 0x03;
        pub(in super::super) const REQUIRE_CHANNEL_ENCRYPTION: u8 = 0x04;
        pub(in super::super) const DATA_CLASSIFICATION: u8 = 0x05;
        pub(in super::super) const ALLOWED_PARAMETERS: u8 = 0x06;
    }

    pub(super) mod parameter {
        pub(in super::super) const NAME: u8 = 0x01;
        pub(in super::super) const PATTERN: u8 = 0x02;
    }
}

/// Room for a scope of ordinary size, so that writing it takes one allocation.
const USUAL_BYTES: usize = 512;

impl Scope {
    /// The canonical bytes: ascending tags, shortest lengths, no vendor tags.
    ///
    /// # Errors
    ///
    /// [`ScopeError`] if the scope breaks a rule ([`Scope::check`]), or its bytes are more than a token can carry.
    pub fn to_tlv(&self) -> Result<Vec<u8>, ScopeError> {
        self.check()?;
        let mut out = Writer(Vec::with_capacity(USUAL_BYTES));
        out.text(tag::ISS, &self.iss)?;
        out.text(tag::SUB, &self.sub)?;
        out.text(tag::AGENT_INSTANCE_ID, &self.agent_instance_id)?;
        out.text(tag::TOOL, &self.tool)?;
        for action in &self.action {
            out.text(tag::ACTION, action)?;
        }
        out.text(tag::RESOURCE, &self.resource)?;
        if let Some(constraints) = &self.constraints {
            out.bytes(tag::CONSTRAINTS, &constraints_to_tlv(constraints)?)?;
        }
        out.integer(tag::DELEGATION_DEPTH, self.delegation_depth)?;
        out.option(tag::PARENT_TOKEN_HASH, self.parent_token_hash.as_ref().map(<[u8; 32]>::as_slice))?;
        out.boolean(tag::REQUIRE_POP, self.require_pop)?;
        out.text(tag::AUD, &self.aud)?;
        out.text(tag::ORG_ID, &self.org_id)?;
        out.integer(tag::TRUST_LEVEL, self.trust_level)?;
        out.integer(tag::HUMAN_CONFIRMED_AT, self.human_confirmed_at)?;
        out.option(tag::APPROVAL_DIGEST, self.approval_digest.as_ref().map(<[u8; 32]>::as_slice))?;
        out.option(tag::PURPOSE, self.purpose.as_ref().map(String::as_bytes))?;
        out.option(tag::TXN_ID, self.txn_id.as_ref().map(<[u8; 16]>::as_slice))?;
        out.option(tag::USER_RAW_INTENT, self.user_raw_intent.as_ref().map(String::as_bytes))?;
        out.option(tag::INTENT_HASH, self.intent_hash.as_ref().map(String::as_bytes))?;
        if out.0.len() > MAX_VALUE_BYTES { Err(ScopeError::TooLong) } else { Ok(out.0) }
    }

    /// Reads canonical bytes. Tags 01–7F that this revision does not define are refused, 80–FE skipped.
    ///
    /// # Errors
    ///
    /// [`ScopeError::Malformed`] if the bytes are not canonical; otherwise as [`Scope::check`].
    pub fn from_tlv(data: &[u8]) -> Result<Self, ScopeError> {
        let mut fields = Fields::default();
        let mut reader = OrderedReader::new(data, Some(tag::ACTION));
        while let Some(field) = reader.next_field()? {
            fields.take(field)?;
        }
        let scope = fields.complete()?;
        scope.check()?;
        Ok(scope)
    }
}

pub(super) fn constraints_to_tlv(constraints: &Constraints) -> Result<Vec<u8>, ScopeError> {
    let mut out = Writer::default();
    let integers = [
        (tag::constraint::MAX_ROWS, constraints.max_rows),
        (tag::constraint::MAX_CALLS, constraints.max_calls),
        (tag::constraint::TIME_WINDOW_SEC, constraints.time_window_sec),
    ];
    for (tag, value) in integers {
        if let Some(value) = value {
            out.integer(tag, value)?;
        }
    }
    if let Some(required) = constraints.require_channel_encryption {
        out.boolean(tag::constraint::REQUIRE_CHANNEL_ENCRYPTION, required)?;
    }
    out.option(
        tag::constraint::DATA_CLASSIFICATION,
        constraints.data_classification.as_ref().map(String::as_bytes),
    )?;
    if let Some(parameters) = &constraints.allowed_parameters {
        // A flat run of name and pattern, no container for an entry; a BTreeMap is sorted by key bytes.
        let mut run = Writer::default();
        for (name, pattern) in parameters {
            run.text(tag::parameter::NAME, name)?;
            run.text(tag::parameter::PATTERN, pattern)?;
        }
        out.bytes(tag::constraint::ALLOWED_PARAMETERS, &run.0)?;
    }
    Ok(out.0)
}

/// Appends fields. The caller keeps the tags ascending.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn bytes(&mut self, tag: u8, value: &[u8]) -> Result<(), ScopeError> {
        tlv::put(&mut self.0, tag, value).map_err(|_| ScopeError::TooLong)
    }

    pub(super) fn text(&mut self, tag: u8, value: &str) -> Result<(), ScopeError> {
        self.bytes(tag, value.as_bytes())
    }

    pub(super) fn integer(&mut self, tag: u8, value: u64) -> Result<(), ScopeError> {
        self.bytes(tag, &value.to_be_bytes())
    }

    pub(super) fn boolean(&mut self, tag: u8, value: bool) -> Result<(), ScopeError> {
        self.bytes(tag, &[u8::from(value)])
    }

    pub(super) fn option(&mut self, tag: u8, value: Option<&[u8]>) -> Result<(), ScopeError> {
        value.map_or(Ok(()), |value| self.bytes(tag, value))
    }
}

impl From<TlvError> for ScopeError {
    fn from(error: TlvError) -> Self {
        Self::Malformed(match error {
            TlvError::Truncated => "a field ends after the data does",
            TlvError::LongLength => "a length is not in its shortest form",
            TlvError::Order => "tags do not ascend or repeat",
            TlvError::ReservedTag => "tag FF is reserved",
            TlvError::ValueTooLong => "a value is longer than 32767 bytes",
        })
    }
}

const UNKNOWN_TAG: ScopeError = ScopeError::Malformed("unknown tag below 80");

/// What has been read so far. Text stays where it lies until the scope is known to be complete.
#[derive(Default)]
struct Fields<'a> {
    iss: Option<&'a str>,
    sub: Option<&'a str>,
    agent_instance_id: Option<&'a str>,
    tool: Option<&'a str>,
    action: Vec<String>,
    resource: Option<&'a str>,
    constraints: Option<Constraints>,
    delegation_depth: Option<u64>,
    parent_token_hash: Option<[u8; 32]>,
    require_pop: Option<bool>,
    aud: Option<&'a str>,
    org_id: Option<&'a str>,
    trust_level: Option<u64>,
    human_confirmed_at: Option<u64>,
    approval_digest: Option<[u8; 32]>,
    purpose: Option<&'a str>,
    txn_id: Option<[u8; 16]>,
    user_raw_intent: Option<&'a str>,
    intent_hash: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn take(&mut self, Field { tag, value }: Field<'a>) -> Result<(), ScopeError> {
        match tag {
            tag::ISS => self.iss = Some(text(value)?),
            tag::SUB => self.sub = Some(text(value)?),
            tag::AGENT_INSTANCE_ID => self.agent_instance_id = Some(text(value)?),
            tag::TOOL => self.tool = Some(text(value)?),
            tag::ACTION => self.action.push(text(value)?.to_owned()),
            tag::RESOURCE => self.resource = Some(text(value)?),
            tag::CONSTRAINTS => self.constraints = Some(constraints_from_tlv(value)?),
            tag::DELEGATION_DEPTH => self.delegation_depth = Some(integer(value)?),
            tag::PARENT_TOKEN_HASH => self.parent_token_hash = Some(raw(value)?),
            tag::REQUIRE_POP => self.require_pop = Some(boolean(value)?),
            tag::AUD => self.aud = Some(text(value)?),
            tag::ORG_ID => self.org_id = Some(text(value)?),
            tag::TRUST_LEVEL => self.trust_level = Some(integer(value)?),
            tag::HUMAN_CONFIRMED_AT => self.human_confirmed_at = Some(integer(value)?),
            tag::APPROVAL_DIGEST => self.approval_digest = Some(raw(value)?),
            tag::PURPOSE => self.purpose = Some(text(value)?),
            tag::TXN_ID => self.txn_id = Some(raw(value)?),
            tag::USER_RAW_INTENT => self.user_raw_intent = Some(text(value)?),
            tag::INTENT_HASH => self.intent_hash = Some(text(value)?),
            _ => return Err(UNKNOWN_TAG),
        }
        Ok(())
    }

    fn complete(self) -> Result<Scope, ScopeError> {
        Ok(Scope {
            iss: required(self.iss, "iss is missing")?.to_owned(),
            sub: required(self.sub, "sub is missing")?.to_owned(),
            agent_instance_id: required(self.agent_instance_id, "agent_instance_id is missing")?.to_owned(),
            tool: required(self.tool, "tool is missing")?.to_owned(),
            action: self.action,
            resource: required(self.resource, "resource is missing")?.to_owned(),
            constraints: self.constraints,
            delegation_depth: required(self.delegation_depth, "delegation_depth is missing")?,
            parent_token_hash: self.parent_token_hash,
            require_pop: required(self.require_pop, "require_pop is missing")?,
            aud: required(self.aud, "aud is missing")?.to_owned(),
            org_id: required(self.org_id, "org_id is missing")?.to_owned(),
            trust_level: required(self.trust_level, "trust_level is missing")?,
            human_confirmed_at: required(self.human_confirmed_at, "human_confirmed_at is missing")?,
            approval_digest: self.approval_digest,
            purpose: self.purpose.map(str::to_owned),
            txn_id: self.txn_id,
            user_raw_intent: self.user_raw_intent.map(str::to_owned),
            intent_hash: self.intent_hash.map(str::to_owned),
        })
    }
}

fn required<T>(value: Option<T>, missing: &'static str) -> Result<T, ScopeError> {
    value.ok_or(ScopeError::Field(missing))
}

fn constraints_from_tlv(data: &[u8]) -> Result<Constraints, ScopeError> {
    let mut constraints = Constraints::default();
    let mut reader = OrderedReader::new(data, None);
    while let Some(Field { tag, value }) = reader.next_field()? {
        match tag {
            tag::constraint::MAX_ROWS => constraints.max_rows = Some(integer(value)?),
            tag::constraint::MAX_CALLS => constraints.max_calls = Some(integer(value)?),
            tag::constraint::TIME_WINDOW_SEC => constraints.time_window_sec = Some(integer(value)?),
            tag::constraint::REQUIRE_CHANNEL_ENCRYPTION => {
                constraints.require_channel_encryption = Some(boolean(value)?);
            }
            tag::constraint::DATA_CLASSIFICATION => {
                constraints.data_classification = Some(text(value)?.to_owned());
            }
            tag::constraint::ALLOWED_PARAMETERS => {
                constraints.allowed_parameters = Some(parameters_from_tlv(value)?);
            }
            _ => return Err(UNKNOWN_TAG),
        }
    }
    Ok(constraints)
}

/// Pairs of name and pattern, names strictly ascending by their bytes; no vendor tags between them.
fn parameters_from_tlv(data: &[u8]) -> Result<BTreeMap<String, String>, ScopeError> {
    const PAIRS: ScopeError = ScopeError::Malformed("allowed_parameters must be pairs of name and pattern");
    let mut parameters = BTreeMap::<String, String>::new();
    let mut reader = Reader::new(data);
    while let Some(name) = reader.next_field()? {
        let pattern = reader.next_field()?.ok_or(PAIRS)?;
        if (name.tag, pattern.tag) != (tag::parameter::NAME, tag::parameter::PATTERN) {
            return Err(PAIRS);
        }
        let name = text(name.value)?;
        if parameters.last_key_value().is_some_and(|(last, _)| last.as_str() >= name) {
            return Err(ScopeError::Malformed("allowed_parameters is not sorted by name"));
        }
        parameters.insert(name.to_owned(), text(pattern.value)?.to_owned());
    }
    Ok(parameters)
}

fn text(value: &[u8]) -> Result<&str, ScopeError> {
    core::str::from_utf8(value).map_err(|_| ScopeError::Malformed("a string is not UTF-8"))
}

fn integer(value: &[u8]) -> Result<u64, ScopeError> {
    value
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| ScopeError::Malformed("an integer is not 8 bytes long"))
}

fn boolean(value: &[u8]) -> Result<bool, ScopeError> {
    match value {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(ScopeError::Malformed("a boolean is neither 00 nor 01")),
    }
}

fn raw<const N: usize>(value: &[u8]) -> Result<[u8; N], ScopeError> {
    value.try_into().map_err(|_| ScopeError::Malformed("a byte string has the wrong length"))
}
