//! The arithmetic of majorities.

/// How many of `voters` make a majority; an empty set needs nobody.
#[must_use]
pub fn majority(voters: usize) -> usize {
    if voters == 0 { 0 } else { voters / 2 + 1 }
}
