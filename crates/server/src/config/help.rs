//! The text behind `--help`: every flag that does something, its variable and its default.

use std::fmt::Write as _;

use super::flag::{Flag, HONOURED, Support, variable};
use crate::protocol::FAMILY;

/// The usage text of a server that was started under `name`, for instance `etcd` or `synod serve`.
#[must_use]
pub fn usage(name: &str) -> String {
    let mut text = format!(
        "Runs one member of a replicated key-value store that speaks the etcd v3 API.\n\n\
         Usage: {name} [flags]\n\n\
         Every flag can be set in the environment too: --data-dir as {}, and so on.\n\n",
        variable("data-dir")
    );
    for flag in HONOURED.iter().filter(|flag| matches!(flag.support, Support::Honoured)) {
        write_flag(&mut text, flag);
    }
    text.push_str("\nThe protocols (--protocol), each with the flags that it has for itself:\n");
    for kin in FAMILY {
        // Formatting into a string does not fail.
        let _ = writeln!(text, "\n  {:<36} {}", kin.row.name, kin.row.about);
        for flag in kin.row.flags {
            write_flag(&mut text, flag);
        }
    }
    text.push_str(
        "\nAll other flags of etcd 3.4 to 3.7 are known by name: they are accepted at values that change\n\
         nothing, and refused with the reason at others. --version prints the version.\n",
    );
    text
}

fn write_flag(text: &mut String, flag: &Flag) {
    let default = if flag.default.is_empty() { String::new() } else { format!(" [{}]", flag.default) };
    let _ = writeln!(text, "  --{:<34} {}{default}", flag.name, flag.help);
}
