//! A folder after several accidents at once: whatever happens, opening it does not panic, and what it gives back is an
//! unbroken row from the snapshot on.

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use support::{IDENTITY, Member, OPTIONS, row};
use synod_wal::{Log, LogOptions, MemoryDisk, OnDamage};

/// One accident, with numbers that are scaled to the files that there are.
#[derive(Clone, Debug)]
enum Accident {
    Flip {
        file: usize,
        bit: usize,
    },
    Overwrite {
        file: usize,
        at: usize,
        bytes: Vec<u8>,
    },
    CutOff {
        file: usize,
        length: usize,
    },
    Zero {
        file: usize,
        at: usize,
        length: usize,
    },
    /// Bytes of one file in another's place.
    Misdirect {
        from: usize,
        to: usize,
        at: usize,
        length: usize,
    },
    Insert {
        file: usize,
        at: usize,
        length: usize,
    },
    Remove {
        file: usize,
    },
    Swap {
        a: usize,
        b: usize,
    },
}

fn accident() -> impl Strategy<Value = Accident> {
    let n = || any::<prop::sample::Index>().prop_map(|index| index.index(1 << 20));
    let length = || 1..3000usize;
    prop_oneof![
        (n(), n()).prop_map(|(file, bit)| Accident::Flip { file, bit }),
        (n(), n(), prop::collection::vec(any::<u8>(), 1..600))
            .prop_map(|(file, at, bytes)| Accident::Overwrite { file, at, bytes }),
        (n(), n()).prop_map(|(file, length)| Accident::CutOff { file, length }),
        (n(), n(), length()).prop_map(|(file, at, length)| Accident::Zero { file, at, length }),
        (n(), n(), n(), length()).prop_map(|(from, to, at, length)| Accident::Misdirect {
            from,
            to,
            at,
            length
        }),
        (n(), n(), length()).prop_map(|(file, at, length)| Accident::Insert { file, at, length }),
        n().prop_map(|file| Accident::Remove { file }),
        (n(), n()).prop_map(|(a, b)| Accident::Swap { a, b }),
    ]
}

fn happen(disk: &MemoryDisk, accident: &Accident) {
    let names = disk.names();
    if names.is_empty() {
        return;
    }
    let name = |file: &usize| names[file % names.len()].as_str();
    let place = |bytes: &[u8], at: &usize| at % bytes.len().max(1);
    match accident {
        Accident::Flip { file, bit } => disk.edit(name(file), |bytes| {
            if let Some(length) = bytes.len().checked_mul(8).filter(|length| *length > 0) {
                let bit = bit % length;
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }),
        Accident::Overwrite { file, at, bytes: new } => disk.edit(name(file), |bytes| {
            let at = place(bytes, at);
            for (old, new) in bytes[at..].iter_mut().zip(new) {
                *old = *new;
            }
        }),
        Accident::CutOff { file, length } => disk.edit(name(file), |bytes| {
            let length = place(bytes, length);
            bytes.truncate(length);
        }),
        Accident::Zero { file, at, length } => disk.edit(name(file), |bytes| {
            let at = place(bytes, at);
            bytes[at..].iter_mut().take(*length).for_each(|byte| *byte = 0);
        }),
        Accident::Misdirect { from, to, at, length } => {
            let source = disk.contents(name(from)).unwrap_or_default();
            disk.edit(name(to), |bytes| {
                let at = place(bytes, at);
                let source = source.get(at..).unwrap_or_default();
                bytes[at..].iter_mut().zip(source).take(*length).for_each(|(old, new)| *old = *new);
            });
        }
        Accident::Insert { file, at, length } => disk.edit(name(file), |bytes| {
            let at = place(bytes, at);
            bytes.splice(at..at, std::iter::repeat_n(7, *length));
        }),
        Accident::Remove { file } => disk.unlink(name(file)),
        Accident::Swap { a, b } => {
            let (a, b) = (name(a), name(b));
            let (in_a, in_b) = (disk.contents(a).unwrap_or_default(), disk.contents(b).unwrap_or_default());
            disk.edit(a, |bytes| *bytes = in_b);
            disk.edit(b, |bytes| *bytes = in_a);
        }
    }
}

fn folder() -> MemoryDisk {
    let disk = MemoryDisk::new();
    support::live(&disk, &mut 0, &mut 0).expect("nothing is wrong");
    disk.kill();
    Member::open(&disk)
        .and_then(|mut member| {
            member.append(3)?;
            member.sync()?;
            member.append(9)?;
            member.sync()
        })
        .expect("nothing is wrong");
    disk
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// One to four accidents, with damage refused and with damage reported.
    #[test]
    fn accidents_never_break_the_row(accidents in prop::collection::vec(accident(), 1..5)) {
        let disk = folder();
        for accident in &accidents {
            happen(&disk, accident);
        }
        for on_damage in [OnDamage::Refuse, OnDamage::Report] {
            let copy = disk.duplicate();
            let options = LogOptions { on_damage, ..OPTIONS };
            let opened = Log::open(Arc::new(copy.clone()), IDENTITY, options);
            match opened {
                Ok((_, found)) => {
                    let readable = found.snapshot.as_ref().is_none_or(|snapshot| snapshot.verify().is_ok());
                    prop_assert!(on_damage == OnDamage::Report || found.damage.is_none());
                    if readable {
                        row(&found);
                    }
                }
                Err(error) => prop_assert!(error.to_string().contains("memory/"), "{}", error),
            }
        }
    }
}
