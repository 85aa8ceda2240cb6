//! Cuts a stream into top-level forms, so that an input of any length needs memory for one form only.
//!
//! A history in EDN or JSON is a run of maps, or one vector or list of them. [`Splitter`] finds where each begins and
//! ends by its brackets and quotes and hands it out with its line and column. What is inside is [`super::form`]'s matter.

use std::io::BufRead;

use super::form::Notation;
use super::{ImportError, Place};

/// How long one form may be.
pub const FORM_BYTES_MAX: usize = 256 << 20;

/// Cuts a stream into top-level forms.
pub struct Splitter<R> {
    input: R,
    notation: Notation,
    format: &'static str,
    place: Place,
    /// The bracket that closes the sequence that all forms are in, if they are in one.
    sequence: Option<u8>,
    started: bool,
    buffer: Vec<u8>,
}

/// A form's text and where it begins.
pub struct Piece<'a> {
    /// The text.
    pub text: &'a str,
    /// Where it begins.
    pub place: Place,
}

enum Inside {
    /// Brackets.
    Data,
    /// A string.
    Quotes,
    /// A string, just after a backslash.
    Escape,
    /// An EDN comment.
    Comment,
    /// Just after the backslash of an EDN character.
    Character,
}

impl<R: BufRead> Splitter<R> {
    /// Over `input`, in `notation`; `format` is for messages.
    pub fn new(input: R, notation: Notation, format: &'static str) -> Splitter<R> {
        let place = Place { line: 1, column: 1 };
        Splitter { input, notation, format, place, sequence: None, started: false, buffer: Vec::new() }
    }

    fn error(&self, place: Place, expected: &str) -> ImportError {
        ImportError::new(self.format, place, expected)
    }

    fn next_byte(&mut self) -> Result<Option<u8>, ImportError> {
        let available =
            self.input.fill_buf().map_err(|error| ImportError::read(self.format, self.place, &error))?;
        Ok(available.first().copied())
    }

    fn consume(&mut self, byte: u8) {
        self.input.consume(1);
        self.place.pass(byte);
    }

    /// The next form, or `None` at the end.
    pub fn next_piece(&mut self) -> Result<Option<Piece<'_>>, ImportError> {
        loop {
            let Some(byte) = self.next_byte()? else {
                if let Some(close) = self.sequence {
                    return Err(self.error(
                        self.place,
                        &format!("'{}' to close the history: the input ends early", close as char),
                    ));
                }
                return Ok(None);
            };
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b',' | 0x0c => self.consume(byte),
                0xef | 0xbb | 0xbf if !self.started => self.consume(byte),
                b';' if self.notation == Notation::Edn => {
                    while let Some(byte) = self.next_byte()?.filter(|byte| *byte != b'\n') {
                        self.consume(byte);
                    }
                }
                b'[' | b'(' if !self.started && (byte == b'[' || self.notation == Notation::Edn) => {
                    self.started = true;
                    self.sequence = Some(if byte == b'[' { b']' } else { b')' });
                    self.consume(byte);
                }
                _ if Some(byte) == self.sequence => {
                    self.sequence = None;
                    self.consume(byte);
                }
                b'{' | b'#' | b'[' | b'(' => {
                    self.started = true;
                    return self.piece().map(Some);
                }
                _ => return Err(self.error(self.place, "'{': an operation or history as a map")),
            }
        }
    }

    /// From an opening bracket to the one that closes it.
    fn piece(&mut self) -> Result<Piece<'_>, ImportError> {
        let begin = self.place;
        self.buffer.clear();
        let mut inside = Inside::Data;
        let mut depth = 0usize;
        loop {
            let available =
                self.input.fill_buf().map_err(|error| ImportError::read(self.format, self.place, &error))?;
            if available.is_empty() {
                return Err(self
                    .error(self.place, "the form begun here to be closed: the input ends early")
                    .begun(begin));
            }
            let mut used = 0;
            let mut done = false;
            for &byte in available {
                used += 1;
                self.place.pass(byte);
                match inside {
                    Inside::Data => match byte {
                        b'{' | b'[' | b'(' => depth += 1,
                        b'}' | b']' | b')' => {
                            depth = depth.saturating_sub(1);
                            if depth == 0 {
                                done = true;
                                break;
                            }
                        }
                        b'"' => inside = Inside::Quotes,
                        b';' if self.notation == Notation::Edn => inside = Inside::Comment,
                        b'\\' if self.notation == Notation::Edn => inside = Inside::Character,
                        _ => {}
                    },
                    Inside::Quotes => match byte {
                        b'"' => inside = Inside::Data,
                        b'\\' => inside = Inside::Escape,
                        _ => {}
                    },
                    Inside::Escape => inside = Inside::Quotes,
                    Inside::Comment if byte == b'\n' => inside = Inside::Data,
                    Inside::Comment => {}
                    Inside::Character => inside = Inside::Data,
                }
            }
            self.buffer.extend_from_slice(&available[..used]);
            self.input.consume(used);
            if self.buffer.len() > FORM_BYTES_MAX {
                let expected = format!("forms of at most {} MiB", FORM_BYTES_MAX >> 20);
                return Err(self.error(begin, &expected));
            }
            if done {
                break;
            }
        }
        match std::str::from_utf8(&self.buffer) {
            Ok(text) => Ok(Piece { text, place: begin }),
            Err(error) => {
                let mut at = begin;
                self.buffer[..error.valid_up_to()].iter().for_each(|byte| at.pass(*byte));
                Err(ImportError::new(self.format, at, "text in UTF-8"))
            }
        }
    }
}
