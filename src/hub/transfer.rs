//! Downloads that go on where they were broken off, with a bounded number of attempts.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, header};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder, Timeout};

use super::{Event, Token};

/// How often a request is made that fails for a reason that may pass. A piece of a file that comes counts as success.
const ATTEMPTS: u32 = 5;
/// A longer wait is left to the user.
const LONGEST_WAIT: u64 = 120;
/// Until a connection is there, and between two pieces of an answer.
const PATIENCE: Duration = Duration::from_secs(60);
const BUFFER: usize = 256 << 10;

/// Why a request was in vain.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server says no.
    Status {
        status: u16,
        /// `X-Error-Code` of the Hub.
        code: String,
        /// `X-Error-Message` of the Hub.
        message: String,
        /// Seconds that the server asks to wait.
        wait: Option<u64>,
    },
    /// There is no answer, or no whole one.
    Network(Box<ureq::Error>),
    /// The answer contradicts the request, or an earlier answer.
    Contradiction {
        what: String,
        /// Whether another attempt may do better.
        may_pass: bool,
    },
    /// What came cannot be kept.
    Disk(PathBuf, io::Error),
}

impl Failure {
    fn of_status(status: u16, headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let seconds = |text: &str| text.trim().parse().ok();
        // The second form is the Hub's: `"api";r=0;t=55`.
        let wait = seconds(text("retry-after")).or_else(|| {
            text("ratelimit").split(';').find_map(|field| field.trim().strip_prefix("t=")).and_then(seconds)
        });
        Self::Status {
            status,
            code: text("x-error-code").to_owned(),
            message: text("x-error-message").to_owned(),
            wait: wait.filter(|_| matches!(status, 429 | 503)),
        }
    }

    /// Whether the same request may succeed a little later.
    fn may_pass(&self, reached: bool) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            // Without a network every attempt fails alike.
            Self::Network(error) => reached || is_broken(error),
            Self::Contradiction { may_pass, .. } => *may_pass,
            Self::Disk(..) => false,
        }
    }

    /// What happened, in a few words.
    fn reason(&self) -> String {
        match self {
            Self::Status { status, .. } => format!("the server answers with status {status}"),
            Self::Network(error) => error.to_string(),
            Self::Contradiction { what, .. } => what.clone(),
            Self::Disk(_, error) => error.to_string(),
        }
    }
}

/// Whether a connection broke, in contrast to one that never was: no network, no such host, nobody who listens there.
fn is_broken(error: &ureq::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    match error {
        ureq::Error::Timeout(phase) => !matches!(phase, Timeout::Resolve | Timeout::Connect),
        ureq::Error::Protocol(_) => true,
        ureq::Error::Io(error) => matches!(
            error.kind(),
            BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof | WouldBlock
        ),
        _ => false,
    }
}

/// Counts attempts, and waits between them.
struct Attempts {
    failed: u32,
    reached: bool,
}

impl Attempts {
    /// Waits, or gives up with the failure.
    fn after(&mut self, failure: Failure, on_event: &mut dyn FnMut(Event)) -> Result<(), Failure> {
        self.failed += 1;
        let wait = match &failure {
            Failure::Status { wait: Some(wait), .. } => *wait,
            _ => 1 << (self.failed - 1).min(6),
        };
        if self.failed >= ATTEMPTS || wait > LONGEST_WAIT || !failure.may_pass(self.reached) {
            return Err(failure);
        }
        on_event(Event::Waiting { reason: &failure.reason(), seconds: wait });
        std::thread::sleep(Duration::from_secs(wait));
        Ok(())
    }
}

/// A file to download.
pub(super) struct Source<'a> {
    /// Its address.
    pub url: &'a str,
    /// Who asks.
    pub token: Option<&'a Token>,
    /// Its bytes, where they are known before.
    pub size: Option<u64>,
    /// File that keeps the version which a part of a file belongs to; not needed where a digest tells.
    pub version: Option<&'a Path>,
}

/// Answers the request, or says why there is no answer.
pub(super) fn ask(
    request: &dyn Fn() -> RequestBuilder<WithoutBody>,
    on_event: &mut dyn FnMut(Event),
) -> Result<Response<Body>, Failure> {
    let mut attempts = Attempts { failed: 0, reached: false };
    loop {
        match send(request()) {
            Ok(response) => return Ok(response),
            Err(failure) => {
                attempts.reached |= matches!(failure, Failure::Status { .. });
                attempts.after(failure, on_event)?;
            }
        }
    }
}

fn send(request: RequestBuilder<WithoutBody>) -> Result<Response<Body>, Failure> {
    let request = request
        .config()
        .http_status_as_error(false)
        // A renamed repository is another path of the same host; the storage that files come from is not to see the token.
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .timeout_resolve(Some(PATIENCE))
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE))
        .build();
    let response = request.call().map_err(|error| Failure::Network(Box::new(error)))?;
    match response.status().as_u16() {
        200..=299 | 416 => Ok(response),
        status => Err(Failure::of_status(status, response.headers())),
    }
}

/// Completes the file `part` from what is there already. Events name it `name`.
pub(super) fn receive(
    agent: &Agent,
    source: &Source,
    part: &Path,
    name: &str,
    on_event: &mut dyn FnMut(Event),
) -> Result<(), Failure> {
    let disk = |cause| Failure::Disk(part.to_owned(), cause);
    let mut file = OpenOptions::new().append(true).create(true).open(part).map_err(disk)?;
    let mut attempts = Attempts { failed: 0, reached: source.size.is_some() };
    loop {
        let before = file.metadata().map_err(disk)?.len();
        if source.size.is_some_and(|size| before > size) {
            file.set_len(0).map_err(disk)?;
            continue;
        }
        if source.size == Some(before) {
            return file.sync_all().map_err(disk);
        }
        let mut on_bytes = |done, total| on_event(Event::Received { file: name, done, total });
        match receive_rest(agent, source, Part { file: &mut file, path: part }, &mut on_bytes) {
            Ok(()) => return file.sync_all().map_err(disk),
            Err(failure) => {
                if file.metadata().map_err(disk)?.len() > before {
                    attempts = Attempts { failed: 0, reached: true };
                }
                attempts.after(failure, on_event)?;
            }
        }
    }
}

/// The file that is being completed.
struct Part<'a> {
    file: &'a mut File,
    path: &'a Path,
}

/// One request for what is missing.
fn receive_rest(
    agent: &Agent,
    source: &Source,
    Part { file, path }: Part,
    on_bytes: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), Failure> {
    let disk = |cause| Failure::Disk(path.to_owned(), cause);
    let mut have = file.metadata().map_err(disk)?.len();
    let response = send(request_for(agent, source, have))?;
    let stated = |name: header::HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
    let range = stated(header::CONTENT_RANGE).map(content_range);
    let total = match (response.status().as_u16(), range) {
        (206, Some((Some(start), total))) if start == have => total,
        (416, Some((_, Some(total)))) if total == have => return Ok(()),
        (206 | 416, _) => {
            file.set_len(0).map_err(disk)?;
            let what = format!("the server does not go on after {have} bytes");
            return Err(Failure::Contradiction { what, may_pass: true });
        }
        _ => {
            if have > 0 {
                file.set_len(0).map_err(disk)?;
            }
            have = 0;
            stated(header::CONTENT_LENGTH).and_then(|length| length.parse().ok())
        }
    };
    if let Some((size, total)) = source.size.zip(total).filter(|(size, total)| size != total) {
        let what = format!("the server has {total} bytes in place of {size}");
        return Err(Failure::Contradiction { what, may_pass: false });
    }
    if let Some(path) = source.version {
        let version = stated(header::ETAG).or_else(|| stated(header::LAST_MODIFIED)).unwrap_or_default();
        std::fs::write(path, version).map_err(|cause| Failure::Disk(path.to_owned(), cause))?;
    }
    on_bytes(have, total);
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::Network(Box::new(ureq::Error::from(error)))),
        };
        file.write_all(&buffer[..count]).map_err(disk)?;
        have += count as u64;
        on_bytes(have, total);
    }
    let total = source.size.or(total);
    if let Some(total) = total.filter(|total| *total != have) {
        let what = format!("the answer ended after {have} of {total} bytes");
        return Err(Failure::Contradiction { what, may_pass: true });
    }
    // Where files cannot be locked, another process may write to this one.
    match file.metadata().map_err(disk)?.len() {
        length if length == have => Ok(()),
        length => {
            file.set_len(0).map_err(disk)?;
            let what = format!("the file has {length} bytes when {have} have come");
            Err(Failure::Contradiction { what, may_pass: true })
        }
    }
}

fn request_for(agent: &Agent, source: &Source, have: u64) -> RequestBuilder<WithoutBody> {
    let mut request = agent.get(source.url).header(header::ACCEPT_ENCODING, "identity");
    if let Some(token) = source.token {
        request = request.header(header::AUTHORIZATION, token.bearer());
    }
    let version = source.version.map(|path| std::fs::read_to_string(path).unwrap_or_default());
    // A part of an unknown version is fetched again.
    if have > 0 && version.as_ref().is_none_or(|version| !version.is_empty()) {
        request = request.header(header::RANGE, format!("bytes={have}-"));
        if let Some(version) = version {
            request = request.header(header::IF_RANGE, version);
        }
    }
    request
}

/// First byte and size of the whole in `bytes 5-9/10` or `bytes */10`.
fn content_range(text: &str) -> (Option<u64>, Option<u64>) {
    let (range, total) = text.trim().strip_prefix("bytes").unwrap_or_default().split_once('/').unwrap_or_default();
    (range.split('-').next().and_then(|start| start.trim().parse().ok()), total.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_tell_their_start_and_the_size_of_the_whole() {
        assert_eq!(content_range("bytes 5-9/10"), (Some(5), Some(10)));
        assert_eq!(content_range("bytes */10"), (None, Some(10)));
        assert_eq!(content_range("bytes 5-9/*"), (Some(5), None));
        assert_eq!(content_range("lines 1-2/3"), (None, None));
    }

    #[test]
    fn servers_say_how_long_to_wait() {
        let wait = |status: u16, name: &'static str, value: &str| {
            let headers = HeaderMap::from_iter([(header::HeaderName::from_static(name), value.parse().unwrap())]);
            match Failure::of_status(status, &headers) {
                Failure::Status { wait, .. } => wait,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(wait(429, "retry-after", "7"), Some(7));
        assert_eq!(wait(429, "ratelimit", "\"api\";r=0;t=55"), Some(55));
        assert_eq!(wait(200, "ratelimit", "\"api\";r=99;t=55"), None);
        assert_eq!(wait(503, "retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }
}
