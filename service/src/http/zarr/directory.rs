//! Directories of the Zarr view as pages of links, as file servers give: clients list by them.

use axum::response::{Html, IntoResponse as _, Response};

use super::Target;
use super::listing::{Depth, names_below};
use crate::error::Failure;
use crate::http::answer::Caching;

/// Characters of a link that need no escape.
const LINK: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'.')
    .remove(b'-')
    .remove(b'_');

/// Most names in one answer that is not paged: some 20 MB of links.
const MAX_NAMES: usize = 100_000;

/// Every name below a directory.
///
/// # Errors
/// 413 if they are too many for one answer.
pub(crate) async fn all_names(
    target: &Target<'_>,
    key: &str,
    depth: Depth,
) -> Result<Vec<String>, Failure> {
    let names = names_below(target, key, depth, "", MAX_NAMES + 1).await?;
    if names.len() > MAX_NAMES {
        let detail = format!(
            "there are over {MAX_NAMES} names below {key:?}: ask for pages of them with ?list=children or ?list=all"
        );
        return Err(Failure::too_large(MAX_NAMES as u64, detail));
    }
    Ok(names)
}

/// A link to a name, or a part of a path.
pub(crate) fn link(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, LINK).to_string()
}

/// Text of HTML or XML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The page of the directory that `key` names.
pub(crate) async fn index(
    target: &Target<'_>,
    key: &str,
    url_path: &str,
    caching: &Caching,
) -> Result<Response, Failure> {
    let names = all_names(target, key, Depth::Children).await?;
    let item =
        |name: &String| format!("<li><a href=\"{}\">{}</a></li>\n", link(name), escape(name));
    let items: String = names.iter().map(item).collect();
    let title = escape(&format!("/{}", super::place::names(key).join("/")));
    // With and without a slash at its end, the URL is the directory that links start from.
    let base = escape(url_path.trim_end_matches('/'));
    let page = format!(
        "<!doctype html>\n<base href=\"{base}/\">\n<title>{title}</title>\n<h1>{title}</h1>\n<ul>\n{items}</ul>\n"
    );
    let mut response = Html(page).into_response();
    caching.apply(response.headers_mut());
    Ok(response)
}
