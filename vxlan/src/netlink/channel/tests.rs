use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::netlink::{link, nexthop, observe, route};
use crate::state::{Gateway, NexthopId};

/// A message with its header.
fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_message(&mut bytes, kind, flags, sequence, body);
    bytes
}

/// An `NLMSG_ERROR` for a request, with a text if there is one.
fn error(sequence: u32, errno: i32, text: Option<&str>) -> Vec<u8> {
    let mut body = (-errno).to_ne_bytes().to_vec();
    body.extend([0; HEADER]);
    let mut flags = NLM_F_CAPPED;
    if let Some(text) = text {
        flags |= NLM_F_ACK_TLVS;
        crate::netlink::attributes::put(&mut body, NLMSGERR_ATTR_MSG, format!("{text}\0").as_bytes());
    }
    message(NLMSG_ERROR, flags, sequence, &body)
}

fn done(sequence: u32, flags: u16, code: i32) -> Vec<u8> {
    message(NLMSG_DONE, flags, sequence, &code.to_ne_bytes())
}

#[test]
fn a_dump_ends_where_the_kernel_says_so_and_with_its_error() {
    let feed = |datagrams: &[Vec<u8>]| {
        let mut dump = Dump { sequence: 5, interrupted: false };
        let ends: Vec<_> = datagrams.iter().map(|d| dump.feed(d).map_err(|e| e.raw_os_error())).collect();
        (ends, dump.interrupted)
    };
    let entry = message(24, 0, 5, &[0; 12]);
    assert_eq!(feed(&[entry.clone(), done(5, 0, 0)]), (vec![Ok(false), Ok(true)], false));
    // The error code of the final message: to most readers an empty list.
    assert_eq!(feed(&[done(5, 0, -libc::ENOENT)]).0, [Err(Some(libc::ENOENT))]);
    assert_eq!(feed(&[error(5, libc::EPERM, None)]).0, [Err(Some(libc::EPERM))]);
    // Interrupted: seen on any message, also on the last.
    assert!(feed(&[message(24, NLM_F_DUMP_INTR, 5, &[0; 12]), done(5, 0, 0)]).1);
    assert!(feed(&[entry, done(5, NLM_F_DUMP_INTR, 0)]).1);
    // The rest of an earlier dump that was given up.
    assert_eq!(feed(&[done(4, NLM_F_DUMP_INTR, -libc::EPERM)]), (vec![Ok(false)], false));
}

#[test]
fn errors_find_their_request_by_sequence_number() {
    let mut answers = Answers::new(100, 4);
    answers.feed(
        &[error(101, libc::EEXIST, None), error(102, libc::EINVAL, Some("Nexthop id does not exist"))]
            .concat(),
    );
    assert!(!answers.complete(), "the last is not answered");
    answers.feed(&error(99, libc::EIO, None));
    answers.feed(&error(104, libc::EIO, None));
    answers.feed(&error(103, 0, None));
    assert!(answers.complete());
    let failed = |errno, message: &str| Err(ApplyError { errno, message: message.to_owned() });
    let expected = [
        Ok(()),
        failed(libc::EEXIST, "File exists"),
        failed(libc::EINVAL, "Nexthop id does not exist"),
        Ok(()),
    ];
    assert_eq!(answers.results(), expected);
}

#[test]
fn a_text_is_found_behind_a_request_that_was_sent_back_whole() {
    let request = message(24, 0, 7, &[1; 9]);
    let mut body = (-libc::EINVAL).to_ne_bytes().to_vec();
    body.extend(&request);
    crate::netlink::attributes::put(&mut body, NLMSGERR_ATTR_MSG, b"Invalid gateway\0");
    let mut answers = Answers::new(7, 1);
    answers.feed(&message(NLMSG_ERROR, NLM_F_ACK_TLVS, 7, &body));
    assert_eq!(answers.results()[0].as_ref().unwrap_err().message, "Invalid gateway");
}

#[test]
fn sequence_numbers_wrap() {
    let mut answers = Answers::new(u32::MAX, 2);
    answers.feed(&error(u32::MAX, libc::ENOENT, None));
    answers.feed(&error(0, 0, None));
    assert!(answers.complete());
    assert_eq!(answers.results().iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn what_is_not_answered_is_an_error() {
    let mut answers = Answers::new(1, 3);
    answers.feed(&error(2, libc::EEXIST, None));
    let results = answers.give_up(&io::Error::from_raw_os_error(libc::ENOBUFS));
    let errors: Vec<_> = results.into_iter().map(|result| result.err().map(|error| error.errno)).collect();
    // The first is done: a later one was answered.
    assert_eq!(errors, [None, Some(libc::EEXIST), Some(libc::ENOBUFS)]);
}

#[test]
fn batches_are_bounded_by_number_and_by_bytes() {
    let small = Request { kind: 24, flags: 0, body: vec![0; 40] };
    assert_eq!(batch_length(&vec![small.clone(); 1000]), BATCH);
    assert_eq!(batch_length(&[small]), 1);
    let large = Request { kind: 24, flags: 0, body: vec![0; 20_000] };
    assert_eq!(batch_length(&vec![large; 10]), 3);
    let huge = Request { kind: 24, flags: 0, body: vec![0; 100_000] };
    assert_eq!(batch_length(&[huge]), 1, "it is the kernel's to refuse");
}

/// On a thread in a network namespace of its own; needs root.
fn in_namespace<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: this test needs root");
        test()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn a_dump_of_a_table_that_is_not_there_is_an_error_and_not_an_empty_list() {
    in_namespace(|| {
        let mut channel = Channel::open().unwrap();
        let mut body = vec![0; route::HEADER];
        body[0] = 2;
        assert!(channel.dump(route::RTM_GETROUTE, &body, |_, _| ()).is_ok(), "all tables");
        crate::netlink::attributes::put(&mut body, 15, &4711u32.to_ne_bytes());
        let error = channel.dump(route::RTM_GETROUTE, &body, |_, _| ()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        // The channel goes on.
        assert!(observe::links(&mut channel).is_ok());
    });
}

#[test]
fn dumps_that_the_kernel_interrupts_are_begun_again() {
    in_namespace(|| {
        let mut channel = Channel::open().unwrap();
        channel.send_all(&[link::set_up(1, true)]).into_iter().collect::<Result<(), _>>().unwrap();
        // Enough objects that a dump takes several reads; every change between two of them interrupts it.
        let gateway =
            |n: u32| Gateway { address: std::net::Ipv4Addr::from(0x7f00_0100 + n).into(), onlink: false };
        let objects: Vec<_> = (1..3000).map(|n| nexthop::add(NexthopId(n), gateway(n), 1, 155)).collect();
        let failed = channel.send_all(&objects).into_iter().find_map(Result::err);
        assert_eq!(failed, None);

        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut other = Channel::open().unwrap();
        let writer = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = other.send_all(&[nexthop::add(NexthopId(9000), gateway(1), 1, 155)]);
                let _ = other.send_all(&[nexthop::delete(NexthopId(9000))]);
            }
        });
        let interrupted = (0..10_000).any(|_| {
            let dumped = channel.try_dump(nexthop::RTM_GETNEXTHOP, &[0; nexthop::HEADER]);
            dumped.is_err_and(|error| error.kind() == ErrorKind::Interrupted)
        });
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        assert!(interrupted, "the kernel never interrupted a dump");
        // Once it is quiet a dump is whole.
        let mut count = 0;
        channel.dump(nexthop::RTM_GETNEXTHOP, &[0; nexthop::HEADER], |_, _| count += 1).unwrap();
        assert_eq!(count, 2999);
    });
}
