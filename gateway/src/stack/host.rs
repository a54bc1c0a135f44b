//! Under which name the server is asked, and from which page: pure.
//!
//! A browser sends to any server, also to one on the developer's own machine, whatever page it
//! shows. Three things keep a page out of a server that asks nobody for a key. Its own name may
//! point here (DNS rebinding): then `Host` says that name, and only names of loopback and those of
//! the configuration are answered. It may send to `localhost` from elsewhere: then
//! `Sec-Fetch-Site` or `Origin` says so. And a browser that says neither can only send what an
//! HTML form can, which has no JSON in it.

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Version};

/// Why a request's `Host` cannot be used (RFC 9112, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WrongHost {
    #[error("The header 'Host' is missing.")]
    Missing,
    #[error("The header 'Host' came more than once.")]
    Repeated,
    #[error("The header 'Host' is neither a name nor an address.")]
    Malformed,
    #[error("The header 'Host' names another server than the request's target.")]
    Contradicted,
}

/// What the request calls the server. `None`: nothing, which only HTTP/1.0 and an empty `Host`
/// may do.
///
/// # Errors
/// [`WrongHost`]
pub(super) fn named<B>(request: &Request<B>) -> Result<Option<Authority>, WrongHost> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(WrongHost::Repeated);
    }
    let target = request.uri().authority().cloned();
    let version = request.version();
    let Some(host) = first else {
        return match (target, version) {
            (None, Version::HTTP_11) => Err(WrongHost::Missing),
            // HTTP/1.1 requires it beside an absolute target, too.
            (Some(_), Version::HTTP_11) => Err(WrongHost::Missing),
            (target, _) => Ok(target),
        };
    };
    if host.is_empty() {
        return Ok(target);
    }
    let host = Authority::try_from(host.as_bytes()).map_err(|_| WrongHost::Malformed)?;
    let port = host.as_str().strip_prefix(host.host()).unwrap_or_default();
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let has_port = port.is_empty() || port.strip_prefix(':').is_some_and(digits);
    if host.as_str().contains('@') || host.host().is_empty() || !has_port {
        return Err(WrongHost::Malformed);
    }
    match target {
        // Of an absolute target only that counts in HTTP/1; in HTTP/2 the two must agree.
        Some(target) if version == Version::HTTP_2 && target != host => {
            Err(WrongHost::Contradicted)
        }
        Some(target) => Ok(Some(target)),
        None => Ok(Some(host)),
    }
}

/// Whether a name is this machine's for itself, or among those that are allowed: `host`, or
/// `host:port`.
pub(super) fn is_known(host: &Authority, allowed: &[String]) -> bool {
    is_loopback(host.host())
        || allowed.iter().any(|name| {
            name.eq_ignore_ascii_case(host.as_str()) || name.eq_ignore_ascii_case(host.host())
        })
}

fn is_loopback(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    // Browsers resolve names below `localhost` themselves (RFC 6761), so nobody can rebind them.
    let name = bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Whether a page of another origin makes the browser send this. Programs say neither header.
pub(super) fn is_foreign(host: Option<&Authority>, headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let elsewhere = !matches!(site, None | Some(b"same-origin" | b"none"));
    let mut origins = headers.get_all(ORIGIN).iter();
    let foreign = origins.any(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        let same = authority.zip(host);
        !same.is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host.as_str()))
    });
    elsewhere || foreign
}

/// What the console sends with every write.
const CONSOLE: &str = "x-sluice-console";

/// Headers that no form can send and no page of another origin without asking first; official
/// clients send one of them where they send no content type.
const BESIDE: [&str; 3] = ["inference-header-content-length", "x-api-key", "api-key"];

/// Whether an HTML form, or a page's script that has not asked first, could have sent this: a POST without anything that these
/// cannot send. Browsers ask before they send another method that writes; that one may do without a type, if it has no body.
pub(super) fn could_be_a_form(method: &Method, headers: &HeaderMap) -> bool {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return false;
    }
    if *method != Method::POST && !headers.contains_key(CONTENT_TYPE) {
        return false;
    }
    let media = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim())
        .map(str::to_ascii_lowercase);
    let safe = media.is_some_and(|media| {
        media == "application/json"
            || media == "application/octet-stream"
            || media.starts_with("application/") && media.ends_with("+json")
    });
    let console = headers
        .get(CONSOLE)
        .is_some_and(|value| value.as_bytes() == b"1");
    let beside = headers.contains_key(AUTHORIZATION)
        || BESIDE.iter().any(|name| headers.contains_key(*name));
    !safe && !console && !beside
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn request(version: Version, uri: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn one_host_and_no_more() {
        let of = |version, uri, hosts: &[&str]| {
            named(&request(version, uri, hosts)).map(|it| it.map(|it| it.to_string()))
        };
        let one = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(of(Version::HTTP_11, "/", &["a:80"]), one("a:80"));
        assert_eq!(of(Version::HTTP_11, "/", &[]), Err(WrongHost::Missing));
        assert_eq!(
            of(Version::HTTP_11, "/", &["a", "a"]),
            Err(WrongHost::Repeated)
        );
        for wrong in ["a b", "user@a", "a/b", ":80", "a:x"] {
            let found = of(Version::HTTP_11, "/", &[wrong]);
            assert_eq!(found, Err(WrongHost::Malformed), "{wrong}");
        }
        assert_eq!(of(Version::HTTP_11, "/", &[""]), Ok(None));
        assert_eq!(of(Version::HTTP_10, "/", &[]), Ok(None));
        assert_eq!(of(Version::HTTP_11, "http://b/", &["a"]), one("b"));
        assert_eq!(
            of(Version::HTTP_11, "http://b/", &[]),
            Err(WrongHost::Missing)
        );
        assert_eq!(of(Version::HTTP_2, "http://b/", &[]), one("b"));
        assert_eq!(
            of(Version::HTTP_2, "http://b/", &["a"]),
            Err(WrongHost::Contradicted)
        );
    }

    #[test]
    fn loopback_and_allowed_names_are_known() {
        let allowed = ["sluice.lan".to_owned(), "other:8080".to_owned()];
        let known = |host: &str| is_known(&host.parse().unwrap(), &allowed);
        for host in [
            "localhost",
            "LOCALHOST:1",
            "localhost.:80",
            "a.localhost",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:80",
            "[::ffff:127.0.0.1]",
            "Sluice.lan",
            "sluice.lan:99",
            "other:8080",
        ] {
            assert!(known(host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "notlocalhost",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "other:8081",
            "other",
        ] {
            assert!(!known(host), "{host}");
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&'static str, &str)| {
            (http::HeaderName::from_static(name), value.parse().unwrap())
        };
        pairs.iter().map(parse).collect()
    }

    #[test]
    fn only_pages_of_the_same_origin_are_at_home() {
        let host: Authority = "localhost:8080".parse().unwrap();
        let foreign = |pairs: &[_]| is_foreign(Some(&host), &headers(pairs));
        for own in [
            &[][..],
            &[("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
            &[("origin", "http://localhost:8080")],
        ] {
            assert!(!foreign(own), "{own:?}");
        }
        for other in [
            &[("sec-fetch-site", "same-site")][..],
            &[("sec-fetch-site", "cross-site")],
            &[("origin", "http://localhost:9999")],
            &[("origin", "http://evil.example")],
            &[("origin", "null")],
            &[
                ("sec-fetch-site", "same-origin"),
                ("origin", "http://evil.example"),
            ],
        ] {
            assert!(foreign(other), "{other:?}");
        }
        assert!(is_foreign(None, &headers(&[("origin", "http://a")])));
    }

    #[test]
    fn what_a_form_can_send_is_told_from_what_it_cannot() {
        let form = |pairs: &[_]| could_be_a_form(&Method::POST, &headers(pairs));
        for plain in [
            &[][..],
            &[("content-type", "text/plain")],
            &[("content-type", "application/x-www-form-urlencoded")],
            &[("content-type", "multipart/form-data; boundary=x")],
            &[("content-type", "text/plain; application/json")],
            &[("x-sluice-console", "0")],
        ] {
            assert!(form(plain), "{plain:?}");
        }
        for other in [
            ("content-type", "application/json"),
            ("content-type", "Application/JSON; charset=utf-8"),
            ("content-type", "application/octet-stream"),
            ("content-type", "application/merge-patch+json"),
            ("x-sluice-console", "1"),
            ("authorization", "Bearer unused"),
            ("inference-header-content-length", "12"),
        ] {
            assert!(!form(&[other]), "{other:?}");
        }
        assert!(!could_be_a_form(&Method::GET, &HeaderMap::new()));
        assert!(!could_be_a_form(&Method::DELETE, &HeaderMap::new()));
        let plain = headers(&[("content-type", "text/plain")]);
        assert!(could_be_a_form(&Method::DELETE, &plain));
    }
}
