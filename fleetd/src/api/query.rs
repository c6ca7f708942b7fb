//! What follows the `?` of a request: of several values of a key the last one counts, and one that
//! is empty is as if it were not there.

use std::str::FromStr;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::error::ApiError;

/// The keys and values, in order.
pub(super) struct Asked(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = QueryRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Asked, QueryRejection> {
        Query::from_request_parts(parts, state).await.map(|Query(pairs)| Asked(pairs))
    }
}

impl Asked {
    /// All values of a key, empty ones too.
    pub(super) fn all(&self, key: &str) -> impl DoubleEndedIterator<Item = &str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// The value of a key.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.all(key).rev().find(|value| !value.is_empty())
    }

    /// Whether a key says `true` or `1`.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| value == "true" || value == "1")
    }

    /// The value of a key that is a number.
    pub(super) fn number<T: FromStr>(&self, key: &str) -> Result<Option<T>, ApiError> {
        let number = self.value(key).map(str::parse::<T>).transpose();
        number.map_err(|_| ApiError::invalid(format!("{key} must be a number")))
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Asked {
    fn from(pairs: [(&str, &str); N]) -> Asked {
        Asked(pairs.map(|(key, value)| (key.to_string(), value.to_string())).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_counts_that_is_not_empty() {
        let asked = Asked::from([("a", "1"), ("b", "x"), ("a", "true"), ("a", ""), ("c", "")]);
        assert_eq!((asked.value("a"), asked.flag("a")), (Some("true"), true));
        assert_eq!((asked.value("c"), asked.flag("c"), asked.value("d")), (None, false, None));
        assert_eq!(asked.all("a").collect::<Vec<_>>(), ["1", "true", ""]);
        assert_eq!(asked.number::<u32>("c").ok(), Some(None));
        let Err(error) = asked.number::<u32>("b") else { panic!("x is none") };
        assert_eq!(error.message(), "b must be a number");
    }
}
