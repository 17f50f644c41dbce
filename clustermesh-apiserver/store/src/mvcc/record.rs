//! One version of one key.

use etcd_client::proto::PbKeyValue;

/// One version of one key: its value, or that it was deleted. Shared between the index, the log and replies under way.
///
/// Key and value lie in one allocation, because 100,000 of these are kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// Revision at which the key was created; 0 in a deletion.
    pub create_revision: i64,
    /// Revision of this version.
    pub mod_revision: i64,
    /// 1 for the version that created the key, counted up from there; 0 in a deletion.
    pub version: i64,
    /// Lease to which the key is attached; 0 for none.
    pub lease: i64,
    key_len: usize,
    bytes: Box<[u8]>,
}

impl Record {
    pub(crate) fn new(key: &[u8], value: &[u8], lease: i64, mod_revision: i64) -> Self {
        let bytes = [key, value].concat().into_boxed_slice();
        Self {
            create_revision: mod_revision,
            mod_revision,
            version: 1,
            lease,
            key_len: key.len(),
            bytes,
        }
    }

    pub(crate) fn deletion(key: &[u8], mod_revision: i64) -> Self {
        Self {
            create_revision: 0,
            mod_revision,
            version: 0,
            lease: 0,
            key_len: key.len(),
            bytes: key.into(),
        }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.bytes[..self.key_len]
    }

    /// The value; empty in a deletion.
    pub fn value(&self) -> &[u8] {
        &self.bytes[self.key_len..]
    }

    /// Whether this version says that the key was deleted.
    pub fn is_deletion(&self) -> bool {
        self.version == 0
    }

    /// Bytes that this record holds in memory, nearly.
    pub(crate) fn cost(&self) -> u64 {
        (size_of::<Self>() + self.bytes.len()) as u64
    }

    /// The message of the etcd API. In a deletion only key and revision are set.
    pub(crate) fn to_pb(&self, keys_only: bool) -> PbKeyValue {
        PbKeyValue {
            key: self.key().to_vec(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            value: if keys_only {
                Vec::new()
            } else {
                self.value().to_vec()
            },
            lease: self.lease,
        }
    }
}
