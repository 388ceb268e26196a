//! Long lists, page by page.

use std::cmp::Ordering;

use axum::Json;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// Most entries of a page.
const MAX_ENTRIES: usize = 1000;

/// Which part of a list is wanted.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Entries after this one, as `next` of the page before gives it.
    pub(crate) after: Option<String>,
    /// Most entries wanted; there are never more than 1000.
    #[param(minimum = 1)]
    limit: Option<usize>,
}

impl PageQuery {
    /// Splits what is wanted off the entries of a list, of which `order` says how their keys are sorted,
    /// and gives the `after` of the page that follows, if there is more.
    ///
    /// # Errors
    /// 400 for a limit of 0.
    pub(crate) fn cut<T>(
        &self,
        entries: impl IntoIterator<Item = T>,
        order: Ordering,
        key: impl Fn(&T) -> String,
    ) -> Result<(Vec<T>, Option<String>), Failure> {
        let limit = limit(self.limit)?;
        let wanted = |entry: &T| match &self.after {
            Some(after) => after.as_str().cmp(key(entry).as_str()) == order,
            None => true,
        };
        let mut rest = entries.into_iter().filter(wanted);
        let page: Vec<T> = rest.by_ref().take(limit).collect();
        let next = page.last().map(&key).filter(|_| rest.next().is_some());
        Ok((page, next))
    }
}

/// The most entries of a page.
///
/// # Errors
/// 400 for 0.
pub(crate) fn limit(asked: Option<usize>) -> Result<usize, Failure> {
    match asked.unwrap_or(MAX_ENTRIES) {
        0 => Err(Failure::bad_request("limit", "a page has at least 1 entry")),
        limit => Ok(limit.min(MAX_ENTRIES)),
    }
}

/// The answer with a page. Where there is more, `Link` has the URL of the next one (RFC 8288).
pub(crate) fn answer(uri: &Uri, next: Option<&str>, page: &impl Serialize) -> Response {
    let mut response = Json(page).into_response();
    let link = next.map(|next| format!("<{}>; rel=\"next\"", following(uri, next)));
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// The same request, after `next`.
fn following(uri: &Uri, next: &str) -> String {
    let pairs = form_urlencoded::parse(uri.query().unwrap_or("").as_bytes());
    let others = pairs.filter(|(name, _)| name != "after");
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(others)
        .append_pair("after", next)
        .finish();
    format!("{}?{query}", uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(limit: usize) -> Vec<Vec<&'static str>> {
        let mut query = PageQuery {
            after: None,
            limit: Some(limit),
        };
        let mut pages = Vec::new();
        loop {
            let (page, next) = query
                .cut(["a", "b", "c", "d"], Ordering::Less, ToString::to_string)
                .unwrap();
            pages.push(page);
            if next.is_none() {
                return pages;
            }
            query.after = next;
        }
    }

    #[test]
    fn pages_have_each_entry_once_and_the_last_says_so() {
        assert_eq!(pages(1), [["a"], ["b"], ["c"], ["d"]]);
        assert_eq!(pages(3), [vec!["a", "b", "c"], vec!["d"]]);
        assert_eq!(pages(4), [["a", "b", "c", "d"]]);
    }

    #[test]
    fn a_list_may_begin_with_the_last() {
        let query = PageQuery {
            after: Some("c".into()),
            limit: Some(1),
        };
        let cut = query.cut(["d", "c", "b", "a"], Ordering::Greater, ToString::to_string);
        assert_eq!(cut.unwrap(), (vec!["b"], Some("b".into())));
    }

    #[test]
    fn pages_are_neither_empty_nor_long() {
        assert!(limit(Some(0)).is_err());
        assert_eq!(limit(Some(7)).unwrap(), 7);
        assert_eq!(
            [limit(None).unwrap(), limit(Some(5000)).unwrap()],
            [1000; 2]
        );
    }

    #[test]
    fn the_next_page_is_the_same_request_after_the_last_entry() {
        let uri: Uri = "/v1/repos?limit=2&after=x".parse().unwrap();
        assert_eq!(following(&uri, "a b&c"), "/v1/repos?limit=2&after=a+b%26c");
    }
}
