//! Digests of large files, remembered so that an unchanged file is read once.

use std::path::Path;

use rusqlite::{OptionalExtension, params};

use super::Store;
use crate::error::Result;

impl Store {
    /// The digest remembered for a file, if its size in bytes and its time of modification (nanoseconds since
    /// 1970) are still the same. `path` should be absolute.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn digest(&self, path: &Path, size: u64, modified_ns: i64) -> Result<Option<String>> {
        let select = || {
            let sql = "SELECT digest FROM file_digest WHERE path = ?1 AND size = ?2 AND modified_ns = ?3";
            let mut one = self.connection.prepare_cached(sql)?;
            let key = params![path.as_os_str().as_encoded_bytes(), size.cast_signed(), modified_ns];
            one.query_row(key, |row| row.get(0)).optional()
        };
        select().map_err(|cause| self.failure("read", cause))
    }

    /// Remembers the digest of a file in place of an earlier one.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn remember_digest(&mut self, path: &Path, size: u64, modified_ns: i64, digest: &str) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO file_digest (path, size, modified_ns, digest) VALUES (?1, ?2, ?3, ?4)";
        let row = params![path.as_os_str().as_encoded_bytes(), size.cast_signed(), modified_ns, digest];
        self.connection.execute(sql, row).map_err(|cause| self.failure("write to", cause))?;
        Ok(())
    }
}
