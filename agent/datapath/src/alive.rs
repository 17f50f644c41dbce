//! The alive bits of the clusters, mapped into this process: flipping one is a store, not a system call.
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use isthmus_bpf_abi::{ALIVE_WORDS, Alive, MAX_CLUSTERS};

/// A handle to the alive bits; cheap to clone, and usable from any task without the data path itself.
#[derive(Debug, Clone)]
pub struct AliveBits(Arc<Page>);

#[derive(Debug)]
struct Page(std::ptr::NonNull<AtomicU64>);

// SAFETY: the page is only reached through atomics.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: a shared mapping of at least this size, aligned to a page, that lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), ALIVE_WORDS) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made, which nobody uses any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Alive>()) };
    }
}

impl AliveBits {
    pub(crate) fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let (length, rights) = (size_of::<Alive>(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new shared mapping of a map that was made mappable and holds one value of this size.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                rights,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        std::ptr::NonNull::new(at.cast())
            .map(|page| Self(Arc::new(Page(page))))
            .ok_or_else(io::Error::last_os_error)
    }

    /// Sets whether new connections may go to `cluster`; true if that is a change. Ids from 1024 on have no bit.
    pub fn set(&self, cluster: u16, alive: bool) -> bool {
        let bit = 1u64 << (cluster & 63);
        let Some(word) = self.0.words().get(usize::from(cluster >> 6)) else {
            return false;
        };
        let before = if alive {
            word.fetch_or(bit, Ordering::Relaxed)
        } else {
            word.fetch_and(!bit, Ordering::Relaxed)
        };
        (before & bit != 0) != alive
    }

    /// Whether new connections may go to `cluster`.
    pub fn is_alive(&self, cluster: u16) -> bool {
        let word = self
            .0
            .words()
            .get(usize::from(cluster >> 6))
            .map_or(0, |word| word.load(Ordering::Relaxed));
        word >> (cluster & 63) & 1 == 1
    }

    /// The clusters whose bit is cleared.
    pub fn dead(&self) -> Vec<u16> {
        (0..MAX_CLUSTERS)
            .filter(|cluster| !self.is_alive(*cluster))
            .collect()
    }

    /// Every cluster is alive until its prober says otherwise.
    pub(crate) fn set_all(&self) {
        for word in self.0.words() {
            word.store(u64::MAX, Ordering::Relaxed);
        }
    }
}
