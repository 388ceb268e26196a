//! What each route needs. A route that is not here is refused, wherever someone is asked who he is.

use axum::http::Method;

use super::access::Action;

/// What a request must be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: nobody is asked who he is.
    Open,
    /// To be someone.
    SignedIn,
    /// This, in some part of some repository; the handler knows of which.
    Somewhere(Action),
    /// This, in some part of the repository; the handler shows no more than that.
    Part(Action),
    /// This, in all of the repository.
    Whole(Action),
    /// This, to the node at `{path}` and what is below.
    Node(Action),
    /// To see the node at `{path}`, or a group on the way to what may be seen, of which no more than
    /// that is shown.
    NodeOrWay,
    /// This, to what has the Zarr key `{key}`.
    Key(Action),
    /// To see what has the Zarr key `{key}`, or a group as in [`Need::NodeOrWay`].
    KeyOrWay,
    /// To be admin of a repository of this name, whether or not there is one.
    Create,
    /// To be admin of all repositories.
    Store,
    /// To be admin of all repositories, unless metrics are open.
    Metrics,
}

impl Need {
    /// The least role that has it, as the API documentation says it; `None` for what is open.
    pub fn text(self) -> Option<&'static str> {
        let role = |action| match action {
            Read => "reader",
            Write => "writer",
            Administer => "admin",
        };
        Some(match self {
            Self::Open => return None,
            Self::SignedIn => "anyone with credentials",
            Self::Somewhere(action) | Self::Part(action) => match action {
                Read => "reader of any part",
                Write => "writer of any part",
                Administer => "admin",
            },
            Self::Whole(action) => match action {
                Read => "reader of the repository",
                Write => "writer of the repository",
                Administer => "admin of the repository",
            },
            Self::Node(action) | Self::Key(action) => role(action),
            Self::NodeOrWay | Self::KeyOrWay => "reader",
            Self::Create => "admin of the repository",
            Self::Store | Self::Metrics => "admin of all repositories",
        })
    }

    /// Whether a request of this method changes something.
    pub fn changes(self, method: &Method) -> bool {
        let is_safe = matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS" | "PROPFIND");
        // Points and vectors come in the body of a POST because they do not fit into a URL.
        !is_safe && self != Self::Node(Read)
    }
}

use Action::{Administer, Read, Write};
use Need::{
    Create, Key, KeyOrWay, Metrics, Node, NodeOrWay, Open, Part, SignedIn, Somewhere, Store, Whole,
};

/// Paths as in the API documentation, with what each method needs. `GET` stands for `HEAD` too.
const ROUTES: &[(&str, &[(&str, Need)])] = &[
    ("/", &[("GET", Open)]),
    ("/livez", &[("GET", Open)]),
    ("/readyz", &[("GET", Open)]),
    ("/docs", &[("GET", Open)]),
    ("/docs/{rest}", &[("GET", Open)]),
    ("/openapi.json", &[("GET", Open)]),
    ("/metrics", &[("GET", Metrics)]),
    ("/v1/limits", &[("GET", Open)]),
    // It says what others ask for.
    ("/v1/status", &[("GET", Store)]),
    ("/v1/auth/me", &[("GET", SignedIn)]),
    ("/v1/auth/keys", &[("GET", Store), ("POST", Store)]),
    ("/v1/auth/keys/{key}", &[("GET", Store), ("DELETE", Store)]),
    ("/v1/auth/keys/{key}/rotate", &[("POST", Store)]),
    ("/v1/repos", &[("GET", Somewhere(Read))]),
    (
        "/v1/jobs",
        &[("GET", Somewhere(Read)), ("POST", Somewhere(Read))],
    ),
    (
        "/v1/jobs/{id}",
        &[("GET", Somewhere(Read)), ("DELETE", Somewhere(Read))],
    ),
    ("/v1/jobs/{id}/events", &[("GET", Somewhere(Read))]),
    ("/v1/jobs/{id}/resume", &[("POST", Somewhere(Read))]),
    ("/v1/uploads", &[("POST", Somewhere(Write))]),
    ("/v1/uploads/{id}", &[("DELETE", Somewhere(Write))]),
    (
        "/v1/repos/{repository}",
        &[
            ("GET", Part(Read)),
            ("PUT", Create),
            ("DELETE", Whole(Administer)),
        ],
    ),
    ("/v1/repos/{repository}/branches", &[("GET", Part(Read))]),
    (
        "/v1/repos/{repository}/branches/{name}",
        &[("PUT", Whole(Write)), ("DELETE", Whole(Administer))],
    ),
    (
        "/v1/repos/{repository}/branches/{name}/reset",
        &[("POST", Whole(Administer))],
    ),
    (
        "/v1/repos/{repository}/branches/{name}/revert",
        &[("POST", Whole(Write))],
    ),
    (
        "/v1/repos/{repository}/branches/{name}/cherry-pick",
        &[("POST", Whole(Write))],
    ),
    ("/v1/repos/{repository}/merge", &[("POST", Whole(Write))]),
    (
        "/v1/repos/{repository}/diff/{from}/{to}",
        &[("GET", Whole(Read))],
    ),
    (
        "/v1/repos/{repository}/transactions",
        &[("POST", Part(Write))],
    ),
    ("/v1/repos/{repository}/tags", &[("GET", Part(Read))]),
    (
        "/v1/repos/{repository}/tags/{name}",
        &[("PUT", Whole(Write)), ("DELETE", Whole(Administer))],
    ),
    ("/v1/repos/{repository}/log", &[("GET", Whole(Read))]),
    (
        "/v1/repos/{repository}/log/{sequence}",
        &[("GET", Whole(Read))],
    ),
    (
        "/v1/repos/{repository}/tlog/{tile}",
        &[("GET", Whole(Read))],
    ),
    (
        "/v1/repos/{repository}/refs/{reference}",
        &[("GET", Part(Read))],
    ),
    (
        "/v1/repos/{repository}/refs/{reference}/nodes",
        &[("GET", NodeOrWay)],
    ),
    (
        "/v1/repos/{repository}/refs/{reference}/nodes/{path}",
        &[
            ("GET", NodeOrWay),
            ("PUT", Node(Write)),
            ("DELETE", Node(Write)),
        ],
    ),
    (
        "/v1/repos/{repository}/refs/{reference}/data/{path}",
        &[("GET", Node(Read)), ("PUT", Node(Write))],
    ),
    (
        "/v1/repos/{repository}/refs/{reference}/reduce/{path}",
        &[("GET", Node(Read))],
    ),
    (
        "/v1/repos/{repository}/refs/{reference}/points/{path}",
        &[("POST", Node(Read))],
    ),
    (
        "/v1/repos/{repository}/refs/{reference}/nearest/{path}",
        &[("POST", Node(Read))],
    ),
    // Of the array and of the one it is multiplied with: the handler looks.
    (
        "/v1/repos/{repository}/refs/{reference}/product/{path}",
        &[("GET", Node(Read))],
    ),
    (
        "/v1/repos/{repository}/refs/{reference}/explain/{path}",
        &[("GET", Node(Read))],
    ),
    // A proof shows the rows beside its own on the way to the root.
    (
        "/v1/repos/{repository}/refs/{reference}/proof/{path}",
        &[("GET", Whole(Read))],
    ),
    (
        "/v1/repos/{repository}/refs/{reference}/receipt",
        &[("GET", Whole(Read))],
    ),
    (
        "/v1/repos/{repository}/refs/{reference}/zarr",
        &[
            ("GET", KeyOrWay),
            ("DELETE", Key(Write)),
            ("PROPFIND", KeyOrWay),
            ("MKCOL", Key(Write)),
        ],
    ),
    (
        "/v1/repos/{repository}/refs/{reference}/zarr/{key}",
        &[
            ("GET", KeyOrWay),
            ("PUT", Key(Write)),
            ("DELETE", Key(Write)),
            ("PROPFIND", KeyOrWay),
            ("MKCOL", Key(Write)),
        ],
    ),
    // Whoever commits or gives up has opened it, or is a writer of all: the handler looks.
    (
        "/v1/transactions/{id}",
        &[("GET", Part(Write)), ("DELETE", Part(Write))],
    ),
    ("/v1/transactions/{id}/commit", &[("POST", Part(Write))]),
    ("/v1/transactions/{id}/move", &[("POST", Part(Write))]),
    (
        "/v1/transactions/{id}/nodes",
        &[("GET", NodeOrWay), ("PUT", Node(Write))],
    ),
    (
        "/v1/transactions/{id}/nodes/{path}",
        &[
            ("GET", NodeOrWay),
            ("PUT", Node(Write)),
            ("DELETE", Node(Write)),
        ],
    ),
    (
        "/v1/transactions/{id}/data/{path}",
        &[("GET", Node(Read)), ("PUT", Node(Write))],
    ),
    (
        "/v1/transactions/{id}/zarr",
        &[
            ("GET", KeyOrWay),
            ("DELETE", Key(Write)),
            ("PROPFIND", KeyOrWay),
            ("MKCOL", Key(Write)),
        ],
    ),
    (
        "/v1/transactions/{id}/zarr/{key}",
        &[
            ("GET", KeyOrWay),
            ("PUT", Key(Write)),
            ("DELETE", Key(Write)),
            ("PROPFIND", KeyOrWay),
            ("MKCOL", Key(Write)),
        ],
    ),
];

/// What a route declares for a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    /// This is needed.
    Needs(Need),
    /// The route has no such method.
    NoMethod,
    /// The route declares nothing.
    Nothing,
}

/// A path of the router as the API documentation writes it.
pub fn documented(route: &str) -> String {
    let route = route.replace("{*", "{");
    match route.trim_end_matches('/') {
        "" => "/".to_owned(),
        route => route.to_owned(),
    }
}

/// What the method of a documented route needs.
pub fn need(method: &Method, route: &str) -> Declared {
    let Some((_, methods)) = ROUTES.iter().find(|(path, _)| *path == route) else {
        return Declared::Nothing;
    };
    let method = match method.as_str() {
        "HEAD" => "GET",
        other => other,
    };
    let found = methods.iter().find(|(name, _)| *name == method);
    found.map_or(Declared::NoMethod, |(_, need)| Declared::Needs(*need))
}

/// The methods of a documented route, as `Allow` lists them.
pub fn methods(route: &str) -> String {
    let found = ROUTES.iter().find(|(path, _)| *path == route);
    let names = found.map(|(_, methods)| methods.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    names
        .unwrap_or_default()
        .join(",")
        .replace("GET", "GET,HEAD")
}

/// All routes with the methods they declare.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str, Need)> {
    let each = ROUTES.iter();
    each.flat_map(|(path, methods)| methods.iter().map(|(method, need)| (*path, *method, *need)))
}
