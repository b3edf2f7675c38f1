//! A Hub on loopback: the endpoints that the real one has for reading, with the faults that the real one has.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The commit of a repository that is made here.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// A token that the server knows.
pub const TOKEN: &str = "hf_VerySecretToken";

/// A token that the server knows, of somebody who may read nothing special.
pub const STRANGER: &str = "hf_TokenOfAStranger";

/// A repository with one commit.
#[derive(Clone)]
pub struct HubRepository {
    pub id: &'static str,
    /// `models` or `datasets`.
    pub kind: &'static str,
    /// Branches and tags.
    pub revisions: Vec<&'static str>,
    pub files: BTreeMap<String, Vec<u8>>,
    /// Whether files are given only with the token.
    pub gated: bool,
    /// Whether it exists only with the token.
    pub private: bool,
    /// The id that it has today.
    pub renamed: Option<&'static str>,
}

impl HubRepository {
    pub fn model(id: &'static str) -> Self {
        let (revisions, files) = (vec!["main"], BTreeMap::new());
        Self { id, kind: "models", revisions, files, gated: false, private: false, renamed: None }
    }

    /// With these files.
    pub fn with(mut self, files: &[(&str, &[u8])]) -> Self {
        self.files.extend(files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())));
        self
    }

    /// With all files of a folder.
    pub fn with_folder(mut self, folder: &Path) -> Self {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            self.files.insert(entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
        }
        self
    }
}

/// Weights are kept elsewhere and named by SHA-256, other files are git objects.
pub fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors") || path.ends_with(".bin")
}

/// Name of a file's bytes in the cache.
pub fn fingerprint(path: &str, bytes: &[u8]) -> String {
    if is_large(path) { sha256(bytes) } else { git_object(bytes) }
}

fn git_object(bytes: &[u8]) -> String {
    hex(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// An answer without a body.
    Status(u16, &'static [(&'static str, &'static str)]),
    /// The body ends after so many bytes.
    Truncated(usize),
    /// The body stops after so many bytes, and the connection stays.
    Stalled(usize),
    /// The last byte is another.
    Damaged,
    /// The whole body in answer to a request for a part.
    Whole,
    /// Text in place of what was asked for.
    Text(&'static str),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
}

#[derive(Default)]
struct State {
    repositories: Vec<HubRepository>,
    /// Files at any path, of a server that is no Hub.
    files: BTreeMap<String, Vec<u8>>,
    /// Part of a path, remaining times, fault.
    faults: Vec<(&'static str, usize, Fault)>,
    requests: Vec<Request>,
}

/// The running server.
pub struct HubServer {
    port: u16,
    state: Arc<Mutex<State>>,
    stopped: Arc<AtomicBool>,
}

impl HubServer {
    pub fn start(repositories: &[HubRepository]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State { repositories: repositories.to_vec(), ..State::default() }));
        let stopped = Arc::new(AtomicBool::new(false));
        let server = Self { port, state: Arc::clone(&state), stopped: Arc::clone(&stopped) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), state) = (stream, Arc::clone(&state)) else { return };
                // A client that goes away is part of the tests.
                std::thread::spawn(move || drop(Connection { stream, port, state }.serve()));
            }
        });
        server
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next requests whose path contains `part` go wrong, so many times.
    pub fn fail(&self, part: &'static str, times: usize, fault: Fault) {
        self.state.lock().unwrap().faults.push((part, times, fault));
    }

    /// Puts a file at a path.
    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        self.state.lock().unwrap().files.insert(path.to_owned(), bytes);
    }

    pub fn change(&self, change: impl FnOnce(&mut Vec<HubRepository>)) {
        change(&mut self.state.lock().unwrap().repositories);
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// How many requests there were whose path contains `part`, since the last call of [`Self::requests`].
    pub fn count(&self, part: &str) -> usize {
        self.state.lock().unwrap().requests.iter().filter(|request| request.path.contains(part)).count()
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { status, headers, body: body.into() }
    }

    fn refusal(status: u16, code: &str, message: &str) -> Self {
        let body = json!({ "error": message }).to_string();
        Self::new(status, &[("X-Error-Code", code), ("X-Error-Message", message)], body)
    }
}

struct Connection {
    stream: TcpStream,
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Connection {
    fn serve(mut self) -> std::io::Result<()> {
        let Some(request) = read_request(&self.stream)? else { return Ok(()) };
        let (fault, answer) = {
            let mut state = self.state.lock().unwrap();
            state.requests.push(request.clone());
            let fault = state.faults.iter_mut().find(|(part, times, _)| *times > 0 && request.path.contains(part));
            let fault = fault.map(|(_, times, fault)| {
                *times -= 1;
                *fault
            });
            (fault, answer(&state, &request, self.port))
        };
        self.write(&request, fault, answer)
    }

    fn write(&mut self, request: &Request, fault: Option<Fault>, mut answer: Answer) -> std::io::Result<()> {
        match fault {
            Some(Fault::Status(status, headers)) => answer = Answer::new(status, headers, ""),
            Some(Fault::Text(text)) => answer = Answer::new(200, &[], text),
            Some(Fault::Damaged) => *answer.body.last_mut().unwrap() ^= 1,
            _ => {}
        }
        let range =
            request.headers.get("range").filter(|_| answer.status == 200 && !matches!(fault, Some(Fault::Whole)));
        if let Some(start) =
            range.and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse::<usize>().ok())
        {
            let total = answer.body.len();
            let etag = answer.headers.iter().find(|(name, _)| name == "ETag").map(|(_, etag)| etag);
            let is_same = request.headers.get("if-range").is_none_or(|version| Some(version) == etag);
            if start >= total {
                answer.status = 416;
                answer.headers.push(("Content-Range".to_owned(), format!("bytes */{total}")));
                answer.body.clear();
            } else if is_same {
                answer.status = 206;
                answer.headers.push(("Content-Range".to_owned(), format!("bytes {start}-{}/{total}", total - 1)));
                answer.body.drain(..start);
            }
        }
        let mut head =
            format!("HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.stream.write_all(format!("{head}\r\n").as_bytes())?;
        if request.method == "HEAD" {
            return Ok(());
        }
        match fault {
            Some(Fault::Truncated(count)) => self.stream.write_all(&answer.body[..count.min(answer.body.len())]),
            Some(Fault::Stalled(count)) => {
                self.stream.write_all(&answer.body[..count.min(answer.body.len())])?;
                self.stream.flush()?;
                // Ends when the client goes away.
                self.stream.read(&mut [0]).map(drop)
            }
            _ => self.stream.write_all(&answer.body),
        }
    }
}

fn read_request(stream: &TcpStream) -> std::io::Result<Option<Request>> {
    let mut lines = BufReader::new(stream).lines();
    let Some(first) = lines.next().transpose()? else { return Ok(None) };
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    Ok(Some(Request { method, path, headers }))
}

fn answer(state: &State, request: &Request, port: u16) -> Answer {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    if let Some(bytes) = state.files.get(path) {
        return Answer::new(200, &[("ETag", &format!("\"{}\"", sha256(bytes)))], bytes.clone());
    }
    let token = request.headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let (is_known, may_read) = (token.is_some(), token == Some(TOKEN));
    if token.is_some_and(|token| ![TOKEN, STRANGER].contains(&token)) {
        return Answer::refusal(401, "", "Invalid credentials in Authorization header");
    }
    if let Some(name) = path.strip_prefix("/storage/") {
        let mut files = state.repositories.iter().flat_map(|repository| repository.files.values());
        let found = files.find(|bytes| sha256(bytes) == name);
        return found.map_or(Answer::new(404, &[], ""), |bytes| {
            Answer::new(200, &[("ETag", &format!("\"{name}\""))], bytes.clone())
        });
    }
    for repository in &state.repositories {
        let HubRepository { id, kind, .. } = repository;
        let prefix = if *kind == "models" { String::new() } else { format!("{kind}/") };
        let rest =
            [format!("/api/{kind}/{id}"), format!("/{prefix}{id}/resolve"), format!("/api/resolve-cache/{kind}/{id}")];
        let found = rest
            .iter()
            .position(|start| path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        let Some(position) = found else { continue };
        if repository.private && !may_read {
            break;
        }
        let rest = path[rest[position].len()..].trim_start_matches('/');
        if let Some(new) = repository.renamed {
            return Answer::new(307, &[("Location", &path.replacen(id, new, 1))], "");
        }
        return match position {
            0 => describe(repository, rest, query),
            1 => resolve(repository, rest, [is_known, may_read], port),
            _ => cached(repository, rest),
        };
    }
    if is_known {
        Answer::refusal(404, "RepoNotFound", "Repository not found")
    } else {
        Answer::refusal(401, "RepoNotFound", "Invalid username or password.")
    }
}

/// Splits `revision/rest`, where the `/` of a revision is `%2F`; none if there is no such revision.
fn at_revision<'a>(repository: &HubRepository, text: &'a str) -> Option<&'a str> {
    let (revision, rest) = text.split_once('/').unwrap_or((text, ""));
    let revision = revision.replace("%2F", "/");
    (revision == COMMIT || repository.revisions.contains(&revision.as_str())).then_some(rest)
}

fn no_revision() -> Answer {
    Answer::refusal(404, "RevisionNotFound", "Invalid rev id")
}

/// `GET /api/models/{id}[/revision/{revision}]` and `/tree/{revision}`.
fn describe(repository: &HubRepository, rest: &str, query: &str) -> Answer {
    let (what, revision) = rest.split_once('/').unwrap_or((rest, "main"));
    if at_revision(repository, revision).is_none() {
        return no_revision();
    }
    let large = |bytes: &[u8], name: &str| json!({ name: sha256(bytes), "size": bytes.len(), "pointerSize": 130 });
    if what == "tree" {
        let file = |(path, bytes): (&String, &Vec<u8>)| {
            let mut file = json!({ "type": "file", "path": path, "size": bytes.len(), "oid": git_object(bytes) });
            if is_large(path) {
                file["lfs"] = large(bytes, "oid");
            }
            file
        };
        let files: Vec<Value> = repository.files.iter().map(file).collect();
        return Answer::new(200, &[("Content-Type", "application/json")], json!(files).to_string());
    }
    let sibling = |(path, bytes): (&String, &Vec<u8>)| {
        let mut sibling = json!({ "rfilename": path });
        if query.contains("blobs=true") {
            sibling["size"] = json!(bytes.len());
            sibling["blobId"] = json!(git_object(bytes));
            if is_large(path) {
                sibling["lfs"] = large(bytes, "sha256");
            }
        }
        sibling
    };
    let siblings: Vec<Value> = repository.files.iter().map(sibling).collect();
    let body = json!({ "id": repository.id, "sha": COMMIT, "siblings": siblings, "gated": repository.gated });
    Answer::new(200, &[("Content-Type", "application/json")], body.to_string())
}

/// `HEAD` and `GET /{id}/resolve/{revision}/{file}`: where the bytes are.
fn resolve(repository: &HubRepository, rest: &str, [is_known, may_read]: [bool; 2], port: u16) -> Answer {
    if repository.gated && !may_read {
        return Answer::refusal(
            if is_known { 403 } else { 401 },
            "GatedRepo",
            "Access to this resource is restricted.",
        );
    }
    let Some(path) = at_revision(repository, rest) else { return no_revision() };
    let path = &path.replace("%20", " ");
    let Some(bytes) = repository.files.get(path) else {
        return Answer::refusal(404, "EntryNotFound", "Entry not found");
    };
    let HubRepository { kind, id, .. } = repository;
    let etag = format!("\"{}\"", fingerprint(path, bytes));
    let size = bytes.len().to_string();
    // The storage is another host, although not another machine.
    let storage = format!("http://localhost:{port}/storage/{}", sha256(bytes));
    let inside = format!("/api/resolve-cache/{kind}/{id}/{COMMIT}/{}", path.replace(' ', "%20"));
    let (status, location) = if is_large(path) { (302, storage) } else { (307, inside) };
    let headers =
        [("X-Repo-Commit", COMMIT), ("X-Linked-Etag", &etag), ("X-Linked-Size", &size), ("Location", &location)];
    Answer::new(status, &headers, "Found. Redirecting")
}

/// The bytes of a file that is no large one.
fn cached(repository: &HubRepository, rest: &str) -> Answer {
    let path = at_revision(repository, rest).unwrap_or_default().replace("%20", " ");
    let bytes = &repository.files[&path];
    let etag = format!("\"{}\"", git_object(bytes));
    Answer::new(200, &[("ETag", &etag), ("X-Repo-Commit", COMMIT)], bytes.clone())
}
