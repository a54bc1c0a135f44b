//! Archives made to do harm, byte by byte where no honest tool would write them.

use std::io::Write as _;

use ::tar::{EntryType, Header};
use ::zip::write::SimpleFileOptions;

use super::*;

struct Archives {
    bench: Bench,
    folder: tempfile::TempDir,
    _fresh: Fresh,
}

impl Archives {
    async fn new(edit: impl FnOnce(&mut ArtifactSettings)) -> Self {
        let fresh = Fresh::sqlite().await;
        let folder = tempfile::tempdir().unwrap();
        let allowed = folder.path().to_owned();
        let bench = Bench::new(&fresh.store, |settings| {
            settings.import.folders = vec![allowed];
            edit(settings);
        })
        .await;
        Self {
            bench,
            folder,
            _fresh: fresh,
        }
    }

    async fn import(&self, name: &str, bytes: &[u8]) -> Result<Stored<Artifact>, ArtifactError> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        import(&self.bench, path.to_str().unwrap(), true).await
    }

    /// Imports what must be refused, and looks that nothing of it lies anywhere but as unused blobs.
    async fn refused(&self, name: &str, bytes: &[u8]) -> String {
        let error = self.import(name, bytes).await.unwrap_err();
        assert!(
            !matches!(error, ArtifactError::Io(_) | ArtifactError::Storage(_)),
            "{error:?}"
        );
        assert!(self.bench.lying("spool").is_empty(), "{error}");
        error.to_string()
    }
}

/// One entry with any name and kind: `tar`'s builder refuses the ones that are of interest here.
fn entry(path: &[u8], kind: EntryType, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path);
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(path: &str, content: &[u8]) -> Vec<u8> {
    entry(path.as_bytes(), EntryType::Regular, content)
}

fn tar_of(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn pax(key: &str, value: &str) -> Vec<u8> {
    let mut length = key.len() + value.len() + 3;
    length += (length + 2).to_string().len();
    let record = format!("{length} {key}={value}\n");
    assert_eq!(record.len(), length);
    entry(b"PaxHeader", EntryType::XHeader, record.as_bytes())
}

fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer
            .start_file(*name, SimpleFileOptions::default())
            .unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[tokio::test]
async fn honest_archives_of_every_form_give_the_same_artifact() {
    let archives = Archives::new(|_| ()).await;
    let long = format!("{}/{}", "folder".repeat(20), "name".repeat(20));
    let files = [
        ("a/b.txt", noise(1, 700_000)),
        ("config.json", b"{}".to_vec()),
        (&long, b"long".to_vec()),
        ("empty", Vec::new()),
    ];
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, content) in &files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, format!("./{path}"), &content[..])
            .unwrap();
    }
    let tar = builder.into_inner().unwrap();
    let zip: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(path, content)| (*path, &content[..]))
        .collect();
    let one = archives.import("m.tar", &tar).await.unwrap();
    assert_eq!(one.files, 4);
    let mut with_pax = vec![
        entry(b"g", EntryType::XGlobalHeader, b"19 comment=abcdefg\n"),
        entry(b"a/", EntryType::Directory, b""),
    ];
    for (path, content) in &files {
        with_pax.push(pax("path", path));
        with_pax.push(file("short", content));
    }
    for (name, bytes) in [
        ("m.tar.gz", gz(&tar)),
        ("m.TGZ", gz(&tar)),
        ("m.zip", zip_of(&zip)),
        ("pax.tar", tar_of(&with_pax)),
    ] {
        let other = archives.import(name, &bytes).await.unwrap();
        assert_eq!(other.digest, one.digest, "{name}");
    }
    // A checkpoint of PyTorch is a zip, and stays one file.
    let single = archives.import("model.pt", &zip_of(&zip)).await.unwrap();
    assert_eq!(single.files, 1);
    // Archives in archives are files.
    let nested = archives
        .import("n.zip", &zip_of(&[("inner.tar", &tar)]))
        .await
        .unwrap();
    assert_eq!(contents(&archives.bench, &nested).await[0].1, tar);
}

#[tokio::test]
async fn unsafe_names_in_archives_are_refused_by_name() {
    let archives = Archives::new(|_| ()).await;
    let names = [
        "../evil",
        "/etc/passwd",
        "a/../../evil",
        "C:\\evil",
        "a\\..\\evil",
        "nul",
        "a\tb",
    ];
    for name in names {
        let safe = file("safe", b"x");
        let error = archives
            .refused("x.tar", &tar_of(&[safe.clone(), file(name, b"evil")]))
            .await;
        let escaped: String = name.chars().flat_map(char::escape_debug).collect();
        assert!(
            error.starts_with(&format!("path \"{escaped}\" ")),
            "{error}"
        );
        // The same name by way of an extended header and of a long name.
        for extended in [
            pax("path", name),
            entry(b"L", EntryType::GNULongName, format!("{name}\0").as_bytes()),
        ] {
            let error = archives
                .refused("x.tar", &tar_of(&[extended, file("safe", b"evil")]))
                .await;
            assert!(
                error.starts_with(&format!("path \"{escaped}\" ")),
                "{error}"
            );
        }
        let error = archives
            .refused("x.zip", &zip_of(&[("safe", b"x"), (name, b"evil")]))
            .await;
        assert!(error.contains("path \""), "{name}: {error}");
    }
    let error = archives
        .refused(
            "x.tar",
            &tar_of(&[entry(b"caf\xe9", EntryType::Regular, b"")]),
        )
        .await;
    assert!(error.ends_with("is not UTF-8"), "{error}");
    for (one, other) in [
        ("a", "a"),
        ("A", "a"),
        ("caf\u{e9}", "cafe\u{301}"),
        ("a", "a/b"),
    ] {
        let error = archives
            .refused("x.tar", &tar_of(&[file(one, b"1"), file(other, b"2")]))
            .await;
        assert!(error.starts_with("path \""), "{error}");
    }
    // The writer refuses to write two of a name, so one is renamed in the bytes.
    let mut twice = zip_of(&[("name1", b"1"), ("name2", b"2")]);
    for at in 0..twice.len() - 5 {
        if &twice[at..at + 5] == b"name2" {
            twice[at + 4] = b'1';
        }
    }
    let error = archives.refused("x.zip", &twice).await;
    assert!(
        error.contains("two entries of the same name") || error.contains("uplicate"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_file_or_folder_is_refused() {
    let archives = Archives::new(|_| ()).await;
    let kinds = [
        (EntryType::Symlink, "symbolic link"),
        (EntryType::Link, "hard link"),
        (EntryType::Char, "device"),
        (EntryType::Block, "device"),
        (EntryType::Fifo, "pipe"),
        (EntryType::GNUSparse, "sparse"),
        (EntryType::GNULongLink, "link"),
        (EntryType::new(b'Z'), "unknown kind"),
    ];
    for (kind, reason) in kinds {
        let mut bytes = entry(b"odd", kind, b"");
        bytes[157..168].copy_from_slice(b"/etc/passwd");
        let mut header = Header::from_byte_slice(&bytes[..512]).clone();
        header.set_cksum();
        bytes[..512].copy_from_slice(header.as_bytes());
        let error = archives.refused("x.tar", &tar_of(&[bytes])).await;
        assert!(
            error.starts_with("entry \"odd\": ") && error.contains(reason),
            "{error}"
        );
    }
    for key in ["GNU.sparse.major", "GNU.sparse.map"] {
        let error = archives
            .refused("x.tar", &tar_of(&[pax(key, "1"), file("f", b"x")]))
            .await;
        assert!(error.contains("sparse"), "{error}");
    }
    let mut writer = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    writer
        .add_symlink("odd", "/etc/passwd", SimpleFileOptions::default())
        .unwrap();
    let error = archives
        .refused("x.zip", &writer.finish().unwrap().into_inner())
        .await;
    assert_eq!(
        error,
        "entry \"odd\": is a symbolic link; only files and folders are taken"
    );
}

#[tokio::test]
async fn bombs_are_refused_before_they_go_off() {
    let archives = Archives::new(|settings| {
        settings.import.max_ratio = 10;
        settings.import.max_files = 50;
        settings.import.max_bytes = 200 << 20;
    })
    .await;
    // 100 MiB of zeros in 100 kB.
    let zeros = vec![0; 100 << 20];
    for (name, bytes) in [
        ("x.zip", zip_of(&[("zeros", &zeros)])),
        ("x.tar.gz", gz(&tar_of(&[file("zeros", &zeros)]))),
    ] {
        assert!(bytes.len() < 1 << 20);
        let error = archives.refused(name, &bytes).await;
        assert!(error.contains("import.max_ratio"), "{error}");
        assert!(error.contains("\"zeros\""), "{error}");
    }
    // Spread over many entries, each of them small.
    let spread: Vec<_> = (0..20)
        .map(|n| file(&format!("z{n}"), &zeros[..4 << 20]))
        .collect();
    let error = archives.refused("x.tgz", &gz(&tar_of(&spread))).await;
    assert!(error.contains("import.max_ratio"), "{error}");
    // In what is passed over: a folder's content.
    let hidden = entry(b"d/", EntryType::Directory, &zeros);
    let error = archives.refused("x.tgz", &gz(&tar_of(&[hidden]))).await;
    assert!(error.contains("import.max_ratio"), "{error}");

    let many: Vec<_> = (0..51).map(|n| file(&format!("f{n}"), b"")).collect();
    assert!(
        archives
            .refused("x.tar", &tar_of(&many))
            .await
            .contains("import.max_files")
    );
    let folders: Vec<_> = (0..500)
        .map(|n| entry(format!("d{n}/").as_bytes(), EntryType::Directory, b""))
        .collect();
    assert!(
        archives
            .refused("x.tar", &tar_of(&folders))
            .await
            .contains("import.max_files")
    );
    let headers: Vec<_> = (0..500).map(|_| pax("comment", "x")).collect();
    assert!(
        archives
            .refused("x.tar", &tar_of(&headers))
            .await
            .contains("import.max_files")
    );
    let names: Vec<String> = (0..101).map(|n| format!("f{n}")).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    assert!(
        archives
            .refused("x.zip", &zip_of(&entries))
            .await
            .contains("import.max_files")
    );
    // More than 65,535 entries are counted in another place of the archive.
    let names: Vec<String> = (0..66_000).map(|n| format!("f{n}")).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    assert!(
        archives
            .refused("x.zip", &zip_of(&entries))
            .await
            .contains("import.max_files")
    );

    // An extended header that would be held in memory whole.
    let mut huge = Header::new_gnu();
    huge.set_entry_type(EntryType::XHeader);
    huge.set_size(8 << 30);
    huge.set_cksum();
    let error = archives.refused("x.tar", huge.as_bytes()).await;
    assert!(
        error.contains("extended header of 8589934592 bytes"),
        "{error}"
    );
    // A size that nothing comes of.
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[0] = b'f';
    header.set_size(1 << 62);
    header.set_cksum();
    let error = archives.refused("x.tar", header.as_bytes()).await;
    assert!(error.contains("over the limit"), "{error}");
}

#[tokio::test]
async fn damaged_and_cut_archives_are_refused() {
    let archives = Archives::new(|_| ()).await;
    let tar = tar_of(&[file("a", &noise(1, 5000)), file("b", &noise(2, 5000))]);
    for cut in [0, 100, 512, 3000, 5632, 6144, tar.len() - 1024] {
        for (name, bytes) in [
            ("x.tar", tar[..cut].to_vec()),
            ("x.tgz", gz(&tar[..cut])),
            (
                "y.tgz",
                gz(&tar)[..gz(&tar).len() * cut / tar.len()].to_vec(),
            ),
        ] {
            archives.refused(name, &bytes).await;
        }
    }
    let zip = zip_of(&[("a", &noise(1, 5000))]);
    for cut in [0, 30, 2000, zip.len() - 10] {
        archives.refused("x.zip", &zip[..cut]).await;
    }
    let mut flipped = zip;
    flipped[1000] ^= 0x10;
    archives.refused("x.zip", &flipped).await;
    let mut wrong_sum = tar;
    wrong_sum[0] = b'z';
    assert!(
        archives
            .refused("x.tar", &wrong_sum)
            .await
            .contains("is no tar archive")
    );
    assert!(
        archives
            .refused("x.tar", &noise(1, 4096))
            .await
            .contains("is no tar archive")
    );
    assert!(
        archives
            .refused("x.tar", &tar_of(&[]))
            .await
            .contains("no file in it")
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
    /// No archive with flipped bytes does worse than being refused.
    #[test]
    fn flipped_bytes_never_do_harm(flips in proptest::collection::vec((0usize..3000, 0u8..), 1..20), which in 0usize..3) {
        let tar = tar_of(&[pax("path", "long name"), file("a", b"hello"), file("b/c", &noise(3, 600))]);
        let (name, mut bytes) = [
            ("x.tar", tar.clone()),
            ("x.tgz", gz(&tar)),
            ("x.zip", zip_of(&[("a", b"hello"), ("b/c", &noise(3, 600))])),
        ][which].clone();
        for (at, byte) in flips {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let archives = Archives::new(|_| ()).await;
            if let Ok(artifact) = archives.import(name, &bytes).await {
                for file in archives.bench.artifacts.files(artifact.id).await.unwrap() {
                    assert!(super::super::super::check_path(&file.path).is_ok());
                }
            }
        });
    }
}
