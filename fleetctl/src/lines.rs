//! Cuts a stream into lines without keeping more of it than a bound: what comes from elsewhere may
//! never end a line.

use std::ops::Range;

/// A piece of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A whole line, or the last piece of one that was too long, with its newline.
    Line(Vec<u8>),
    /// A piece of a line that is too long to be kept; its rest comes later.
    Part(Vec<u8>),
}

/// The lines of one stream.
#[derive(Debug)]
pub(crate) struct Lines {
    most: usize,
    buffer: Vec<u8>,
    /// What of it was taken already.
    taken: usize,
    /// So many bytes of it are known to hold no newline that was not taken.
    seen: usize,
}

impl Lines {
    /// Keeps `most` bytes of a line that has not ended.
    pub(crate) fn new(most: usize) -> Lines {
        Lines { most, buffer: Vec::new(), taken: 0, seen: 0 }
    }

    /// Takes what came.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.buffer.drain(..std::mem::take(&mut self.taken));
        self.seen = self.buffer.len();
        self.buffer.extend_from_slice(chunk);
    }

    /// The next piece of what came so far.
    pub(crate) fn next(&mut self) -> Option<Piece> {
        let from = self.seen.max(self.taken);
        let end = self.buffer[from..].iter().position(|&byte| byte == b'\n');
        if let Some(end) = end {
            return Some(Piece::Line(self.take(self.taken..from + end + 1)));
        }
        self.seen = self.buffer.len();
        let is_long = self.seen - self.taken > self.most;
        is_long.then(|| Piece::Part(self.take(self.taken..self.seen)))
    }

    /// What is left when the stream has ended: a line without an end.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        self.buffer.split_off(self.taken)
    }

    fn take(&mut self, range: Range<usize>) -> Vec<u8> {
        (self.taken, self.seen) = (range.end, range.end);
        self.buffer[range].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(lines: &mut Lines, chunk: &str) -> String {
        lines.push(chunk.as_bytes());
        let piece = |lines: &mut Lines| {
            lines.next().map(|piece| match piece {
                Piece::Line(line) => format!("line {}", String::from_utf8(line).unwrap()),
                Piece::Part(part) => format!("part {};", String::from_utf8(part).unwrap()),
            })
        };
        std::iter::from_fn(|| piece(lines)).collect()
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let mut lines = Lines::new(100);
        assert_eq!(pieces(&mut lines, "a\nb"), "line a\n");
        assert_eq!(pieces(&mut lines, ""), "");
        assert_eq!(pieces(&mut lines, "c\n\nd"), "line bc\nline \n");
        assert_eq!(lines.rest(), b"d");
    }

    #[test]
    fn a_line_that_never_ends_comes_in_parts_and_is_not_kept() {
        let mut lines = Lines::new(4);
        assert_eq!(pieces(&mut lines, "abcd"), "");
        assert_eq!(pieces(&mut lines, "ef"), "part abcdef;");
        assert_eq!(pieces(&mut lines, "gh"), "");
        assert_eq!(pieces(&mut lines, "\ni\n"), "line gh\nline i\n");
        for _ in 0..1000 {
            pieces(&mut lines, "xxxxxxxxxx");
            assert!(lines.buffer.len() <= 20);
        }
    }
}
