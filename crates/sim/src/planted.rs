//! Planted defects of what the simulator runs beside a protocol: log, replica, store. They are asked for by the option
//! `mutant=NAME`, as a protocol's own are, and exist only with the cargo feature `mutants`.

/// The names of all, with the part that each belongs to and its story; none in an ordinary build.
#[must_use]
pub fn all() -> Vec<(&'static str, &'static str, &'static str)> {
    let mut all = Vec::new();
    if cfg!(feature = "mutants") {
        all.extend(synod_wal::mutants::Mutant::ALL.iter().map(|it| ("log", it.name(), it.story())));
        all.extend(synod_replica::mutants::Mutant::ALL.iter().map(|it| ("replica", it.name(), it.story())));
        all.extend(synod_kv::mutants::Mutant::ALL.iter().map(|it| ("store", it.name(), it.story())));
    }
    all
}

/// The defect of this name, if there is one.
#[must_use]
pub fn named(name: &str) -> Option<&'static str> {
    all().into_iter().find(|(_, known, _)| *known == name).map(|(_, known, _)| known)
}

/// While it lives, this thread runs with the defect.
pub(crate) struct Planted;

impl Planted {
    #[cfg_attr(not(feature = "mutants"), allow(unused_variables, reason = "there are none in this build"))]
    pub(crate) fn new(name: Option<&str>) -> Planted {
        #[cfg(feature = "mutants")]
        {
            macro_rules! plant {
                ($($place:ident)*) => { $(
                    let known = $place::mutants::Mutant::ALL.iter().copied();
                    $place::mutants::Mutant::plant(known.into_iter().find(|it| Some(it.name()) == name));
                )* };
            }
            plant!(synod_wal synod_replica synod_kv);
        }
        Planted
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        if cfg!(feature = "mutants") {
            std::mem::forget(Planted::new(None));
        }
    }
}
