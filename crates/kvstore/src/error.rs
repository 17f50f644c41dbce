//! Why a key or a value was refused. The texts are for logs and status: they name the member and what was wrong.
use isthmus_topology::{LabelsError, NameError};

/// Why a key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Keys are text.
    #[error("the key is not UTF-8")]
    NotUtf8,
    /// No family of ours.
    #[error("key {0:?} belongs to no known family")]
    Unknown(String),
    /// The family is known, what follows its prefix is not valid in it.
    #[error("key {key:?}: {reason}")]
    Suffix {
        /// The whole key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A cluster or node name in the key is not valid.
    #[error("key {key:?}: {source}")]
    Name {
        /// The whole key.
        key: String,
        /// What is wrong with the name.
        source: NameError,
    },
}

/// Why a value was refused. The last good value of its key stays in force (spec §1.4).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not the JSON that the family uses.
    #[error("not the JSON of a {what}: {reason}")]
    Json {
        /// Which value: "node", "service", …
        what: &'static str,
        /// serde's message with line and column.
        reason: String,
    },
    /// A member has a value that it cannot have.
    #[error("member {member}: {reason}")]
    Member {
        /// The member's path.
        member: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A cluster, node or service name, or a cluster id, is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The labels of an identity are not valid.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// Text was expected.
    #[error("the value is not UTF-8")]
    NotUtf8,
    /// Not a zstd frame, or a damaged one.
    #[error("not a zstd frame: {0}")]
    Zstd(String),
    /// The frame holds more than [`crate::slice::MAX_DECOMPRESSED`] bytes.
    #[error("the zstd frame holds more than {0} bytes")]
    TooLarge(usize),
    /// Not the protobuf message that the family uses.
    #[error("not the protobuf of an endpoint slice: {0}")]
    Protobuf(String),
}

impl ValueError {
    pub(crate) fn member(member: impl Into<String>, reason: impl ToString) -> Self {
        Self::Member {
            member: member.into(),
            reason: reason.to_string(),
        }
    }
}
