//! What keeps the database from taking writes, in words that say what is to be done about it.

use std::fmt;

use sqlx::error::DatabaseError;

/// A disk or a server that does not take what is written. Reading may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageFault {
    /// No room: the disk, a quota, or a limit on the size of files.
    Full,
    /// The file system or the database server takes no writes.
    ReadOnly,
    /// The disk reports errors, or the file is damaged.
    Failed,
    /// The file that was opened is not the one that lies at its path now.
    Replaced,
}

impl StorageFault {
    /// One word for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Full => "storage_full",
            Self::ReadOnly => "storage_read_only",
            Self::Failed => "storage_failed",
            Self::Replaced => "database_replaced",
        }
    }

    /// The fault with this [`code`](Self::code).
    pub fn of_code(code: &str) -> Option<Self> {
        [Self::Full, Self::ReadOnly, Self::Failed, Self::Replaced]
            .into_iter()
            .find(|fault| fault.code() == code)
    }

    /// What a database's refusal says of its storage. SQLite: 13 is a full disk; a quota or a limit on the size of
    /// files is a failed write (778), sync (1034) or growth of the index file (4874) to it. 1032 is a file that was moved.
    /// PostgreSQL: 53100 is a full disk, 25006 a standby or a read-only transaction, 58030 a failing disk, XX001 and
    /// XX002 damage.
    pub(super) fn of(refusal: &dyn DatabaseError) -> Option<Self> {
        let code = refusal.code()?;
        match &*code {
            "53100" => return Some(Self::Full),
            "25006" => return Some(Self::ReadOnly),
            "58030" | "XX001" | "XX002" => return Some(Self::Failed),
            _ if code.len() == 5 => return None,
            _ => {}
        }
        let code: u32 = code.parse().ok()?;
        match (code, code & 0xff) {
            (13 | 778 | 1034 | 4874, _) => Some(Self::Full),
            (1032, _) => Some(Self::Replaced),
            (_, 8) => Some(Self::ReadOnly),
            (_, 10 | 11 | 26) => Some(Self::Failed),
            _ => None,
        }
    }
}

impl fmt::Display for StorageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => {
                "the database's disk takes no more: it is full, or over a quota or a limit on the size of files; nothing \
                 was written, and writes work again as soon as there is room"
            }
            Self::ReadOnly => {
                "the database takes no writes: its file system, file or server is read-only; nothing was written"
            }
            Self::Failed => {
                "the database's disk fails, or its file is damaged; nothing was written; see the server's log"
            }
            Self::Replaced => {
                "the database's file was deleted, moved or replaced while it was open; nothing is written to what is \
                 left of it: put it back, or restart the server on the one that is there now"
            }
        })
    }
}

#[cfg(test)]
mod tests;
