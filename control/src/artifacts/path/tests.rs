#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn ordinary_names_are_taken() {
    for path in [
        "model.onnx",
        "a/b/c.json",
        "词汇/merges.txt",
        "x..y",
        ".hidden",
        "a b.txt",
        "console.log",
        "com10",
        "naïve",
    ] {
        check(path).unwrap();
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused_by_name() {
    let long = "x".repeat(256);
    let deep = vec!["d"; MAX_DEPTH + 1].join("/");
    let longer = vec!["y".repeat(200); 6].join("/");
    let cases = [
        ("", "is empty"),
        ("../x", ". or .."),
        ("a/../../x", ". or .."),
        ("a/./b", ". or .."),
        ("..", ". or .."),
        ("/etc/passwd", "is absolute"),
        ("//host/share", "is absolute"),
        ("C:\\x", "backslash"),
        ("a\\..\\b", "backslash"),
        ("C:x", "U+003A"),
        ("file:stream", "U+003A"),
        ("a\0b", "U+0000"),
        ("a\nb", "U+000A"),
        ("a\u{202e}gpj.exe", "U+202E"),
        ("a\u{200b}", "U+200B"),
        ("a//b", "empty name"),
        ("a/", "empty name"),
        ("NUL", "device"),
        ("a/con.txt", "device"),
        ("Com1", "device"),
        ("lpt9.tar.gz", "device"),
        ("aux .x", "device"),
        ("a./b", "ends in a dot"),
        ("a ", "ends in a dot"),
        (&long, "longer than 255"),
        (&longer, "longer than 1024"),
        (&deep, "folders deep"),
    ];
    for (path, reason) in cases {
        let error = check(path).unwrap_err();
        assert!(error.problem.contains(reason), "{path:?}: {error}");
        let mut set = PathSet::default();
        assert_eq!(set.add(path), Err(error));
    }
    let error = check_bytes(b"a\xff").unwrap_err();
    assert!(error.to_string().contains("UTF-8"), "{error}");
}

#[test]
fn a_message_shows_what_cannot_be_seen() {
    let error = check("a\u{1b}[31m\n").unwrap_err().to_string();
    assert_eq!(error, "path \"a\\u{1b}[31m\\n\" has the character U+001B");
    let error = check(&"z".repeat(5000)).unwrap_err().to_string();
    assert!(error.len() < 300);
}

#[test]
fn two_paths_are_never_one_file_anywhere() {
    let cases = [
        (["a", "a"], "comes twice"),
        (["README", "readme"], "the same as \"README\""),
        // One letter, and a letter with an accent beside it.
        (["caf\u{e9}", "cafe\u{301}"], "the same as"),
        // A ligature.
        (["\u{fb01}le", "file"], "the same as"),
        (["\u{130}", "i\u{307}"], "the same as"),
        (["a", "a/b"], "as a folder"),
        (["a/b", "a"], "a file and a folder"),
        (["A/b", "a/c"], "the same as \"A\""),
        (["x/A", "x/a/b"], "as a folder"),
    ];
    for (paths, reason) in cases {
        let mut set = PathSet::default();
        set.add(paths[0]).unwrap();
        let error = set.add(paths[1]).unwrap_err();
        assert!(error.problem.contains(reason), "{paths:?}: {error}");
    }
    let mut set = PathSet::default();
    for path in ["a/b", "a/c", "ab", "a.b/c"] {
        set.add(path).unwrap();
    }
}

proptest::proptest! {
    /// Whatever is taken stays below the folder that it is joined to.
    #[test]
    fn what_is_taken_stays_inside(path in "[a./\\\\:]{0,12}|\\PC{0,20}") {
        if check(&path).is_ok() {
            let inside = std::path::Path::new(&path);
            let plain = inside.components().all(|part| matches!(part, std::path::Component::Normal(_)));
            proptest::prop_assert!(plain);
            proptest::prop_assert!(std::path::Path::new("/root").join(inside).starts_with("/root"));
        }
    }
}
