//! Lasting damage: what a disk does to bytes that it had promised to keep.

use super::{SECTOR, State};

/// What happens to what was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// One bit flips, in any file.
    Rot,
    /// A sector's content lands at another place, and is missing at its own.
    Misdirected,
    /// A sector goes back to what it was before (zeros): a write was acknowledged and lost.
    Stale,
    /// Everything is gone.
    Wiped,
}

impl State {
    pub(super) fn harm(&mut self, damage: Damage) -> Option<String> {
        if damage == Damage::Wiped {
            self.files.clear();
            self.names.clear();
            self.names_durable.clear();
            self.name_changes.clear();
            return Some("the disk is replaced by an empty one".to_owned());
        }
        let State { files, names, rng, .. } = self;
        let holding: Vec<(&String, u64)> = names
            .iter()
            .map(|(name, inode)| (name, *inode))
            .filter(|(_, inode)| files[inode].durable.used() > 0)
            .collect();
        if holding.is_empty() {
            return None;
        }
        let (name, inode) = holding[rng.below(holding.len() as u64) as usize];
        let name = name.clone();
        let file = files.get_mut(&inode)?;
        // Preallocated room is all zeros: damage there is found too seldom to be interesting.
        let used = file.durable.used();
        let place = rng.below(used as u64) as usize;
        let sector = place / SECTOR * SECTOR;
        let mut content = vec![0; SECTOR.min(file.durable.len() - sector)];
        file.durable.read(sector, &mut content);
        let zeros = vec![0; content.len()];
        let what = match damage {
            Damage::Rot => {
                let bit = rng.below(8);
                file.durable.flip(place * 8 + bit as usize);
                format!("bit {bit} of byte {place} of {name} flips")
            }
            Damage::Misdirected => {
                let other = rng.below(used as u64) as usize / SECTOR * SECTOR;
                file.durable.put(sector, &zeros);
                let room = content.len().min(file.durable.len() - other);
                file.durable.put(other, &content[..room]);
                format!("the sector at {sector} of {name} was written at {other}")
            }
            Damage::Stale | Damage::Wiped => {
                file.durable.put(sector, &zeros);
                format!("the sector at {sector} of {name} lost its content")
            }
        };
        file.now.clone_from(&file.durable);
        file.writes.clear();
        Some(what)
    }
}
