//! Patterns of file names, and the order of names that count.

use std::cmp::Ordering;

/// Whether text is a pattern: has `*`, `?` or `[`.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether a name, without `/`, is of a pattern: `*` stands for any letters, `?` for one, `[a-c]`
/// and `[!x]` for one of or not of some. Names that begin with a dot are matched only by a dot.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // The last star, and how much of the name it stands for: what fails after it tries one more.
    let (mut at, mut seen, mut star) = (0, 0, None);
    while seen < name.len() {
        if pattern.get(at) == Some(&'*') {
            star = Some((at, seen));
            at += 1;
            continue;
        }
        match one(&pattern[at..], name[seen]) {
            Some(length) => {
                at += length;
                seen += 1;
            }
            None => match star {
                Some((place, from)) => {
                    star = Some((place, from + 1));
                    (at, seen) = (place + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&letter| letter == '*')
}

/// How much of a pattern stands for this letter; `None` if it does not.
fn one(pattern: &[char], letter: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['[', rest @ ..] => {
            let (negated, set) = match rest {
                ['!' | '^', set @ ..] => (true, set),
                set => (false, set),
            };
            // A bracket first in the set is one of the set.
            let end = set.iter().skip(1).position(|&c| c == ']');
            let Some(end) = end.map(|end| end + 1) else {
                return (letter == '[').then_some(1);
            };
            let (mut has, mut at) = (false, 0);
            while at < end {
                match set[at..end] {
                    [from, '-', to, ..] => {
                        has |= (from..=to).contains(&letter);
                        at += 3;
                    }
                    _ => {
                        has |= set[at] == letter;
                        at += 1;
                    }
                }
            }
            (has != negated).then_some(end + 2 + usize::from(negated))
        }
        [only, ..] => (*only == letter).then_some(1),
        [] => None,
    }
}

/// The parts of a path match those of a pattern; `**` stands for any number of parts.
pub(super) fn matches_path(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        (["**", rest @ ..], _) => {
            matches_path(rest, path)
                || path
                    .split_first()
                    .is_some_and(|(_, below)| matches_path(pattern, below))
        }
        ([first, rest @ ..], [name, below @ ..]) => {
            matches(first, name) && matches_path(rest, below)
        }
        _ => false,
    }
}

/// The order of names in which 9 comes before 10.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a_rest, mut b_rest) = (a, b);
    while let (Some(x), Some(y)) = (a_rest.chars().next(), b_rest.chars().next()) {
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (x, y) = (digits(&mut a_rest), digits(&mut b_rest));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            a_rest = &a_rest[x.len_utf8()..];
            b_rest = &b_rest[y.len_utf8()..];
            x.cmp(&y)
        };
        if order.is_ne() {
            return order;
        }
    }
    // 01 and 1 are told apart at last, so that the order is one.
    a_rest.len().cmp(&b_rest.len()).then_with(|| a.cmp(b))
}

/// Takes a number off the front; gives its digits without zeros before them.
fn digits<'a>(text: &mut &'a str) -> &'a str {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    *text = rest;
    number.trim_start_matches('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names() {
        for (pattern, name, wanted) in [
            ("*.nc", "a.nc", true),
            ("*.nc", ".nc", false),
            (".*", ".nc", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxbxxa", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]1", "b1", true),
            ("[!a-c]1", "b1", false),
            ("[!a-c]1", "x1", true),
            ("[]x]", "]", true),
            ("[a", "[a", true),
            ("é*", "éa", true),
            ("", "", true),
            ("***", "x", true),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
        // No pattern takes more than a few passes over a name.
        assert!(!matches(&"*a".repeat(60), &"a".repeat(50)));
        assert!(matches_path(&["**", "*.nc"], &["a", "b", "c.nc"]));
        assert!(matches_path(&["**", "*.nc"], &["c.nc"]));
        assert!(!matches_path(&["*", "*.nc"], &["a", "b", "c.nc"]));
    }

    #[test]
    fn names_are_in_the_order_people_count() {
        let mut names = ["a10", "a9", "a010", "b", "a1b", "a", "a1", "é"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a", "a1", "a1b", "a9", "a010", "a10", "b", "é"]);
    }
}
