//! Refs: what an expression names, and creating and deleting branches and tags.

use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use crate::commit::Commit;
use crate::log::{Asked, Idempotency, LogState, Operation, Ref, RefKind};
use crate::names::{RefBase, RefExpression, RefName};
use crate::object::object_key;
use crate::repository::Repository;
use crate::{CommitId, Error};

/// What a ref expression named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The commit.
    pub commit: CommitId,
    /// The branch, if the expression is one and will name another commit when it moves.
    pub branch: Option<RefName>,
}

/// Where a ref was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Where it was; `None` if it was not there, or an earlier request of the same key moved it.
    pub from: Option<CommitId>,
    /// Where it is; `None` if it was deleted. If an earlier request of the same key deleted it, where
    /// it had been.
    pub to: Option<CommitId>,
}

impl Repository {
    /// The commit an expression names.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, with names that look alike; [`Error::Invalid`] for an
    /// ambiguous prefix; [`Error::Missing`] if data was lost.
    pub async fn resolve(&self, expression: &RefExpression) -> Result<Resolved, Error> {
        self.resolve_since(expression, Instant::now()).await
    }

    /// The commit an expression names, now or at any time since `asked`: with all that was committed
    /// before. Those who ask together share the request for the newest entry.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub async fn resolve_since(
        &self,
        expression: &RefExpression,
        asked: Instant,
    ) -> Result<Resolved, Error> {
        let (mut commit, branch) = match &expression.base {
            RefBase::Name(name) => self.resolve_name(name, expression, asked).await?,
            RefBase::Commit(commit) => {
                self.find_commit(*commit).await?;
                (*commit, None)
            }
            RefBase::Prefix(digits) => (self.commit_with_prefix(digits).await?, None),
        };
        for _ in 0..expression.ancestors {
            let parents = &self.commit(commit).await?.parents;
            let parent = *parents.first().ok_or_else(|| Error::NotFound {
                what: "parent of the first commit",
                name: commit.to_string(),
                suggestions: Vec::new(),
            })?;
            if self.log_cache().has_expired(&parent) {
                return Err(Error::Expired {
                    commit: parent.to_string(),
                });
            }
            commit = parent;
        }
        Ok(Resolved { commit, branch })
    }

    /// Where a branch or tag is, or was; and the branch, if it is one and the newest is asked for.
    async fn resolve_name(
        &self,
        name: &RefName,
        expression: &RefExpression,
        asked: Instant,
    ) -> Result<(CommitId, Option<RefName>), Error> {
        let state = match expression.at {
            Some(time) => self.state_at(time).await?,
            None => self.head_since(asked).await?,
        };
        if let Some(commit) = state.get(&Ref::branch(name.clone())) {
            let moves = expression.at.is_none() && expression.ancestors == 0;
            return Ok((commit, moves.then(|| name.clone())));
        }
        match state.get(&Ref::tag(name.clone())) {
            Some(commit) => Ok((commit, None)),
            None => {
                let known = state.refs.keys().map(|known| known.name.as_str());
                Err(Error::not_found("branch or tag", name.as_str(), known))
            }
        }
    }

    /// What an earlier request on a branch under the same idempotency key led to.
    ///
    /// # Errors
    /// [`Error::KeyReused`] if that was another request.
    pub async fn first_result(
        &self,
        branch: &RefName,
        idempotency: &Idempotency,
    ) -> Result<Option<CommitId>, Error> {
        let state = self.head().await?;
        state.first_result(&Ref::branch(branch.clone()), idempotency)
    }

    /// The document of a commit that a person names: here, absence is not a loss.
    pub(crate) async fn find_commit(&self, id: CommitId) -> Result<Arc<Commit>, Error> {
        match self.commit(id).await {
            Err(Error::Missing { .. }) => Err(Error::not_found("commit", &id.to_string(), [])),
            found => found,
        }
    }

    async fn commit_with_prefix(&self, digits: &str) -> Result<CommitId, Error> {
        let (folder, rest) = digits.split_at(2);
        let mut found = Vec::new();
        for (key, _) in self.store().list(&format!("objects/{folder}")).await? {
            let name = key.rsplit('/').next().unwrap_or_default();
            let Ok(id) = format!("{folder}{name}").parse::<CommitId>() else {
                continue;
            };
            if !name.starts_with(rest) {
                continue;
            }
            match self.commit(id).await {
                Ok(_) => found.push(id),
                // Another kind of object.
                Err(Error::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match found.as_slice() {
            [id] => Ok(*id),
            [] => Err(Error::not_found("commit", digits, [])),
            _ => Err(Error::invalid(
                "commit",
                format!("{digits} names {} commits: give more digits", found.len()),
            )),
        }
    }

    /// Creates a branch or a tag at `commit`. Gives where it was created: elsewhere if an earlier
    /// request of the same key did and what it asked for has moved on since.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if a branch or tag has the name; [`Error::NotFound`] if there is no
    /// such commit; [`Error::KeyReused`] if another request had the key.
    pub async fn create_ref<'a>(
        &self,
        kind: RefKind,
        name: &RefName,
        commit: CommitId,
        asked: impl Into<Asked<'a>>,
    ) -> Result<CommitId, Error> {
        self.find_commit(commit).await?;
        let name = Ref {
            kind,
            name: name.clone(),
        };
        let change = move |state: &LogState, name: &Ref| {
            let is_taken = [RefKind::Branch, RefKind::Tag].into_iter().any(|kind| {
                let name = name.name.clone();
                state.get(&Ref { kind, name }).is_some()
            });
            if is_taken {
                return Err(Error::AlreadyExists {
                    what: "branch or tag",
                    name: name.name.to_string(),
                });
            }
            Ok((None, Some(commit)))
        };
        let moved = self.update_ref(asked.into(), name, change).await?;
        Ok(moved.to.unwrap_or(commit))
    }

    /// Deletes a branch or a tag. The commits stay.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of that name; [`Error::KeyReused`] if another request had
    /// the key.
    pub async fn delete_ref<'a>(
        &self,
        kind: RefKind,
        name: &RefName,
        asked: impl Into<Asked<'a>>,
    ) -> Result<(), Error> {
        let name = Ref {
            kind,
            name: name.clone(),
        };
        let change = move |state: &LogState, name: &Ref| {
            let what = kind.name();
            let known = state.refs.keys().filter(|known| known.kind == kind);
            let known = known.map(|known| known.name.as_str());
            let from = state
                .get(name)
                .ok_or_else(|| Error::not_found(what, name.name.as_str(), known))?;
            Ok((Some(from), None))
        };
        self.update_ref(asked.into(), name, change).await.map(drop)
    }

    /// Appends an entry that moves `name` as `change` says, given the state before; or none if an
    /// earlier request of the same key did.
    pub(crate) async fn update_ref<F>(
        &self,
        asked: Asked<'_>,
        name: Ref,
        change: F,
    ) -> Result<Moved, Error>
    where
        F: Fn(&LogState, &Ref) -> Result<(Option<CommitId>, Option<CommitId>), Error> + Send,
    {
        let write_id = Uuid::new_v4().to_string();
        let repository = self.clone();
        let (ours, idempotency) = (name.clone(), asked.idempotency);
        let again = idempotency.clone();
        let written = self
            .append(asked.actor, &write_id.clone(), move |state| {
                let first = match &idempotency {
                    Some(idempotency) => state.first_result(&name, idempotency),
                    None => Ok(None),
                };
                let moved = first.and_then(|first| match first {
                    Some(_) => Ok(None),
                    None => change(&state, &name).map(Some),
                });
                let (repository, write_id) = (repository.clone(), write_id.clone());
                let (name, idempotency) = (name.clone(), idempotency.clone());
                Box::pin(async move {
                    let Some((from, to)) = moved? else {
                        return Ok(None);
                    };
                    if let Some(commit) = to {
                        repository.check_kept(commit, &state).await?;
                    }
                    Ok(Some(vec![Operation::UpdateRef {
                        name,
                        from,
                        to,
                        write_id,
                        idempotency,
                    }]))
                })
            })
            .await?;
        let mut written = written.into_iter().flatten();
        let own = written.find_map(|operation| match operation {
            Operation::UpdateRef { from, to, .. } => Some(Moved { from, to }),
            _ => None,
        });
        match (own, again) {
            (Some(moved), _) => Ok(moved),
            (None, Some(again)) => Ok(Moved {
                from: None,
                to: self.head().await?.first_result(&ours, &again)?,
            }),
            (None, None) => Err(Error::corrupt(
                "log",
                "the entry of this request moves no ref",
            )),
        }
    }

    /// Checks that a commit which no ref may need so far is there and stays: no sweep before the
    /// next entry deletes it, and one after that entry will find the ref.
    pub(crate) async fn check_kept(&self, commit: CommitId, state: &LogState) -> Result<(), Error> {
        let key = object_key(&commit.0);
        if let Some(sweep) = &state.sweep {
            let list = self.sweep_list(&sweep.list).await?;
            if let Some(key) = list.first_of(std::slice::from_ref(&key)) {
                return Err(Error::Swept { key: key.clone() });
            }
        }
        self.check_stored(commit).await
    }

    /// Checks that a commit is there, whatever is cached of it: with its document goes all that
    /// only it needs.
    pub(crate) async fn check_stored(&self, commit: CommitId) -> Result<(), Error> {
        match self.store().get(&object_key(&commit.0)).await? {
            Some(_) => Ok(()),
            None => Err(Error::Expired {
                commit: commit.to_string(),
            }),
        }
    }
}
