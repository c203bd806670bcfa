//! A browser: it keeps cookies, sends what browsers say of where a request comes from, and runs nothing.

use core::time::Duration;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 12;

/// What a browser got.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) url: String,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Page {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(said, _)| said == name).map(|(_, value)| value.as_str())
    }

    /// Where it leads, if it does.
    pub(super) fn leads_to(&self) -> Option<String> {
        let to = self.header("location").filter(|_| (300..400).contains(&self.status))?;
        Some(if to.starts_with('/') { format!("{}{to}", origin(&self.url)) } else { to.to_owned() })
    }

    /// The value of a hidden field.
    pub(super) fn hidden(&self, name: &str) -> String {
        self.between(&format!("name=\"{name}\" value=\""), "\"")
    }

    pub(super) fn between(&self, before: &str, after: &str) -> String {
        let rest = self.body.split_once(before).unwrap_or_else(|| panic!("no {before} in {self:?}")).1;
        rest.split_once(after).unwrap().0.to_owned()
    }
}

/// A browser.
#[derive(Default, Clone)]
pub(super) struct Browser {
    /// Cookies by host and name.
    jar: BTreeMap<(String, String), String>,
}

pub(super) fn origin(url: &str) -> &str {
    let end = url.match_indices('/').nth(2).map_or(url.len(), |(at, _)| at);
    &url[..end]
}

fn host(url: &str) -> &str {
    origin(url).strip_prefix("http://").unwrap()
}

impl Browser {
    pub(super) fn cookie(&self, url: &str, name: &str) -> Option<&String> {
        self.jar.get(&(host(url).to_owned(), name.to_owned()))
    }

    pub(super) fn set_cookie(&mut self, url: &str, name: &str, value: &str) {
        self.jar.insert((host(url).to_owned(), name.to_owned()), value.to_owned());
    }

    /// Sends one request, and follows nothing.
    pub(super) fn send(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Page {
        let host = host(url).to_owned();
        let cookies: Vec<String> = self
            .jar
            .iter()
            .filter(|((at, _), _)| *at == host)
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        let path = url.strip_prefix(origin(url)).filter(|path| !path.is_empty()).unwrap_or("/");
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        if !cookies.is_empty() {
            request.push_str(&format!("Cookie: {}\r\n", cookies.join("; ")));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        let mut stream = TcpStream::connect(&host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let page = parse(url, &answer);
        for (name, value) in &page.headers {
            if name == "set-cookie" {
                self.keep(&host, value);
            }
        }
        page
    }

    fn keep(&mut self, host: &str, cookie: &str) {
        let (pair, attributes) = cookie.split_once(';').unwrap_or((cookie, ""));
        let (name, value) = pair.split_once('=').unwrap();
        let key = (host.to_owned(), name.to_owned());
        let is_over = value.is_empty() || attributes.to_lowercase().contains("max-age=0");
        if is_over {
            self.jar.remove(&key)
        } else {
            self.jar.insert(key, value.to_owned())
        };
    }

    /// Opens an address, as somebody does who follows a link, and goes where it leads.
    pub(super) fn open(&mut self, url: &str) -> Page {
        let page = self.send("GET", url, &[("Sec-Fetch-Site", "none")], "");
        self.follow(page)
    }

    pub(super) fn follow(&mut self, mut page: Page) -> Page {
        for _ in 0..MAX_REDIRECTS {
            match page.leads_to() {
                None => return page,
                Some(to) => page = self.send("GET", &to, &[("Sec-Fetch-Site", "cross-site")], ""),
            }
        }
        panic!("it leads on and on: {page:?}")
    }

    /// Opens an address, and goes on until the provider sends it back to `to`, which is not opened.
    pub(super) fn open_until(&mut self, url: &str, to: &str) -> String {
        let mut page = self.send("GET", url, &[("Sec-Fetch-Site", "none")], "");
        for _ in 0..MAX_REDIRECTS {
            let next = page.leads_to().unwrap_or_else(|| panic!("{page:?}"));
            if next.starts_with(to) {
                return next;
            }
            page = self.send("GET", &next, &[("Sec-Fetch-Site", "cross-site")], "");
        }
        panic!("it leads on and on: {page:?}")
    }

    /// Sends a form of a page, and follows nothing.
    pub(super) fn submit(&mut self, url: &str, fields: &[(&str, &str)]) -> Page {
        let from = origin(url).to_owned();
        self.submit_from(&[("Sec-Fetch-Site", "same-origin"), ("Origin", &from)], url, fields)
    }

    /// Sends a form with what a browser would say of where it comes from.
    pub(super) fn submit_from(
        &mut self,
        headers: &[(&str, &str)],
        url: &str,
        fields: &[(&str, &str)],
    ) -> Page {
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        let mut all = vec![("Content-Type", "application/x-www-form-urlencoded")];
        all.extend_from_slice(headers);
        self.send("POST", url, &all, &pairs.join("&"))
    }
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn parse(url: &str, answer: &[u8]) -> Page {
    let end = answer.windows(4).position(|end| end == b"\r\n\r\n").expect("a head");
    let head = core::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let is_chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = &answer[end + 4..];
    let body = if is_chunked { unchunked(body) } else { body.to_vec() };
    Page { status, url: url.to_owned(), headers, body: String::from_utf8(body).unwrap() }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|end| end == b"\r\n").unwrap();
        let size = usize::from_str_radix(core::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
}
