//! What goes wrong between the command line and an agent.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;

use serde_json::Value;

use crate::program::{asking, pairway, run};

/// Exit status and error code with `-o json`, after checking what people get for the same.
fn failure(socket: &Path, arguments: &[&str]) -> (i32, String) {
    let people = run(&mut asking(socket, arguments));
    assert_eq!(people.out, "", "results alone go to standard output");
    assert!(people.err.starts_with("pairway: ") && people.err.contains("\nhint: "), "{}", people.err);
    let programs = run(&mut asking(socket, &[arguments, &["-o", "json"]].concat()));
    assert_eq!((programs.code, programs.err.as_str()), (people.code, ""));
    let reply = programs.json();
    let Some(Value::Object(error)) = reply.get("error") else { panic!("{reply}") };
    assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "message", "hint"]);
    let message = error["message"].as_str().expect("text");
    assert!(people.err.starts_with(&format!("pairway: {message}\n")), "{} and {message}", people.err);
    (programs.code, error["code"].as_str().expect("text").to_owned())
}

/// Listens at a socket and answers every connection with these bytes; ends after `connections` of them.
fn answering(path: &Path, bytes: &'static [u8], connections: usize) -> JoinHandle<()> {
    let listener = UnixListener::bind(path).expect("a socket");
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().expect("a caller");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(bytes);
        }
    })
}

#[test]
fn no_socket_a_left_over_socket_and_a_file_that_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("api.sock");
    assert_eq!(failure(&path, &["status"]), (3, "not-reached".to_owned()));
    drop(UnixListener::bind(&path).expect("a socket"));
    assert_eq!(failure(&path, &["pairs"]), (3, "not-reached".to_owned()));
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("a file");
    assert_eq!(failure(&file, &["routes"]), (3, "not-reached".to_owned()));
}

#[test]
fn the_flag_comes_before_the_environment() {
    let ended =
        run(&mut asking(Path::new("/nowhere/of-environment"), &["status", "--socket", "/nowhere/of-flag"]));
    assert_eq!(ended.code, 3);
    assert!(ended.err.contains("/nowhere/of-flag") && !ended.err.contains("environment"), "{}", ended.err);
}

#[test]
fn an_agent_that_hangs() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("api.sock");
    // Connections wait in the backlog: nobody accepts them.
    let _listener = UnixListener::bind(&path).expect("a socket");
    assert_eq!(failure(&path, &["--timeout", "1", "status"]), (3, "timeout".to_owned()));
}

#[test]
fn something_that_is_no_agent() {
    let answers: [&[u8]; 8] = [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xfe\xfd\xfc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{\"node\":",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found",
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    ];
    for answer in answers {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("api.sock");
        let server = answering(&path, answer, 2);
        assert_eq!(failure(&path, &["status"]), (3, "bad-reply".to_owned()), "{answer:?}");
        server.join().expect("the server ends");
    }
}

#[test]
fn a_wrong_command_line() {
    let wrong: [&[&str]; 11] = [
        &[],
        &["--nonsense"],
        &["state"],
        &["bgp"],
        &["pairs", "--path", "carrier-pigeon"],
        &["pairs", "stray"],
        &["node", "delete"],
        &["blocks", "claim", "10.244.0.0/99"],
        &["status", "--timeout", "0"],
        &["status", "--timeout", "-1"],
        &["status", "-o", "yaml"],
    ];
    for arguments in wrong {
        let ended = run(&mut pairway(arguments));
        assert_eq!((ended.code, ended.out.as_str()), (2, ""), "{arguments:?}");
        assert!(ended.err.contains("Usage") || ended.err.contains("--help"), "{arguments:?}: {}", ended.err);
        if arguments.contains(&"-o") {
            continue;
        }
        let ended = run(&mut pairway(&[arguments, &["-o", "json"]].concat()));
        assert_eq!((ended.code, ended.err.as_str()), (2, ""), "{arguments:?}");
        let error = &ended.json()["error"];
        assert_eq!(error["code"], "usage");
        assert!(!error["message"].as_str().expect("text").is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_timeout_out_of_range_is_told_its_range() {
    for timeout in ["-1", "0", "3601"] {
        let ended = run(&mut pairway(&["status", "--timeout", timeout]));
        assert_eq!(ended.code, 2);
        assert!(ended.err.contains(&format!("{timeout} is not in 1..=3600")), "{}", ended.err);
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in
        [&["--help"][..], &["-h"], &["pairs", "--help"], &["--version"], &["--help", "-o", "json"]]
    {
        let ended = run(&mut pairway(arguments));
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{arguments:?}");
        assert!(ended.out.contains("pairway"), "{arguments:?}");
    }
}
