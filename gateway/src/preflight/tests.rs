#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use super::*;

/// The fields that are wrong with a file on a machine with these variables.
fn wrong(source: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let config = Config::parse(source, Path::new("sluice.toml")).unwrap();
    let variable = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let found = preflight(&config, variable);
    found.into_iter().map(|it| it.field).collect()
}

#[test]
fn what_a_file_needs_of_the_machine_is_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("empty.toml"), "").unwrap();
    std::fs::write(at("bad.toml"), "[[key]]\nname = 1\n").unwrap();
    std::fs::create_dir(at("no-model")).unwrap();
    let (none, empty, bad) = (at("none"), at("empty.toml"), at("bad.toml"));
    let remote = "[[deployment]]\nname = \"a\"\nupstream = \"http://h/v1\"\n";
    let local = |path: &str| format!("[[deployment]]\nname = \"a\"\npath = \"{path}\"\n");
    for (source, field) in [
        ("listen = \"0.0.0.0:1\"\n".to_owned(), "listen"),
        ("listen = \"[::]:1\"\n".to_owned(), "listen"),
        (
            format!("[auth]\nkeys_file = \"{none}\"\n"),
            "auth.keys_file",
        ),
        (format!("[auth]\nkeys_file = \"{bad}\"\n"), "auth.keys_file"),
        ("[auth]\nrequired = true\n".to_owned(), "auth.required"),
        (
            format!("[auth]\nrequired = true\nkeys_file = \"{empty}\"\n"),
            "auth.required",
        ),
        (
            format!("[server]\ntls_cert = \"{none}\"\ntls_key = \"{none}\"\n"),
            "server.tls_cert server.tls_key",
        ),
        (
            format!("[upstream]\nca_file = \"{none}\"\n"),
            "upstream.ca_file",
        ),
        (local(&none), "deployment.0.path"),
        (local(&at("no-model")), "deployment.0.path"),
        (
            format!("{remote}api_key_env = \"UNSET\"\n"),
            "deployment.0.api_key_env",
        ),
        (
            format!("{remote}api_key_env = \"BROKEN\"\n"),
            "deployment.0.api_key_env",
        ),
        (format!("{remote}slots = 4\n"), "deployment.0.slots"),
        (
            format!("{remote}provider = \"cuda\"\n"),
            "deployment.0.provider",
        ),
    ] {
        let found = wrong(&source, &[("BROKEN", "a\nb")]).join(" ");
        assert_eq!(found, field, "{source}");
    }
    assert_eq!(wrong("", &[("SLUICE_API_KEYS", "a")]), ["SLUICE_API_KEYS"]);
    assert_eq!(
        wrong("", &[("SLUICE_API_KEYS", "a:x,a:y")]),
        ["auth.keys_file"]
    );
    let guarded = "listen = \"0.0.0.0:1\"\n[auth]\nrequired = true\n";
    let nothing = Vec::<String>::new();
    assert_eq!(wrong(guarded, &[("SLUICE_API_KEYS", "a:x")]), nothing);
    let keyed = format!("{remote}api_key_env = \"SET\"\n");
    assert_eq!(wrong(&keyed, &[("SET", "x")]), nothing);
}
