//! An exception in the serial form of Java. Flink's clients take the cause of a failed request from one (`serialized-throwable`), and without it they fail themselves and show nothing of the
//! cause. The form is that of the Java Object Serialization Specification, protocol version 2; the classes are those of Flink and of Java, by their serial versions, which do not change.

use base64::{Engine, prelude::BASE64_STANDARD};

/// Of a text in it, in bytes: its length has 16 bits, and a character has up to three bytes.
const LONGEST: usize = 20_000;

const MAGIC: [u8; 4] = [0xac, 0xed, 0x00, 0x05];
const NULL: u8 = 0x70;
const CLASS: u8 = 0x72;
const OBJECT: u8 = 0x73;
const STRING: u8 = 0x74;
const END: u8 = 0x78;
const SERIALIZABLE: u8 = 2;
/// Its class writes more than its fields.
const WRITES: u8 = 1;

struct Stream(Vec<u8>);

impl Stream {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// In what Java calls modified UTF-8.
    fn utf(&mut self, text: &str) -> &mut Self {
        // What has another form there is not worth it.
        let plain: String = text.chars().take(LONGEST).map(|c| if c == '\0' || c > '\u{ffff}' { '?' } else { c }).collect();
        let length = u16::try_from(plain.len()).unwrap_or(u16::MAX);
        self.put(&length.to_be_bytes()).put(plain.as_bytes())
    }

    fn string(&mut self, text: &str) -> &mut Self {
        self.put(&[STRING]).utf(text)
    }

    /// A class, of which its fields are still to come: name, type.
    fn class(&mut self, name: &str, version: i64, flags: u8, fields: &[(&str, &str)]) -> &mut Self {
        self.put(&[CLASS]).utf(name).put(&version.to_be_bytes()).put(&[flags]);
        self.put(&u16::try_from(fields.len()).unwrap_or(u16::MAX).to_be_bytes());
        for (name, of) in fields {
            self.put(of.get(..1).unwrap_or("L").as_bytes()).utf(name).string(of);
        }
        self.put(&[END])
    }
}

/// An `org.apache.flink.util.SerializedThrowable` with that message, in Base64.
pub(super) fn throwable(message: &str) -> String {
    const TEXT: &str = "Ljava/lang/String;";
    let mut stream = Stream(MAGIC.to_vec());
    let own = [("fullStringifiedStackTrace", TEXT), ("originalErrorClassName", TEXT), ("serializedException", "[B")];
    let of_throwable = [
        ("cause", "Ljava/lang/Throwable;"),
        ("detailMessage", TEXT),
        ("stackTrace", "[Ljava/lang/StackTraceElement;"),
        ("suppressedExceptions", "Ljava/util/List;"),
    ];
    stream.put(&[OBJECT]);
    stream.class("org.apache.flink.util.SerializedThrowable", 7_284_183_123_441_947_635, SERIALIZABLE, &own);
    stream.class("java.lang.Exception", -3_387_516_993_124_229_948, SERIALIZABLE, &[]);
    stream.class("java.lang.Throwable", -3_042_686_055_658_047_285, SERIALIZABLE | WRITES, &of_throwable);
    // That has no class above it. The values of its fields come first: no cause, the message, no trace, none suppressed.
    stream.put(&[NULL, NULL]).string(message).put(&[NULL, NULL, END]);
    stream.string(message).string("standpipe").put(&[NULL]);
    BASE64_STANDARD.encode(stream.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_javas() {
        let bytes = BASE64_STANDARD.decode(throwable("the disk is full")).unwrap();
        assert_eq!(bytes.get(..8), Some(&[0xac, 0xed, 0, 5, OBJECT, CLASS, 0, 41][..]));
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("the disk is full").count(), 2);
        // Long and strange ones are cut to what the form takes.
        let bytes = BASE64_STANDARD.decode(throwable(&"ä\0😀".repeat(40_000))).unwrap();
        assert!(bytes.len() < 2 * 65_535 + 1_000);
    }
}
