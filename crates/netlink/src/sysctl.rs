//! Network sysctls: read and written in the calling thread's namespace, so use them through [`crate::Netns::run`].
use std::path::PathBuf;

use crate::NetlinkError;

/// `net.ipv4.ip_forward` or `net/ipv4/conf/eth0.100/rp_filter` → its file. Dots part the name only where it has no '/'.
fn file(name: &str) -> PathBuf {
    let path = if name.contains('/') {
        name.to_owned()
    } else {
        name.replace('.', "/")
    };
    PathBuf::from("/proc/sys").join(path)
}

/// Reads a sysctl without its final newline.
pub fn read(name: &str) -> Result<String, NetlinkError> {
    let text = std::fs::read_to_string(file(name))
        .map_err(|e| NetlinkError::io(format!("read sysctl {name}"), e))?;
    Ok(text.trim_end().to_owned())
}

/// Writes a sysctl unless it has the value already; true if it was written.
pub fn write(name: &str, value: &str) -> Result<bool, NetlinkError> {
    if read(name)? == value {
        return Ok(false);
    }
    std::fs::write(file(name), value)
        .map_err(|e| NetlinkError::io(format!("set sysctl {name}={value}"), e))?;
    Ok(true)
}
