//! Tables with one writer, and the loop that makes the observed equal the desired.
