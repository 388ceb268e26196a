//! Who may do what where: roles, grants and principals. Nothing here knows of HTTP.
//!
//! A grant gives a role in a repository, or in its part below a node, or in all repositories. What is
//! not granted is refused. Prefixes are compared as parsed node paths, name by name: `a` covers `a/b`,
//! not `ab`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use array::NodePath;
use serde::{Deserialize, Serialize};
use storage::RepoName;

/// What someone wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// See what there is.
    Read,
    /// Add to the history: new data, commits, branches and tags.
    Write,
    /// What can lose history, or concerns the repository as a whole.
    Administer,
}

/// What someone is; each role may do what those before it may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Reader,
    /// Writes as well.
    Writer,
    /// Does everything.
    Admin,
}

impl Role {
    /// Whether the role may do it.
    pub fn permits(self, action: Action) -> bool {
        match action {
            Action::Read => true,
            Action::Write => self >= Self::Writer,
            Action::Administer => self == Self::Admin,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Admin => "admin",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "reader" => Ok(Self::Reader),
            "writer" => Ok(Self::Writer),
            "admin" => Ok(Self::Admin),
            _ => Err(format!("{text:?} is none of reader, writer, admin")),
        }
    }
}

/// A grant, as it is written in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantInfo {
    /// `reader`, `writer` or `admin`.
    pub role: Role,
    /// The repository; all of them if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    pub repository: Option<String>,
    /// The node that the role is limited to, with everything below it; all nodes if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// A role, and where it holds.
///
/// Guarantees: a prefix belongs to one repository, and no admin has one. What admins do concerns a
/// repository as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "GrantInfo", into = "GrantInfo")]
pub struct Grant {
    role: Role,
    /// `None`: all repositories.
    repository: Option<RepoName>,
    prefix: NodePath,
}

impl Grant {
    /// A role in a repository below a node, or in all repositories.
    ///
    /// # Errors
    /// In words, if a prefix has no repository or is an admin's.
    pub fn new(role: Role, repository: Option<RepoName>, prefix: NodePath) -> Result<Self, String> {
        if !prefix.is_root() && repository.is_none() {
            return Err(format!("the prefix {prefix} needs a repository"));
        }
        if !prefix.is_root() && role == Role::Admin {
            let reason =
                "an admin has no prefix: what admins do concerns the repository as a whole";
            return Err(reason.to_owned());
        }
        Ok(Self {
            role,
            repository,
            prefix,
        })
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The repository; `None` for all.
    pub fn repository(&self) -> Option<&RepoName> {
        self.repository.as_ref()
    }

    /// The node it is limited to.
    pub fn prefix(&self) -> &NodePath {
        &self.prefix
    }

    fn is_of(&self, repository: &RepoName) -> bool {
        self.repository.as_ref().is_none_or(|own| own == repository)
    }
}

impl TryFrom<GrantInfo> for Grant {
    type Error = String;

    fn try_from(info: GrantInfo) -> Result<Self, String> {
        let repository = info.repository.map(|name| name.parse::<RepoName>());
        let repository = repository.transpose().map_err(|error| error.to_string())?;
        let prefix = info.prefix.as_deref().unwrap_or("");
        let prefix = prefix
            .parse()
            .map_err(|error: array::Error| error.to_string())?;
        Self::new(info.role, repository, prefix)
    }
}

impl From<Grant> for GrantInfo {
    fn from(grant: Grant) -> Self {
        Self {
            role: grant.role,
            repository: grant.repository.map(|name| name.to_string()),
            prefix: (!grant.prefix.is_root()).then(|| grant.prefix.to_string()),
        }
    }
}

/// `ROLE[:REPOSITORY[:PREFIX]]`.
impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        Self::try_from(GrantInfo {
            role: parts.next().unwrap_or_default().parse()?,
            repository: parts.next().map(str::to_owned),
            prefix: parts.next().map(str::to_owned),
        })
    }
}

/// Someone, and what he was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Tells principals apart: `key:<id>`, `oidc:<issuer>#<subject>`, or `anonymous`.
    pub id: String,
    /// What commits and the audit log call him.
    pub name: String,
    /// What he may do.
    pub grants: Vec<Grant>,
}

impl Principal {
    /// Whoever gives no credentials.
    pub fn anonymous(grants: Vec<Grant>) -> Self {
        Self {
            id: "anonymous".to_owned(),
            name: "anonymous".to_owned(),
            grants,
        }
    }

    /// Whether nobody said who he is.
    pub fn is_anonymous(&self) -> bool {
        self.id == "anonymous"
    }

    fn granted(&self, action: Action, repository: &RepoName) -> impl Iterator<Item = &Grant> {
        let of_repository = self.grants.iter().filter(|grant| grant.is_of(repository));
        of_repository.filter(move |grant| grant.role.permits(action))
    }

    /// Whether he may do this to the node at `path` and everything below it. At the root, that is the
    /// whole repository.
    pub fn allows(&self, action: Action, repository: &RepoName, path: &NodePath) -> bool {
        self.granted(action, repository)
            .any(|grant| path.starts_with(&grant.prefix))
    }

    /// Whether he may do this in some part of the repository.
    pub fn allows_in(&self, action: Action, repository: &RepoName) -> bool {
        self.granted(action, repository).next().is_some()
    }

    /// Whether he may do this in some part of some repository.
    pub fn allows_somewhere(&self, action: Action) -> bool {
        self.grants.iter().any(|grant| grant.role.permits(action))
    }

    /// Whether he is an admin of all repositories, those to come among them.
    pub fn administers_store(&self) -> bool {
        let is_of_all = |grant: &Grant| grant.repository.is_none() && grant.role == Role::Admin;
        self.grants.iter().any(is_of_all)
    }

    /// The part of the repository that he may do this to.
    pub fn scope(&self, action: Action, repository: &RepoName) -> Scope {
        let granted = self.granted(action, repository);
        Scope::of(granted.map(|grant| grant.prefix.clone()).collect())
    }
}

/// The part of a repository below some nodes. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(Arc<[NodePath]>);

impl Scope {
    /// All of it.
    pub fn whole() -> Self {
        Self::of(vec![NodePath::root()])
    }

    /// What is at and below these nodes.
    pub fn of(mut prefixes: Vec<NodePath>) -> Self {
        prefixes.sort();
        prefixes.dedup();
        Self(prefixes.into())
    }

    /// Whether it is all of the repository.
    pub fn is_whole(&self) -> bool {
        self.contains(&NodePath::root())
    }

    /// Whether the node at `path` is in it, with everything below.
    pub fn contains(&self, path: &NodePath) -> bool {
        self.0.iter().any(|prefix| path.starts_with(prefix))
    }

    /// Whether a group at `path` is on the way to something in it.
    pub fn leads_through(&self, path: &NodePath) -> bool {
        self.0.iter().any(|prefix| prefix.starts_with(path))
    }

    /// It as text, to tell it from others; empty if it is whole.
    pub fn text(&self) -> String {
        if self.is_whole() {
            return String::new();
        }
        let prefixes: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        // No name of a node has this character.
        prefixes.join("\0")
    }
}

/// What whoever asks may do: a principal's grants, or everything, where nobody is asked who he is.
#[derive(Clone, Debug)]
pub struct Access(Option<Arc<Principal>>);

impl Access {
    /// Everything: of the process itself, and of everyone where there is no authentication.
    pub fn everything() -> Self {
        Self(None)
    }

    /// Nothing.
    pub fn nothing() -> Self {
        Self::of(Principal::anonymous(Vec::new()))
    }

    /// What someone was granted.
    pub fn of(principal: Principal) -> Self {
        Self(Some(Arc::new(principal)))
    }

    /// Who asks, if that is known.
    pub fn principal(&self) -> Option<&Principal> {
        self.0.as_deref()
    }

    /// As [`Principal::allows`].
    pub fn allows(&self, action: Action, repository: &RepoName, path: &NodePath) -> bool {
        let principal = self.principal();
        principal.is_none_or(|principal| principal.allows(action, repository, path))
    }

    /// As [`Principal::allows_in`].
    pub fn allows_in(&self, action: Action, repository: &RepoName) -> bool {
        let principal = self.principal();
        principal.is_none_or(|principal| principal.allows_in(action, repository))
    }

    /// As [`Principal::scope`].
    pub fn scope(&self, action: Action, repository: &RepoName) -> Scope {
        let principal = self.principal();
        principal.map_or_else(Scope::whole, |principal| {
            principal.scope(action, repository)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> NodePath {
        text.parse().unwrap()
    }

    fn someone(grants: &[&str]) -> Principal {
        Principal {
            id: "key:1".into(),
            name: "ada".into(),
            grants: grants.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_prefix_covers_its_node_and_what_is_below_and_nothing_beside() {
        let ada = someone(&["writer:demo:/a/b"]);
        let demo = "demo".parse().unwrap();
        for inside in ["a/b", "/a/b/", "a/b/c"] {
            assert!(ada.allows(Action::Write, &demo, &path(inside)), "{inside}");
        }
        for outside in ["", "a", "a/bc", "A/b", "a/B", "b", "a /b"] {
            assert!(
                !ada.allows(Action::Read, &demo, &path(outside)),
                "{outside}"
            );
        }
        assert!(!ada.allows(Action::Write, &"other".parse().unwrap(), &path("a/b")));
        assert!(!ada.allows(Action::Administer, &demo, &path("a/b")));
        let scope = ada.scope(Action::Read, &demo);
        assert!(scope.leads_through(&path("a")) && scope.leads_through(&path("")));
        assert!(!scope.leads_through(&path("a/bc")) && !scope.leads_through(&path("c")));
    }

    #[test]
    fn grants_add_up() {
        let ada = someone(&["reader", "writer:demo:a", "admin:own"]);
        let (demo, own) = ("demo".parse().unwrap(), "own".parse().unwrap());
        assert!(ada.allows(Action::Read, &demo, &path("b")));
        assert!(!ada.allows(Action::Write, &demo, &path("b")));
        assert!(ada.allows(Action::Write, &demo, &path("a")));
        assert!(ada.allows(Action::Administer, &own, &path("")));
        assert!(!ada.administers_store());
        assert!(someone(&["admin"]).administers_store());
        assert!(ada.scope(Action::Read, &demo).is_whole());
        assert_eq!(ada.scope(Action::Write, &demo), Scope::of(vec![path("a")]));
    }

    #[test]
    fn nothing_is_granted_by_nothing() {
        let demo = "demo".parse().unwrap();
        assert!(!Access::nothing().allows(Action::Read, &demo, &path("")));
        assert!(
            !Access::nothing()
                .scope(Action::Read, &demo)
                .leads_through(&path(""))
        );
        assert!(Access::everything().allows(Action::Administer, &demo, &path("")));
    }

    #[test]
    fn grants_that_mean_nothing_are_refused() {
        for wrong in [
            "",
            "owner",
            "Reader",
            "admin:demo:a",
            "reader:Demo",
            "reader:../demo",
            "reader:",
            "reader:demo:a/../b",
            "reader:demo:a//b",
        ] {
            assert!(wrong.parse::<Grant>().is_err(), "{wrong}");
        }
        let nowhere = Grant::new(Role::Reader, None, path("a"));
        assert!(nowhere.is_err());
    }
}
