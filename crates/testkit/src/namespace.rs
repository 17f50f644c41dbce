//! A network namespace that does not outlive its test.
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};

use isthmus_netlink::{NetlinkError, Netns};

/// A namespace with a name that no other test has; dropped, the name goes, and with it the namespace and its links.
#[derive(Debug)]
pub struct TestNetns {
    namespace: Netns,
}

impl TestNetns {
    /// Makes one. `purpose` is a part of its name.
    pub fn new(purpose: &str) -> Result<Self, NetlinkError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{number}-{purpose}", std::process::id());
        let namespace = Netns::create(&name)?;
        Ok(Self { namespace })
    }
}

impl Deref for TestNetns {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.namespace
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        if let Err(error) = Netns::delete(self.namespace.name()) {
            eprintln!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Need, needs};

    #[test]
    fn a_namespace_goes_with_its_guard() -> Result<(), NetlinkError> {
        if !needs("a_namespace_goes_with_its_guard", &[Need::Root]) {
            return Ok(());
        }
        let (one, two) = (TestNetns::new("a")?, TestNetns::new("a")?);
        assert_ne!(one.name(), two.name());
        let name = one.name().to_owned();
        assert!(one.netlink()?.link("lo")?.up);
        drop(one);
        assert!(!Netns::exists(&name));
        assert!(Netns::exists(two.name()));
        Ok(())
    }
}
