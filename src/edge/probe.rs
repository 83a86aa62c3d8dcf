//! Requests that look like clicks and are none: HEAD, prefetch, preview.

use http::{HeaderMap, Method};

/// Whether a request is a probe. It gets a click's answer, spends nothing, and counts in no fill rate.
pub fn is_probe(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::HEAD
        || PURPOSE_HEADERS.iter().any(|name| says(headers, name, &["prefetch", "preview"]))
        || says(headers, "x-moz", &["prefetch"])
}

fn says(headers: &HeaderMap, name: &str, words: &[&str]) -> bool {
    headers.get_all(name).iter().any(|value| {
        let value = value.as_bytes();
        words
            .iter()
            .any(|word| value.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes())))
    })
}

const PURPOSE_HEADERS: [&str; 3] = ["sec-purpose", "purpose", "x-purpose"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_and_clicks() {
        for (method, header, probe) in [
            (Method::HEAD, None, true),
            (Method::GET, None, false),
            (Method::GET, Some(("sec-purpose", "prefetch;prerender")), true),
            (Method::GET, Some(("purpose", "Prefetch")), true),
            (Method::GET, Some(("x-purpose", "preview")), true),
            (Method::GET, Some(("x-moz", "prefetch")), true),
            (Method::GET, Some(("x-moz", "preview")), false),
            (Method::GET, Some(("purpose", "purchase")), false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = header {
                headers.insert(name, value.parse().unwrap());
            }
            assert_eq!(is_probe(&method, &headers), probe, "{method} {header:?}");
        }
    }
}
