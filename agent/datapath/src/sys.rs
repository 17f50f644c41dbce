//! bpf(2) as we need it: what aya does not offer (batches, cgroup link updates, mapped arrays) and a uniform way to pins.
//!
//! Every attribute struct below is the leading part of the kernel's `union bpf_attr` for its command; the kernel takes the
//! rest as zero.
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const MAP_UPDATE_BATCH: libc::c_int = 26;
const MAP_DELETE_BATCH: libc::c_int = 27;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;

/// `BPF_F_BEFORE` without a reference: first in the chain.
const F_BEFORE: u32 = 1 << 3;
const BATCH: usize = 16_384;
/// The kernel's own `ENOTSUPP`, which libc does not know.
const ENOTSUPP: i32 = 524;

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a valid `repr(C)` prefix of `union bpf_attr` for `command`, and every pointer in it is to memory
    // that outlives the call: each caller below holds the buffers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: a descriptor that the kernel has just given us.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

#[repr(C)]
struct ObjAttr {
    pathname: u64,
    fd: u32,
    flags: u32,
}

/// Pins an object under `path`.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = c_path(path)?;
    bpf(
        OBJ_PIN,
        &mut ObjAttr {
            pathname: name.as_ptr() as u64,
            fd: raw(fd),
            flags: 0,
        },
    )
    .map(drop)
}

/// Opens the object that is pinned under `path`.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let name = c_path(path)?;
    bpf(
        OBJ_GET,
        &mut ObjAttr {
            pathname: name.as_ptr() as u64,
            fd: 0,
            flags: 0,
        },
    )
    .map(owned)
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

fn info<T>(fd: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attr = InfoAttr {
        fd: raw(fd),
        len: size_of::<T>() as u32,
        info: std::ptr::from_mut(info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// What the kernel says about a map.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

pub(crate) fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut out = MapInfo::default();
    info(fd, &mut out)?;
    Ok(out)
}

/// The start of the kernel's `bpf_prog_info`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ProgInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) tag: [u8; 8],
}

pub(crate) fn prog_info(fd: BorrowedFd<'_>) -> io::Result<ProgInfo> {
    let mut out = ProgInfo::default();
    info(fd, &mut out)?;
    Ok(out)
}

/// The start of the kernel's `bpf_link_info`; `target` is a cgroup id or (low half) an interface index.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LinkInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) prog_id: u32,
    pad: u32,
    pub(crate) target: u64,
    pub(crate) more: u64,
}

/// `BPF_LINK_TYPE_CGROUP`.
pub(crate) const LINK_CGROUP: u32 = 3;
/// `BPF_LINK_TYPE_TCX`.
pub(crate) const LINK_TCX: u32 = 11;

pub(crate) fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut out = LinkInfo::default();
    info(fd, &mut out)?;
    Ok(out)
}

#[repr(C)]
struct LinkCreateAttr {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    expected_revision: u64,
}

/// Attaches a program to a cgroup. A cgroup link shares the hook with others (implicitly multi).
pub(crate) fn link_cgroup(
    prog: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: raw(prog),
        target: raw(cgroup),
        attach_type,
        flags: 0,
        relative: 0,
        pad: 0,
        expected_revision: 0,
    };
    bpf(LINK_CREATE, &mut attr).map(owned)
}

/// Attaches a program first in the tcx chain of a device: a later program may end the chain before we saw the packet.
pub(crate) fn link_tcx(prog: BorrowedFd<'_>, ifindex: u32, attach_type: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: raw(prog),
        target: ifindex,
        attach_type,
        flags: F_BEFORE,
        relative: 0,
        pad: 0,
        expected_revision: 0,
    };
    bpf(LINK_CREATE, &mut attr).map(owned)
}

#[repr(C)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Puts another program in the place of the link's, with no moment without one.
pub(crate) fn link_update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link_fd: raw(link),
        new_prog_fd: raw(prog),
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(LINK_UPDATE, &mut attr).map(drop)
}

#[repr(C)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Ids of the programs at a hook of a cgroup (descriptor) or a device (index).
pub(crate) fn query(target: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; 64];
    let mut attr = QueryAttr {
        target,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        pad: 0,
        prog_attach_flags: 0,
        link_ids: 0,
        link_attach_flags: 0,
        revision: 0,
    };
    bpf(PROG_QUERY, &mut attr)?;
    Ok(ids.iter().take(attr.count as usize).copied().collect())
}

#[repr(C)]
struct ElemAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl ElemAttr {
    fn new(map: BorrowedFd<'_>, key: *const u8, value: *const u8) -> Self {
        Self {
            map_fd: raw(map),
            pad: 0,
            key: key as u64,
            value: value as u64,
            flags: 0,
        }
    }
}

/// Reads the value of `key` into `value`, whose length must be what the kernel writes. False if there is none.
pub(crate) fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    match bpf(
        MAP_LOOKUP_ELEM,
        &mut ElemAttr::new(map, key.as_ptr(), value.as_mut_ptr()),
    ) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Writes one entry.
pub(crate) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    bpf(
        MAP_UPDATE_ELEM,
        &mut ElemAttr::new(map, key.as_ptr(), value.as_ptr()),
    )
    .map(drop)
}

/// Removes one entry; one that is gone already is no error.
pub(crate) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    match bpf(
        MAP_DELETE_ELEM,
        &mut ElemAttr::new(map, key.as_ptr(), std::ptr::null()),
    ) {
        Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(e),
        _ => Ok(()),
    }
}

fn next_key(map: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let key = key.map_or(std::ptr::null(), <[u8]>::as_ptr);
    match bpf(MAP_GET_NEXT_KEY, &mut ElemAttr::new(map, key, next.as_mut_ptr())) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

impl BatchAttr {
    fn new(map: BorrowedFd<'_>, keys: *const u8, values: *const u8, count: usize) -> Self {
        Self {
            in_batch: 0,
            out_batch: 0,
            keys: keys as u64,
            values: values as u64,
            count: count as u32,
            map_fd: raw(map),
            elem_flags: 0,
            flags: 0,
        }
    }
}

/// True if the kernel or this kind of map has no batches.
fn no_batches(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP)
    )
}

/// Writes entries that lie one after the other in `keys` and `values`.
pub(crate) fn update_all(
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    sizes: (usize, usize),
) -> io::Result<()> {
    let (key_size, value_size) = sizes;
    for (keys, values) in keys
        .chunks(key_size * BATCH)
        .zip(values.chunks(value_size * BATCH))
    {
        let count = keys.len() / key_size;
        if count > 1 {
            match bpf(
                MAP_UPDATE_BATCH,
                &mut BatchAttr::new(map, keys.as_ptr(), values.as_ptr(), count),
            ) {
                Ok(_) => continue,
                Err(e) if no_batches(&e) => {}
                Err(e) => return Err(e),
            }
        }
        for (key, value) in keys.chunks(key_size).zip(values.chunks(value_size)) {
            update(map, key, value)?;
        }
    }
    Ok(())
}

/// Removes the entries whose keys lie one after the other in `keys`.
pub(crate) fn delete_all(map: BorrowedFd<'_>, keys: &[u8], key_size: usize) -> io::Result<()> {
    for keys in keys.chunks(key_size * BATCH) {
        let count = keys.len() / key_size;
        if count > 1
            && bpf(
                MAP_DELETE_BATCH,
                &mut BatchAttr::new(map, keys.as_ptr(), std::ptr::null(), count),
            )
            .is_ok()
        {
            continue;
        }
        // No batches, or one key was gone: one by one, which does not mind either.
        for key in keys.chunks(key_size) {
            delete(map, key)?;
        }
    }
    Ok(())
}

/// Reads a whole map: keys and values, each one after the other.
pub(crate) fn dump(map: BorrowedFd<'_>, info: &MapInfo) -> io::Result<(Vec<u8>, Vec<u8>)> {
    match dump_batch(map, info) {
        Err(e) if no_batches(&e) => dump_single(map, info),
        other => other,
    }
}

fn dump_batch(map: BorrowedFd<'_>, info: &MapInfo) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (key_size, value_size) = (info.key_size as usize, info.value_size as usize);
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    // Hash maps store a u32 here, the others a key.
    let mut cursor = vec![0u8; key_size.max(8)];
    let mut next = cursor.clone();
    let mut first = true;
    let mut room = BATCH;
    loop {
        let (at_key, at_value) = (keys.len(), values.len());
        keys.resize(at_key + room * key_size, 0);
        values.resize(at_value + room * value_size, 0);
        let mut attr = BatchAttr::new(map, keys[at_key..].as_ptr(), values[at_value..].as_ptr(), room);
        attr.in_batch = if first { 0 } else { cursor.as_ptr() as u64 };
        attr.out_batch = next.as_mut_ptr() as u64;
        let result = bpf(MAP_LOOKUP_BATCH, &mut attr);
        let enough = !matches!(&result, Err(e) if e.raw_os_error() == Some(libc::ENOSPC));
        let got = if enough { attr.count as usize } else { 0 };
        keys.truncate(at_key + got * key_size);
        values.truncate(at_value + got * value_size);
        match result {
            Ok(_) => {
                std::mem::swap(&mut cursor, &mut next);
                first = false;
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok((keys, values)),
            // One hash bucket holds more than fits.
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => room *= 2,
            Err(e) => return Err(e),
        }
    }
}

fn dump_single(map: BorrowedFd<'_>, info: &MapInfo) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    let (mut key, mut next) = (None::<Vec<u8>>, vec![0u8; info.key_size as usize]);
    let mut value = vec![0u8; info.value_size as usize];
    while next_key(map, key.as_deref(), &mut next)? {
        if lookup(map, &next, &mut value)? {
            keys.extend_from_slice(&next);
            values.extend_from_slice(&value);
        }
        key = Some(next.clone());
    }
    Ok((keys, values))
}

/// Refuses with a bad descriptor where a command is known, with `EINVAL` where it is not.
fn known<T>(command: libc::c_int, attr: &mut T) -> io::Result<()> {
    match bpf(command, attr) {
        Err(e) if e.raw_os_error() == Some(libc::EBADF) => Ok(()),
        Err(e) => Err(e),
        Ok(_) => Ok(()),
    }
}

/// Whether this kernel has BPF links.
pub(crate) fn has_links() -> io::Result<()> {
    known(
        LINK_UPDATE,
        &mut LinkUpdateAttr {
            link_fd: u32::MAX,
            new_prog_fd: u32::MAX,
            flags: 0,
            old_prog_fd: 0,
        },
    )
}

/// Whether this kernel has map batches.
pub(crate) fn has_batches() -> io::Result<()> {
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: 0,
        values: 0,
        count: 0,
        map_fd: u32::MAX,
        elem_flags: 0,
        flags: 0,
    };
    known(MAP_LOOKUP_BATCH, &mut attr)
}
