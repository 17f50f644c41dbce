//! Views of the bgp-speaker.
