#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use super::*;

fn headers(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, value.parse().unwrap());
    headers
}

fn keys(list: &str) -> Keys {
    Keys::new(keys::from_environment(list).unwrap(), RateLimits::default()).unwrap()
}

#[test]
fn a_key_is_accepted_in_each_of_its_headers() {
    let keys = keys("ada:sk-1, bob:sk-2");
    for (header, value) in [
        ("authorization", "Bearer sk-2"),
        ("authorization", "bearer  sk-2 "),
        ("api-key", "sk-2"),
        ("x-api-key", "sk-2"),
    ] {
        let account = keys.authenticate(&headers(header, value)).unwrap();
        assert_eq!(&*account.principal.name, "bob", "{header}: {value}");
    }
}

#[test]
fn missing_and_unknown_keys_are_told_apart() {
    let keys = keys("ada:sk-1");
    let refused = |headers| keys.authenticate(&headers).unwrap_err();
    assert_eq!(refused(HeaderMap::new()), AuthError::Missing);
    assert_eq!(
        refused(headers("authorization", "Basic sk-1")),
        AuthError::Missing
    );
    assert_eq!(
        refused(headers("authorization", "Bearer ")),
        AuthError::Missing
    );
    assert_eq!(
        refused(headers("authorization", "Bearer sk-")),
        AuthError::Unknown
    );
    assert_eq!(refused(headers("x-api-key", "sk-11")), AuthError::Unknown);
}

#[test]
fn ids_do_not_reveal_the_key_and_are_stable() {
    let keys = keys("ada:sk-1");
    let account = keys.authenticate(&headers("api-key", "sk-1")).unwrap();
    // printf %s sk-1 | sha256sum
    assert_eq!(&*account.principal.key_id, "0f2c10bf3d12");
}

#[test]
fn a_key_file_gives_limits_priority_and_models() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let digest = "0f2c10bf3d12".to_owned() + &"0".repeat(52);
    std::fs::write(
        &path,
        format!(
            "[[key]]\nname = \"ada\"\nsha256 = \"{digest}\"\npriority = \"high\"\n\
             models = [\"a\"]\nrequests_per_minute = 5\n"
        ),
    )
    .unwrap();
    let entries = keys::read_file(&path).unwrap();
    assert_eq!(entries[0].priority, sluice_engine::request::Priority::High);
    assert_eq!(
        entries[0].limits,
        RateLimits {
            requests: Some(5),
            tokens: None,
            control: None,
        }
    );

    let keys = Keys::new(
        entries,
        RateLimits {
            requests: Some(1),
            tokens: Some(9),
            control: Some(7),
        },
    )
    .unwrap();
    let accounts = keys.by_prefix.load();
    let account = accounts.values().next().unwrap();
    assert_eq!(
        account.limiter.limits(),
        RateLimits {
            requests: Some(5),
            tokens: Some(9),
            control: Some(7),
        }
    );
    let open = crate::access::Audience::default();
    let may_use = |model| account.principal.may_use(model, &open);
    assert!(may_use("a") && !may_use("b"));
}

#[test]
fn errors_in_a_key_file_name_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    std::fs::write(&path, "[[key]]\nname = \"ada\"\nsha256 = \"short\"\n").unwrap();
    let message = keys::read_file(&path).unwrap_err().to_string();
    assert!(
        message.contains("keys.toml:3: ") && message.contains("sha256sum"),
        "{message}"
    );
    let missing = keys::read_file(Path::new("nowhere.toml")).unwrap_err();
    assert!(missing.to_string().starts_with("nowhere.toml: "));
}

#[test]
fn errors_in_the_environment_do_not_print_it() {
    let error = keys::from_environment("ada:sk-1,secret")
        .unwrap_err()
        .to_string();
    assert_eq!(error, "SLUICE_API_KEYS: entry 2 must look like name:key");
}

#[test]
fn names_and_keys_are_unique() {
    for list in ["ada:1,ada:2", "ada:1,bob:1"] {
        let entries = keys::from_environment(list).unwrap();
        assert!(Keys::new(entries, RateLimits::default()).is_err(), "{list}");
    }
}

#[test]
fn a_reload_drops_old_keys_and_keeps_buckets() {
    let limits = RateLimits {
        requests: Some(1),
        tokens: None,
        control: None,
    };
    let keys = Keys::new(keys::from_environment("ada:1,bob:2").unwrap(), limits).unwrap();
    let now = Instant::now();
    let ada = || keys.authenticate(&headers("api-key", "1"));
    ada().unwrap().limiter.take(now, 0).unwrap();
    keys.replace(keys::from_environment("ada:1,eve:3").unwrap(), limits)
        .unwrap();
    ada().unwrap().limiter.take(now, 0).unwrap_err();
    assert_eq!(
        keys.authenticate(&headers("api-key", "2")).unwrap_err(),
        AuthError::Unknown
    );
    assert!(keys.authenticate(&headers("api-key", "3")).is_ok());
}
