//! Network devices of the current network namespace.
use std::ffi::CString;
use std::io;
use std::mem::zeroed;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::Error;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) index: u32,
    /// Its packets have Ethernet headers.
    pub(crate) ethernet: bool,
}

impl Device {
    pub(crate) fn find(name: &str) -> Result<Self, Error> {
        let missing = || Error::NoDevice {
            name: name.to_owned(),
        };
        let c_name = CString::new(name).map_err(|_| missing())?;
        // SAFETY: a valid C string.
        let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
        if index == 0 {
            return Err(missing());
        }
        let ethernet = is_ethernet(&c_name).map_err(|source| Error::Path {
            action: "ask for the type of",
            path: name.into(),
            source,
        })?;
        Ok(Self {
            name: name.to_owned(),
            index,
            ethernet,
        })
    }

    pub(crate) fn name_of(index: u32) -> Option<String> {
        let mut name = [0u8; libc::IF_NAMESIZE];
        // SAFETY: the buffer has the size that the call wants.
        let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
        if found.is_null() {
            return None;
        }
        let end = name.iter().position(|byte| *byte == 0)?;
        String::from_utf8(name[..end].to_vec()).ok()
    }
}

fn is_ethernet(name: &CString) -> io::Result<bool> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: plain numbers and a union of such.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *to = *from as libc::c_char;
    }
    // SAFETY: a valid socket and a request of the type that this ioctl takes.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the ioctl has filled this member.
    let kind = unsafe { request.ifr_ifru.ifru_hwaddr.sa_family };
    Ok(kind == libc::ARPHRD_ETHER)
}
