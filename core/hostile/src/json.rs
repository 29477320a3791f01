//! Changes of JSON that leave it JSON: values of another type, numbers at their edges, members that are gone, unknown or there twice, nesting, long texts.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value, json};

/// What is done to the value at a place; places are counted from the root, modulo how many there are.
#[derive(Debug, Clone)]
pub enum Change {
    /// Another value in its place.
    Replace(u32, Odd),
    /// It is gone from its list or object.
    Remove(u32),
    /// It is what another place has.
    Copy(u32, u32),
    /// A member or element more, in it.
    Add(u32, Odd),
}

/// A value that is none that was meant.
#[derive(Debug, Clone, Copy)]
pub enum Odd {
    /// Nothing.
    Null,
    /// A word.
    Bool,
    /// One of some numbers.
    Number(u8),
    /// One of some texts.
    Text(u8),
    /// A text so many times 1 KiB long.
    Long(u8),
    /// Lists in lists.
    Deep(u8),
    /// An empty list.
    List,
    /// An empty object.
    Object,
    /// A list of so many numbers.
    Many(u8),
}

const TEXTS: [&str; 12] = [
    "",
    " ",
    "\0",
    "a\nb\r\u{1b}[2J",
    "\u{202e}\u{feff}",
    "../../etc/passwd",
    "${env:HOME}",
    "-1",
    "18446744073709551616",
    "1e999",
    "00000000000000000000000000000000",
    "\u{10ffff}",
];

fn number(which: u8) -> Value {
    let all = [
        json!(0),
        json!(-1),
        json!(1),
        json!(255),
        json!(65_536),
        json!(u32::MAX),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(0.5),
        json!(1e308),
        json!(-1e308),
        json!(5e-324),
    ];
    all.get(usize::from(which) % all.len()).cloned().unwrap_or_default()
}

impl Odd {
    fn value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool => json!(true),
            Self::Number(which) => number(which),
            Self::Text(which) => json!(TEXTS[usize::from(which) % TEXTS.len()]),
            Self::Long(length) => json!("x".repeat(usize::from(length) << 10)),
            // serde_json gives up at 128 levels.
            Self::Deep(levels) => (0..levels % 110).fold(json!(1), |inner, _| json!([inner])),
            Self::List => json!([]),
            Self::Object => json!({}),
            Self::Many(count) => (0..u32::from(count)).map(Value::from).collect(),
        }
    }
}

fn odd() -> impl Strategy<Value = Odd> {
    let plain = select(&[Odd::Null, Odd::Bool, Odd::List, Odd::Object][..]);
    prop_oneof![
        3 => plain,
        4 => any::<u8>().prop_map(Odd::Number),
        3 => any::<u8>().prop_map(Odd::Text),
        1 => any::<u8>().prop_map(Odd::Long),
        1 => any::<u8>().prop_map(Odd::Deep),
        1 => any::<u8>().prop_map(Odd::Many),
    ]
}

/// Some changes.
pub fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = any::<u32>;
    let one = prop_oneof![
        4 => (at(), odd()).prop_map(|(at, odd)| Change::Replace(at, odd)),
        2 => at().prop_map(Change::Remove),
        2 => (at(), at()).prop_map(|(at, other)| Change::Copy(at, other)),
        1 => (at(), odd()).prop_map(|(at, odd)| Change::Add(at, odd)),
    ];
    vec(one, 1..5)
}

/// A document after these changes.
#[must_use]
pub fn changed(sample: &Value, changes: &[Change]) -> Value {
    let mut document = sample.clone();
    changes.iter().for_each(|change| change.make(&mut document));
    document
}

/// So many levels of nesting, as text: more than a document as a value could be dropped with.
#[must_use]
pub fn nested(open: &str, inner: &str, close: &str, levels: usize) -> String {
    format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
}

impl Change {
    fn make(&self, document: &mut Value) {
        let places = places(document);
        let place = |at: u32| places[at as usize % places.len()].as_str();
        match self {
            Self::Replace(at, odd) => set(document, place(*at), odd.value()),
            Self::Copy(at, other) => {
                let value = document.pointer(place(*other)).cloned().unwrap_or_default();
                set(document, place(*at), value);
            }
            Self::Remove(at) => remove(document, place(*at)),
            Self::Add(at, odd) => match document.pointer_mut(place(*at)) {
                Some(Value::Array(items)) => items.push(odd.value()),
                Some(Value::Object(members)) => _ = members.insert("unknown".to_owned(), odd.value()),
                _ => {}
            },
        }
    }
}

fn set(document: &mut Value, place: &str, value: Value) {
    if let Some(old) = document.pointer_mut(place) {
        *old = value;
    }
}

fn remove(document: &mut Value, place: &str) {
    let Some((parent, name)) = place.rsplit_once('/') else { return };
    match document.pointer_mut(parent) {
        Some(Value::Array(items)) => drop(name.parse::<usize>().ok().filter(|at| *at < items.len()).map(|at| items.remove(at))),
        Some(Value::Object(members)) => drop(members.remove(&unescaped(name))),
        _ => {}
    }
}

fn unescaped(name: &str) -> String {
    name.replace("~1", "/").replace("~0", "~")
}

/// The JSON pointers of all values, the root's first.
fn places(document: &Value) -> Vec<String> {
    fn walk(value: &Value, place: String, all: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().enumerate().for_each(|(at, item)| walk(item, format!("{place}/{at}"), all)),
            Value::Object(members) => members_of(members, &place, all),
            _ => {}
        }
        all.push(place);
    }
    fn members_of(members: &Map<String, Value>, place: &str, all: &mut Vec<String>) {
        for (name, member) in members {
            walk(member, format!("{place}/{}", name.replace('~', "~0").replace('/', "~1")), all);
        }
    }
    let mut all = Vec::new();
    walk(document, String::new(), &mut all);
    all.reverse();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_does_what_it_says() {
        let sample = json!({"a": [1, 2], "b/c": {"d": "e"}});
        let all = places(&sample);
        assert_eq!(all, ["", "/b~1c", "/b~1c/d", "/a", "/a/1", "/a/0"]);
        let made = |change: Change| changed(&sample, &[change]);
        assert_eq!(made(Change::Replace(0, Odd::Null)), Value::Null);
        assert_eq!(made(Change::Replace(8, Odd::Number(8))), json!({"a": [1, 2], "b/c": {"d": u64::MAX}}));
        assert_eq!(made(Change::Remove(5)), json!({"a": [2], "b/c": {"d": "e"}}));
        assert_eq!(made(Change::Remove(1)), json!({"a": [1, 2]}));
        assert_eq!(made(Change::Copy(3, 2)), json!({"a": "e", "b/c": {"d": "e"}}));
        assert_eq!(made(Change::Add(3, Odd::List)), json!({"a": [1, 2, []], "b/c": {"d": "e"}}));
        assert_eq!(nested("[", "1", "]", 2), "[[1]]");
    }
}
