//! `synod contract`: what each protocol gives to clients, and in which words it refuses the rest.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use synod_server::contract::{self, Format};
use synod_server::protocol;

/// Print what each protocol gives, by call and consistency level, and what it refuses
#[derive(Args)]
pub(crate) struct Options {
    /// Only this protocol
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    /// How to print it
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Shape,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shape {
    /// For a terminal
    Table,
    /// As docs/contract.md has it
    Markdown,
    /// One object for each cell
    Json,
}

/// Prints the table.
pub(crate) fn run(options: &Options) -> ExitCode {
    if let Some(wrong) = options.protocol.as_deref().and_then(|name| protocol::find(name).err()) {
        eprintln!("synod contract: {wrong}");
        return ExitCode::from(2);
    }
    let format = match options.format {
        Shape::Table => Format::Table,
        Shape::Markdown => Format::Markdown,
        Shape::Json => Format::Json,
    };
    print!("{}", contract::print(options.protocol.as_deref(), format));
    ExitCode::SUCCESS
}
