//! A small XML tree, written out by `quick-xml`, which escapes what must be escaped.

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

/// One element: attributes in the order given, then either text or children.
pub struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Element>,
    text: Option<String>,
}

/// XML 1.0 has no way to write most control characters, not even escaped.
fn clean(value: impl ToString) -> String {
    value.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Element {
    pub fn new(name: &'static str) -> Self {
        Self { name, attributes: Vec::new(), children: Vec::new(), text: None }
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.attributes.push((name, clean(value)));
        self
    }

    /// The attribute if there is a value.
    pub fn with_some(self, name: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub fn holding(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children);
        self
    }

    pub fn text(mut self, text: &str) -> Self {
        self.text = Some(clean(text));
        self
    }

    /// The whole document with this element as its root.
    pub fn document(&self) -> String {
        let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
        let declaration = Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None));
        writer.write_event(declaration).expect("a Vec takes all bytes");
        self.write(&mut writer);
        let mut text = String::from_utf8(writer.into_inner()).expect("made of strings");
        text.push('\n');
        text
    }

    fn write(&self, writer: &mut Writer<Vec<u8>>) {
        let attributes = self.attributes.iter().map(|(name, value)| (*name, value.as_str()));
        let start = BytesStart::new(self.name).with_attributes(attributes);
        let mut put = |event| writer.write_event(event).expect("a Vec takes all bytes");
        let end = Event::End(BytesEnd::new(self.name));
        if let Some(text) = &self.text {
            put(Event::Start(start));
            put(Event::Text(BytesText::new(text)));
            return put(end);
        }
        if self.children.is_empty() {
            return put(Event::Empty(start));
        }
        put(Event::Start(start));
        self.children.iter().for_each(|child| child.write(writer));
        writer.write_event(end).expect("a Vec takes all bytes");
    }
}
