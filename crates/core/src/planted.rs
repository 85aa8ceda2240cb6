//! Planted defects: our own code with one rule left out, to see whether tests and simulations notice.
//!
//! Log, store and replica each list theirs with [`planted!`](crate::planted); the points where they act ask `Mutant::X.is_on()`.
//! Without the cargo feature `mutants` of their crate that is constantly false, and nothing of it is left in the program. With it a
//! defect is planted for one thread, which is all that a simulated world runs on. (A protocol's mutants are among its options
//! instead, because a script may mix them with sound replicas.)

/// Lists a crate's planted defects: for each a story, a name, and the name by which it is asked for.
#[macro_export]
macro_rules! planted {
    ($(#[doc = $doc:literal] $name:ident = $text:literal,)+) => {
        /// A rule that is left out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $(#[doc = $doc] $name,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Mutant] = &[$(Mutant::$name,)+];

            /// The name by which it is asked for.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Mutant::$name => $text,)+ }
            }

            /// One line about it.
            #[must_use]
            pub fn story(self) -> &'static str {
                match self { $(Mutant::$name => $doc,)+ }
            }

            /// Whether this thread runs with it.
            #[cfg(feature = "mutants")]
            #[must_use]
            pub fn is_on(self) -> bool {
                PLANTED.get() == Some(self)
            }

            /// Whether this thread runs with it: never, in this build.
            #[cfg(not(feature = "mutants"))]
            #[inline]
            #[must_use]
            pub fn is_on(self) -> bool {
                false
            }

            /// From now on this thread runs with the mutant, or with none.
            #[cfg(feature = "mutants")]
            pub fn plant(mutant: Option<Mutant>) {
                PLANTED.set(mutant);
            }
        }

        #[cfg(feature = "mutants")]
        std::thread_local! {
            static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
        }
    };
}
