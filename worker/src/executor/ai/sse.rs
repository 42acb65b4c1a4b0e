//! Server-sent events from bytes that were cut anywhere, as AI providers really send them: CRLF or LF, a last event without its
//! blank line, and errors as bare JSON in the middle of the stream.

/// A line or frame beyond it is no answer.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// What a stream carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What followed `data:`.
    Data(Vec<u8>),
    /// JSON outside of any event: an error.
    Bare(Vec<u8>),
}

/// A frame is larger than 16 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// Takes bytes, gives events.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    bare: Option<Vec<u8>>,
    after_cr: bool,
    events: Vec<Event>,
}

impl Decoder {
    /// The events that `bytes` complete.
    ///
    /// # Errors
    /// [`TooLarge`]
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLarge> {
        for &byte in bytes {
            match byte {
                b'\n' if self.after_cr => {}
                b'\n' | b'\r' => self.end_line(),
                _ => self.line.push(byte),
            }
            self.after_cr = byte == b'\r';
        }
        let held = [Some(&self.line), self.data.as_ref(), self.bare.as_ref()];
        if held.into_iter().flatten().any(|part| part.len() > FRAME_BYTES_MAX) {
            return Err(TooLarge);
        }
        Ok(std::mem::take(&mut self.events))
    }

    /// The events that the end of the stream completes.
    pub fn finish(mut self) -> Vec<Event> {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.end_event();
        self.events
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let data = line.strip_prefix(b"data:");
        if let Some(bare) = self.bare.as_mut().filter(|_| data.is_none()) {
            bare.extend_from_slice(&line);
            bare.push(b'\n');
        } else if let Some(data) = data {
            self.end_bare();
            self.add_data(data.strip_prefix(b" ").unwrap_or(data));
        } else if line.is_empty() {
            self.end_event();
        } else if let Some(error) = line.strip_prefix(b"error:") {
            // llama-server's own field.
            self.end_event();
            self.events.push(Event::Bare(error.to_vec()));
        } else if matches!(line.trim_ascii_start().first(), Some(b'{' | b'[')) {
            self.end_event();
            self.bare = Some([&line[..], b"\n"].concat());
        }
        // Everything else is a comment or a field that nobody needs (`event`, `id`, `retry`).
    }

    fn add_data(&mut self, line: &[u8]) {
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(line);
            }
            None => self.data = Some(line.to_vec()),
        }
    }

    fn end_event(&mut self) {
        self.end_bare();
        self.events.extend(self.data.take().map(Event::Data));
    }

    fn end_bare(&mut self) {
        self.events.extend(self.bare.take().map(Event::Bare));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for part in parts {
            events.extend(decoder.push(part).unwrap());
        }
        events.extend(decoder.finish());
        events
    }

    fn data(text: &str) -> Event {
        Event::Data(text.as_bytes().to_vec())
    }

    const STREAMS: [&str; 5] = [
        "data: {\"a\":\"ñ🙂\"}\r\n\r\ndata: {\"b\":1}\r\n\r\n",
        "data: {\"a\":\"ñ🙂\"}\n\ndata: {\"b\":1}\n\n",
        "data: {\"a\":\"ñ🙂\"}\r\n\r\ndata: {\"b\":1}",
        ": comment\r\nevent: x\r\nid: 7\r\ndata:{\"a\":\"ñ🙂\"}\r\n\r\n\r\n\r\ndata: {\"b\":1}\r\n",
        "data: {\"a\":\"ñ🙂\"}\r\rdata: {\"b\":1}\r\r",
    ];

    #[test]
    fn frames_come_whole_however_the_bytes_are_cut_and_the_lines_end() {
        for stream in STREAMS {
            let bytes = stream.as_bytes();
            let expected = [data("{\"a\":\"ñ🙂\"}"), data("{\"b\":1}")];
            for cut in 0..=bytes.len() {
                let (left, right) = bytes.split_at(cut);
                assert_eq!(decode([left, right]), expected, "{stream:?} cut at {cut}");
            }
            for size in 1..bytes.len() {
                assert_eq!(decode(bytes.chunks(size)), expected, "{stream:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn bare_json_is_told_apart_wherever_it_stands() {
        let error = "{\n  \"error\": {\n    \"code\": 503\n  }\n}\n";
        let expected = [data("1"), Event::Bare(error.as_bytes().to_vec())];
        for stream in [format!("data: 1\r\n\r\n{error}"), format!("data: 1\r\n{error}").trim_end().to_owned()] {
            for cut in 0..=stream.len() {
                let (left, right) = stream.as_bytes().split_at(cut);
                let events = decode([left, right]);
                assert_eq!(events.len(), 2);
                let Event::Bare(bare) = &events[1] else { panic!("{events:?}") };
                assert_eq!((&events[0], bare.trim_ascii()), (&expected[0], error.trim().as_bytes()));
            }
        }
        assert_eq!(decode([&b"{\"e\":1}\ndata: 2\n\n"[..]]), [Event::Bare(b"{\"e\":1}\n".to_vec()), data("2")]);
        assert_eq!(decode([&b"error: {\"e\":1}\n\n"[..]]), [Event::Bare(b" {\"e\":1}".to_vec())]);
    }

    #[test]
    fn lines_of_one_event_are_joined_and_a_frame_without_end_is_refused() {
        assert_eq!(decode([&b"data: a\ndata: b\n\n"[..]]), [data("a\nb")]);
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push(&vec![b'x'; FRAME_BYTES_MAX + 1]), Err(TooLarge));
    }

    proptest! {
        #[test]
        fn any_frames_survive_any_cuts(
            frames in prop::collection::vec("[^\r\n\u{0}]{0,40}", 1..6),
            crlf in any::<bool>(),
            sizes in prop::collection::vec(1_usize..9, 1..20),
        ) {
            let end = if crlf { "\r\n\r\n" } else { "\n\n" };
            let stream: String = frames.iter().map(|frame| format!("data: {frame}{end}")).collect();
            let mut rest = stream.as_bytes();
            let mut parts = Vec::new();
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break }
                let (part, left) = rest.split_at((*size).min(rest.len()));
                parts.push(part);
                rest = left;
            }
            prop_assert_eq!(decode(parts), frames.iter().map(|frame| data(frame)).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_it_panic(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..8)) {
            decode(parts.iter().map(Vec::as_slice));
        }
    }
}
