//! The bytes of one stored response: written by one core while any core reads, without locks and without `unsafe`.
//!
//! A [`Body`] is a list of segments that never change once they are in it. The one [`BodyWriter`] collects bytes in
//! memory of its own and puts a whole segment in; then it publishes length, number of segments and state in a single
//! word. It knows nothing of HTTP and wakes nobody itself: it says which cores want to be rung.
//!
//! # Memory ordering
//! - The writer sets a segment's cell first and stores the word with `Release` after it. A reader loads the word with
//!   `Acquire` and looks only at segments below its count: every byte below the length it read is there and final.
//! - Length and state are one word, so whoever sees `Complete` sees the final length with it. The length never shrinks
//!   and nothing follows `Complete` or `Aborted`.
//! - No wake-up is lost: a reader joins `watchers` by a read-modify-write and looks at the word once more; the writer
//!   stores the word and takes `watchers` by a read-modify-write. Of the two, one comes later and sees the other's.
//!
//! A whole body may move into a file of its own, from which the kernel sends it without a copy; who makes the file, and
//! when, is not decided here.
//!
//! Invariants: segments are not empty and follow each other without a gap; `Complete` means every byte of the
//! response, `Aborted` that the rest will never come. A writer that is dropped has aborted.

use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// A handle to the bytes. The last one frees them.
#[derive(Clone, Debug)]
pub struct Body(Bytes);

#[derive(Clone, Debug)]
enum Bytes {
    Segments(Arc<Segments>),
    File(Arc<InFile>),
}

/// Knows a body without keeping it in memory.
#[derive(Debug)]
pub(super) enum Remnant {
    Segments(Weak<Segments>),
    File(Weak<InFile>),
}

/// A whole body in a file of its own.
#[derive(Debug)]
pub(super) struct InFile {
    file: File,
    bytes: u64,
    _place: FilePlace,
}

/// How many bodies may lie in files: each holds a descriptor.
#[derive(Debug)]
pub struct Files {
    live: AtomicUsize,
    max: usize,
}

/// One of them, given back when dropped.
#[derive(Debug)]
pub struct FilePlace(Arc<Files>);

/// How far a body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyState {
    /// More may follow.
    Filling,
    /// All bytes are there.
    Complete,
    /// The rest will never come: nobody may take these bytes for the whole.
    Aborted,
}

/// One look at a body: both values belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Bytes that can be read.
    pub bytes: u64,
    /// Whether more will come.
    pub state: BodyState,
}

/// The bytes would go past the body's limit. None of them was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Debug)]
pub(super) struct Segments {
    /// State, count of segments, length: see [`pack`].
    published: AtomicU64,
    /// Cores with a reader that waits for more, bit `core % 64`.
    watchers: AtomicU64,
    /// The length the framing declared.
    expected: Option<u64>,
    /// Most bodies are one segment.
    first: OnceLock<Segment>,
    rest: OnceLock<Box<Rest>>,
}

type Rest = [OnceLock<Box<[OnceLock<Segment>]>>; ROWS.len()];

#[derive(Debug)]
struct Segment {
    start: u64,
    bytes: Box<[u8]>,
}

/// The only one that appends to a [`Body`].
#[derive(Debug)]
pub struct BodyWriter {
    body: Body,
    target: Arc<Segments>,
    pending: Vec<u8>,
    published_bytes: u64,
    segments: usize,
    limit: u64,
    expected: Option<u64>,
    is_over: bool,
}

impl Body {
    /// An empty body of at most `limit` bytes (itself at most [`BODY_BYTES_MAX`]) and its writer. `expected` is the
    /// length the framing declared: a body that ends with another one has aborted.
    pub fn begin(limit: u64, expected: Option<u64>) -> (Self, BodyWriter) {
        let target = Arc::new(Segments {
            published: AtomicU64::new(pack(0, 0, BodyState::Filling)),
            watchers: AtomicU64::new(0),
            expected,
            first: OnceLock::new(),
            rest: OnceLock::new(),
        });
        let body = Self(Bytes::Segments(target.clone()));
        let writer = BodyWriter {
            body: body.clone(),
            target,
            pending: Vec::new(),
            published_bytes: 0,
            segments: 0,
            limit: limit.min(BODY_BYTES_MAX),
            expected,
            is_over: false,
        };
        (body, writer)
    }

    /// A body that is already whole.
    pub fn whole(bytes: &[u8]) -> Result<Self, Full> {
        let length = bytes.len() as u64;
        let (body, mut writer) = Self::begin(length, Some(length));
        writer.append(bytes)?;
        writer.complete();
        Ok(body)
    }

    /// A whole body of `bytes` that `file` holds.
    pub fn in_file(file: File, bytes: u64, place: FilePlace) -> Self {
        Self(Bytes::File(Arc::new(InFile { file, bytes, _place: place })))
    }

    /// Where its bytes are, if they are in a file; then none are in memory.
    pub fn file(&self) -> Option<&File> {
        match &self.0 {
            Bytes::Segments(_) => None,
            Bytes::File(in_file) => Some(&in_file.file),
        }
    }

    /// What can be read now (`Acquire`).
    pub fn published(&self) -> Published {
        match &self.0 {
            Bytes::Segments(segments) => segments.published(),
            Bytes::File(in_file) => Published { bytes: in_file.bytes, state: BodyState::Complete },
        }
    }

    /// How long it is, or will be if all of it comes, as far as one knows.
    pub(super) fn promised(&self) -> u64 {
        let declared = match &self.0 {
            Bytes::Segments(segments) => segments.expected.unwrap_or(0),
            Bytes::File(_) => 0,
        };
        self.published().bytes.max(declared)
    }

    /// From `position` to the end of its segment; empty when nothing is published there yet.
    pub fn at(&self, position: u64) -> &[u8] {
        let Bytes::Segments(segments) = &self.0 else { return &[] };
        let (bytes, count, _) = unpack(segments.published.load(Ordering::Acquire));
        if position >= bytes {
            return &[];
        }
        let segment = segments.segment(segments.find(position, count));
        &segment.bytes[place(position - segment.start)..]
    }

    /// The published bytes of `range` as they lie, for a vectored write.
    pub fn slices(&self, range: Range<u64>) -> impl Iterator<Item = &[u8]> {
        let segments = match &self.0 {
            Bytes::Segments(segments) => Some(&**segments),
            Bytes::File(_) => None,
        };
        segments.into_iter().flat_map(move |segments| segments.slices(range.clone()))
    }

    /// Asks for `core` to be rung once more is published. To be followed by another look at the body: what was
    /// published before this call is not announced again.
    pub fn watch(&self, core: u32) {
        if let Bytes::Segments(segments) = &self.0 {
            segments.watchers.fetch_or(1 << (core % u64::BITS), Ordering::AcqRel);
        }
    }

    /// Handles to the bytes, its writer's two among them while there is one.
    pub fn handles(&self) -> usize {
        match &self.0 {
            Bytes::Segments(segments) => Arc::strong_count(segments),
            Bytes::File(file) => Arc::strong_count(file),
        }
    }

    /// What tells whether it is still in memory.
    pub(super) fn remnant(&self) -> Remnant {
        match &self.0 {
            Bytes::Segments(segments) => Remnant::Segments(Arc::downgrade(segments)),
            Bytes::File(file) => Remnant::File(Arc::downgrade(file)),
        }
    }

    /// Whether both are handles to the same bytes.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Bytes::Segments(one), Bytes::Segments(other)) => Arc::ptr_eq(one, other),
            (Bytes::File(one), Bytes::File(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Remnant {
    /// How long it is by now; `None` once nobody holds it.
    pub(super) fn bytes(&self) -> Option<u64> {
        match self {
            Self::Segments(segments) => segments.upgrade().map(|held| held.published().bytes),
            Self::File(file) => file.upgrade().map(|held| held.bytes),
        }
    }
}

impl Segments {
    fn published(&self) -> Published {
        let (bytes, _, state) = unpack(self.published.load(Ordering::Acquire));
        Published { bytes, state }
    }

    fn slices(&self, range: Range<u64>) -> impl Iterator<Item = &[u8]> {
        let (bytes, segments, _) = unpack(self.published.load(Ordering::Acquire));
        let end = range.end.min(bytes);
        let first = if range.start < end { self.find(range.start, segments) } else { segments };
        (first..segments).map(|number| self.segment(number)).map_while(move |segment| {
            let from = range.start.max(segment.start) - segment.start;
            let to = end.saturating_sub(segment.start).min(segment.bytes.len() as u64);
            (from < to).then(|| &segment.bytes[place(from)..place(to)])
        })
    }

    /// Number of the segment that holds `position`, which lies below the published length.
    fn find(&self, position: u64, segments: usize) -> usize {
        let (mut low, mut high) = (0, segments);
        while low + 1 < high {
            let middle = low.midpoint(high);
            if self.segment(middle).start <= position {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    fn segment(&self, number: usize) -> &Segment {
        let cell = match cell_of(number) {
            None => Some(&self.first),
            Some((row, column)) => {
                self.rest.get().and_then(|rest| rest[row].get()).map(|cells| &cells[column])
            }
        };
        cell.and_then(OnceLock::get).expect("segments below the published count are set")
    }
}

impl Files {
    /// Room for `max` of them in the process.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { live: AtomicUsize::new(0), max })
    }

    /// A place for one more, if there is.
    pub fn take(self: &Arc<Self>) -> Option<FilePlace> {
        let place = FilePlace(self.clone());
        // Counted before it is judged: a place too many is given back at once.
        let before = self.live.fetch_add(1, Ordering::Relaxed);
        (before < self.max).then_some(place)
    }

    /// How many there are.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
}

impl Drop for FilePlace {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BodyWriter {
    /// Takes `bytes`; readers see them with the next full segment, [`flush`](Self::flush) or
    /// [`complete`](Self::complete).
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<(), Full> {
        let allowed = self.limit.min(self.expected.unwrap_or(u64::MAX));
        if self.bytes() + bytes.len() as u64 > allowed {
            return Err(Full);
        }
        while !bytes.is_empty() {
            if self.pending.is_empty() {
                self.pending.reserve_exact(self.capacity_for(bytes.len()));
            }
            let taken = bytes.len().min(SEGMENT_BYTES - self.pending.len());
            self.pending.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.pending.len() == SEGMENT_BYTES {
                self.publish(BodyState::Filling);
            }
        }
        Ok(())
    }

    /// Shows readers what was appended. Pieces small in relation to what is there are kept back until more comes, so
    /// that a body which trickles in does not become thousands of segments.
    pub fn flush(&mut self) {
        if self.pending.len() as u64 * FLUSH_SHARE > self.published_bytes {
            self.publish(BodyState::Filling);
        }
    }

    /// As [`append`](Self::append) and [`flush`](Self::flush) in one: what readers are shown at once is allocated in its
    /// own length, so that a body which comes in pieces leaves no holes in memory.
    pub fn append_and_flush(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let is_shown =
            self.pending.is_empty() && bytes.len() as u64 * FLUSH_SHARE > self.published_bytes;
        if !is_shown || bytes.len() > SEGMENT_BYTES {
            self.append(bytes)?;
            self.flush();
            return Ok(());
        }
        let allowed = self.limit.min(self.expected.unwrap_or(u64::MAX));
        if self.bytes() + bytes.len() as u64 > allowed {
            return Err(Full);
        }
        self.pending = bytes.to_vec();
        self.publish(BodyState::Filling);
        Ok(())
    }

    /// Ends the body. The state says whether it is whole: short of the expected length, it has aborted.
    pub fn complete(mut self) -> BodyState {
        let is_whole = self.expected.is_none_or(|expected| expected == self.bytes());
        let state = if is_whole { BodyState::Complete } else { BodyState::Aborted };
        self.is_over = true;
        self.publish(state);
        state
    }

    /// Bytes taken so far, published or not.
    pub fn bytes(&self) -> u64 {
        self.published_bytes + self.pending.len() as u64
    }

    /// The cores to ring, bit `core % 64`, each once for every [`Body::watch`].
    pub fn take_watchers(&self) -> u64 {
        take_watchers(&self.body)
    }

    /// A reader's handle.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// No more than is needed where the length is known; whole segments once the first was full.
    fn capacity_for(&self, arriving: usize) -> usize {
        match self.expected {
            Some(expected) => (expected - self.published_bytes).min(SEGMENT_BYTES as u64) as usize,
            None if self.published_bytes >= SEGMENT_BYTES as u64 => SEGMENT_BYTES,
            None => arriving.min(SEGMENT_BYTES),
        }
    }

    fn publish(&mut self, state: BodyState) {
        if !self.pending.is_empty() {
            let bytes = std::mem::take(&mut self.pending).into_boxed_slice();
            let (start, length) = (self.published_bytes, bytes.len() as u64);
            let segments = &self.target;
            let cell = match cell_of(self.segments) {
                None => &segments.first,
                Some((row, column)) => {
                    let rest = segments.rest.get_or_init(Box::default);
                    &rest[row].get_or_init(|| (0..ROWS[row]).map(|_| OnceLock::new()).collect())
                        [column]
                }
            };
            cell.set(Segment { start, bytes }).expect("one writer sets each cell once");
            self.published_bytes += length;
            self.segments += 1;
        }
        let word = pack(self.published_bytes, self.segments, state);
        self.target.published.store(word, Ordering::Release);
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        if !self.is_over {
            self.publish(BodyState::Aborted);
        }
    }
}

/// As [`BodyWriter::take_watchers`], for after the end, when there is no writer any more.
pub fn take_watchers(body: &Body) -> u64 {
    match &body.0 {
        Bytes::Segments(segments) => segments.watchers.swap(0, Ordering::AcqRel),
        Bytes::File(_) => 0,
    }
}

/// Row and column of a segment behind the first.
fn cell_of(number: usize) -> Option<(usize, usize)> {
    let mut column = number.checked_sub(1)?;
    for (row, cells) in ROWS.iter().enumerate() {
        if column < *cells {
            return Some((row, column));
        }
        column -= cells;
    }
    unreachable!("flush and SEGMENT_BYTES keep a body of BODY_BYTES_MAX below SEGMENTS_MAX")
}

/// Bits 0–1 state, 2–17 count of segments, 18–63 length.
const fn pack(bytes: u64, segments: usize, state: BodyState) -> u64 {
    bytes << 18 | (segments as u64) << 2 | state as u64
}

const fn unpack(word: u64) -> (u64, usize, BodyState) {
    let state = match word & 3 {
        0 => BodyState::Filling,
        1 => BodyState::Complete,
        _ => BodyState::Aborted,
    };
    (word >> 18, (word >> 2 & 0xffff) as usize, state)
}

/// An offset inside a segment.
fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("a segment is at most SEGMENT_BYTES long")
}

/// Largest segment. A length known to be shorter gets a segment of just its size.
pub const SEGMENT_BYTES: usize = 64 * 1024;
/// Longest body there is room for. Longer than any stored object: a fill that outgrows the store's cap is withdrawn
/// from it, and may still run on for readers that had joined.
pub const BODY_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// A flush publishes at least one part in so many of what is published.
const FLUSH_SHARE: u64 = 32;
/// Segments behind the first, allocated row by row as the body grows.
const ROWS: [usize; 4] = [8, 32, 128, 1024];
const SEGMENTS_MAX: usize = 1 + ROWS[0] + ROWS[1] + ROWS[2] + ROWS[3];

/// Full segments, and the flushed ones in between: each makes the body longer by more than 1/32 until a flush needs a full
/// segment anyway, and 1.03125^570 is more than 32 MiB.
const _: () = assert!(BODY_BYTES_MAX as usize / SEGMENT_BYTES + 570 < SEGMENTS_MAX);
const _: () = assert!(SEGMENTS_MAX < 1 << 16 && BODY_BYTES_MAX < 1 << 46);

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
