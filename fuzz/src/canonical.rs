//! What canonical means, once more (TBAC r41, appendix A): ascending tags, shortest lengths, known tags only.

/// Reads fields, or `None` where tags or lengths are not canonical. `repeated` may follow itself.
fn fields(mut data: &[u8], repeated: Option<u8>) -> Option<Vec<(u8, &[u8])>> {
    let mut fields: Vec<(u8, &[u8])> = Vec::new();
    while !data.is_empty() {
        let (tag, length, header) = match *data {
            [tag, length, ..] if length < 0x80 => (tag, usize::from(length), 2),
            [tag, high, low, ..] if high > 0x80 || low >= 0x80 => {
                (tag, usize::from(high & 0x7F) << 8 | usize::from(low), 3)
            }
            _ => return None,
        };
        let value = data.get(header..header + length)?;
        data = &data[header + length..];
        let in_order =
            fields.last().is_none_or(|(last, _)| *last < tag || *last == tag && repeated == Some(tag));
        if !in_order || tag == 0xFF {
            return None;
        }
        fields.push((tag, value));
    }
    Some(fields)
}

fn write(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    let [high, low] = u16::try_from(value.len()).expect("a value that was read is short").to_be_bytes();
    out.push(tag);
    if high == 0 && low < 0x80 {
        out.push(low);
    } else {
        out.extend_from_slice(&[0x80 | high, low]);
    }
    out.extend_from_slice(value);
}

/// A vendor's own tags.
fn is_vendor(tag: u8) -> bool {
    (0x80..=0xFE).contains(&tag)
}

/// The scope's bytes without vendor tags, or `None` where they are not canonical. Fields are not judged.
pub fn without_vendor_tags(scope: &[u8]) -> Option<Vec<u8>> {
    const ACTION: u8 = 0x05;
    const CONSTRAINTS: u8 = 0x07;
    let mut out = Vec::new();
    for (tag, value) in fields(scope, Some(ACTION))?.into_iter().filter(|(tag, _)| !is_vendor(*tag)) {
        if tag == CONSTRAINTS {
            let mut inner = Vec::new();
            for (tag, value) in fields(value, None)?.into_iter().filter(|(tag, _)| !is_vendor(*tag)) {
                write(&mut inner, tag, value);
            }
            write(&mut out, tag, &inner);
        } else {
            write(&mut out, tag, value);
        }
    }
    Some(out)
}

/// Where the scope lies in a token's body: five fields in order, the last four of 32 bytes; vendor tags behind them
/// are skipped.
pub fn body_scope(body: &[u8]) -> Option<&[u8]> {
    let mut fields = fields(body, None)?;
    fields.retain(|(tag, _)| !is_vendor(*tag));
    // What a consumer's token would have may stand there zeroed.
    let zeros = |field: &(u8, &[u8])| match field.0 {
        6 => field.1 == [0; 64],
        7 => field.1 == [0; 32],
        8 => field.1 == [0; 8],
        _ => false,
    };
    fields.retain(|field| !zeros(field));
    match *fields {
        [(1, scope), (2, a), (3, b), (4, c), (5, d)] => {
            [a, b, c, d].iter().all(|secret| secret.len() == 32).then_some(scope)
        }
        _ => None,
    }
}
