//! The paths to one prefix. Nearly every prefix has one, which therefore needs no memory of its own.
use std::ops::{Deref, DerefMut};

use super::Path;

/// A list of paths; one is kept in place.
#[derive(Debug, Default)]
pub(crate) enum Paths {
    #[default]
    None,
    One(Path),
    Many(Vec<Path>),
}

impl Paths {
    pub(crate) fn push(&mut self, path: Path) {
        match self {
            Paths::None => *self = Paths::One(path),
            Paths::One(first) => *self = Paths::Many(vec![*first, path]),
            Paths::Many(list) => list.push(path),
        }
    }

    /// Removes a path; the last one takes its place. `at` must be the place of a path.
    pub(crate) fn swap_remove(&mut self, at: usize) -> Path {
        let path = self[at];
        match self {
            Paths::Many(list) => {
                list.swap_remove(at);
                if let [one] = list[..] {
                    *self = Paths::One(one);
                }
            }
            Paths::None | Paths::One(_) => *self = Paths::None,
        }
        path
    }
}

impl Deref for Paths {
    type Target = [Path];

    fn deref(&self) -> &[Path] {
        match self {
            Paths::None => &[],
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(list) => list,
        }
    }
}

impl DerefMut for Paths {
    fn deref_mut(&mut self) -> &mut [Path] {
        match self {
            Paths::None => &mut [],
            Paths::One(path) => std::slice::from_mut(path),
            Paths::Many(list) => list,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::PeerId;
    use crate::rib::intern::AttrId;
    use crate::view::RouteSource;

    proptest! {
        /// It behaves as a vector does.
        #[test]
        fn like_a_vector(ops in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..60)) {
            let (mut paths, mut model) = (Paths::default(), Vec::new());
            for (n, (push, index)) in ops.into_iter().enumerate() {
                if push || model.is_empty() {
                    let path = Path::new(RouteSource::Peer(PeerId(n as u32)), AttrId(n as u32));
                    paths.push(path);
                    model.push(path);
                } else {
                    let at = index.index(model.len());
                    prop_assert_eq!(paths.swap_remove(at), model.swap_remove(at));
                }
                prop_assert_eq!(&paths[..], &model[..]);
                prop_assert_eq!(matches!(paths, Paths::Many(_)), model.len() > 1);
            }
        }
    }
}
