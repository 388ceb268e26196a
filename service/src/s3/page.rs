//! A page of the keys of a bucket, in the order of their text, found without looking at those before
//! or after it.
//!
//! ```text
//! ""            ─► refs
//! "{ref}/…/"    ─► names of the Zarr view below this directory
//! "{ref}/…/ab"  ─► those names that begin with "ab"
//! ```

use std::collections::HashMap;

use futures::{StreamExt as _, stream};
use storage::Repository;

use super::Gateway;
use super::conditions::Version;
use super::object::{is_plain, snapshot, version};
use super::refusal::Refusal;
use crate::error::Failure;
use crate::http::zarr::{Depth, Object, Target, names_below};
use crate::state::Pinned;

/// Objects of a page that are looked up at once.
const CONCURRENT: usize = 8;
/// Most chunks of a page that are encoded anew to know their lengths; the page ends after them.
const MAX_ENCODED: usize = 64;
/// Names that are looked at together where most of them are skipped.
const TOGETHER: usize = 16;
/// Comes after every character.
const LAST: char = char::MAX;

/// What is listed.
#[derive(Debug)]
pub(super) struct Wanted {
    /// What keys begin with.
    pub(super) prefix: String,
    /// Keys that go on after the prefix and have this are told by what comes before it alone. Not
    /// empty.
    pub(super) delimiter: Option<String>,
    /// Only keys and common prefixes after this.
    pub(super) after: String,
    /// Most keys and common prefixes.
    pub(super) most: usize,
}

/// A page.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<Listed>,
    /// What several keys begin with.
    pub(super) prefixes: Vec<String>,
    /// The last key or common prefix, if there are more.
    pub(super) next: Option<String>,
}

/// An object of a page.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) length: u64,
    pub(super) version: Version,
}

/// A key, or what several keys begin with.
enum Entry {
    Key(String),
    Prefix(String),
}

/// The page that is wanted of a bucket.
pub(super) async fn page(
    gateway: &Gateway,
    bucket: &str,
    repository: &Repository,
    wanted: &Wanted,
) -> Result<Page, Refusal> {
    if wanted.most == 0 {
        return Ok(Page::default());
    }
    let mut lister = Lister {
        gateway,
        bucket,
        repository,
        pinned: HashMap::new(),
    };
    let mut entries = lister.entries(wanted).await?;
    let is_last = entries.len() <= wanted.most;
    entries.truncate(wanted.most);
    lister.describe(entries, is_last).await
}

/// Lists a bucket; a ref is the same commit throughout a page.
struct Lister<'a> {
    gateway: &'a Gateway,
    bucket: &'a str,
    repository: &'a Repository,
    pinned: HashMap<String, Option<Pinned>>,
}

impl Lister<'_> {
    /// The commit of a ref; `None` if there is none.
    async fn pinned(&mut self, reference: &str) -> Result<Option<Pinned>, Failure> {
        if let Some(known) = self.pinned.get(reference) {
            return Ok(known.clone());
        }
        let found = snapshot(self.gateway, self.bucket, reference).await?;
        self.pinned.insert(reference.to_owned(), found.clone());
        Ok(found)
    }

    /// What is wanted, and one more if there is more.
    async fn entries(&mut self, wanted: &Wanted) -> Result<Vec<Entry>, Failure> {
        let most = wanted.most + 1;
        let cut = wanted.prefix.rfind('/').map_or(0, |at| at + 1);
        let (directory, part) = wanted.prefix.split_at(cut);
        let mut after = match wanted.after.strip_prefix(directory) {
            Some(after) => after.to_owned(),
            None if wanted.after.as_str() < directory => String::new(),
            None => return Ok(Vec::new()),
        };
        let depth = match wanted.delimiter.as_deref() {
            Some("/") => Depth::Children,
            _ => Depth::All,
        };
        let mut entries = Vec::new();
        if after.as_str() < part {
            after = part.to_owned();
            if self.object(&wanted.prefix).await?.is_some() {
                entries.push(Entry::Key(wanted.prefix.clone()));
            }
        }
        while entries.len() < most {
            let mut batch = most - entries.len();
            if wanted.delimiter.is_some() && depth == Depth::All {
                batch = batch.min(TOGETHER);
            }
            let names = self.names(directory, depth, &after, batch).await?;
            let is_all = names.len() < batch;
            let mut is_skipped = false;
            for name in names {
                let Some(rest) = name.strip_prefix(part) else {
                    return Ok(entries);
                };
                let end = wanted.delimiter.as_deref().and_then(|delimiter| {
                    rest.find(delimiter)
                        .map(|at| part.len() + at + delimiter.len())
                });
                let Some(end) = end else {
                    entries.push(Entry::Key(format!("{directory}{name}")));
                    after = name;
                    continue;
                };
                let prefix = format!("{directory}{}", &name[..end]);
                // What a page before ended with, or began after, has been told.
                let is_known =
                    matches!(entries.last(), Some(Entry::Prefix(last)) if *last == prefix);
                if prefix > wanted.after && !is_known {
                    entries.push(Entry::Prefix(prefix));
                }
                if depth == Depth::All {
                    // What else begins so need not be looked at.
                    let end = format!("{}{LAST}", &name[..end]);
                    after = end.max(name);
                    is_skipped = true;
                    break;
                }
                after = name;
            }
            if is_all && !is_skipped {
                break;
            }
        }
        Ok(entries)
    }

    /// The first `most` names below a directory after `after`; those of directories end with a slash.
    async fn names(
        &mut self,
        directory: &str,
        depth: Depth,
        after: &str,
        most: usize,
    ) -> Result<Vec<String>, Failure> {
        let Some((reference, below)) = directory.split_once('/') else {
            return self.refs(depth, after, most).await;
        };
        let below = below.trim_end_matches('/');
        let is_spelt = directory == format!("{reference}/")
            || directory == format!("{reference}/{below}/") && is_plain(below);
        let pinned = match is_spelt {
            true => self.pinned(reference).await?,
            false => None,
        };
        match pinned {
            Some(pinned) => names_of(&pinned, below, depth, after, most).await,
            None => Ok(Vec::new()),
        }
    }

    /// The first `most` names in a bucket: of refs, or of all that is below them.
    async fn refs(
        &mut self,
        depth: Depth,
        after: &str,
        most: usize,
    ) -> Result<Vec<String>, Failure> {
        let head = self.repository.head().await?;
        let mut refs: Vec<String> = head
            .refs
            .keys()
            .map(|name| format!("{}/", name.name))
            .collect();
        refs.sort();
        let mut names = Vec::new();
        for text in refs {
            if names.len() >= most {
                break;
            }
            if depth == Depth::Children {
                names.extend(Some(text).filter(|text| text.as_str() > after));
                continue;
            }
            // All below comes before.
            if text.as_str() < after && !after.starts_with(&text) {
                continue;
            }
            let Some(pinned) = self.pinned(text.trim_end_matches('/')).await? else {
                continue;
            };
            let after = after.strip_prefix(&text).unwrap_or_default();
            let left = most - names.len();
            let below = names_of(&pinned, "", Depth::All, after, left).await?;
            names.extend(below.into_iter().map(|name| format!("{text}{name}")));
        }
        Ok(names)
    }

    /// The object under a key, and the commit it is in.
    async fn object(&mut self, key: &str) -> Result<Option<(Pinned, Object)>, Failure> {
        let Some((reference, below)) = key.split_once('/') else {
            return Ok(None);
        };
        if !is_plain(below) {
            return Ok(None);
        }
        let Some(pinned) = self.pinned(reference).await? else {
            return Ok(None);
        };
        let target = Target::Pinned(&pinned);
        let object = Object::find(&self.gateway.state, &target, below).await;
        let object = pinned.settle(object).await?;
        Ok(object.map(|object| (pinned, object)))
    }

    /// The page of these entries, which are the last ones or not.
    async fn describe(&mut self, entries: Vec<Entry>, is_last: bool) -> Result<Page, Refusal> {
        let mut page = Page::default();
        let (mut found, mut encoded) = (Vec::new(), 0);
        let mut last = None;
        let mut is_cut = !is_last;
        for entry in entries {
            if encoded >= MAX_ENCODED {
                is_cut = true;
                break;
            }
            match entry {
                Entry::Prefix(prefix) => {
                    last = Some(prefix.clone());
                    page.prefixes.push(prefix);
                }
                Entry::Key(key) => {
                    last = Some(key.clone());
                    if let Some((pinned, object)) = self.object(&key).await? {
                        encoded += usize::from(object.is_encoded_anew());
                        found.push((key, pinned, object));
                    }
                }
            }
        }
        let gateway = self.gateway;
        let listed = found.into_iter().map(|(key, pinned, object)| async move {
            let content = object
                .content(&gateway.state, &Target::Pinned(&pinned))
                .await;
            let content = pinned.settle(content).await?;
            Ok::<_, Failure>(Listed {
                key,
                length: content.length(),
                version: version(&pinned, &content),
            })
        });
        let mut listed = stream::iter(listed).buffered(CONCURRENT);
        while let Some(object) = listed.next().await {
            page.objects.push(object?);
        }
        drop(listed);
        page.next = last.filter(|_| is_cut);
        Ok(page)
    }
}

async fn names_of(
    pinned: &Pinned,
    below: &str,
    depth: Depth,
    after: &str,
    most: usize,
) -> Result<Vec<String>, Failure> {
    let target = Target::Pinned(pinned);
    let names = names_below(&target, below, depth, after, most).await;
    pinned.settle(names).await
}
