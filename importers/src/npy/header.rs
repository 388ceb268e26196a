//! The header of an `.npy` file: a Python literal.
//!
//! Source: numpy.lib.format, versions 1.0, 2.0 and 3.0.

use array::shape::MAX_DIMENSIONS;

use crate::flat::FlatArray;
use crate::numpy_type::NumpyType;

/// What every file begins with.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header that is read: far more than any data type takes.
pub(super) const MAX_HEADER_BYTES: usize = 1 << 20;
/// Bytes that tell how long the header is.
pub(super) const PREFIX_BYTES: usize = 12;

/// Where the array begins, by the first [`PREFIX_BYTES`] of a file, and where the header does.
///
/// # Errors
/// What is wrong with them.
pub(super) fn extent(prefix: &[u8]) -> Result<(usize, usize), String> {
    let short = || "it ends inside its header".to_owned();
    let rest = prefix
        .strip_prefix(MAGIC)
        .ok_or("it does not begin with \\x93NUMPY")?;
    let (start, length) = match rest.first().ok_or_else(short)? {
        1 => {
            let length = rest.get(2..4).ok_or_else(short)?;
            (10, usize::from(u16::from_le_bytes([length[0], length[1]])))
        }
        2 | 3 => {
            let length = rest.get(2..6).ok_or_else(short)?;
            let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
            (12, length as usize)
        }
        version => return Err(format!("its version {version} is none of 1, 2 and 3")),
    };
    if length > MAX_HEADER_BYTES {
        return Err(format!(
            "its header takes {length} bytes, the most is {MAX_HEADER_BYTES}"
        ));
    }
    Ok((start, start + length))
}

/// Reads the header; the array begins at `begin` in a file that has `file_bytes`.
///
/// # Errors
/// What is wrong with it, or why the array cannot be kept.
pub(super) fn parse(header: &[u8], begin: u64, file_bytes: u64) -> Result<FlatArray, String> {
    let text = std::str::from_utf8(header).map_err(|_| "its header is not UTF-8")?;
    let Literal::Dict(members) = Parser::new(text).whole()? else {
        return Err("its header is no dictionary".into());
    };
    let (mut descr, mut is_fortran, mut shape) = (None, None, None);
    for (name, value) in members {
        let twice = match (name.as_str(), value) {
            ("descr", value) => descr.replace(value).is_some(),
            ("fortran_order", Literal::Bool(value)) => is_fortran.replace(value).is_some(),
            ("shape", Literal::Tuple(lengths)) => shape.replace(lengths).is_some(),
            (name, _) => return Err(format!("its header has an odd {name:?}")),
        };
        if twice {
            return Err(format!("its header has {name:?} twice"));
        }
    }
    let element = match descr.ok_or("its header has no \"descr\"")? {
        Literal::Text(text) => NumpyType::parse(&text)?,
        Literal::List(fields) => {
            let names = fields.iter().map(|field| match field {
                Literal::Tuple(parts) => match parts.first() {
                    Some(Literal::Text(name)) => name.clone(),
                    _ => "?".into(),
                },
                _ => "?".into(),
            });
            let names: Vec<String> = names.take(16).collect();
            return Err(format!(
                "its data type is structured ({}): save each field by itself",
                names.join(", ")
            ));
        }
        _ => return Err("its header has an odd \"descr\"".into()),
    };
    let shape = shape.ok_or("its header has no \"shape\"")?;
    let length = |length: Literal| match length {
        Literal::Integer(length) => Ok(length),
        _ => Err("a length in its shape is no number"),
    };
    let shape: Vec<u64> = shape.into_iter().map(length).collect::<Result<_, _>>()?;
    if shape.len() > MAX_DIMENSIONS {
        return Err(format!("it has more than {MAX_DIMENSIONS} dimensions"));
    }
    let bytes = FlatArray::size_bytes(&shape, &element.data_type);
    let bytes = bytes.map_err(|error| error.to_string())?;
    let found = file_bytes.saturating_sub(begin);
    if found < bytes {
        return Err(format!("it claims {bytes} bytes of values and has {found}"));
    }
    if found > bytes {
        let more = found - bytes;
        return Err(format!(
            "there are {more} bytes after its array: a file of several arrays is not read in part"
        ));
    }
    Ok(FlatArray {
        begin,
        shape,
        element,
        is_fortran: is_fortran.ok_or("its header has no \"fortran_order\"")?,
    })
}

/// The Python literals a header is made of.
#[derive(Debug, PartialEq, Eq)]
enum Literal {
    Text(String),
    Integer(u64),
    Bool(bool),
    Tuple(Vec<Self>),
    List(Vec<Self>),
    Dict(Vec<(String, Self)>),
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

/// Deepest nesting of literals: that of a data type with a few levels of fields.
const MAX_DEPTH: usize = 32;

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            depth: 0,
        }
    }

    /// One literal, and nothing but white space besides.
    fn whole(mut self) -> Result<Literal, String> {
        let literal = self.literal()?;
        self.space();
        match self.rest.is_empty() {
            true => Ok(literal),
            false => Err("its header goes on after its dictionary".into()),
        }
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\n', '\t']);
    }

    fn eat(&mut self, text: &str) -> bool {
        self.space();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn literal(&mut self) -> Result<Literal, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("its header is nested too deep".into());
        }
        self.space();
        let literal = match self.rest.chars().next() {
            Some('{') => self.dict()?,
            Some('(') => Literal::Tuple(self.items("(", ")")?),
            Some('[') => Literal::List(self.items("[", "]")?),
            Some('\'' | '"') => Literal::Text(self.text()?),
            Some('0'..='9') => self.integer()?,
            _ if self.eat("True") => Literal::Bool(true),
            _ if self.eat("False") => Literal::Bool(false),
            _ => return Err("its header is no literal of Python".into()),
        };
        self.depth -= 1;
        Ok(literal)
    }

    fn items(&mut self, open: &str, close: &str) -> Result<Vec<Literal>, String> {
        self.eat(open);
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(self.literal()?);
            if !self.eat(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(items)
    }

    fn dict(&mut self) -> Result<Literal, String> {
        self.eat("{");
        let mut members = Vec::new();
        while !self.eat("}") {
            self.space();
            let name = self.text()?;
            self.expect(":")?;
            members.push((name, self.literal()?));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Literal::Dict(members))
    }

    fn expect(&mut self, text: &str) -> Result<(), String> {
        match self.eat(text) {
            true => Ok(()),
            false => Err(format!("its header has no {text:?} where one belongs")),
        }
    }

    fn text(&mut self) -> Result<String, String> {
        let quote = self.rest.chars().next().filter(|c| ['\'', '"'].contains(c));
        let quote = quote.ok_or("its header has a name without quotes")?;
        let rest = &self.rest[1..];
        let end = rest
            .find(quote)
            .ok_or("its header has a text without end")?;
        let text = &rest[..end];
        if text.contains('\\') {
            return Err("its header has an escape in a text".into());
        }
        self.rest = &rest[end + 1..];
        Ok(text.to_owned())
    }

    fn integer(&mut self) -> Result<Literal, String> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit());
        let (digits, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        // Python 2 marked long integers.
        self.rest = rest.strip_prefix('L').unwrap_or(rest);
        let number = digits.parse();
        number
            .map(Literal::Integer)
            .map_err(|_| format!("its header has a length of {digits}"))
    }
}
