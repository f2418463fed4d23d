//! Scalars at pointers, picked out of a document in one pass and without building a tree.
//!
//! A query is a trie of its pointers. Levels `*` nest in one chain, so what a query finds is a table for each of them: the records of
//! level 0 is the document itself, a record of level 1 an element of the outer list, and so on; the records of the last level are the
//! samples. Each record knows the one it lies in, so that values beside a list apply to all its elements, before or after it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::pointer::{Level, Pointer};

/// A document that a query can be asked of: anything that serde can walk through.
pub(crate) trait Document<'j> {
    /// Finds what the query wants.
    ///
    /// # Errors
    /// The document is broken: the words for a dead letter.
    fn find(&self, query: &Query, found: &mut Found<'j>) -> Result<(), String>;

    /// True when it is a list as a whole, false when it is an object.
    fn is_list(&self) -> bool {
        false
    }
}

/// What stands at a pointer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar<'j> {
    /// Nothing, said so.
    Null,
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    Text(Cow<'j, str>),
    /// A time whose unit the document's schema knows, in µs since 1970.
    Time(i64),
    /// An object, a list, bytes.
    Nested,
}

/// Where a query puts what it finds at a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// How many `*` the pointer has.
    pub level: usize,
    index: usize,
}

/// What to look for in a document.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    nodes: Vec<Node>,
    levels: Vec<Records>,
}

/// A place in the trie.
#[derive(Clone, Debug, Default)]
struct Node {
    children: Vec<Child>,
    each: Option<Each>,
    /// The slots whose pointer ends here.
    ends: Vec<Slot>,
    level: usize,
    /// A member of `values`: only scalars are samples.
    scalars_only: bool,
}

#[derive(Clone, Debug)]
struct Child {
    name: Box<str>,
    /// The name as an index into a list.
    index: Option<usize>,
    node: usize,
}

/// `*`
#[derive(Clone, Copy, Debug)]
struct Each {
    node: usize,
    /// Only the scalar members of an object, as `values` wants them.
    members: bool,
}

/// What the records of a level hold.
#[derive(Clone, Debug, Default)]
struct Records {
    width: usize,
    /// The slot for the element's own name.
    name: Option<Slot>,
    /// The pointer down to it, for messages.
    text: String,
}

impl Default for Query {
    fn default() -> Self {
        Query {
            nodes: vec![Node::default()],
            levels: vec![Records::default()],
        }
    }
}

impl Query {
    /// Looks for the scalar at a pointer.
    ///
    /// # Errors
    /// It leads through a list that another pointer doesn't lead through.
    pub(crate) fn value(&mut self, pointer: &Pointer) -> Result<Slot, String> {
        let node = self.node(pointer, false)?;
        let slot = self.slot(self.nodes[node].level);
        self.nodes[node].ends.push(slot);
        Ok(slot)
    }

    /// Looks for the name of each member, or the index of each element, at a pointer that ends with `*`.
    ///
    /// # Errors
    /// As [`Query::value`].
    pub(crate) fn name(&mut self, pointer: &Pointer) -> Result<Slot, String> {
        let node = self.node(pointer, false)?;
        Ok(self.name_at(node))
    }

    /// Looks for each scalar member of the object at a pointer that no other pointer names: its name, its value.
    ///
    /// # Errors
    /// As [`Query::value`].
    pub(crate) fn members(&mut self, pointer: &Pointer) -> Result<(Slot, Slot), String> {
        let mut each = pointer.clone();
        each.levels.push(Level::Each);
        each.text.push_str("/*");
        let node = self.node(&each, true)?;
        let slot = self.slot(self.nodes[node].level);
        self.nodes[node].ends.push(slot);
        Ok((self.name_at(node), slot))
    }

    /// The level whose records are the samples.
    pub(crate) fn last_level(&self) -> usize {
        self.levels.len() - 1
    }

    /// The pointer to the elements of a level.
    pub(crate) fn list(&self, level: usize) -> &str {
        self.levels.get(level).map_or("", |records| &records.text)
    }

    /// Reads a document once, from its beginning, and picks out what is wanted.
    ///
    /// # Errors
    /// The document is broken.
    pub(crate) fn walk<'j, D: Deserializer<'j>>(&self, document: D, found: &mut Found<'j>) -> Result<(), D::Error> {
        found.begin(self);
        let walk = Walk {
            query: self,
            node: 0,
            enter: Enter::No,
            found,
        };
        walk.deserialize(document)
    }

    fn slot(&mut self, level: usize) -> Slot {
        let index = self.levels[level].width;
        self.levels[level].width += 1;
        Slot { level, index }
    }

    fn name_at(&mut self, node: usize) -> Slot {
        let level = self.nodes[node].level;
        match self.levels[level].name {
            Some(slot) => slot,
            None => {
                let slot = self.slot(level);
                self.levels[level].name = Some(slot);
                slot
            }
        }
    }

    /// The node at a pointer, made where it isn't there yet.
    fn node(&mut self, pointer: &Pointer, members: bool) -> Result<usize, String> {
        let mut at = 0;
        for (index, level) in pointer.levels.iter().enumerate() {
            at = match level {
                Level::Child(name) => self.child(at, name),
                Level::Each => {
                    let last = index + 1 == pointer.levels.len();
                    let prefix = format!(
                        "/{}",
                        pointer
                            .text
                            .split('/')
                            .skip(1)
                            .take(index + 1)
                            .collect::<Vec<_>>()
                            .join("/")
                    );
                    self.each(at, members && last, &prefix)?
                }
            };
        }
        Ok(at)
    }

    fn child(&mut self, at: usize, name: &str) -> usize {
        if let Some(child) = self.nodes[at].children.iter().find(|child| &*child.name == name) {
            return child.node;
        }
        let node = self.nodes.len();
        let level = self.nodes[at].level;
        self.nodes.push(Node {
            level,
            ..Node::default()
        });
        self.nodes[at].children.push(Child {
            name: name.into(),
            index: name.parse().ok(),
            node,
        });
        node
    }

    fn each(&mut self, at: usize, members: bool, text: &str) -> Result<usize, String> {
        if let Some(each) = self.nodes[at].each {
            return Ok(each.node);
        }
        let level = self.nodes[at].level + 1;
        if let Some(other) = self.levels.get(level) {
            let (other, text) = (&other.text, text.trim_end_matches('/'));
            return Err(format!(
                "`{text}` and `{other}` are two lists side by side; a sample lies in one"
            ));
        }
        let node = self.nodes.len();
        self.nodes.push(Node {
            level,
            scalars_only: members,
            ..Node::default()
        });
        self.nodes[at].each = Some(Each { node, members });
        self.levels.push(Records {
            text: text.to_owned(),
            ..Records::default()
        });
        Ok(node)
    }
}

/// What a query found. Its room is used again for the next document.
#[derive(Debug, Default)]
pub(crate) struct Found<'j> {
    levels: Vec<Table<'j>>,
}

#[derive(Debug, Default)]
struct Table<'j> {
    width: usize,
    scalars: Vec<Option<Scalar<'j>>>,
    /// The record of the level above that each record lies in.
    parents: Vec<u32>,
    count: usize,
}

impl<'j> Found<'j> {
    /// Empty, for a document of another lifetime, with the same room.
    pub(crate) fn recycle<'k>(self) -> Found<'k> {
        // A map over an empty vector of the same size collects in place: the allocation stays.
        let levels = self.levels.into_iter().map(|mut table| {
            table.scalars.clear();
            table.parents.clear();
            Table {
                width: table.width,
                scalars: table.scalars.into_iter().map(|_| None).collect(),
                parents: table.parents,
                count: 0,
            }
        });
        Found {
            levels: levels.collect(),
        }
    }

    /// How many records a level has.
    pub(crate) fn count(&self, level: usize) -> usize {
        self.levels.get(level).map_or(0, |table| table.count)
    }

    /// What a record has in a slot of its own level.
    pub(crate) fn get(&self, slot: Slot, record: usize) -> Option<&Scalar<'j>> {
        let table = &self.levels[slot.level];
        table.scalars[record * table.width + slot.index].as_ref()
    }

    /// The record of a higher level that a record of `level` lies in.
    #[inline]
    pub(crate) fn above(&self, mut record: usize, mut level: usize, wanted: usize) -> usize {
        while level > wanted {
            record = self.levels[level].parents[record] as usize;
            level -= 1;
        }
        record
    }

    /// True when any record has something in this slot.
    pub(crate) fn has(&self, slot: Slot) -> bool {
        (0..self.count(slot.level)).any(|record| self.get(slot, record).is_some())
    }

    /// The records of a level in which no record of the next one lies.
    pub(crate) fn childless(&self, level: usize) -> impl Iterator<Item = usize> {
        let parents = self.levels.get(level + 1).map_or(&[][..], |table| &table.parents);
        let mut at = 0;
        // Records come in the order of the document, so parents never go down.
        (0..self.count(level)).filter(move |record| {
            let begin = at;
            while parents.get(at).is_some_and(|parent| *parent as usize == *record) {
                at += 1;
            }
            at == begin
        })
    }

    /// Makes names of numbers: what stands in a slot becomes a text where it can.
    pub(crate) fn as_texts(&mut self, slot: Slot) {
        let Some(table) = self.levels.get_mut(slot.level) else {
            return;
        };
        let (width, count) = (table.width, table.count);
        for record in 0..count {
            let scalar = &mut table.scalars[record * width + slot.index];
            let text = match scalar {
                Some(Scalar::Int(number)) => number.to_string(),
                Some(Scalar::Float(number)) => number.to_string(),
                Some(Scalar::Bool(flag)) => flag.to_string(),
                _ => continue,
            };
            *scalar = Some(Scalar::Text(text.into()));
        }
    }

    fn begin(&mut self, query: &Query) {
        self.levels.resize_with(query.levels.len(), Table::default);
        for (table, records) in self.levels.iter_mut().zip(&query.levels) {
            table.scalars.clear();
            table.parents.clear();
            table.width = records.width;
            table.count = 0;
        }
        self.levels[0].push(0);
    }

    #[inline]
    fn put(&mut self, slot: Slot, scalar: Scalar<'j>) {
        let table = &mut self.levels[slot.level];
        let at = (table.count - 1) * table.width + slot.index;
        table.scalars[at] = Some(scalar);
    }
}

impl Table<'_> {
    #[inline]
    fn push(&mut self, parent: usize) {
        self.parents.push(parent as u32);
        self.count += 1;
        self.scalars.resize_with(self.count * self.width, || None);
    }
}

/// One step down the document.
struct Walk<'q, 'j> {
    query: &'q Query,
    node: usize,
    enter: Enter<'j>,
    found: &'q mut Found<'j>,
}

/// Whether what comes is a record of the next level.
enum Enter<'j> {
    No,
    /// An element of a list.
    Element(usize),
    /// A member of an object; its name if somebody wants it.
    Member(Option<Cow<'j, str>>),
}

impl<'j> Walk<'_, 'j> {
    #[inline]
    fn enter(&mut self) {
        let name = match std::mem::replace(&mut self.enter, Enter::No) {
            Enter::No => return,
            Enter::Element(index) => Some(Scalar::Int(index as i64)),
            Enter::Member(name) => name.map(Scalar::Text),
        };
        let level = self.query.nodes[self.node].level;
        let parent = self.found.levels[level - 1].count - 1;
        self.found.levels[level].push(parent);
        if let (Some(slot), Some(name)) = (self.query.levels[level].name, name) {
            self.found.put(slot, name);
        }
    }

    #[inline]
    fn put(&mut self, scalar: Scalar<'j>) {
        self.enter();
        match self.query.nodes[self.node].ends.as_slice() {
            [] => {}
            [slot] => self.found.put(*slot, scalar),
            slots => slots.iter().for_each(|slot| self.found.put(*slot, scalar.clone())),
        }
    }

    /// Where an element of a list leads.
    fn element(&self, index: usize) -> Step<'j> {
        let node = &self.query.nodes[self.node];
        let named = node.children.iter().find(|child| child.index == Some(index));
        match (named, node.each) {
            (Some(child), _) => Step::Into(child.node, Enter::No),
            (None, Some(each)) if !each.members => Step::Into(each.node, Enter::Element(index)),
            _ => Step::Over,
        }
    }
}

impl<'j> DeserializeSeed<'j> for Walk<'_, 'j> {
    type Value = ();

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'j> Visitor<'j> for Walk<'_, 'j> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(mut self) -> Result<(), E> {
        self.put(Scalar::Null);
        Ok(())
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        self.put(Scalar::Bool(value));
        Ok(())
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<(), E> {
        self.put(Scalar::Int(value));
        Ok(())
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<(), E> {
        self.put(i64::try_from(value).map_or(Scalar::Float(value as f64), Scalar::Int));
        Ok(())
    }

    /// No format has numbers of this width; those with a schema say a time by it, in µs.
    fn visit_i128<E: Error>(mut self, value: i128) -> Result<(), E> {
        self.put(i64::try_from(value).map_or(Scalar::Nested, Scalar::Time));
        Ok(())
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<(), E> {
        self.put(Scalar::Float(value));
        Ok(())
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<(), E> {
        self.put(Scalar::Text(Cow::Owned(value.to_owned())));
        Ok(())
    }

    fn visit_borrowed_str<E: Error>(mut self, value: &'j str) -> Result<(), E> {
        self.put(Scalar::Text(Cow::Borrowed(value)));
        Ok(())
    }

    fn visit_bytes<E: Error>(mut self, _: &[u8]) -> Result<(), E> {
        self.put(Scalar::Nested);
        Ok(())
    }

    fn visit_map<A: MapAccess<'j>>(mut self, mut map: A) -> Result<(), A::Error> {
        if self.query.nodes[self.node].scalars_only {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        self.put(Scalar::Nested);
        let node = &self.query.nodes[self.node];
        let wants_name = node.each.is_some_and(|each| {
            let level = self.query.nodes[each.node].level;
            self.query.levels[level].name.is_some()
        });
        while let Some(step) = map.next_key_seed(Key { node, wants_name })? {
            match step {
                Step::Over => {
                    map.next_value::<IgnoredAny>()?;
                }
                Step::Into(node, enter) => map.next_value_seed(Walk {
                    query: self.query,
                    node,
                    enter,
                    found: self.found,
                })?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'j>>(mut self, mut list: A) -> Result<(), A::Error> {
        if self.query.nodes[self.node].scalars_only {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        self.put(Scalar::Nested);
        for index in 0_usize.. {
            let more = match self.element(index) {
                Step::Over => list.next_element::<IgnoredAny>()?.is_some(),
                Step::Into(node, enter) => {
                    let walk = Walk {
                        query: self.query,
                        node,
                        enter,
                        found: self.found,
                    };
                    list.next_element_seed(walk)?.is_some()
                }
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
}

/// Where a member leads.
enum Step<'j> {
    Over,
    Into(usize, Enter<'j>),
}

/// A member's name, compared in place.
struct Key<'q> {
    node: &'q Node,
    wants_name: bool,
}

impl Key<'_> {
    #[inline]
    fn step<'j>(&self, key: &str, name: impl FnOnce() -> Cow<'j, str>) -> Step<'j> {
        let named = self.node.children.iter().find(|child| &*child.name == key);
        match (named, self.node.each) {
            (Some(child), _) => Step::Into(child.node, Enter::No),
            (None, Some(each)) => Step::Into(each.node, Enter::Member(self.wants_name.then(name))),
            (None, None) => Step::Over,
        }
    }
}

impl<'j> DeserializeSeed<'j> for Key<'_> {
    type Value = Step<'j>;

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<Step<'j>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'j> Visitor<'j> for Key<'_> {
    type Value = Step<'j>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Step<'j>, E> {
        Ok(self.step(key, || Cow::Owned(key.to_owned())))
    }

    fn visit_borrowed_str<E: Error>(self, key: &'j str) -> Result<Step<'j>, E> {
        Ok(self.step(key, || Cow::Borrowed(key)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::json::JsonDocument;
    use super::*;

    /// What stands at each pointer, record by record of its level.
    fn find(pointers: &[&str], json: &[u8]) -> Result<String, String> {
        let mut query = Query::default();
        let mut slots = Vec::new();
        for text in pointers {
            // `name of POINTER`, `members of POINTER`
            let (kind, text) = text.split_once(" of ").unwrap_or(("", text));
            let pointer = Pointer::parse(text)?;
            match kind {
                "name" => slots.push(query.name(&pointer)?),
                "members" => slots.extend(<[Slot; 2]>::from(query.members(&pointer)?)),
                _ => slots.push(query.value(&pointer)?),
            }
        }
        let mut found = Found::default();
        // The room must be as good as new the second time.
        for _ in 0..2 {
            found = found.recycle();
            JsonDocument(json).find(&query, &mut found)?;
        }
        let shown = slots.iter().map(|slot| {
            let records = (0..found.count(slot.level)).map(|record| match found.get(*slot, record) {
                None => "-".to_owned(),
                Some(Scalar::Text(text)) => format!("'{text}'"),
                Some(Scalar::Int(number)) => number.to_string(),
                Some(Scalar::Float(number)) => format!("{number:?}"),
                Some(other) => format!("{other:?}"),
            });
            records.collect::<Vec<_>>().join(",")
        });
        let mut shown: Vec<String> = shown.collect();
        for level in 0..query.last_level() {
            shown.extend(
                found
                    .childless(level)
                    .map(|record| format!("childless {level}.{record}")),
            );
        }
        Ok(shown.join(" | "))
    }

    #[test]
    fn scalars() {
        let check = |json: &str, pointers: &[&str], expect: &str| {
            let got = find(pointers, json.as_bytes()).unwrap_or_else(|e| format!("error: {e}"));
            assert!(got.starts_with(expect), "{json} {pointers:?}: {got}");
        };
        check("3", &[""], "3");
        check("{\"v\":1.5,\"t\":7}", &["/v", "/t"], "1.5 | 7");
        check(
            "{\"a\":{\"b\":[0,{\"c\":true}]}}",
            &["/a/b/1/c", "/a"],
            "Bool(true) | Nested",
        );
        check("{\"v\":null,\"s\":\"a\\u00e4\"}", &["/v", "/s"], "Null | 'aä'");
        check("{\"v\":1,\"v\":2}", &["/v"], "2");
        check("{\"v\":18446744073709551615}", &["/v"], "1.8446744073709552e19");
        check("{\"v\":1}", &["/v/x", "/w"], "- | -");
        check("{\"v\":1}", &["/v", "/v"], "1 | 1");
        check("{\"\\u0076\":1}", &["/v"], "1");
        check("[1,2]", &["/1", "/2"], "2 | -");
        check("{\"v\":NaN}", &["/v"], "error: not JSON");
        check("{\"v\":1} x", &["/v"], "error: not JSON: trailing");
        check("{\"v\":1", &["/v"], "error: not JSON: EOF");
        check("", &[""], "error: not JSON: EOF");
    }

    #[test]
    fn lists() {
        let check = |json: &str, pointers: &[&str], expect: &str| {
            let got = find(pointers, json.as_bytes()).unwrap_or_else(|e| format!("error: {e}"));
            assert_eq!(got, expect, "{json} {pointers:?}");
        };
        let samples = "{\"s\":[{\"t\":1,\"v\":5},{\"t\":2},{\"v\":7}],\"d\":\"m\"}";
        check(samples, &["/s/*/t", "/s/*/v", "/d"], "1,2,- | 5,-,7 | 'm'");
        check("[1,2]", &["/*"], "1,2");
        check(
            "[[1,2],[],[3]]",
            &["/*/*", "/*"],
            "1,2,3 | Nested,Nested,Nested | childless 1.1",
        );
        check("{\"a\":1,\"b\":2}", &["name of /*", "/*"], "'a','b' | 1,2");
        check("[5,6]", &["name of /*", "/*"], "0,1 | 5,6");
        // A member that another pointer names is no element.
        check(
            "{\"ts\":9,\"a\":{\"v\":1},\"b\":{\"v\":2}}",
            &["/ts", "/*/v", "name of /*"],
            "9 | 1,2 | 'a','b'",
        );
        check("{}", &["/s/*"], " | childless 0.0");
        check("{\"s\":[]}", &["/s/*"], " | childless 0.0");
        check("{\"s\":5}", &["/s/*"], " | childless 0.0");
        let gateway =
            "{\"A\":[{\"ts\":1,\"values\":{\"x\":1,\"y\":2}},{\"ts\":2,\"values\":{\"x\":3}}],\"B\":[{\"ts\":3}]}";
        check(
            gateway,
            &["name of /*", "/*/*/ts", "members of /*/*/values"],
            "'A','B' | 1,2,3 | 'x','y','x' | 1,2,3 | childless 2.2",
        );
        check(
            "{\"a\":{\"b\":1}}",
            &["/a/*", "/c/*"],
            "error: `/c/*` and `/a/*` are two lists side by side; a sample lies in one",
        );
    }

    #[test]
    fn members() {
        let check = |json: &str, pointers: &[&str], expect: &str| {
            assert_eq!(find(pointers, json.as_bytes()).unwrap(), expect, "{json} {pointers:?}");
        };
        let wide = r#"{"ts":1,"a":1.5,"b":"on","c":null,"d":{"e":1},"f":[2],"\u0067":true}"#;
        check(
            wide,
            &["/ts", "members of "],
            "1 | 'a','b','c','g' | 1.5,'on',Null,Bool(true)",
        );
        check(r#"{"d":{"a":1},"e":2}"#, &["members of /d"], "'a' | 1");
        check("[1,2]", &["members of "], " |  | childless 0.0");
        check(r#"{"a":1,"a":2}"#, &["members of "], "'a','a' | 1,2");
    }

    #[test]
    fn deep_and_broken_input_neither_panics_nor_recurses() {
        let deep = format!("{{\"x\":{}{},\"v\":1}}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(find(&["/v"], deep.as_bytes()).unwrap(), "1");
        let deep = "{\"v\":".repeat(200_000);
        assert!(find(&["/v"], deep.as_bytes()).is_err());
        let stars = "/*".repeat(8);
        let lists = format!("{}1{}", "[".repeat(300), "]".repeat(300));
        assert!(find(&[&stars], lists.as_bytes()).unwrap().starts_with("Nested"));
        assert!(find(&["/v"], &[0xff, 0xfe, 0]).is_err());
        assert!(find(&["/v"], b"{\"v\":\"\xff\"}").is_err());
        proptest::proptest!(|(bytes: Vec<u8>)| { let _ = find(&["/a", "members of ", "/*/b"], &bytes); });
        proptest::proptest!(|(json in "[\\[\\]{}\",:a1 ]{0,30}")| {
            let _ = find(&["/a", "name of /*", "/*/*/a"], json.as_bytes());
        });
    }
}
