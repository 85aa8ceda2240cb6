//! Testifying: what members of a PBFT cluster say under their signatures to `synod proxy`, who trusts none of them.
//!
//! One stream of one method (`synod.Witness/Testify`) for each proxy and member. The proxy has a random name and numbers what it asks. A wish
//! goes to one member, which has it ordered; *every* member carries it out (once: `synod_kv::once`) and says what came of it. `words` is
//! what passes, `voice` what a member keeps and how it signs; the member's end of the stream is `service/testify`.

pub mod voice;
pub mod words;
