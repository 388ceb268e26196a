//! Where sources are: paths, URLs, and patterns of either.
//!
//! ```text
//! texts ─► resolve: patterns become the sorted names they match ─► Resolved, one a source
//! Resolved ─► open ─┬─ local file, or directory of Zarr: where it is
//!                   ├─ file at a URL: a scratch file, gone with the source
//!                   └─ Zarr hierarchy at a URL: where it is, chunk by chunk
//! ```
//!
//! Nothing is touched that the [`Externals`] may not read.

mod fetched;
mod pattern;

use std::path::{Path, PathBuf};

use storage::Externals;
use storage::Store;
use tokio::runtime::Handle;
use url::Url;

use self::pattern::{is_pattern, matches, matches_path, natural};
use crate::Error;
use crate::blocking::blocking;
use crate::hierarchy::{Hierarchy, Keys};
use crate::source::Source;

/// Most files that patterns stand for.
const MAX_SOURCES: usize = 1_000_000;
/// Deepest folder that `**` looks in.
const MAX_DEPTH: usize = 32;
/// What makes a folder of an object store a hierarchy.
const HIERARCHY: [&str; 3] = ["zarr.json", ".zgroup", ".zarray"];

/// One source: where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A file or directory of this machine.
    Local(PathBuf),
    /// A file or hierarchy elsewhere.
    Url(String),
}

impl Resolved {
    fn new(text: &str) -> Result<Self, Error> {
        let place = match url(text) {
            None => Place::Local(text.into()),
            Some(url) if url.scheme() == "file" => {
                let path = url.to_file_path();
                Place::Local(path.map_err(|()| option(format!("{text} is no local path")))?)
            }
            Some(_) => Place::Url(text.to_owned()),
        };
        Ok(Self { place })
    }

    /// The path or URL.
    pub fn location(&self) -> String {
        match &self.place {
            Place::Local(path) => path.display().to_string(),
            Place::Url(url) => url.clone(),
        }
    }

    /// The path of a source of this machine.
    pub fn local_path(&self) -> Option<&Path> {
        match &self.place {
            Place::Local(path) => Some(path),
            Place::Url(_) => None,
        }
    }

    /// The last part of its path.
    pub fn name(&self) -> String {
        let location = self.location();
        let location = location.split(['?', '#']).next().unwrap_or_default();
        let trimmed = location.trim_end_matches('/');
        trimmed.rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// Opens the source. `fetched` is called with bytes fetched so far and in all, where a file has
    /// to be.
    ///
    /// # Errors
    /// As [`Source::open`]; [`Error::Storage`] if it may not be read or cannot be.
    pub async fn open(
        &self,
        files: &Externals,
        fetched: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Source, Error> {
        let (files, location) = (files.clone(), self.location());
        // Resolving links takes system calls.
        let (allowed, wanted) = (files.clone(), location.clone());
        blocking(move || Ok(allowed.allowed().check_url(&wanted)?)).await?;
        let url = match &self.place {
            Place::Local(path) => {
                let path = path.clone();
                return blocking(move || Source::open(&path)).await;
            }
            Place::Url(url) => url,
        };
        let path = location.split(['?', '#']).next().unwrap_or_default();
        let looks_like_folder = path.ends_with('/') || path.ends_with(".zarr");
        if looks_like_folder && let Some(source) = self.hierarchy(&files, url).await? {
            return Ok(source);
        }
        match files.open(url).await {
            Ok(file) => fetched::fetch(&file, fetched).await,
            Err(storage::Error::NotFound { .. }) => {
                let found = match looks_like_folder {
                    true => None,
                    false => self.hierarchy(&files, url).await?,
                };
                found.ok_or_else(|| Error::Malformed {
                    path: url.into(),
                    reason: "there is neither a file nor a Zarr hierarchy".into(),
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn hierarchy(&self, files: &Externals, url: &str) -> Result<Option<Source>, Error> {
        let handle = Handle::current();
        let keys = match url.split("://").next() {
            Some("http" | "https") => Keys::Web(files.clone(), url.to_owned(), handle),
            _ => Keys::Store(Store::open(url.trim_end_matches('/'))?, handle),
        };
        let name = stem(&self.name());
        blocking(move || Hierarchy::open(keys, &name)).await
    }
}

/// What a file or folder is called without its extension.
pub(crate) fn stem(name: &str) -> String {
    match name.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem.to_owned(),
        _ => name.to_owned(),
    }
}

/// The sources these texts mean, in their order: paths, URLs, and patterns of either with `*`, `?`,
/// `[…]` and `**`, whose matches come in the order of their names, numbers by their size. A path
/// that exists is no pattern.
///
/// # Errors
/// [`Error::Option`] if a pattern matches nothing; [`Error::Storage`] if it may not be looked at.
pub async fn resolve(texts: &[String], files: &Externals) -> Result<Vec<Resolved>, Error> {
    let mut resolved = Vec::new();
    for text in texts {
        let found = match url(text) {
            None if !is_pattern(text) || Path::new(text).exists() => vec![Resolved::new(text)?],
            None => {
                let (text, files) = (text.clone(), files.clone());
                blocking(move || local_matches(&text, &files)).await?
            }
            Some(url) if !is_cloud(&url) || !is_pattern(text) => vec![Resolved::new(text)?],
            Some(_) => cloud_matches(text, files).await?,
        };
        if found.is_empty() {
            return Err(option(format!("nothing matches {text:?}")));
        }
        resolved.extend(found);
        if resolved.len() > MAX_SOURCES {
            return Err(option(format!("they are more than {MAX_SOURCES} files")));
        }
    }
    match resolved.is_empty() {
        true => Err(option("there is none: name a file or URL".into())),
        false => Ok(resolved),
    }
}

fn option(reason: String) -> Error {
    Error::Option {
        option: "source",
        reason,
    }
}

fn url(text: &str) -> Option<Url> {
    // A single letter is a Windows drive, not a scheme; a path may have a colon.
    let url = Url::parse(text).ok()?;
    (url.scheme().len() > 1 && text.contains("://")).then_some(url)
}

fn is_cloud(url: &Url) -> bool {
    matches!(url.scheme(), "s3" | "gs" | "az")
}

/// Files and folders of this machine that match a pattern.
fn local_matches(text: &str, files: &Externals) -> Result<Vec<Resolved>, Error> {
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    let plain = parts.iter().take_while(|part| !is_pattern(part)).count();
    let mut root = PathBuf::from(if text.starts_with('/') { "/" } else { "" });
    root.extend(&parts[..plain]);
    let shown = if root.as_os_str().is_empty() {
        Path::new(".")
    } else {
        &root
    };
    files.allowed().check_url(&shown.display().to_string())?;
    let mut found = Vec::new();
    walk(&root, &parts[plain..], 0, &mut found)?;
    found.sort_by(|a, b| natural(a, b));
    found.dedup();
    found.iter().map(|path| Resolved::new(path)).collect()
}

fn walk(folder: &Path, parts: &[&str], depth: usize, found: &mut Vec<String>) -> Result<(), Error> {
    let Some((first, rest)) = parts.split_first() else {
        found.push(folder.display().to_string());
        return Ok(());
    };
    if depth > MAX_DEPTH || found.len() > MAX_SOURCES {
        return Ok(());
    }
    if *first == "**" {
        walk(folder, rest, depth, found)?;
    } else if !is_pattern(first) {
        let path = folder.join(first);
        return match path.exists() {
            true => walk(&path, rest, depth + 1, found),
            false => Ok(()),
        };
    }
    let shown = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let failed = |source| Error::Read {
        path: shown.to_owned(),
        source,
    };
    if !shown.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(shown).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = folder.join(name);
        if *first == "**" {
            // Links are not followed, since they could lead in a circle.
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            if is_folder && !name.starts_with('.') {
                walk(&path, parts, depth + 1, found)?;
            }
        } else if matches(first, name) {
            walk(&path, rest, depth + 1, found)?;
        }
    }
    Ok(())
}

/// Objects of a bucket, and hierarchies in it, that match a pattern.
async fn cloud_matches(text: &str, files: &Externals) -> Result<Vec<Resolved>, Error> {
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
    let plain = parts.iter().take_while(|part| !is_pattern(part)).count();
    if plain == 0 {
        return Err(option(format!(
            "{text:?}: the name of a bucket cannot be a pattern"
        )));
    }
    let root = format!("{scheme}://{}", parts[..plain].join("/"));
    files.allowed().check_url(&root)?;
    let wanted = &parts[plain..];
    let mut found: Vec<String> = Vec::new();
    for (key, _) in Store::open(&root)?.list("").await? {
        let names: Vec<&str> = key.split('/').collect();
        if matches_path(wanted, &names) {
            found.push(format!("{root}/{key}"));
        }
        if let Some((document, folder)) = names.split_last()
            && HIERARCHY.contains(document)
            && matches_path(wanted, folder)
        {
            found.push(format!("{root}/{}", folder.join("/")));
        }
    }
    found.sort_by(|a, b| natural(a, b));
    found.dedup();
    found.iter().map(|path| Resolved::new(path)).collect()
}

#[cfg(test)]
mod tests {
    use storage::AllowList;

    use super::*;

    #[tokio::test]
    async fn patterns_stand_for_sorted_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "m10.nc",
            "m9.nc",
            "other.txt",
            "a/m1.nc",
            "a/b/m2.nc",
            "[x].nc",
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        let files = Externals::new(AllowList::everything());
        let names = async |pattern: &str| -> Result<Vec<String>, Error> {
            let text = folder.path().join(pattern).display().to_string();
            let found = resolve(&[text], &files).await?;
            let root = folder.path().display().to_string();
            let below = |one: &Resolved| one.location()[root.len() + 1..].to_owned();
            Ok(found.iter().map(below).collect())
        };
        assert_eq!(names("m*.nc").await.unwrap(), ["m9.nc", "m10.nc"]);
        assert_eq!(names("*/m?.nc").await.unwrap(), ["a/m1.nc"]);
        assert_eq!(
            names("**/m[12]*.nc").await.unwrap(),
            ["a/b/m2.nc", "a/m1.nc", "m10.nc"]
        );
        // What exists is no pattern.
        assert_eq!(names("[x].nc").await.unwrap(), ["[x].nc"]);
        let error = names("x*.nc").await.unwrap_err();
        assert!(error.to_string().contains("nothing matches"), "{error}");
        assert!(resolve(&[], &files).await.is_err());
    }

    #[tokio::test]
    async fn what_may_not_be_read_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        std::fs::write(&path, b"").unwrap();
        let nothing = Externals::default();
        let pattern = folder.path().join("*.npy").display().to_string();
        for text in [pattern, "s3://bucket/*.nc".into()] {
            let error = resolve(&[text], &nothing).await.unwrap_err();
            assert!(
                matches!(error, Error::Storage(storage::Error::Forbidden { .. })),
                "{error:?}"
            );
        }
        for text in [
            path.display().to_string(),
            "https://example.org/x.nc".into(),
        ] {
            let found = resolve(&[text], &nothing).await.unwrap();
            let error = found[0].open(&nothing, &|_, _| {}).await.unwrap_err();
            assert!(
                matches!(error, Error::Storage(storage::Error::Forbidden { .. })),
                "{error:?}"
            );
        }
    }
}
