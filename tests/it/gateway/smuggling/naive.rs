//! The control: a proxy that believes `Content-Length`, and nothing else, and passes everything on as it came.

use core::net::SocketAddr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

/// Begins one in front of this address. What has `hidden` in its path it refuses, as the others do.
pub(super) fn naive(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            std::thread::spawn(move || pass(&client, &TcpStream::connect(server).unwrap()));
        }
    });
    at
}

fn pass(client: &TcpStream, server: &TcpStream) {
    let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let answers = std::thread::spawn(move || {
        let _gone = std::io::copy(&mut from_server, &mut to_client);
        let _gone = to_client.shutdown(Shutdown::Both);
    });
    let (mut reader, mut to_server) = (BufReader::new(client), server);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && reader.read_until(b'\n', &mut head).is_ok_and(|read| read > 0) {
        }
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = text.lines().rev().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; usize::min(length.unwrap_or(0), 1 << 20)];
        let is_whole = head.ends_with(b"\r\n\r\n") && reader.read_exact(&mut body).is_ok();
        let is_hidden = text.lines().next().is_some_and(|line| line.contains("hidden"));
        if !is_whole || is_hidden || to_server.write_all(&[head, body].concat()).is_err() {
            break;
        }
    }
    let _gone = server.shutdown(Shutdown::Write);
    let _ended = answers.join();
}
