//! Where a record may have this server connect to: an allow-list that only `sluice.toml` can write.
//!
//! Whoever may name a URL in a record must not reach the metadata service of a cloud, an unguarded neighbour or
//! this machine through it, nor send what models are asked to a place of their own. So nothing may be reached
//! but what the list names; the address is looked at again after each resolution of a name, because a name
//! may be answered differently the second time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;

/// The places of an allow-list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach(Arc<Vec<Place>>);

/// One entry, as it was written and as it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    text: String,
    scheme: Option<Scheme>,
    host: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    /// Every address of the open internet.
    Public,
    Network(IpAddr, u8),
    /// Without the final dot, in lower case.
    Name(String),
    /// The names below this one.
    Below(String),
}

/// What an entry may look like.
const FORMS: &str = "should be https://host:port, host, host:port, *.domain, an address, a network such as 10.0.0.0/8, or public";

impl Reach {
    /// Reads a list.
    ///
    /// # Errors
    /// The number of the entry that is none, and what would be right.
    pub fn parse(entries: &[String]) -> Result<Self, (usize, String)> {
        let places = entries.iter().enumerate().map(|(number, text)| {
            Place::parse(text).ok_or_else(|| (number, format!("`{text}` {FORMS}")))
        });
        Ok(Self(Arc::new(places.collect::<Result<_, _>>()?)))
    }

    /// Whether a record may name this URL. A name is looked at again when it is resolved, by [`Reach::admits`].
    ///
    /// # Errors
    /// Why not, and what is allowed.
    pub fn check(&self, url: &str) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("\"{}\" {why}", without_user(url)));
        let Ok(uri) = url.parse::<Uri>() else {
            return wrong("is no URL");
        };
        let authority = uri.authority().map_or("", |it| it.as_str());
        if authority.contains('@') {
            return wrong("must not hold a user or a password: keys come from api_key_env");
        }
        let Some(asked) = Asked::of(&uri) else {
            return wrong("must look like http://host:port/v1");
        };
        if asked.is_disguised() {
            return wrong("names an address in an unusual notation; write it as 203.0.113.5");
        }
        if self.0.iter().any(|place| place.covers(&asked)) {
            return Ok(());
        }
        wrong(&format!(
            "is not among the places that records may name ({})",
            self.list()
        ))
    }

    /// Whether a connection to `address`, which is what the name of `base` leads to now, is within the list.
    #[must_use]
    pub fn admits(&self, base: &Uri, address: IpAddr) -> bool {
        let Some(asked) = Asked::of(base) else {
            return false;
        };
        let address = address.to_canonical();
        self.0.iter().any(|place| {
            let by_name = match &place.host {
                // Whoever lists a name knows that it is in the house; this machine and
                // the metadata service of a cloud are named by address.
                Hosts::Name(name) => is_local_name(name) || is_ordinary(address),
                Hosts::Below(_) | Hosts::Public => is_public(address),
                Hosts::Network(..) => false,
            };
            (by_name && place.covers(&asked)) || place.is_network_of(&asked, address)
        })
    }

    /// The entries, for messages.
    fn list(&self) -> String {
        let entries: Vec<&str> = self.0.iter().map(|place| &*place.text).collect();
        match entries.as_slice() {
            [] => "control.allow.upstreams of sluice.toml lists none; whoever runs this server can add it there".into(),
            some => format!(
                "control.allow.upstreams of sluice.toml lists {}; whoever runs this server can add to it",
                some.join(", ")
            ),
        }
    }
}

/// Credentials do not go into messages.
fn without_user(url: &str) -> String {
    match (url.split_once("://"), url.rfind('@')) {
        (Some((scheme, _)), Some(at)) => format!("{scheme}://…@{}", &url[at + 1..]),
        _ => url.to_owned(),
    }
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let place = |scheme, host, port| {
            Some(Self {
                text: text.to_owned(),
                scheme,
                host,
                port,
            })
        };
        if text == "public" {
            return place(None, Hosts::Public, None);
        }
        if text.contains("://") {
            let uri: Uri = text.parse().ok()?;
            let asked = Asked::of(&uri)?;
            let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
            if !bare || uri.authority()?.as_str().contains('@') {
                return None;
            }
            return place(Some(asked.scheme), hosts(&asked.host)?, Some(asked.port));
        }
        if let Some((base, prefix)) = text.split_once('/') {
            let base: IpAddr = base.parse().ok()?;
            let prefix: u8 = prefix.parse().ok()?;
            let most = if base.is_ipv4() { 32 } else { 128 };
            return (prefix <= most).then(|| place(None, Hosts::Network(base, prefix), None))?;
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return place(None, Hosts::Network(address, all_bits(address)), None);
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text, None),
        };
        place(None, hosts(&plain(host))?, port)
    }

    /// Whether this URL is within the entry, as far as can be said without resolving a name.
    fn covers(&self, asked: &Asked) -> bool {
        self.fits(asked)
            && match (&self.host, asked.address()) {
                (Hosts::Public, Some(address)) => is_public(address),
                (Hosts::Public, None) => true,
                (Hosts::Network(base, prefix), Some(address)) => within(*base, *prefix, address),
                (Hosts::Network(..), None) => false,
                (Hosts::Name(name), _) => *name == asked.host,
                (Hosts::Below(domain), _) => asked
                    .host
                    .strip_suffix(domain.as_str())
                    .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            }
    }

    /// Whether the entry is a network that the resolved address lies in.
    fn is_network_of(&self, asked: &Asked, address: IpAddr) -> bool {
        match self.host {
            Hosts::Network(base, prefix) => self.fits(asked) && within(base, prefix, address),
            Hosts::Public | Hosts::Name(_) | Hosts::Below(_) => false,
        }
    }

    fn fits(&self, asked: &Asked) -> bool {
        self.scheme.as_ref().is_none_or(|it| *it == asked.scheme)
            && self.port.is_none_or(|it| it == asked.port)
    }
}

fn all_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// A host of an entry; `None` for what is neither a name nor an address.
fn hosts(host: &str) -> Option<Hosts> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some(Hosts::Network(address, all_bits(address)));
    }
    let (below, name) = match host.strip_prefix("*.") {
        Some(domain) => (true, domain),
        None => (false, host),
    };
    let is_name = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    is_name.then(|| match below {
        true => Hosts::Below(name.to_owned()),
        false => Hosts::Name(name.to_owned()),
    })
}

/// Where a URL leads to.
#[derive(Debug)]
struct Asked {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Asked {
    fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme()?.clone();
        let usual = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = plain(uri.host()?);
        (!host.is_empty()).then(|| Self {
            port: uri.port_u16().unwrap_or(usual),
            scheme,
            host,
        })
    }

    /// Where the host is an address, or the name that is one everywhere (RFC 6761).
    fn address(&self) -> Option<IpAddr> {
        if is_local_name(&self.host) {
            return Some(Ipv4Addr::LOCALHOST.into());
        }
        self.host.parse().ok().map(|it: IpAddr| it.to_canonical())
    }

    /// Whether a resolver would read an address that a reader does not see: `2130706433`, `0x7f.1`, `127.1`.
    fn is_disguised(&self) -> bool {
        let last = self.host.rsplit('.').next().unwrap_or_default();
        let numeric = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
        let hex = last
            .strip_prefix("0x")
            .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
        (numeric || hex) && self.host.parse::<IpAddr>().is_err()
    }
}

fn is_local_name(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

fn plain(host: &str) -> String {
    host.trim_matches(['[', ']'])
        .trim_end_matches('.')
        .to_ascii_lowercase()
}

fn within(base: IpAddr, prefix: u8, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(it) => (u128::from(it.to_bits()) << 96, 32),
        IpAddr::V6(it) => (it.to_bits(), 128),
    };
    let ((base, length), (address, other)) = (bits(base.to_canonical()), bits(address));
    let shift = 128 - u32::from(prefix);
    length == other && base.checked_shr(shift) == address.checked_shr(shift)
}

/// An address that a name of the house may lead to: neither this machine, nor a link's own, nor many.
fn is_ordinary(address: IpAddr) -> bool {
    let own = match address {
        IpAddr::V4(it) => it.is_link_local() || it.is_broadcast(),
        IpAddr::V6(it) => it.is_unicast_link_local(),
    };
    !(own || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// Whether an address is one of the open internet, by IANA's special-purpose registries.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        // Shared by carriers, protocol assignments, benchmarks, reserved.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b))
        || a >= 240)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Three ways to write an IPv4 address: mapped, translated (64:ff9b::/96), 6to4.
    let s = address.segments();
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    if s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(v4(s[6], s[7]));
    }
    if s[0] == 0x2002 {
        return is_public_v4(v4(s[1], s[2]));
    }
    // What is handed out for use: 2000::/3, without documentation (2001:db8::/32) and protocols (2001::/23).
    s[0] & 0xe000 == 0x2000 && !(s[0] == 0x2001 && (s[1] == 0xdb8 || s[1] < 0x200))
}

#[cfg(test)]
mod tests;
