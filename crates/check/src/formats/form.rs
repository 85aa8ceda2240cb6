//! Forms: the data notation that histories are written in, EDN or JSON, read into one kind of tree.
//!
//! EDN is Clojure's notation (Jepsen, Knossos, Elle); JSON differs from it, for our purpose, in a few marks only, so one
//! reader serves both. Trees borrow from the text. Depth is limited, numbers that do not fit are kept as text, and every
//! form knows where it began, so that an importer can say "line 7, column 12: expected a process number". Left out:
//! tagged values (the tag is dropped), characters and ratios (kept as text), EDN's discard of forms inside forms is honoured.

use std::borrow::Cow;

/// How deep forms may be nested.
pub const DEPTH_MAX: u32 = 64;

/// How many forms one top-level form may hold, however short: what bounds the tree's memory.
pub const FORMS_MAX: u32 = 20_000_000;

/// Which notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// Clojure's.
    Edn,
    /// RFC 8259.
    Json,
}

/// A piece of data, and where in its text it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Form<'a> {
    /// Byte offset in the text.
    pub at: u32,
    /// What it is.
    pub kind: Kind<'a>,
}

/// What a form is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind<'a> {
    /// nil, null.
    Nil,
    /// true, false.
    Bool(bool),
    /// A whole number that fits.
    Int(i64),
    /// Any other number, or a character: as written.
    Other(&'a str),
    /// A string.
    Text(Cow<'a, str>),
    /// A keyword (without its colon) or symbol.
    Word(&'a str),
    /// A vector, list or set.
    Seq(Vec<Form<'a>>),
    /// A map, in the order written.
    Map(Vec<(Form<'a>, Form<'a>)>),
}

/// What was wrong, and where: a byte offset in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Byte offset.
    pub at: u32,
    /// What would have been right.
    pub expected: Cow<'static, str>,
}

impl Malformed {
    /// At this offset, this was expected.
    pub fn new(at: u32, expected: impl Into<Cow<'static, str>>) -> Malformed {
        Malformed { at, expected: expected.into() }
    }
}

impl<'a> Form<'a> {
    /// The value under a key of a map.
    pub fn get(&self, name: &str) -> Option<&Form<'a>> {
        match &self.kind {
            Kind::Map(pairs) => {
                pairs.iter().find(|(key, _)| key.name() == Some(name)).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The value under a key of a map, unless it is nil.
    pub fn get_some(&self, name: &str) -> Option<&Form<'a>> {
        self.get(name).filter(|form| form.kind != Kind::Nil)
    }

    /// A word or string as text.
    pub fn name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number.
    pub fn int(&self) -> Option<i64> {
        match self.kind {
            Kind::Int(int) => Some(int),
            _ => None,
        }
    }

    /// True or false.
    pub fn bool(&self) -> Option<bool> {
        match self.kind {
            Kind::Bool(bool) => Some(bool),
            _ => None,
        }
    }

    /// The members of a vector, list or set.
    pub fn seq(&self) -> Option<&[Form<'a>]> {
        match &self.kind {
            Kind::Seq(forms) => Some(forms),
            _ => None,
        }
    }

    /// The pairs of a map.
    pub fn map(&self) -> Option<&[(Form<'a>, Form<'a>)]> {
        match &self.kind {
            Kind::Map(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// That something else was expected here.
    pub fn expected(&self, what: impl Into<Cow<'static, str>>) -> Malformed {
        Malformed::new(self.at, what)
    }
}

/// Reads the one form that `text` holds.
pub fn parse(text: &str, notation: Notation) -> Result<Form<'_>, Malformed> {
    let mut reader = Reader { text, bytes: text.as_bytes(), at: 0, forms: 0, notation };
    let form = reader.form(0)?;
    reader.space(0)?;
    if reader.at < reader.bytes.len() {
        return Err(reader.expected("nothing more after the form"));
    }
    Ok(form)
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    forms: u32,
    notation: Notation,
}

impl<'a> Reader<'a> {
    fn expected(&self, what: impl Into<Cow<'static, str>>) -> Malformed {
        Malformed::new(self.at as u32, what)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Skips space and, in EDN, commas, comments and discarded forms.
    fn space(&mut self, depth: u32) -> Result<(), Malformed> {
        while let Some(byte) = self.peek() {
            match (byte, self.notation) {
                (b' ' | b'\t' | b'\n' | b'\r', _) | (b',' | 0x0c, Notation::Edn) => self.at += 1,
                (b';', Notation::Edn) => {
                    while self.peek().is_some_and(|byte| byte != b'\n') {
                        self.at += 1;
                    }
                }
                (b'#', Notation::Edn) if self.bytes.get(self.at + 1) == Some(&b'_') => {
                    self.at += 2;
                    self.form(depth + 1)?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    fn form(&mut self, depth: u32) -> Result<Form<'a>, Malformed> {
        if depth > DEPTH_MAX {
            return Err(self.expected(format!("at most {DEPTH_MAX} levels of nesting")));
        }
        self.forms += 1;
        if self.forms > FORMS_MAX {
            return Err(self.expected(format!("at most {FORMS_MAX} values in one form")));
        }
        self.space(depth)?;
        let at = self.at as u32;
        let kind = match self.peek() {
            None => return Err(self.expected("a value, not the end of the input")),
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.seq(b']', depth)?,
            Some(b'"') => Kind::Text(self.string()?),
            Some(b'(') if self.notation == Notation::Edn => self.seq(b')', depth)?,
            Some(b'#') if self.notation == Notation::Edn => return self.tagged(depth),
            Some(b'\\') if self.notation == Notation::Edn => {
                self.at += 1;
                // The character after the backslash is part of it whatever it is.
                self.at += self.text[self.at..].chars().next().map_or(0, char::len_utf8);
                self.atom();
                Kind::Other(&self.text[at as usize..self.at])
            }
            Some(_) => self.word()?,
        };
        Ok(Form { at, kind })
    }

    fn tagged(&mut self, depth: u32) -> Result<Form<'a>, Malformed> {
        self.at += 1;
        if self.peek() == Some(b'{') {
            let at = self.at as u32;
            return Ok(Form { at, kind: self.seq(b'}', depth)? });
        }
        self.atom();
        self.form(depth + 1)
    }

    fn seq(&mut self, close: u8, depth: u32) -> Result<Kind<'a>, Malformed> {
        self.at += 1;
        let mut forms = Vec::new();
        loop {
            self.space(depth)?;
            match self.peek() {
                Some(byte) if byte == close => {
                    self.at += 1;
                    return Ok(Kind::Seq(forms));
                }
                None => return Err(self.expected(format!("'{}'", close as char))),
                Some(_) => {}
            }
            if self.notation == Notation::Json && !forms.is_empty() {
                self.mark(b',', "',' or ']'")?;
            }
            forms.push(self.form(depth + 1)?);
        }
    }

    fn map(&mut self, depth: u32) -> Result<Kind<'a>, Malformed> {
        self.at += 1;
        let mut pairs = Vec::new();
        loop {
            self.space(depth)?;
            match self.peek() {
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Kind::Map(pairs));
                }
                None => return Err(self.expected("'}'")),
                Some(_) => {}
            }
            if self.notation == Notation::Json && !pairs.is_empty() {
                self.mark(b',', "',' or '}'")?;
                self.space(depth)?;
            }
            if self.notation == Notation::Json && self.peek() != Some(b'"') {
                return Err(self.expected("a name in quotes"));
            }
            let key = self.form(depth + 1)?;
            self.space(depth)?;
            if self.notation == Notation::Json {
                self.mark(b':', "':'")?;
            }
            self.space(depth)?;
            if self.peek() == Some(b'}') {
                return Err(self.expected("a value for the key before"));
            }
            pairs.push((key, self.form(depth + 1)?));
        }
    }

    fn mark(&mut self, byte: u8, what: &'static str) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(self.expected(what));
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Malformed> {
        self.at += 1;
        let start = self.at;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(Cow::Borrowed(&self.text[start..self.at - 1]));
                }
                b'\\' => return self.escaped(start),
                _ => self.at += 1,
            }
        }
        Err(self.expected("a closing '\"'"))
    }

    fn escaped(&mut self, start: usize) -> Result<Cow<'a, str>, Malformed> {
        let mut out = self.text[start..self.at].to_string();
        loop {
            let from = self.at;
            while self.peek().is_some_and(|byte| byte != b'"' && byte != b'\\') {
                self.at += 1;
            }
            out.push_str(&self.text[from..self.at]);
            match self.peek() {
                None => return Err(self.expected("a closing '\"'")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(out));
                }
                Some(_) => {
                    self.at += 1;
                    let what = self.peek().ok_or_else(|| self.expected("an escape"))?;
                    self.at += 1;
                    match what {
                        b'n' => out.push('\n'),
                        b't' => out.push('\t'),
                        b'r' => out.push('\r'),
                        b'b' => out.push('\u{8}'),
                        b'f' => out.push('\u{c}'),
                        b'"' | b'\\' | b'/' => out.push(what as char),
                        b'u' => {
                            let unit = self.hex()?;
                            out.push(self.wide(unit)?);
                        }
                        _ => {
                            self.at -= 1;
                            return Err(self.expected("an escape: one of n t r b f u \" \\ /"));
                        }
                    }
                }
            }
        }
    }

    fn hex(&mut self) -> Result<u32, Malformed> {
        let digits = self.bytes.get(self.at..self.at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let unit = unit.ok_or_else(|| self.expected("four hexadecimal digits"))?;
        self.at += 4;
        Ok(unit)
    }

    /// A character from one UTF-16 unit, or two; a lone surrogate becomes the replacement character.
    fn wide(&mut self, unit: u32) -> Result<char, Malformed> {
        if (0xd800..0xdc00).contains(&unit) && self.bytes.get(self.at..self.at + 2) == Some(b"\\u") {
            self.at += 2;
            let low = self.hex()?;
            let both = 0x10000 + ((unit - 0xd800) << 10) + (low.wrapping_sub(0xdc00) & 0x3ff);
            return Ok(char::from_u32(both).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    /// Moves to the end of a word.
    fn atom(&mut self) {
        while let Some(byte) = self.peek() {
            if byte <= b' '
                || b",;()[]{}\"".contains(&byte)
                || (self.notation == Notation::Json && byte == b':')
            {
                break;
            }
            self.at += 1;
        }
    }

    fn word(&mut self) -> Result<Kind<'a>, Malformed> {
        let start = self.at;
        self.atom();
        let word = &self.text[start..self.at];
        let first = word.as_bytes().first().copied();
        match (word, self.notation) {
            ("true", _) => return Ok(Kind::Bool(true)),
            ("false", _) => return Ok(Kind::Bool(false)),
            ("nil", Notation::Edn) | ("null", _) => return Ok(Kind::Nil),
            _ => {}
        }
        let number = first.is_some_and(|byte| byte.is_ascii_digit())
            || (matches!(first, Some(b'-' | b'+')) && word.as_bytes().get(1).is_some_and(u8::is_ascii_digit));
        if number {
            let digits = word.strip_prefix('+').unwrap_or(word);
            return Ok(digits.parse().map_or(Kind::Other(word), Kind::Int));
        }
        match (first, self.notation) {
            (None, _) => Err(self.expected("a value")),
            (_, Notation::Json) => {
                self.at = start;
                Err(self.expected("a value: a string, number, true, false, null, array or object"))
            }
            (Some(_), Notation::Edn) => Ok(Kind::Word(word.strip_prefix(':').unwrap_or(word))),
        }
    }
}
