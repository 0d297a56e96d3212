//! A body as its readers see it while it fills, ends and breaks off.

use super::*;

fn letters(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

fn read(body: &Body, range: Range<u64>) -> Vec<u8> {
    body.slices(range).flatten().copied().collect()
}

#[test]
fn a_reader_sees_what_was_published_and_nothing_else() {
    let (body, mut writer) = Body::begin(1000, None);
    writer.append(b"hello ").unwrap();
    assert_eq!(body.published(), Published { bytes: 0, state: BodyState::Filling });
    assert_eq!(body.at(0), b"");
    writer.flush();
    assert_eq!(body.at(0), b"hello ");
    assert_eq!(body.at(6), b"");
    writer.append(b"world").unwrap();
    assert_eq!(body.published().bytes, 6);
    assert_eq!(writer.bytes(), 11);
    assert_eq!(writer.complete(), BodyState::Complete);
    assert_eq!(body.published(), Published { bytes: 11, state: BodyState::Complete });
    assert_eq!(body.at(8), b"rld");
    assert_eq!(read(&body, 4..8), b"o wo");
    assert_eq!(read(&body, 4..99), b"o world");
    assert_eq!(read(&body, 11..99), b"");
}

#[test]
fn every_position_is_found_over_many_segments() {
    let all = letters(5 * SEGMENT_BYTES + 77);
    let (body, mut writer) = Body::begin(BODY_BYTES_MAX, None);
    for piece in all.chunks(9973) {
        writer.append(piece).unwrap();
        writer.flush();
    }
    writer.complete();
    for at in (0..all.len()).step_by(331) {
        assert_eq!(body.at(at as u64)[0], all[at], "{at}");
        let end = (at + 100_000).min(all.len());
        assert_eq!(read(&body, at as u64..end as u64), all[at..end], "{at}");
    }
    assert_eq!(read(&body, 0..u64::MAX), all);
}

#[test]
fn the_limit_and_the_expected_length_refuse_whole_appends() {
    let (_, mut writer) = Body::begin(10, None);
    writer.append(&[0; 10]).unwrap();
    assert_eq!(writer.append(&[0]), Err(Full));
    assert_eq!(writer.bytes(), 10);
    let (_, mut writer) = Body::begin(10, Some(3));
    assert_eq!(writer.append(&[0; 4]), Err(Full));
    let (_, mut writer) = Body::begin(u64::MAX, None);
    writer.append(&vec![0; BODY_BYTES_MAX as usize]).unwrap();
    assert_eq!(writer.append(&[0]), Err(Full));
}

#[test]
fn short_or_dropped_is_aborted() {
    let (body, mut writer) = Body::begin(10, Some(3));
    writer.append(&[0; 2]).unwrap();
    assert_eq!(writer.complete(), BodyState::Aborted);
    assert_eq!(body.published(), Published { bytes: 2, state: BodyState::Aborted });
    let (body, writer) = Body::begin(10, None);
    drop(writer);
    assert_eq!(body.published(), Published { bytes: 0, state: BodyState::Aborted });
    assert_eq!(Body::whole(b"").unwrap().published().state, BodyState::Complete);
}

#[test]
fn the_worst_trickle_fits_the_table() {
    let (body, mut writer) = Body::begin(BODY_BYTES_MAX, None);
    // The least that each flush lets through makes the most segments.
    while writer.bytes() < BODY_BYTES_MAX {
        let least = (writer.published_bytes / FLUSH_SHARE + 1).min(SEGMENT_BYTES as u64);
        let piece = vec![1; least.min(BODY_BYTES_MAX - writer.bytes()) as usize];
        writer.append(&piece).unwrap();
        writer.flush();
    }
    assert!(writer.segments > 600 && writer.segments < SEGMENTS_MAX, "{}", writer.segments);
    assert_eq!(writer.complete(), BodyState::Complete);
    assert_eq!(body.published().bytes, BODY_BYTES_MAX);
}

#[test]
fn a_body_in_a_file_is_whole_and_gives_its_place_back() {
    let files = Files::new(1);
    let place = files.take().unwrap();
    assert!(files.take().is_none() && files.live() == 1, "a refused place is not kept");
    let body = Body::in_file(File::open("/dev/null").unwrap(), 7, place);
    assert_eq!(body.published(), Published { bytes: 7, state: BodyState::Complete });
    assert!(body.file().is_some() && body.at(0).is_empty() && body.slices(0..7).next().is_none());
    assert!(body.is_same(&body.clone()) && !body.is_same(&Body::whole(b"").unwrap()));
    body.watch(1);
    assert_eq!(take_watchers(&body), 0);
    drop(body);
    assert!(files.live() == 0 && files.take().is_some());
}

#[test]
fn a_watcher_is_rung_once() {
    let (body, writer) = Body::begin(10, None);
    body.watch(3);
    body.watch(67);
    body.watch(5);
    assert_eq!(writer.take_watchers(), 1 << 3 | 1 << 5);
    assert_eq!(writer.take_watchers(), 0);
    body.watch(0);
    drop(writer);
    assert_eq!(take_watchers(&body), 1);
}

#[test]
fn readers_on_other_threads_see_a_prefix_and_then_the_truth() {
    for (round, ends_well) in [true, false].into_iter().cycle().take(20).enumerate() {
        let all = letters(3 * SEGMENT_BYTES + 1000 * round);
        let (body, mut writer) = Body::begin(BODY_BYTES_MAX, None);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..3)
                .map(|_| (body.clone(), &all))
                .map(|(body, all)| scope.spawn(move || follow(&body, all)))
                .collect();
            for piece in all.chunks(777 + round) {
                writer.append(piece).unwrap();
                writer.flush();
            }
            if ends_well {
                writer.complete();
            } else {
                drop(writer);
            }
            for reader in readers {
                let wanted = if ends_well { BodyState::Complete } else { BodyState::Aborted };
                assert_eq!(reader.join().unwrap(), wanted);
            }
        });
    }
}

/// Reads to the end, checking each byte; the state at the end.
fn follow(body: &Body, all: &[u8]) -> BodyState {
    let mut seen = 0;
    loop {
        let published = body.published();
        while (seen as u64) < published.bytes {
            let bytes = body.at(seen as u64);
            assert!(!bytes.is_empty(), "{seen} lies below {published:?}");
            assert_eq!(bytes, &all[seen..seen + bytes.len()]);
            seen += bytes.len();
        }
        match published.state {
            BodyState::Filling => std::thread::yield_now(),
            state => {
                let now = body.published();
                assert_eq!(now, published, "nothing follows the end");
                assert_eq!(seen as u64, now.bytes);
                assert!(state == BodyState::Aborted || seen == all.len());
                return state;
            }
        }
    }
}
