#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;

/// The fields that are wrong with a file in a folder of its own, which `DIR` stands for.
fn wrong(text: &str) -> Vec<String> {
    wrong_in("DIR/data", text)
}

/// The same with this data folder, whatever the environment of the tests says.
fn wrong_in(data: &str, text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().display().to_string();
    std::fs::write(folder.path().join("file"), "no database, no secret\n").unwrap();
    std::fs::create_dir_all(folder.path().join("broken/p")).unwrap();
    std::fs::write(folder.path().join("broken/p/pipeline.toml"), "x = 1\n").unwrap();
    let key = format!("[[key]]\nname = \"a\"\nsha256 = \"{}\"\n", "0".repeat(64));
    std::fs::write(folder.path().join("keys.toml"), &key).unwrap();
    std::fs::write(folder.path().join("roles.toml"), key + "role = \"king\"\n").unwrap();
    let file = folder.path().join("sluice.toml");
    std::fs::write(&file, text.replace("DIR", &here)).unwrap();
    let examined = Examined::of(Some(&file), Moment::Start, |config| {
        config.data = data.replace("DIR", &here).into();
        Ok(())
    });
    let examined = examined.unwrap();
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 5, "something was made: {left:?}");
    let found = examined.problems.into_iter();
    found.map(|it| it.problem.field).collect()
}

#[test]
fn what_the_control_plane_needs_is_looked_for() {
    for (text, field) in [
        (
            // Of a network that is for documentation only.
            "listen = \"203.0.113.1:1\"\n[auth]\nrequired = true\nkeys_file = \"DIR/keys.toml\"\n",
            "listen",
        ),
        ("[auth]\nkeys_file = \"DIR/roles.toml\"\n", "auth.keys_file"),
        ("[log]\nfile = \"DIR/none/access.log\"\n", "log.file"),
        ("[log]\nfile = \"DIR\"\n", "log.file"),
        (
            "[control]\ndatabase = \"mysql://h/d\"\n",
            "control.database",
        ),
        (
            "[control]\ndatabase = \"sqlite:DIR/file\"\n",
            "control.database",
        ),
        (
            "[control]\ndatabase = \"sqlite:DIR/file/d\"\n",
            "control.database",
        ),
        ("[control]\ndatabase = \"sqlite:DIR\"\n", "control.database"),
        (
            "[control.artifacts]\nlocation = \"ftp://x\"\n",
            "control.artifacts.location",
        ),
        (
            "[control.artifacts]\nlocation = \"fs:DIR/file/a\"\n",
            "control.artifacts.location",
        ),
        (
            "[control.artifacts]\nlocatoin = 1\n",
            "control.artifacts.locatoin",
        ),
        (
            "[control.artifacts.upload]\npart_bytes = 0\n",
            "control.artifacts.upload.part_bytes",
        ),
        (
            "[control.artifacts.upload]\npart_bytes = 2\nmax_part_bytes = 1\nmax_bytes = 1\n",
            "control.artifacts.upload.part_bytes",
        ),
        (
            "[control.artifacts.import]\nidle_s = 0\n",
            "control.artifacts.import.idle_s",
        ),
        (
            "[control.artifacts.import]\nfolders = [\"a\"]\n",
            "control.artifacts.import.folders.0",
        ),
        (
            "[control.tasks]\npipelines = \"DIR/none\"\n",
            "control.tasks.pipelines",
        ),
        (
            "[control.tasks]\npipelines = \"DIR/broken\"\n",
            "control.tasks.pipelines",
        ),
        (
            "[control.tasks]\nenvironments = \"DIR/file/e\"\n",
            "control.tasks.environments",
        ),
        (
            "[control.releases]\nwebhooks = [{ url = \"http://h/\", secret_file = \"DIR/none\" }]\n",
            "control.releases.webhooks.0.secret_file",
        ),
        (
            "[control.releases]\nwebhooks = [{ url = \"http://h/\", secret_file = \"DIR/file\" }]\n",
            "control.releases.webhooks.0.secret_file",
        ),
        (
            "[control.releases]\nwebhooks = [{ url = \"http://h/\", secret_env = \"SLUICE_TEST_UNSET\" }]\n",
            "control.releases.webhooks.0.secret_env",
        ),
        ("[control]\nenabled = false\n", "deployment"),
    ] {
        assert_eq!(wrong(text), [field], "{text}");
    }
    assert_eq!(wrong(""), Vec::<String>::new());
    for data in ["DIR/file/data", "/proc/none"] {
        assert_eq!(wrong_in(data, "")[0], "data", "{data}");
    }
}

#[test]
fn all_of_it_is_found_at_once() {
    let text = "listen = \"0.0.0.0:1\"\n[server]\nmax_body = \"much\"\n[log]\nfile = \"DIR/none/log\"\n\
                [control.artifacts]\nlocation = \"ftp://x\"\n[control.artifacts.upload]\nmax_open = \"many\"\n\
                [[deployment]]\nname = \"a\"\npath = \"/nowhere\"\n";
    let mut found = wrong(text);
    found.sort();
    assert_eq!(
        found,
        [
            "control.artifacts.location",
            "control.artifacts.upload.max_open",
            "deployment.0.path",
            "listen",
            "log.file",
            "server.max_body",
        ]
    );
}
