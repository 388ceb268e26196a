//! What the lifecycle rules of a bucket do to a store in it.

use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule, TransitionStorageClass};

use super::Outcome;

/// A rule that is on, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) name: String,
    /// What the keys of its objects begin with.
    pub(super) prefix: String,
    /// Whether it is for objects with tags, which Quarr's have not.
    pub(super) wants_tags: bool,
    /// Whether it deletes objects that are in use.
    pub(super) expires: bool,
    /// The class it moves objects to that cannot be read at once.
    pub(super) archive: Option<String>,
    /// Whether it deletes versions that were replaced or deleted.
    pub(super) ends_versions: bool,
    /// Whether it ends uploads that were given up.
    pub(super) aborts_uploads: bool,
}

impl Rule {
    /// `None` if it is off.
    pub(super) fn of(rule: &LifecycleRule) -> Option<Self> {
        if *rule.status() != ExpirationStatus::Enabled {
            return None;
        }
        let filter = rule.filter();
        let both = filter.and_then(|filter| filter.and());
        #[expect(deprecated, reason = "old buckets have the prefix there")]
        let old = rule.prefix();
        let prefix = filter
            .and_then(|filter| filter.prefix())
            .or_else(|| both.and_then(|both| both.prefix()))
            .or(old);
        let tags = filter.and_then(|filter| filter.tag()).is_some();
        let expiration = rule.expiration();
        let archive = rule.transitions().iter().find_map(|to| {
            let class = to.storage_class()?;
            let is_archive = matches!(
                class,
                TransitionStorageClass::Glacier | TransitionStorageClass::DeepArchive
            );
            is_archive.then(|| class.as_str().to_owned())
        });
        Some(Self {
            name: rule.id().unwrap_or("without a name").to_owned(),
            prefix: prefix.unwrap_or_default().to_owned(),
            wants_tags: tags || both.is_some_and(|both| !both.tags().is_empty()),
            expires: expiration.is_some_and(|at| at.days().is_some() || at.date().is_some()),
            archive,
            ends_versions: rule.noncurrent_version_expiration().is_some(),
            aborts_uploads: rule.abort_incomplete_multipart_upload().is_some(),
        })
    }

    /// Whether it is for all objects under `prefix`.
    fn covers(&self, prefix: &str) -> bool {
        !self.wants_tags && prefix.starts_with(&self.prefix)
    }

    /// Whether it is for some objects under `prefix`.
    fn touches(&self, prefix: &str) -> bool {
        !self.wants_tags && (prefix.starts_with(&self.prefix) || self.prefix.starts_with(prefix))
    }
}

/// What to say of the rules of a bucket, for the store under `prefix` in it.
pub(super) fn judge(rules: &[Rule], prefix: &str, keeps_versions: bool) -> Vec<(Outcome, String)> {
    let mut found = Vec::new();
    for rule in rules.iter().filter(|rule| rule.touches(prefix)) {
        let name = &rule.name;
        if rule.expires {
            let detail = format!(
                "rule {name:?} deletes objects by their age, those in use too: remove it or keep \
                 it off this prefix, and free space with quarr expire and quarr gc"
            );
            found.push((Outcome::Wrong, detail));
        }
        if let Some(class) = &rule.archive {
            let detail = format!(
                "rule {name:?} moves objects to {class}, where they cannot be read: remove it or \
                 keep it off this prefix"
            );
            found.push((Outcome::Wrong, detail));
        }
    }
    let any = |has: fn(&Rule) -> bool| rules.iter().any(|rule| rule.covers(prefix) && has(rule));
    if !any(|rule| rule.aborts_uploads) {
        let detail = "no rule ends uploads that were given up, which are paid for and not seen: \
                      add one with AbortIncompleteMultipartUpload after 7 days";
        found.push((Outcome::Advice, detail.to_owned()));
    }
    if keeps_versions && !any(|rule| rule.ends_versions) {
        let detail = "with versioning, what quarr gc deletes is kept and paid for: add a rule with \
                      NoncurrentVersionExpiration";
        found.push((Outcome::Advice, detail.to_owned()));
    }
    if found.is_empty() {
        let detail =
            "no rule deletes or archives objects in use, and uploads that were given up end";
        found.push((Outcome::Fine, detail.to_owned()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(rules: &[Rule], keeps_versions: bool) -> Vec<Outcome> {
        let found = judge(rules, "data/store/", keeps_versions);
        found.into_iter().map(|(outcome, _)| outcome).collect()
    }

    #[test]
    fn rules_that_take_objects_in_use_are_wrong() {
        let aborts = Rule {
            aborts_uploads: true,
            ..Rule::default()
        };
        assert_eq!(
            outcomes(std::slice::from_ref(&aborts), false),
            [Outcome::Fine]
        );
        assert_eq!(outcomes(&[], false), [Outcome::Advice]);
        assert_eq!(
            outcomes(std::slice::from_ref(&aborts), true),
            [Outcome::Advice]
        );
        let elsewhere = Rule {
            prefix: "other/".into(),
            ..aborts.clone()
        };
        assert_eq!(outcomes(&[elsewhere], false), [Outcome::Advice]);
        for (prefix, wants_tags, is_wrong) in [
            ("", false, true),
            ("data/", false, true),
            ("data/store/climate/", false, true),
            ("data/other/", false, false),
            ("", true, false),
        ] {
            let rule = |expires: bool| Rule {
                prefix: prefix.into(),
                wants_tags,
                expires,
                archive: (!expires).then(|| "GLACIER".to_owned()),
                ..Rule::default()
            };
            for expires in [true, false] {
                let found = outcomes(&[aborts.clone(), rule(expires)], false);
                let is_found = found.contains(&Outcome::Wrong);
                assert_eq!(is_found, is_wrong, "{prefix} {wants_tags}");
            }
        }
    }
}
