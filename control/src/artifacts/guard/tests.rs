#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn only_addresses_of_the_open_internet_are_public() {
    let public = [
        "1.1.1.1",
        "93.184.216.34",
        "172.32.0.1",
        "2606:4700::1111",
        "2a00:1450::1",
        "64:ff9b::101:101",
    ];
    for address in public {
        assert!(is_public(address.parse().unwrap()), "{address}");
    }
    let private = [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "2001::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
    ];
    for address in private {
        assert!(!is_public(address.parse().unwrap()), "{address}");
    }
}

#[tokio::test]
async fn names_and_literals_of_private_places_are_refused_unless_trusted() {
    let mut settings = ImportSettings::default();
    let guard = Guard::new(&settings);
    for url in [
        "http://127.0.0.1:1/x",
        "http://[::1]/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://169.254.169.254/latest",
    ] {
        let error = guard.check_url(&url.parse().unwrap()).unwrap_err();
        assert!(
            matches!(error, ArtifactError::Forbidden(_)),
            "{url}: {error}"
        );
    }
    let error = guard.check_host("localhost:9870").await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("localhost is a private address"),
        "{error}"
    );
    settings.trusted_hosts = vec!["LocalHost".into()];
    let guard = Guard::new(&settings);
    guard.check_host("localhost:9870").await.unwrap();
    assert!(guard.check_host("127.0.0.1:9870").await.is_err());
}
