//! Which of our environment variables a program gets to see: a list of the harmless ones, since secrets
//! have no common name.

use std::ffi::OsString;

/// How much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// What programs need to find themselves, their language and their hardware.
    Plain,
    /// And what a package installer needs to reach its index: proxies and the index's address, which may
    /// hold credentials.
    Installer,
}

const PLAIN: &[&str] = &[
    "HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "PATH",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_CACHE_HOME",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "SLUICE_DATA",
    "SLUICE_CACHE",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TOKENIZERS_PARALLELISM",
    "TF_CPP_MIN_LOG_LEVEL",
];
const PLAIN_FAMILIES: &[&str] = &["LC_", "CUDA_", "NVIDIA_"];

const INSTALLER: &[&str] = &[
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
];
const INSTALLER_FAMILIES: &[&str] = &["PIP_"];

impl Environment {
    fn admits(self, name: &str) -> bool {
        let listed = |names: &[&str], families: &[&str]| {
            names.contains(&name) || families.iter().any(|family| name.starts_with(family))
        };
        listed(PLAIN, PLAIN_FAMILIES)
            || (self == Self::Installer && listed(INSTALLER, INSTALLER_FAMILIES))
    }

    /// Those of our own that it admits.
    pub(super) fn variables(self) -> impl Iterator<Item = (OsString, OsString)> {
        std::env::vars_os()
            .filter(move |(name, _)| name.to_str().is_some_and(|name| self.admits(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_with_us() {
        for name in [
            "SLUICE_API_KEYS",
            "AWS_SECRET_ACCESS_KEY",
            "OPENAI_API_KEY",
            "DATABASE_URL",
            "HF_TOKEN",
            "PGPASSWORD",
            "SLUICE_DATABASE",
        ] {
            assert!(!Environment::Plain.admits(name), "{name}");
            assert!(!Environment::Installer.admits(name), "{name}");
        }
        assert!(Environment::Plain.admits("PATH") && Environment::Plain.admits("LC_ALL"));
        assert!(!Environment::Plain.admits("PIP_INDEX_URL"));
        assert!(Environment::Installer.admits("PIP_INDEX_URL"));
    }
}
