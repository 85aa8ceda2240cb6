//! Why the next level fails: the smallest piece of the history, and words for it.

pub mod shrink;
