//! fleet 1.0's page tokens: base64 of two little-endian 16-bit numbers, the page's size and its number from 1.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use fleet_core::wire::PAGE_ITEMS;

use super::error::ApiError;

/// The largest page that a client may ask for with `pageSize`.
const LARGEST_PAGE: usize = 10_000;

/// Which page a request wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    size: usize,
    number: usize,
}

impl Page {
    /// Reads `nextPageToken` and our own `pageSize` from a request's query.
    pub(super) fn of(query: &[(String, String)]) -> Result<Page, ApiError> {
        let mut tokens = query.iter().filter(|(key, _)| key == "nextPageToken").map(|(_, value)| value);
        let first = tokens.next();
        if tokens.next().is_some() {
            return Err(ApiError::invalid("too many values for page token"));
        }
        let asked = query.iter().rev().find(|(key, _)| key == "pageSize").map(|(_, value)| value.parse::<usize>());
        let size = match asked {
            None => PAGE_ITEMS,
            Some(Ok(size)) if (1..=LARGEST_PAGE).contains(&size) => size,
            Some(_) => return Err(ApiError::invalid(format!("pageSize must be a number from 1 to {LARGEST_PAGE}"))),
        };
        let number = match first.filter(|token| !token.is_empty()) {
            None => 1,
            Some(token) => decode(token, size)?,
        };
        Ok(Page { size, number })
    }

    /// The items of this page, and the token of the next: none after the last item.
    pub(super) fn cut<T>(self, items: Vec<T>) -> (Vec<T>, String) {
        let from = (self.number - 1).saturating_mul(self.size);
        let more = items.len() > from.saturating_add(self.size);
        let page = items.into_iter().skip(from).take(self.size).collect();
        (page, if more { encode(self.size, self.number + 1) } else { String::new() })
    }
}

fn encode(size: usize, number: usize) -> String {
    let (size, number) = (size as u16, u16::try_from(number).unwrap_or(u16::MAX));
    let [a, b] = size.to_le_bytes();
    let [c, d] = number.to_le_bytes();
    URL_SAFE.encode([a, b, c, d])
}

fn decode(token: &str, size: usize) -> Result<usize, ApiError> {
    let bytes = URL_SAFE.decode(token).map_err(|error| {
        let at = token.bytes().position(|b| !(b.is_ascii_alphanumeric() || b"-_=".contains(&b))).unwrap_or(token.len());
        match error {
            base64::DecodeError::InvalidByte(..) => ApiError::invalid(format!("illegal base64 data at input byte {at}")),
            other => ApiError::invalid(format!("illegal base64 data: {other}")),
        }
    })?;
    let [a, b, c, d] = bytes[..] else { return Err(ApiError::invalid("a page token holds four bytes")) };
    if usize::from(u16::from_le_bytes([a, b])) != size {
        return Err(ApiError::invalid(format!("token limit must be {size}")));
    }
    match u16::from_le_bytes([c, d]) {
        0 => Err(ApiError::invalid("token page must be greater than zero")),
        number => Ok(usize::from(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(token: &str) -> Result<Page, String> {
        Page::of(&[("nextPageToken".to_string(), token.to_string())]).map_err(|error| format!("{error:?}"))
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
        let (first, token) = page("").unwrap().cut(items.clone());
        assert_eq!((first.len(), token.as_str()), (100, "ZAACAA=="));
        let (second, token) = page(&token).unwrap().cut(items);
        assert_eq!((second[0], second.len(), token.as_str()), (100, 100, ""));
    }
}
