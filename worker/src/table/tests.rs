use flota_proto::{Algorithm, JobId, Kind};

use super::*;

fn table() -> Table {
    let counts = |randomx, ai| BTreeMap::from([(Class::Randomx, randomx), (Class::Ai, ai), (Class::Echo, 0)]);
    Table::new(&counts(1, 2), &counts(1, 0))
}

fn unit() -> UnitId {
    UnitId { job: JobId::generate(), index: 0 }
}

fn task(unit: UnitId, attempt: u64, kind: Kind) -> Task {
    Task {
        unit_id: unit,
        job_id: unit.job,
        attempt,
        kind,
        lease_ms: 15_000,
        timeout_ms: 0,
        failures: 0,
        credential: false,
        own_key_only: false,
        payload: None,
        payload_by_reference: true,
    }
}

fn work(key: Key, kind: Kind) -> Arrival {
    Arrival::Work(Work { task: task(key.0, key.1, kind), payload: None })
}

fn result((unit, attempt): Key) -> Report {
    let output = bytes::Bytes::from_static(b"{}");
    Report::Result(v1::Result { unit_id: unit.to_string(), attempt, output, elapsed_ms: 1, ..v1::Result::default() })
}

/// Offers `key` as RandomX work and starts it.
fn run(table: &mut Table, key: Key, now: Instant) -> Start {
    table.offer(key, Class::Randomx, work(key, Kind::Hash(Algorithm::Randomx)));
    let mut starts = table.start_ready(now);
    assert_eq!(starts.len(), 1);
    starts.remove(0)
}

fn message(table: &mut Table, now: Instant) -> v1::WorkerMessage {
    match table.take(1, now) {
        Take::Message(message) => *message,
        Take::Wait(_) => v1::WorkerMessage::default(),
        Take::End => panic!("the stream has ended"),
    }
}

fn now() -> Instant {
    flota_common::clock::instant()
}

#[test]
fn what_finds_no_slot_waits_and_starts_when_one_is_free() {
    let (mut table, now, first, second) = (table(), now(), (unit(), 1), (unit(), 1));
    table.open(1);
    run(&mut table, first, now);
    table.offer(second, Class::Randomx, work(second, Kind::Hash(Algorithm::Randomx)));
    assert!(table.start_ready(now).is_empty());
    let accepted = message(&mut table, now).accepted;
    let of = |key: Key, started| v1::Accepted { unit_id: key.0.to_string(), attempt: key.1, started };
    assert_eq!(accepted, [of(first, true), of(second, false)]);

    table.end(first, Class::Randomx, Some(result(first)), false);
    assert_eq!(table.start_ready(now).len(), 1);
    let next = message(&mut table, now);
    assert_eq!((next.accepted, next.results.len()), (vec![of(second, true)], 1));
}

#[test]
fn a_doubled_attempt_runs_once_and_an_older_one_is_ignored() {
    let (mut table, now, unit) = (table(), now(), unit());
    let start = run(&mut table, (unit, 2), now);
    for attempt in [2, 1] {
        table.offer((unit, attempt), Class::Randomx, work((unit, attempt), Kind::Hash(Algorithm::Randomx)));
    }
    assert!(table.start_ready(now).is_empty() && !start.cancel.is_cancelled());
    table.end((unit, 2), Class::Randomx, Some(result((unit, 2))), false);
    table.offer((unit, 2), Class::Randomx, work((unit, 2), Kind::Hash(Algorithm::Randomx)));
    table.acknowledge((unit, 2), v1::Outcome::Applied);
    table.offer((unit, 2), Class::Randomx, work((unit, 2), Kind::Hash(Algorithm::Randomx)));
    assert!(table.start_ready(now).is_empty(), "an acknowledged attempt is not computed again");
}

#[test]
fn a_newer_attempt_replaces_the_older_whose_report_is_dropped() {
    let (mut table, now, unit) = (table(), now(), unit());
    table.open(1);
    let older = run(&mut table, (unit, 1), now);
    table.offer((unit, 2), Class::Randomx, work((unit, 2), Kind::Hash(Algorithm::Randomx)));
    assert!(older.cancel.is_cancelled());
    assert!(table.start_ready(now).is_empty(), "the slot is free only when the older has ended");
    table.end((unit, 1), Class::Randomx, Some(result((unit, 1))), false);
    assert_eq!(table.start_ready(now).len(), 1);
    let sent = message(&mut table, now);
    assert!(sent.results.is_empty() && sent.accepted.iter().all(|accepted| accepted.attempt == 2), "{sent:?}");
}

#[test]
fn a_report_is_repeated_on_each_stream_until_it_is_acknowledged() {
    let (mut table, now, key) = (table(), now(), (unit(), 1));
    table.open(1);
    run(&mut table, key, now);
    table.end(key, Class::Randomx, Some(result(key)), false);
    assert_eq!(message(&mut table, now).results.len(), 1);
    assert_eq!(message(&mut table, now), v1::WorkerMessage::default());
    assert_eq!(table.finished(), [v1::Attempt::of(key.0, 1)]);

    table.close(1);
    table.open(2);
    assert!(matches!(table.take(1, now), Take::End), "an older stream gets nothing more");
    let Take::Message(again) = table.take(2, now) else { panic!("nothing is repeated") };
    assert_eq!(again.results.len(), 1);
    table.acknowledge(key, v1::Outcome::Applied);
    table.open(3);
    assert!(matches!(table.take(3, now), Take::Wait(None)));
    assert!(table.is_settled());
}

#[test]
fn an_acceptance_is_left_out_when_the_result_is_there() {
    let (mut table, now, key) = (table(), now(), (unit(), 1));
    run(&mut table, key, now);
    table.end(key, Class::Randomx, Some(result(key)), false);
    table.open(1);
    let sent = message(&mut table, now);
    assert_eq!((sent.accepted.len(), sent.results.len()), (0, 1));
}

#[test]
fn cancelling_stops_what_runs_and_drops_what_waits_and_what_is_yet_to_come() {
    let (mut table, now) = (table(), now());
    let (running, waiting, coming) = ((unit(), 1), (unit(), 1), (unit(), 3));
    let start = run(&mut table, running, now);
    table.offer(waiting, Class::Randomx, work(waiting, Kind::Hash(Algorithm::Randomx)));
    for key in [running, waiting, coming] {
        table.cancel(key);
    }
    assert!(start.cancel.is_cancelled());
    table.end(running, Class::Randomx, Some(result(running)), false);
    table.offer(coming, Class::Randomx, work(coming, Kind::Hash(Algorithm::Randomx)));
    assert!(table.start_ready(now).is_empty() && table.held.is_empty());
    table.open(1);
    assert_eq!(message(&mut table, now), v1::WorkerMessage::default());
}

#[test]
fn a_stale_acknowledgement_stops_what_still_runs() {
    let (mut table, key) = (table(), (unit(), 1));
    let start = run(&mut table, key, now());
    table.acknowledge(key, v1::Outcome::Stale);
    assert!(start.cancel.is_cancelled());
}

#[test]
fn only_what_has_not_started_is_given_back_on_request() {
    let (mut table, now) = (table(), now());
    let (running, waiting, unknown) = ((unit(), 1), (unit(), 1), (unit(), 1));
    table.open(1);
    run(&mut table, running, now);
    table.offer(waiting, Class::Randomx, work(waiting, Kind::Hash(Algorithm::Randomx)));
    for key in [running, waiting, unknown] {
        table.take_back(key);
    }
    let returned = message(&mut table, now).returned;
    assert_eq!(returned, [waiting, unknown].map(|(unit, attempt)| v1::Attempt::of(unit, attempt)));
    assert!(table.runs(running));
}

#[test]
fn a_class_that_is_held_back_is_given_back_and_refused_alone() {
    let (mut table, now) = (table(), now());
    let [hash, chat, late, again] = [(); 4].map(|()| (unit(), 1));
    let started = run(&mut table, hash, now);
    table.offer(chat, Class::Ai, work(chat, Kind::AiChat));
    table.start_ready(now);
    table.hold_back(Class::Randomx, true);
    table.offer(late, Class::Randomx, work(late, Kind::Hash(Algorithm::Randomx)));
    assert!(started.cancel.is_cancelled() && !table.runs(hash) && table.runs(chat));
    table.end(hash, Class::Randomx, None, false);
    assert!(table.start_ready(now).is_empty(), "what came late was not taken");
    table.hold_back(Class::Randomx, false);
    run(&mut table, again, now);
    assert!(table.runs(again));
}

#[test]
fn a_drain_gives_back_what_waits_and_a_pause_also_what_runs() {
    let (mut table, now) = (table(), now());
    let (running, waiting, late) = ((unit(), 1), (unit(), 1), (unit(), 1));
    table.open(1);
    let start = run(&mut table, running, now);
    table.offer(waiting, Class::Randomx, work(waiting, Kind::Hash(Algorithm::Randomx)));
    table.set_mode(Mode { drain: true, ..Mode::default() });
    table.offer(late, Class::Randomx, work(late, Kind::Hash(Algorithm::Randomx)));
    assert_eq!(message(&mut table, now).returned.len(), 2);
    assert_eq!((table.status().0, start.cancel.is_cancelled()), (WorkerState::Draining, false));

    table.set_mode(Mode { paused: true, ..Mode::default() });
    assert_eq!(message(&mut table, now).returned, [v1::Attempt::of(running.0, 1)]);
    assert_eq!((table.status().0, start.cancel.is_cancelled()), (WorkerState::Paused, true));

    table.end(running, Class::Randomx, None, false);
    table.set_mode(Mode::default());
    run(&mut table, (unit(), 1), now);
    assert_eq!(table.status().0, WorkerState::Busy);
}

#[test]
fn a_heartbeat_lists_what_waits_and_what_is_alive() {
    let (mut table, now) = (table(), now());
    let (running, waiting) = ((unit(), 1), (unit(), 1));
    let start = run(&mut table, running, now);
    table.offer(waiting, Class::Randomx, work(waiting, Kind::Hash(Algorithm::Randomx)));
    assert_eq!(table.alive(now).len(), 2);
    let later = now + ALIVE_WITHIN + Duration::from_secs(1);
    assert_eq!(table.alive(later), [v1::Attempt::of(waiting.0, 1)]);
    start.sign.give(later - Duration::from_secs(1));
    assert_eq!(table.alive(later).len(), 2);
    assert_eq!(table.unfinished().len(), 2);
}

#[test]
fn winning_nonces_go_out_with_the_next_progress_and_only_once() {
    let (mut table, now, key) = (table(), now(), (unit(), 1));
    table.open(1);
    run(&mut table, key, now);
    let found = |nonce| flota_proto::kinds::Found { nonce, hash: flota_proto::HexBytes(vec![7; 32]) };
    table.found(key, vec![found(1)]);
    table.found(key, vec![found(2)]);
    table.progress(key, 0.5, String::new());
    let checkpoint = message(&mut table, now).progress[0].checkpoint.clone().unwrap_or_default();
    let told: Vec<flota_proto::kinds::Found> = serde_json::from_slice(&checkpoint).unwrap();
    assert_eq!(told, [found(1), found(2)]);
    table.progress(key, 0.6, String::new());
    let later = now + Duration::from_secs(1);
    assert_eq!(message(&mut table, later).progress[0].checkpoint, None);
}

#[test]
fn progress_goes_out_at_most_four_times_a_second_and_the_last_one_is_not_lost() {
    let (mut table, now, key) = (table(), now(), (unit(), 1));
    table.open(1);
    run(&mut table, key, now);
    let mut sent = Vec::new();
    for ms in 0..1_000 {
        let at = now + Duration::from_millis(ms);
        if ms < 900 {
            table.progress(key, ms as f64 / 1_000.0, String::new());
        }
        sent.extend(message(&mut table, at).progress.into_iter().map(|progress| (ms, progress.fraction)));
    }
    assert_eq!(sent, [(0, 0.0), (250, 0.25), (500, 0.5), (750, 0.75)]);
    let Take::Wait(Some(due)) = table.take(1, now + Duration::from_millis(999)) else { panic!("one is waiting") };
    assert_eq!(due, now + Duration::from_millis(1_000));
    assert_eq!(message(&mut table, due).progress[0].fraction, 0.899);
}

#[test]
fn the_first_text_goes_out_at_once_and_what_follows_is_put_together() {
    let (mut table, now, key) = (table(), now(), (unit(), 1));
    let at = |ms| now + Duration::from_millis(ms);
    table.open(1);
    run(&mut table, key, now);
    table.delta(key, "a");
    let first = message(&mut table, at(5)).deltas;
    assert_eq!((first[0].seq, first[0].text.as_str()), (0, "a"));
    table.delta(key, "b");
    assert!(matches!(table.take(1, at(10)), Take::Wait(Some(due)) if due == at(38)));
    table.delta(key, "ä");
    let second = message(&mut table, at(38)).deltas;
    assert_eq!((second[0].seq, second[0].text.as_str()), (1, "bä"));
    table.delta(key, "c");
    table.end(key, Class::Randomx, Some(result(key)), false);
    let last = message(&mut table, at(39));
    assert_eq!((last.deltas[0].seq, last.deltas[0].text.as_str(), last.results.len()), (2, "c", 1));
}

#[test]
fn no_message_is_larger_than_it_may_be_and_nothing_is_left_behind() {
    use prost::Message;

    let (mut table, now) = (table(), now());
    table.open(1);
    for index in 0..40 {
        let key = (UnitId { job: JobId::generate(), index }, 1);
        let output = bytes::Bytes::from(vec![b'0'; 100_000]);
        let report = v1::Result { unit_id: key.0.to_string(), attempt: 1, output, ..v1::Result::default() };
        table.offer(key, Class::Echo, Arrival::Done(Report::Result(report)));
    }
    let long = (unit(), 1);
    run(&mut table, long, now);
    table.delta(long, &"ä".repeat(400_000));
    table.end(long, Class::Randomx, Some(result(long)), false);
    let (mut results, mut text, mut messages) = (0, String::new(), 0);
    while let Take::Message(message) = table.take(1, now) {
        assert!(message.encoded_len() <= flota_proto::GRPC_MESSAGE_BYTES_MAX);
        results += message.results.len();
        message.deltas.iter().for_each(|delta| text.push_str(&delta.text));
        messages += 1;
    }
    assert_eq!((results, text), (41, "ä".repeat(400_000)));
    assert!((5..=8).contains(&messages), "{messages}");
}

#[test]
fn a_result_too_large_for_a_message_goes_in_parts_and_anew_on_a_new_stream() {
    use prost::Message;

    let (mut table, now) = (table(), now());
    table.open(1);
    let output: bytes::Bytes = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
    let keys = [(unit(), 1), (unit(), 1)];
    for key in keys {
        let report =
            v1::Result { unit_id: key.0.to_string(), attempt: 1, output: output.clone(), ..v1::Result::default() };
        table.offer(key, Class::Echo, Arrival::Done(Report::Result(report)));
    }
    let small = (unit(), 1);
    table.offer(small, Class::Echo, Arrival::Done(result(small)));
    assert!(!message(&mut table, now).result_parts.is_empty());
    let beat: Vec<_> = table.alive(now);
    assert_eq!(beat.len(), 3, "their leases go on although their reports wait");

    table.close(1);
    assert!(table.alive(now).is_empty());
    table.open(2);
    let (mut outputs, mut begun) = (Vec::new(), (String::new(), Vec::new()));
    while let Take::Message(message) = table.take(2, now) {
        assert!(message.encoded_len() <= flota_proto::GRPC_MESSAGE_BYTES_MAX);
        assert!(message.result_parts.len() <= 1);
        for part in message.result_parts {
            assert_eq!(part.output_from, if part.unit_id == begun.0 { begun.1.len() as u64 } else { 0 });
            if part.output_from == 0 {
                begun = (part.unit_id, Vec::new());
            }
            begun.1.extend_from_slice(&part.output);
        }
        for result in message.results {
            assert_eq!(result.output_from, if result.unit_id == begun.0 { begun.1.len() as u64 } else { 0 });
            let before = if result.output_from > 0 { std::mem::take(&mut begun.1) } else { Vec::new() };
            outputs.push([&before[..], &result.output[..]].concat());
        }
    }
    outputs.sort_by_key(Vec::len);
    assert_eq!(outputs, [&b"{}"[..], &output[..], &output[..]]);
    assert!(table.alive(now).is_empty(), "what was sent and is not acknowledged is no heartbeat's");
}

#[test]
fn a_large_result_for_which_the_master_has_no_room_is_kept_and_sent_again_after_a_while() {
    let (mut table, now) = (table(), now());
    table.open(1);
    let (large, small) = ((unit(), 1), (unit(), 1));
    let output: bytes::Bytes = vec![7; 2_000_000].into();
    let report =
        v1::Result { unit_id: large.0.to_string(), attempt: 1, output: output.clone(), ..v1::Result::default() };
    table.offer(large, Class::Echo, Arrival::Done(Report::Result(report)));
    assert_eq!(message(&mut table, now).result_parts[0].output_bytes, 2_000_000);
    table.send_again(large, now);
    table.send_again((unit(), 1), now);
    table.offer(small, Class::Echo, Arrival::Done(result(small)));
    let sent = message(&mut table, now);
    assert_eq!((sent.results.len(), sent.result_parts.len()), (1, 0), "others pass it");
    let again = match table.take(1, now) {
        Take::Wait(Some(at)) => at,
        _ => panic!("it waits"),
    };
    table.end_stream();
    assert!(matches!(table.take(1, now), Take::Wait(Some(_))), "a stream that is to end waits for it");
    assert_eq!(table.alive(now), [v1::Attempt::of(large.0, 1)], "its lease goes on");
    let (mut bytes, mut whole) = (0, false);
    while let Take::Message(message) = table.take(1, again) {
        for part in message.result_parts {
            assert_eq!(part.output_from as usize, bytes);
            bytes += part.output.len();
        }
        for result in message.results {
            whole = result.output_from as usize == bytes && bytes + result.output.len() == output.len();
        }
    }
    assert!(whole);
    assert!(matches!(table.take(1, again), Take::End));
}

#[test]
fn the_last_text_goes_out_again_on_a_new_stream_and_is_marked() {
    let (mut table, now, key) = (table(), now(), (unit(), 1));
    let at = |ms| now + Duration::from_millis(ms);
    table.open(1);
    run(&mut table, key, now);
    for (ms, text) in [(0, "a"), (40, "b"), (80, "c")] {
        table.delta(key, text);
        assert_eq!(message(&mut table, at(ms)).deltas.len(), 1);
    }
    table.close(1);
    table.delta(key, "d");
    table.open(2);
    let Take::Message(message) = table.take(2, at(120)) else { panic!("text is due") };
    let sent: Vec<_> = message.deltas.iter().map(|delta| (delta.seq, delta.text.as_str(), delta.again)).collect();
    assert_eq!(sent, [(0, "a", true), (1, "b", true), (2, "c", true), (3, "d", false)]);

    table.close(2);
    for n in 1..=3 {
        table.delta(key, &"x".repeat(50_000));
        table.open(3);
        while let Take::Message(_) = table.take(3, at(n * 1_000)) {}
    }
    table.open(4);
    table.end(key, Class::Randomx, Some(result(key)), false);
    let Take::Message(message) = table.take(4, at(20_000)) else { panic!("text is due") };
    let sent: Vec<_> = message.deltas.iter().map(|delta| (delta.text.len(), delta.again)).collect();
    assert_eq!((sent, message.results.len()), (vec![(50_000, true)], 1), "what is kept of it is bounded");
}

#[test]
fn the_queue_and_the_unacknowledged_are_bounded() {
    let (mut table, now) = (table(), now());
    table.open(1);
    for _ in 0..10 {
        let key = (unit(), 1);
        table.offer(key, Class::Randomx, work(key, Kind::Hash(Algorithm::Randomx)));
    }
    assert_eq!(message(&mut table, now).returned.len(), 10 - 4);
    for _ in 0..FINISHED_MAX + 5 {
        let key = (unit(), 1);
        table.offer(key, Class::Echo, Arrival::Done(result(key)));
    }
    assert_eq!((table.finished, table.out.returned.len()), (FINISHED_MAX, 5));
}

#[test]
fn of_restored_reports_of_one_unit_the_newest_attempt_stays() {
    let (mut table, unit) = (table(), unit());
    for attempt in [2, 1, 3] {
        table.restore((unit, attempt), result((unit, attempt)));
    }
    assert_eq!(table.finished(), [v1::Attempt::of(unit, 3)]);
    assert_eq!(table.take_unspool(), [(unit, 1), (unit, 2)]);
    table.acknowledge((unit, 3), v1::Outcome::Stale);
    assert_eq!(table.take_unspool(), [(unit, 3)]);
    assert!(table.unspooled().is_empty());
}

#[test]
fn only_what_is_due_sooner_than_the_rest_wakes_whoever_waits() {
    let (mut table, now, keys) = (table(), now(), [(unit(), 1), (unit(), 1)]);
    let at = |ms| now + Duration::from_millis(ms);
    let texts = |message: v1::WorkerMessage| message.deltas.into_iter().map(|delta| delta.text).collect::<Vec<_>>();
    table.open(1);
    for key in keys {
        table.offer(key, Class::Ai, work(key, Kind::AiChat));
    }
    assert_eq!(table.start_ready(now).len(), 2);
    assert!(table.delta(keys[0], "a"));
    assert_eq!(texts(message(&mut table, now)), ["a"]);
    assert!(table.delta(keys[0], "b"), "nothing else waits");
    assert!(!table.delta(keys[0], "c"), "its time is known");
    assert!(table.delta(keys[1], "d"), "due at once");
    assert_eq!(texts(message(&mut table, at(1))), ["d"]);
    assert!(!table.delta(keys[1], "e"), "due after the other");
    assert!(matches!(table.take(1, at(2)), Take::Wait(Some(due)) if due == at(33)));
    assert_eq!(texts(message(&mut table, at(33))), ["bc"]);
    assert_eq!(texts(message(&mut table, at(34))), ["e"]);
    assert!(matches!(table.take(1, at(35)), Take::Wait(None)));
}

#[test]
fn what_an_attempt_showed_that_is_over_is_not_sent_with_the_next() {
    let (mut table, now, unit) = (table(), now(), unit());
    let at = |ms| now + Duration::from_millis(ms);
    table.open(1);
    run(&mut table, (unit, 1), now);
    table.delta((unit, 1), "a");
    message(&mut table, now);
    table.delta((unit, 1), "old");
    table.cancel((unit, 1));
    table.end((unit, 1), Class::Randomx, None, false);
    run(&mut table, (unit, 2), at(10));
    table.delta((unit, 2), "new");
    let [delta] = &message(&mut table, at(10)).deltas[..] else { panic!("one is due") };
    assert_eq!((delta.attempt, delta.seq, delta.text.as_str()), (2, 0, "new"));
    table.delta((unit, 2), "er");
    assert!(message(&mut table, at(33)).deltas.is_empty(), "the time of the one before");
    assert_eq!(message(&mut table, at(43)).deltas[0].text, "er");
}
