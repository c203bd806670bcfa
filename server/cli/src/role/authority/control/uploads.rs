//! Policies that come in parts, until they are whole: known by the digest that they must have then.

use core::time::Duration;
use std::time::Instant;

use obol_ipc::as_control::PolicyPartParams;
use obol_policy::limits::{MAX_CATALOGUE_BYTES, MAX_POLICIES_BYTES, MAX_POLICY_FILES};
use obol_policy::{PolicySource, PolicyVersion};

use crate::policy::folder::CATALOGUE;

/// The most that are on their way at a time: operators are few.
const MAX_UPLOADS: usize = 4;
/// How long one may be on its way.
const PATIENCE: Duration = Duration::from_secs(60);

/// Those that are on their way.
#[derive(Debug, Default)]
pub(super) struct Uploads(Vec<Upload>);

#[derive(Debug)]
struct Upload {
    digest: String,
    source: PolicySource,
    began: Instant,
}

impl Uploads {
    /// Takes a part.
    pub(super) fn take(&mut self, part: PolicyPartParams, now: Instant) -> Result<(), String> {
        self.0.retain(|upload| now.saturating_duration_since(upload.began) < PATIENCE);
        let digest = part.digest.as_str();
        if part.first {
            self.0.retain(|upload| upload.digest != digest);
            if self.0.len() >= MAX_UPLOADS {
                return Err(format!(
                    "{MAX_UPLOADS} policies are already being uploaded; try again in a minute"
                ));
            }
            self.0.push(Upload { digest: digest.to_owned(), source: PolicySource::default(), began: now });
        }
        let upload = self.0.iter_mut().find(|upload| upload.digest == digest);
        let source =
            &mut upload.ok_or("the first part of this policy is missing or arrived too long ago")?.source;
        let is_full = match part.file.as_str() {
            CATALOGUE => {
                source.catalogue.push_str(&part.text);
                source.catalogue.len() > MAX_CATALOGUE_BYTES
            }
            _ => {
                source.policies.entry(part.file).or_default().push_str(&part.text);
                let names: usize = source.policies.keys().map(String::len).sum();
                let texts: usize = source.policies.values().map(String::len).sum();
                source.policies.len() > MAX_POLICY_FILES || names + texts > MAX_POLICIES_BYTES
            }
        };
        if is_full {
            self.0.retain(|upload| upload.digest != part.digest.as_str());
            return Err(format!(
                "the policy is too long: at most {MAX_CATALOGUE_BYTES} bytes of catalogue, and {MAX_POLICY_FILES} files of policies with \
                 {MAX_POLICIES_BYTES} bytes"
            ));
        }
        Ok(())
    }

    /// Takes one out that is whole; `None` if none of this digest is on its way.
    pub(super) fn whole(&mut self, digest: &str) -> Option<Result<PolicyVersion, String>> {
        let place = self.0.iter().position(|upload| upload.digest == digest)?;
        let upload = self.0.swap_remove(place);
        if upload.source.digest().to_string() != digest {
            return Some(Err("the parts of this policy do not match its digest; send them again".to_owned()));
        }
        Some(PolicyVersion::load(upload.source).map_err(|error| error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use obol_ipc::names::Label;

    use super::*;

    fn part(digest: &str, first: bool, file: &str, text: &str) -> PolicyPartParams {
        let digest = Label::new(digest).unwrap();
        PolicyPartParams { digest, first, file: file.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn parts_make_the_version_that_they_are_known_by_or_none() {
        let now = Instant::now();
        let policies = [("a.cedar".to_owned(), "// nothing\n".to_owned())].into();
        let source = PolicySource { catalogue: "# empty\n".to_owned(), policies };
        let digest = source.digest().to_string();
        let mut uploads = Uploads::default();
        assert!(
            uploads.take(part(&digest, false, CATALOGUE, "x"), now).is_err(),
            "its first part is missing"
        );
        for (first, file, text) in [
            (true, CATALOGUE, "# emp"),
            (false, CATALOGUE, "ty\n"),
            (false, "a.cedar", "// noth"),
            (false, "a.cedar", "ing\n"),
        ] {
            uploads.take(part(&digest, first, file, text), now).unwrap();
        }
        assert!(uploads.whole("another").is_none());
        let loaded = uploads.whole(&digest).unwrap();
        // An empty catalogue may or may not be a policy; it is this one.
        assert!(loaded.is_ok_and(|version| version.digest() == source.digest()));
        assert!(uploads.whole(&digest).is_none(), "it is taken once");
        uploads.take(part(&digest, true, CATALOGUE, "something else"), now).unwrap();
        assert!(uploads.whole(&digest).unwrap().unwrap_err().contains("send them again"));
    }

    #[test]
    fn what_is_on_its_way_is_bounded_in_number_time_and_size() {
        let now = Instant::now();
        let mut uploads = Uploads::default();
        for number in 0..MAX_UPLOADS {
            uploads.take(part(&number.to_string(), true, CATALOGUE, "x"), now).unwrap();
        }
        assert!(uploads.take(part("more", true, CATALOGUE, "x"), now).is_err());
        uploads.take(part("0", true, CATALOGUE, "x"), now).unwrap();
        uploads.take(part("more", true, CATALOGUE, "x"), now + PATIENCE).unwrap();
        assert!(uploads.take(part("0", false, CATALOGUE, "x"), now + PATIENCE).is_err(), "too long ago");
        let long = "x".repeat(MAX_POLICIES_BYTES);
        assert!(uploads.take(part("more", false, "a.cedar", &long), now + PATIENCE).is_err());
        assert!(uploads.whole("more").is_none());
        uploads.take(part("files", true, "0", ""), now).unwrap();
        let all = (1..=MAX_POLICY_FILES)
            .try_for_each(|number| uploads.take(part("files", false, &number.to_string(), ""), now));
        assert!(all.is_err());
    }
}
