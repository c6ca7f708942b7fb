//! fleet 1.0's page tokens: base64 of two little-endian 16-bit numbers, the page's size and its
//! number from 1. A page beyond its 65,535th has a token of six bytes, the number in 32 bits.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use fleet_core::wire::PAGE_ITEMS;
use serde_json::json;

use super::describe::Operation;
use super::error::ApiError;
use super::query::Asked;

/// The largest page that a client may ask for with `pageSize`.
pub(super) const LARGEST_PAGE: usize = 10_000;

/// A list that comes in pages.
pub(super) fn paged(operation: Operation) -> Operation {
    operation
        .query("nextPageToken", "Which page: the `nextPageToken` of the page before.")
        .query_of(
            "pageSize",
            "How many items a page holds; the same for all pages of a list.",
            json!({"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE, "default": PAGE_ITEMS}),
        )
        .errors([400])
}

/// Which page a request wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    size: usize,
    number: usize,
}

impl Page {
    /// Reads `nextPageToken` and our own `pageSize` from a request's query.
    pub(super) fn of(asked: &Asked) -> Result<Page, ApiError> {
        let mut tokens = asked.all("nextPageToken");
        let first = tokens.next();
        if tokens.next().is_some() {
            return Err(ApiError::invalid("too many values for page token"));
        }
        let too_large =
            || ApiError::invalid(format!("pageSize must be a number from 1 to {LARGEST_PAGE}"));
        let size = match asked.number::<usize>("pageSize").map_err(|_| too_large())? {
            None => PAGE_ITEMS,
            Some(size) if (1..=LARGEST_PAGE).contains(&size) => size,
            Some(_) => return Err(too_large()),
        };
        let number = match first.filter(|token| !token.is_empty()) {
            None => 1,
            Some(token) => decode(token, size)?,
        };
        Ok(Page { size, number })
    }

    /// The items of this page, and the token of the next: none after the last item. Cut first, then
    /// copy what the page shows.
    pub(super) fn cut<T>(self, items: &[T]) -> (&[T], String) {
        let from = (self.number - 1).saturating_mul(self.size).min(items.len());
        let to = from.saturating_add(self.size).min(items.len());
        (
            &items[from..to],
            if to < items.len() { encode(self.size, self.number + 1) } else { String::new() },
        )
    }
}

fn encode(size: usize, number: usize) -> String {
    let mut bytes = (size as u16).to_le_bytes().to_vec(); // at most LARGEST_PAGE
    match u16::try_from(number) {
        Ok(number) => bytes.extend(number.to_le_bytes()),
        Err(_) => bytes.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()),
    }
    URL_SAFE.encode(bytes)
}

fn decode(token: &str, size: usize) -> Result<usize, ApiError> {
    let bytes = URL_SAFE.decode(token).map_err(|error| {
        // Go's words, whose counting a client may show: the first byte that cannot stand there,
        // else where four should have been.
        let wrong = token.bytes().position(|b| !(b.is_ascii_alphanumeric() || b"-_=".contains(&b)));
        let at = wrong.unwrap_or(match error {
            base64::DecodeError::InvalidByte(at, _)
            | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            _ => token.trim_end_matches('=').len() / 4 * 4,
        });
        ApiError::invalid(format!("illegal base64 data at input byte {at}"))
    })?;
    let (given, number) = match bytes[..] {
        [a, b, c, d] => (u16::from_le_bytes([a, b]), u32::from(u16::from_le_bytes([c, d]))),
        [a, b, c, d, e, f] => (u16::from_le_bytes([a, b]), u32::from_le_bytes([c, d, e, f])),
        _ => return Err(ApiError::invalid("a page token holds four bytes, or six")),
    };
    if usize::from(given) != size {
        return Err(ApiError::invalid(format!("token limit must be {size}")));
    }
    match number {
        0 => Err(ApiError::invalid("token page must be greater than zero")),
        number => Ok(number as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(token: &str) -> Result<Page, String> {
        Page::of(&Asked::from([("nextPageToken", token)])).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn tokens_are_fleet_1_0s() {
        assert_eq!(encode(100, 2), "ZAACAA==");
        assert!(page("EwBMLg==").unwrap_err().contains("token limit must be 100"));
        assert!(page("zz!").unwrap_err().contains("illegal base64 data at input byte 2"));
        assert!(page("ZAAAAA==").unwrap_err().contains("token page must be greater than zero"));
    }

    #[test]
    fn the_last_page_has_no_token_even_when_it_is_full() {
        let items: Vec<u32> = (0..200).collect();
        let (first, token) = page("").unwrap().cut(&items);
        assert_eq!((first.len(), token.as_str()), (100, "ZAACAA=="));
        let (second, token) = page(&token).unwrap().cut(&items);
        assert_eq!((second[0], second.len(), token.as_str()), (100, 100, ""));
    }

    #[test]
    fn pages_go_on_beyond_fleet_1_0s_last_one() {
        let items: Vec<u32> = (0..70_000).collect();
        let mut token = encode(1, 65_530);
        for expected in 65_529..70_000 {
            let asked = Asked::from([("pageSize", "1"), ("nextPageToken", &token)]);
            let (page, next) = Page::of(&asked).unwrap().cut(&items);
            assert_eq!(page, [expected]);
            token = next;
        }
        assert_eq!(token, "");
    }

    #[test]
    fn a_page_after_the_last_is_empty_and_ends_the_list() {
        assert_eq!(page(&encode(100, 9)).unwrap().cut(&[1, 2, 3]), (&[][..], String::new()));
    }
}
