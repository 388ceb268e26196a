//! `REPO[@REF][/PATH][SLICE]`: what commands work on.

use std::str::FromStr;

use array::{NodePath, Selection};
use storage::{RefExpression, RepoName};

/// A repository, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The repository.
    pub repository: RepoName,
    /// The ref as given; `main` if none was.
    pub reference: String,
    /// Whether a ref was given.
    pub has_reference: bool,
    /// The node; the root if none was given.
    pub path: NodePath,
    /// The selection between the brackets, if there are any.
    pub slice: Option<String>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (text, slice) = match text.split_once('[') {
            Some((rest, slice)) => {
                let slice = slice
                    .strip_suffix(']')
                    .ok_or(format!("{text:?} has \"[\" without \"]\" at its end"))?;
                (rest, Some(slice.to_owned()))
            }
            None => (text, None),
        };
        if let Some(slice) = &slice {
            slice
                .parse::<Selection>()
                .map_err(|error| error.to_string())?;
        }
        // The first `@` starts the ref, the first `/` after it the path.
        let (repository, reference, path) = match text.split_once('@') {
            Some((repository, rest)) if !repository.contains('/') => match rest.split_once('/') {
                Some((reference, path)) => (repository, Some(reference), path),
                None => (repository, Some(rest), ""),
            },
            _ => match text.split_once('/') {
                Some((repository, path)) => (repository, None, path),
                None => (text, None, ""),
            },
        };
        let repository = repository
            .parse()
            .map_err(|error: storage::Error| error.to_string())?;
        if let Some(reference) = reference {
            reference
                .parse::<RefExpression>()
                .map_err(|error| error.to_string())?;
        }
        Ok(Self {
            repository,
            reference: reference.unwrap_or("main").to_owned(),
            has_reference: reference.is_some(),
            path: path
                .parse()
                .map_err(|error: array::Error| error.to_string())?,
            slice,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, String, String, Option<String>) {
        let target: Target = text.parse().unwrap();
        let path = target.path.as_str().to_owned();
        (
            target.repository.to_string(),
            target.reference,
            path,
            target.slice,
        )
    }

    #[test]
    fn targets_take_apart() {
        let own = |r: &str, f: &str, p: &str, s: Option<&str>| {
            (r.into(), f.into(), p.into(), s.map(Into::into))
        };
        assert_eq!(parse("a"), own("a", "main", "", None));
        assert_eq!(parse("a/b/c"), own("a", "main", "b/c", None));
        assert_eq!(parse("a@v1/b[0,1:2]"), own("a", "v1", "b", Some("0,1:2")));
        assert_eq!(
            parse("a/b[[1,2],:]"),
            own("a", "main", "b", Some("[1,2],:"))
        );
        assert_eq!(parse("a@main~2"), own("a", "main~2", "", None));
        assert_eq!(
            parse("a@main@2026-01-01T00:00:00Z/b").1,
            "main@2026-01-01T00:00:00Z"
        );
        for bad in ["", "A", "a@", "a@/b", "a/b[0", "a/b[x]", "a/../b", "a@x y"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
