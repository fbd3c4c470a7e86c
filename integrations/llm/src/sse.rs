//! Server-sent events: the `data` of each event, from bytes that arrive in any cut.
//!
//! Follows the event stream format of the WHATWG HTML standard as far as chat APIs use it: lines
//! end with LF, CRLF or CR; `data` lines of one event are joined by LF; other fields and comments
//! are skipped. Memory is bounded: an event longer than the limit is an error.

/// An event is longer than it may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream has more than {limit} bytes")]
pub struct EventTooLong {
    /// The limit in bytes.
    pub limit: usize,
}

/// Collects bytes and gives out events.
#[derive(Debug)]
pub struct SseParser {
    limit: usize,
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    after_cr: bool,
    at_start: bool,
}

impl SseParser {
    /// A parser for events of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, line: Vec::new(), data: None, after_cr: false, at_start: true }
    }

    /// Takes more bytes; returns the data of the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, EventTooLong> {
        let mut events = Vec::new();
        for byte in bytes {
            let after_cr = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if after_cr => {}
                b'\n' => events.extend(self.end_line()),
                b'\r' => {
                    self.after_cr = true;
                    events.extend(self.end_line());
                }
                other => self.line.push(*other),
            }
            let held = self.line.len() + self.data.as_ref().map_or(0, Vec::len);
            if held > self.limit {
                return Err(EventTooLong { limit: self.limit });
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Vec<u8>> {
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.at_start) && line.starts_with(b"\xEF\xBB\xBF") {
            line.drain(..3);
        }
        if line.is_empty() {
            return self.data.take();
        }
        let value = match line.strip_prefix(b"data") {
            Some([]) => &[][..],
            Some([b':', b' ', value @ ..]) | Some([b':', value @ ..]) => value,
            _ => return None, // a comment or another field
        };
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            None => self.data = Some(value.to_vec()),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(stream: &[u8], cut: usize) -> Vec<String> {
        let mut parser = SseParser::new(1000);
        let mut out = Vec::new();
        for piece in stream.chunks(cut) {
            let events = parser.push(piece).expect("short");
            out.extend(events.into_iter().map(|e| String::from_utf8(e).expect("UTF-8")));
        }
        out
    }

    #[test]
    fn every_cut_gives_the_same_events() {
        let check = |stream: &str, expect: &[&str]| {
            for cut in 1..=stream.len() {
                assert_eq!(events(stream.as_bytes(), cut), expect, "{stream:?} cut at {cut}");
            }
        };
        check("data: a\n\ndata: b\n\n", &["a", "b"]);
        check("data: é\r\n\r\ndata:b\r\rdata: c\n\n", &["é", "b", "c"]);
        check(": hello\n\nevent: x\nid: 1\ndata: a\ndata: b\n\n", &["a\nb"]);
        check("\u{feff}data: a\n\n", &["a"]);
        check("data\n\ndatum: x\n\n", &[""]);
        check("data: {\"a\":\n\ndata: cut off", &["{\"a\":"]);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut parser = SseParser::new(100);
        assert!(parser.push(&[b'x'; 100]).is_ok());
        assert_eq!(parser.push(b"x"), Err(EventTooLong { limit: 100 }));
        let mut parser = SseParser::new(100);
        let endless = "data: 0123456789\n".repeat(12);
        assert!(parser.push(endless.as_bytes()).is_err());
    }
}
