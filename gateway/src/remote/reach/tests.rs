#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;

fn reach(entries: &[&str]) -> Reach {
    let entries: Vec<String> = entries.iter().map(|it| (*it).to_owned()).collect();
    Reach::parse(&entries).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn nothing_is_allowed_unless_it_is_listed() {
    for url in [
        "http://api.example.com/v1",
        "https://8.8.8.8/v1",
        "http://127.0.0.1:8000/v1",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost:11434/v1",
    ] {
        let why = reach(&[]).check(url).unwrap_err();
        assert!(why.contains("control.allow.upstreams"), "{why}");
    }
}

#[test]
fn an_entry_holds_for_its_scheme_host_and_port() {
    let list = reach(&[
        "https://gpu.example.com:8443",
        "plain.example.com",
        "*.farm.example.com",
    ]);
    for good in [
        "https://gpu.example.com:8443/v1",
        "https://GPU.example.com.:8443/v1",
        "http://plain.example.com:9000/v1",
        "https://a.farm.example.com/v1",
    ] {
        assert_eq!(list.check(good), Ok(()), "{good}");
    }
    for bad in [
        "http://gpu.example.com:8443/v1",
        "https://gpu.example.com/v1",
        "https://evil-gpu.example.com:8443/v1",
        "https://plain.example.com.evil.net/v1",
        "https://farm.example.com/v1",
        "https://evilfarm.example.com/v1",
    ] {
        assert!(list.check(bad).is_err(), "{bad}");
    }
}

#[test]
fn credentials_in_a_url_are_refused_and_not_repeated() {
    let why = reach(&["api.example.com"])
        .check("https://user:hunter2@api.example.com/v1")
        .unwrap_err();
    assert!(!why.contains("hunter2"), "{why}");
    assert!(
        reach(&["127.0.0.0/8"])
            .check("http://127.0.0.1@evil.example.com/")
            .is_err()
    );
}

#[test]
fn every_notation_of_an_address_is_the_address() {
    let loopback = reach(&["127.0.0.0/8"]);
    for good in [
        "http://127.0.0.1:8000/v1",
        "http://[::ffff:127.0.0.1]:8000/v1",
        "http://localhost/v1",
    ] {
        assert_eq!(loopback.check(good), Ok(()), "{good}");
    }
    let public = reach(&["public", "2130706433.example.com"]);
    for bad in [
        "http://2130706433/v1",
        "http://0x7f000001/v1",
        "http://0x7f.1/v1",
        "http://127.1/v1",
        "http://017700000001/v1",
        "http://[::ffff:169.254.169.254]/v1",
        "http://[64:ff9b::7f00:1]/v1",
        "http://[::1]/v1",
        "http://169.254.169.254./v1",
        "http://localhost./v1",
    ] {
        assert!(public.check(bad).is_err(), "{bad}");
    }
    assert_eq!(public.check("http://8.8.8.8/v1"), Ok(()));
}

#[test]
fn what_a_name_leads_to_is_looked_at_again() {
    let list = reach(&["gpu.example.com", "*.farm.example.com", "10.0.0.0/8"]);
    let named: Uri = "http://gpu.example.com/v1".parse().unwrap();
    let below: Uri = "http://a.farm.example.com/v1".parse().unwrap();
    assert!(list.admits(&named, address("192.168.3.4")), "named by hand");
    for (base, answer) in [
        (&named, "127.0.0.1"),
        (&named, "169.254.169.254"),
        (&named, "::1"),
        (&named, "::ffff:169.254.169.254"),
        (&below, "192.168.3.4"),
    ] {
        assert!(!list.admits(base, address(answer)), "{base} {answer}");
    }
    assert!(list.admits(&below, address("10.1.2.3")), "in the network");
    assert!(list.admits(&below, address("93.184.215.14")));
}

#[test]
fn what_is_no_place_is_named() {
    for bad in [
        "",
        "https://host/path",
        "10.0.0.0/33",
        "a b",
        "ftp://host",
        "host:port",
    ] {
        let entries = ["ok.example.com".to_owned(), bad.to_owned()];
        assert_eq!(Reach::parse(&entries).unwrap_err().0, 1, "{bad}");
    }
}

#[test]
fn a_network_of_no_bits_is_all_of_its_kind() {
    let all = reach(&["0.0.0.0/0"]);
    assert_eq!(all.check("http://169.254.169.254/"), Ok(()));
    assert!(all.check("http://[::1]/").is_err());
}
