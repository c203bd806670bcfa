//! One request in, one request out, whatever is written around it.

use super::World;
use crate::resource::send;

#[test]
fn no_request_hides_in_another() {
    let world = World::start();
    let (outer, inner) = (world.token("search"), world.token("search"));
    let hidden = format!(
        "POST /saas/v1/search/hidden HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {inner}\r\nContent-Length: 0\r\n\r\n"
    );
    let length = hidden.len();
    for lines in [
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n".to_owned(),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n"),
        format!("Content-Length: {length}, 0\r\n"),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n".to_owned(),
        "X: y\r\n Transfer-Encoding: chunked\r\n".to_owned(),
        "X: y\nContent-Length: 0\r\n".to_owned(),
        "Content-Length: +0\r\n".to_owned(),
    ] {
        let front = format!(
            "POST /saas/v1/search/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {outer}\r\n{lines}\r\n"
        );
        for body in ["", "0\r\n\r\n"] {
            let answer = send(world.at(), format!("{front}{body}{hidden}"));
            assert_eq!((answer.status, world.count()), (400, 0), "{lines:?} {body:?}: {}", world.log());
        }
    }
    let chunked = format!(
        "POST /saas/v1/search/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {outer}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{hidden}"
    );
    assert_eq!(send(world.at(), chunked).status, 200);
    assert_eq!(world.count(), 1, "after chunks the connection is over");
    assert_eq!(
        send(world.at(), hidden.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).status,
        200,
        "the control"
    );
    assert_eq!(world.count(), 2);
}
