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

impl Scope {
    /// The canonical bytes: ascending tags, shortest lengths, no vendor tags.
    pub fn to_tlv(&self) -> Result<Vec<u8>, ScopeError> {
        self.check()?;
        let mut out = Writer::default();
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

/// What has been read so far.
#[derive(Default)]
struct Fields {
    text: BTreeMap<u8, String>,
    action: Vec<String>,
    constraints: Option<Constraints>,
    integers: BTreeMap<u8, u64>,
    require_pop: Option<bool>,
    parent_token_hash: Option<[u8; 32]>,
    approval_digest: Option<[u8; 32]>,
    txn_id: Option<[u8; 16]>,
}

impl Fields {
    fn take(&mut self, field: Field<'_>) -> Result<(), ScopeError> {
        match field.tag {
            tag::ISS
            | tag::SUB
            | tag::AGENT_INSTANCE_ID
            | tag::TOOL
            | tag::RESOURCE
            | tag::AUD
            | tag::ORG_ID
            | tag::PURPOSE
            | tag::USER_RAW_INTENT
            | tag::INTENT_HASH => {
                self.text.insert(field.tag, text(field.value)?);
            }
            tag::ACTION => self.action.push(text(field.value)?),
            tag::CONSTRAINTS => self.constraints = Some(constraints_from_tlv(field.value)?),
            tag::DELEGATION_DEPTH | tag::TRUST_LEVEL | tag::HUMAN_CONFIRMED_AT => {
                self.integers.insert(field.tag, integer(field.value)?);
            }
            tag::REQUIRE_POP => self.require_pop = Some(boolean(field.value)?),
            tag::PARENT_TOKEN_HASH => self.parent_token_hash = Some(raw(field.value)?),
            tag::APPROVAL_DIGEST => self.approval_digest = Some(raw(field.value)?),
            tag::TXN_ID => self.txn_id = Some(raw(field.value)?),
            _ => return Err(UNKNOWN_TAG),
        }
        Ok(())
    }

    fn complete(mut self) -> Result<Scope, ScopeError> {
        Ok(Scope {
            iss: self.required_text(tag::ISS, "iss is missing")?,
            sub: self.required_text(tag::SUB, "sub is missing")?,
            agent_instance_id: self.required_text(tag::AGENT_INSTANCE_ID, "agent_instance_id is missing")?,
            tool: self.required_text(tag::TOOL, "tool is missing")?,
            resource: self.required_text(tag::RESOURCE, "resource is missing")?,
            delegation_depth: self.required_integer(tag::DELEGATION_DEPTH, "delegation_depth is missing")?,
            require_pop: self.require_pop.ok_or(ScopeError::Field("require_pop is missing"))?,
            aud: self.required_text(tag::AUD, "aud is missing")?,
            org_id: self.required_text(tag::ORG_ID, "org_id is missing")?,
            trust_level: self.required_integer(tag::TRUST_LEVEL, "trust_level is missing")?,
            human_confirmed_at: self
                .required_integer(tag::HUMAN_CONFIRMED_AT, "human_confirmed_at is missing")?,
            purpose: self.text.remove(&tag::PURPOSE),
            user_raw_intent: self.text.remove(&tag::USER_RAW_INTENT),
            intent_hash: self.text.remove(&tag::INTENT_HASH),
            action: self.action,
            constraints: self.constraints,
            parent_token_hash: self.parent_token_hash,
            approval_digest: self.approval_digest,
            txn_id: self.txn_id,
        })
    }

    fn required_text(&mut self, tag: u8, missing: &'static str) -> Result<String, ScopeError> {
        self.text.remove(&tag).ok_or(ScopeError::Field(missing))
    }

    fn required_integer(&mut self, tag: u8, missing: &'static str) -> Result<u64, ScopeError> {
        self.integers.remove(&tag).ok_or(ScopeError::Field(missing))
    }
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
            tag::constraint::DATA_CLASSIFICATION => constraints.data_classification = Some(text(value)?),
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
        if parameters.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(ScopeError::Malformed("allowed_parameters is not sorted by name"));
        }
        parameters.insert(name, text(pattern.value)?);
    }
    Ok(parameters)
}

fn text(value: &[u8]) -> Result<String, ScopeError> {
    core::str::from_utf8(value).map(str::to_owned).map_err(|_| ScopeError::Malformed("a string is not UTF-8"))
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
