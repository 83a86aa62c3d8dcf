//! Writes MaxMind DB files (format 2.0), good ones and, for the tests that want them, bad ones.
//!
//! The format: <https://maxmind.github.io/MaxMind-DB/>. The one crate for this was last released for a reader nine
//! versions older than ours, and no crate would write a damaged file. Written for tests, the benchmark and the demonstration
//! database, so it panics where its caller is wrong.

// Each test binary that includes this file uses another part of it.
#![allow(dead_code)]

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// A database under construction: networks, and what is known about each.
pub struct MmdbWriter {
    metadata: Metadata,
    /// Address bits from the most significant one, their number, and where the record is.
    networks: Vec<(u128, u8, u32)>,
    data: DataSection,
    ipv4_aliases: Vec<IpNet>,
}

/// What the file says about itself, apart from what follows from its contents.
#[derive(Clone)]
pub struct Metadata {
    pub database_type: String,
    pub description: String,
    /// Seconds since 1970.
    pub build_epoch: u64,
    /// 4 or 6.
    pub ip_version: u16,
    /// Of one child in a node: 24, 28 or 32.
    pub record_bits: u16,
}

/// A value of the data section.
#[derive(Clone)]
pub enum Value {
    Text(String),
    Uint16(u16),
    Uint32(u32),
    Uint64(u64),
    Double(f64),
    Map(Vec<(String, Value)>),
    Array(Vec<Value>),
    /// Already encoded, however badly.
    Raw(Vec<u8>),
}

/// Where a child of a node leads.
#[derive(Clone, Copy)]
pub enum Child {
    Nothing,
    Node(usize),
    /// An offset in the data section.
    Record(u32),
}

impl MmdbWriter {
    pub fn new(metadata: Metadata) -> Self {
        Self { metadata, networks: Vec::new(), data: DataSection::default(), ipv4_aliases: Vec::new() }
    }

    /// The most specific network decides, whatever the order; of equal ones the last.
    pub fn insert(&mut self, network: IpNet, record: &Value) -> &mut Self {
        let offset = self.data.store(record);
        let (bits, length) = self.path(network);
        self.networks.push((bits, length, offset));
        self
    }

    /// Makes an IPv6 network lead to the IPv4 networks as well, as `::ffff:0:0/96` often does.
    pub fn alias_ipv4(&mut self, network: IpNet) -> &mut Self {
        self.ipv4_aliases.push(network);
        self
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut networks = self.networks.clone();
        // In the order of addresses a network comes before those inside it, and the nodes of a walk lie close together.
        networks.sort_by_key(|&(bits, length, _)| (bits, length));
        let mut nodes = vec![[Child::Nothing; 2]];
        for (bits, length, offset) in networks {
            plant(&mut nodes, bits, length, Child::Record(offset));
        }
        if !self.ipv4_aliases.is_empty() {
            let mut ipv4_root = 0;
            for _ in 0..96 {
                let Child::Node(next) = nodes[ipv4_root][0] else {
                    panic!("an alias wants an IPv4 network to lead to");
                };
                ipv4_root = next;
            }
            for &alias in &self.ipv4_aliases {
                let (bits, length) = self.path(alias);
                plant(&mut nodes, bits, length, Child::Node(ipv4_root));
            }
        }
        assemble(&self.metadata, &nodes, &self.data.bytes)
    }

    /// The way to a network: bits from the most significant one, and how many.
    fn path(&self, network: IpNet) -> (u128, u8) {
        let length = network.prefix_len();
        match (network.network(), self.metadata.ip_version) {
            (IpAddr::V4(address), 4) => (u128::from(u32::from(address)) << 96, length),
            (IpAddr::V4(address), _) => (u128::from(u32::from(address)), length + 96),
            (IpAddr::V6(address), 6) => (u128::from(address), length),
            (IpAddr::V6(_), _) => panic!("{network} in an IPv4 database"),
        }
    }
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            database_type: "Test".to_owned(),
            description: "made by a test".to_owned(),
            build_epoch: 1_795_305_600,
            ip_version: 6,
            record_bits: 24,
        }
    }
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn map<const N: usize>(entries: [(&str, Value); N]) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }
}

/// A record as Country and City databases have it: `US`, `CA`, `Los Angeles`.
pub fn place(country: &str, subdivision: Option<&str>, city: Option<&str>) -> Value {
    let mut entries = Vec::new();
    if let Some(city) = city {
        let names = Value::map([("en", Value::text(city))]);
        entries.push(("city".to_owned(), Value::map([("names", names)])));
    }
    entries.push(("country".to_owned(), Value::map([("iso_code", Value::text(country))])));
    if let Some(subdivision) = subdivision {
        let first = Value::map([("iso_code", Value::text(subdivision))]);
        entries.push(("subdivisions".to_owned(), Value::Array(vec![first])));
    }
    Value::Map(entries)
}

/// Puts the parts of a file together. The nodes are taken as they are, even where they make no tree.
pub fn assemble(metadata: &Metadata, nodes: &[[Child; 2]], data: &[u8]) -> Vec<u8> {
    let node_count = nodes.len() as u32;
    let mut file = Vec::new();
    for node in nodes {
        let [left, right] = node.map(|child| match child {
            Child::Nothing => node_count,
            Child::Node(index) => index as u32,
            Child::Record(offset) => node_count + SEPARATOR.len() as u32 + offset,
        });
        let highest = u32::MAX >> (32 - metadata.record_bits);
        assert!(left.max(right) <= highest, "too large for records of {} bits", metadata.record_bits);
        match metadata.record_bits {
            24 => {
                file.extend(&left.to_be_bytes()[1..]);
                file.extend(&right.to_be_bytes()[1..]);
            }
            28 => {
                file.extend(&left.to_be_bytes()[1..]);
                // The byte in the middle has the high four bits of both.
                file.push(((left >> 24) << 4 | right >> 24) as u8);
                file.extend(&right.to_be_bytes()[1..]);
            }
            32 => {
                file.extend(left.to_be_bytes());
                file.extend(right.to_be_bytes());
            }
            bits => panic!("records of {bits} bits"),
        }
    }
    file.extend(SEPARATOR);
    file.extend(data);
    file.extend(METADATA_MARKER);
    encode(&describe(metadata, node_count), &mut file, None);
    file
}

/// The data section: every record, map and array once, pointers to it from everywhere else.
#[derive(Default)]
struct DataSection {
    bytes: Vec<u8>,
    offsets: HashMap<Vec<u8>, u32>,
}

impl DataSection {
    fn store(&mut self, value: &Value) -> u32 {
        let mut encoded = Vec::new();
        encode(value, &mut encoded, Some(self));
        if let Some(&offset) = self.offsets.get(&encoded) {
            return offset;
        }
        let offset = self.bytes.len() as u32;
        self.bytes.extend(&encoded);
        self.offsets.insert(encoded, offset);
        offset
    }
}

/// Leads the networks under a path somewhere else. Where the way is barred by a shorter network, that is split.
fn plant(nodes: &mut Vec<[Child; 2]>, bits: u128, length: u8, target: Child) {
    let bit = |depth: u8| (bits >> (127 - depth)) as usize & 1;
    assert!(length > 0, "the whole address space is not one network");
    let mut node = 0;
    for depth in 0..length - 1 {
        let side = bit(depth);
        node = match nodes[node][side] {
            Child::Node(next) => next,
            leaf => {
                nodes.push([leaf; 2]);
                nodes[node][side] = Child::Node(nodes.len() - 1);
                nodes.len() - 1
            }
        };
    }
    nodes[node][bit(length - 1)] = target;
}

/// Writes a value; where there is a data section, what it contains goes there and is pointed to.
fn encode(value: &Value, out: &mut Vec<u8>, mut section: Option<&mut DataSection>) {
    let mut encode_nested = |value: &Value, out: &mut Vec<u8>| match (value, section.as_deref_mut()) {
        (Value::Map(_) | Value::Array(_), Some(section)) => encode_pointer(section.store(value), out),
        (value, section) => encode(value, out, section),
    };
    match value {
        Value::Text(text) => encode_text(text, out),
        Value::Uint16(number) => encode_unsigned(TYPE_UINT16, u64::from(*number), out),
        Value::Uint32(number) => encode_unsigned(TYPE_UINT32, u64::from(*number), out),
        Value::Uint64(number) => encode_unsigned(TYPE_UINT64, *number, out),
        Value::Double(number) => {
            encode_control(TYPE_DOUBLE, 8, out);
            out.extend(number.to_be_bytes());
        }
        Value::Map(entries) => {
            encode_control(TYPE_MAP, entries.len(), out);
            for (key, value) in entries {
                encode_text(key, out);
                encode_nested(value, out);
            }
        }
        Value::Array(values) => {
            encode_control(TYPE_ARRAY, values.len(), out);
            for value in values {
                encode_nested(value, out);
            }
        }
        Value::Raw(bytes) => out.extend(bytes),
    }
}

fn encode_text(text: &str, out: &mut Vec<u8>) {
    encode_control(TYPE_TEXT, text.len(), out);
    out.extend(text.as_bytes());
}

/// Leading zero bytes are left out, so that zero has none at all.
fn encode_unsigned(kind: u8, number: u64, out: &mut Vec<u8>) {
    let bytes = number.to_be_bytes();
    let significant = &bytes[number.leading_zeros() as usize / 8..];
    encode_control(kind, significant.len(), out);
    out.extend(significant);
}

/// The type in the upper three bits, or behind the first byte where it does not fit; the size in the lower five, or
/// behind that.
fn encode_control(kind: u8, size: usize, out: &mut Vec<u8>) {
    let (small, rest) = match size {
        0..29 => (size as u8, &[][..]),
        29..285 => (29, &(size - 29).to_be_bytes()[7..]),
        285..65_821 => (30, &(size - 285).to_be_bytes()[6..]),
        _ => (31, &(size - 65_821).to_be_bytes()[5..]),
    };
    if kind < 8 {
        out.push(kind << 5 | small);
    } else {
        out.extend([small, kind - 7]);
    }
    out.extend(rest);
}

/// Two bits tell how many bytes follow; the sizes follow each other without a gap.
fn encode_pointer(offset: u32, out: &mut Vec<u8>) {
    let (size, base) = match offset {
        0..2_048 => (0, 0),
        2_048..526_336 => (1, 2_048),
        526_336..134_744_064 => (2, 526_336),
        _ => (3, 0),
    };
    let bytes = (offset - base).to_be_bytes();
    // The high three bits of the offset share the first byte, except in the largest size, which has bytes enough.
    let high = if size == 3 { 0 } else { bytes[2 - size] };
    out.push(TYPE_POINTER << 5 | (size as u8) << 3 | high);
    out.extend(if size == 3 { &bytes[..] } else { &bytes[3 - size..] });
}

fn describe(metadata: &Metadata, node_count: u32) -> Value {
    Value::map([
        ("binary_format_major_version", Value::Uint16(2)),
        ("binary_format_minor_version", Value::Uint16(0)),
        ("build_epoch", Value::Uint64(metadata.build_epoch)),
        ("database_type", Value::text(&metadata.database_type)),
        ("description", Value::map([("en", Value::text(&metadata.description))])),
        ("ip_version", Value::Uint16(metadata.ip_version)),
        ("languages", Value::Array(vec![Value::text("en")])),
        ("node_count", Value::Uint32(node_count)),
        ("record_size", Value::Uint16(metadata.record_bits)),
    ])
}

const SEPARATOR: [u8; 16] = [0; 16];
const METADATA_MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

const TYPE_POINTER: u8 = 1;
const TYPE_TEXT: u8 = 2;
const TYPE_DOUBLE: u8 = 3;
const TYPE_UINT16: u8 = 5;
const TYPE_UINT32: u8 = 6;
const TYPE_MAP: u8 = 7;
const TYPE_UINT64: u8 = 9;
const TYPE_ARRAY: u8 = 11;
