use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn everything() -> Externals {
    Externals::new(AllowList::everything())
}

fn under(prefixes: &[&str]) -> Externals {
    Externals::new(AllowList::under(prefixes).unwrap())
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

/// An HTTP server of a few files, each with an etag or none.
#[derive(Default)]
struct Server {
    files: Mutex<HashMap<String, Answer>>,
    requests: AtomicUsize,
    /// So many requests are answered 503 first.
    failures: AtomicUsize,
}

#[derive(Clone)]
enum Answer {
    File {
        bytes: Vec<u8>,
        headers: Vec<(&'static str, String)>,
    },
    Redirect(String),
    /// As `File`, but ranges are ignored, or others sent.
    Whole(Vec<u8>),
    Other(Vec<u8>),
}

impl Server {
    async fn start() -> (Arc<Self>, String) {
        let server = Arc::new(Self::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let shared = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = shared.clone();
                tokio::spawn(async move { server.serve(stream).await });
            }
        });
        (server, origin)
    }

    fn put(&self, path: &str, answer: Answer) {
        self.files.lock().unwrap().insert(path.to_owned(), answer);
    }

    fn file(&self, path: &str, bytes: &[u8], etag: &str) {
        let headers = vec![("ETag", format!("\"{etag}\""))];
        let bytes = bytes.to_vec();
        self.put(path, Answer::File { bytes, headers });
    }

    async fn serve(&self, mut stream: tokio::net::TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0; 1];
            match stream.read(&mut byte).await {
                Ok(1) => request.push(byte[0]),
                _ => return,
            }
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8(request).unwrap();
        let (status, headers, body) = self.answer(&text);
        let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        let body = if text.starts_with("HEAD") {
            Vec::new()
        } else {
            body
        };
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&body).await;
        let _ = stream.shutdown().await;
    }

    fn answer(&self, request: &str) -> (&'static str, Vec<(&'static str, String)>, Vec<u8>) {
        let failures = &self.failures;
        let fails = failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        });
        if fails.is_ok() {
            return ("503 Busy", Vec::new(), Vec::new());
        }
        let header = |name: &str| {
            let mut lines = request.lines().filter_map(|line| line.split_once(':'));
            let found = lines.find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim().to_owned())
        };
        let path = request.split(' ').nth(1).unwrap();
        let found = self.files.lock().unwrap().get(path).cloned();
        let (bytes, headers, is_strange) = match found {
            None => return ("404 Not Found", Vec::new(), Vec::new()),
            Some(Answer::Redirect(to)) => {
                return ("302 Found", vec![("Location", to)], Vec::new());
            }
            Some(Answer::Whole(bytes)) => return ("200 OK", Vec::new(), bytes),
            Some(Answer::Other(bytes)) => (bytes, Vec::new(), true),
            Some(Answer::File { bytes, headers }) => (bytes, headers, false),
        };
        let own = |name: &str| headers.iter().find(|(found, _)| *found == name);
        if header("if-match").is_some_and(|etag| own("ETag").is_none_or(|own| own.1 != etag)) {
            return ("412 Precondition Failed", Vec::new(), Vec::new());
        }
        let Some(range) = header("range") else {
            return ("200 OK", headers, bytes);
        };
        let (first, last) = range[6..].split_once('-').unwrap();
        let first: usize = first.parse().unwrap();
        let last = last.parse::<usize>().unwrap().min(bytes.len() - 1);
        if first > last {
            let range = format!("bytes */{}", bytes.len());
            return ("416 Range", vec![("Content-Range", range)], Vec::new());
        }
        let first = if is_strange { first + 1 } else { first };
        let mut headers = headers;
        let range = format!("bytes {first}-{last}/{}", bytes.len());
        headers.push(("Content-Range", range));
        ("206 Partial Content", headers, bytes[first..=last].to_vec())
    }
}

#[tokio::test]
async fn local_files_are_read_by_range_and_copied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a file");
    let bytes: Vec<u8> = (0..200_000u32).map(|at| (at % 251) as u8).collect();
    write(&path, &bytes);
    let files = everything();
    let opened = files.open(path.to_str().unwrap()).await.unwrap();
    assert_eq!(opened.length(), 200_000);
    assert_eq!(opened.name(), "a%20file");
    assert!(opened.url().starts_with("file:///"));
    assert_eq!(opened.read(1000..3000).await.unwrap(), bytes[1000..3000]);
    // The URL and the etag are all that is needed later.
    let later = everything();
    let read = later.get_range(&opened.url(), opened.etag(), 5..6).await;
    assert_eq!(read.unwrap(), bytes[5..6]);
    let copy = folder.path().join("copy");
    let last = Mutex::new(0);
    let progress = |bytes| *last.lock().unwrap() = bytes;
    opened.download(&copy, &progress).await.unwrap();
    assert_eq!(std::fs::read(&copy).unwrap(), bytes);
    assert_eq!(*last.lock().unwrap(), 200_000);
}

#[tokio::test]
async fn a_local_file_that_is_another_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let files = everything();
    let open = || async {
        write(&path, b"0123456789");
        files.open(path.to_str().unwrap()).await.unwrap()
    };
    let reason = |error: Error| match error {
        Error::Changed { url, reason } => {
            assert!(url.starts_with("file:///"));
            reason
        }
        error => panic!("{error}"),
    };

    let opened = open().await;
    write(&path, b"01234");
    let read = opened.read(0..2).await.unwrap_err();
    assert_eq!(reason(read), "it has 5 bytes instead of 10");

    let opened = open().await;
    let file = std::fs::File::open(&path).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    let read = opened.read(0..2).await.unwrap_err();
    assert_eq!(reason(read), "it was modified since");

    let opened = open().await;
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    let other = folder.path().join("b");
    write(&other, b"abcdefghij");
    let file = std::fs::File::open(&other).unwrap();
    file.set_modified(modified).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let read = opened.read(0..2).await.unwrap_err();
    assert_eq!(reason(read), "another file is in its place");

    let opened = open().await;
    std::fs::remove_file(&path).unwrap();
    let read = opened.read(0..2).await.unwrap_err();
    assert_eq!(reason(read), "it is not there any more");
    let missing = files.open(path.to_str().unwrap()).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn only_files_under_allowed_folders_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let (inside, outside) = (root.join("data"), root.join("data2"));
    std::fs::create_dir_all(&inside).unwrap();
    std::fs::create_dir_all(&outside).unwrap();
    write(&inside.join("a"), b"in");
    write(&outside.join("secret"), b"out");
    std::os::unix::fs::symlink(outside.join("secret"), inside.join("link")).unwrap();
    std::os::unix::fs::symlink(&outside, inside.join("folder")).unwrap();
    let files = under(&[inside.to_str().unwrap()]);
    let open = |path: String| {
        let files = files.clone();
        async move { files.open(&path).await.map(|file| file.length()) }
    };
    let inside = inside.display().to_string();
    assert_eq!(open(format!("{inside}/a")).await.unwrap(), 2);
    assert_eq!(open(format!("file://{inside}/a")).await.unwrap(), 2);
    assert_eq!(open(format!("{inside}/../data/a")).await.unwrap(), 2);
    for path in [
        "/etc/passwd".to_owned(),
        "file:///etc/passwd".to_owned(),
        format!("{}/secret", outside.display()),
        format!("{inside}/../data2/secret"),
        format!("file://{inside}/%2e%2e/data2/secret"),
        format!("{inside}/link"),
        format!("{inside}/folder/secret"),
        format!("{inside}/../data2/none"),
        "http://example.org/a".to_owned(),
        "s3://bucket/a".to_owned(),
    ] {
        let found = open(path.clone()).await;
        assert!(
            matches!(found, Err(Error::Forbidden { .. })),
            "{path}: {found:?}"
        );
        let url = Place::of(&path).unwrap().url();
        let read = files.get_range(&url, "2-0-0", 0..1).await;
        assert!(
            matches!(read, Err(Error::Forbidden { .. })),
            "{path}: {read:?}"
        );
    }
    // By default nothing is read.
    let found = Externals::default().open(&format!("{inside}/a")).await;
    assert!(matches!(found, Err(Error::Forbidden { .. })));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_is_no_regular_file_is_refused_at_once() {
    for path in ["/dev/zero", "/tmp"] {
        let found = everything().open(path).await;
        assert!(matches!(found, Err(Error::Unreachable { .. })), "{path}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if made.is_ok_and(|status| status.success()) {
        let found = everything().open(pipe.to_str().unwrap()).await;
        assert!(matches!(found, Err(Error::Unreachable { .. })));
    }
}

#[test]
fn prefixes_of_urls_are_whole_steps_of_one_origin() {
    let rules = AllowList::under([
        "https://data.example.org/public/",
        "s3://bucket/a/b",
        "http://10.0.0.1:8080",
        "https://",
    ])
    .unwrap();
    for url in [
        "https://data.example.org/public/x.nc",
        "https://data.example.org:443/public",
        "https://DATA.example.org/other/../public/x.nc",
        "s3://bucket/a/b/c",
        "http://10.0.0.1:8080/x",
        "https://elsewhere.org/x",
    ] {
        assert!(rules.check_url(url).is_ok(), "{url}");
    }
    for url in [
        "http://data.example.org/public/x.nc",
        "s3://bucket/a/bc",
        "s3://bucket/a",
        "s3://bucket2/a/b/c",
        "gs://bucket/a/b/c",
        "http://10.0.0.1/x",
        "http://10.0.0.2:8080/x",
        // Any host is allowed, but these are addresses inside.
        "https://127.0.0.1/x",
        "https://2130706433/x",
        "https://0x7f.1/x",
        "https://[::1]/x",
        "https://[::ffff:169.254.169.254]/x",
        "https://169.254.169.254/latest/meta-data",
    ] {
        let found = rules.check_url(url);
        assert!(
            matches!(found, Err(Error::Forbidden { .. })),
            "{url}: {found:?}"
        );
    }
    for url in [
        "https://user:pass@data.example.org/public/x.nc",
        "https://data.example.org/public/..%2fsecret",
        "https://data.example.org/public/a%5C..%5Cb",
        "ftp://data.example.org/x",
        "memory://x",
    ] {
        let found = rules.check_url(url);
        assert!(
            matches!(found, Err(Error::Invalid { .. })),
            "{url}: {found:?}"
        );
    }
    assert!(AllowList::under(["relative/path"]).is_err());
}

#[tokio::test]
async fn names_of_private_addresses_need_to_be_named() {
    let (server, origin) = Server::start().await;
    server.file("/a", b"0123456789", "one");
    let port = origin.rsplit(':').next().unwrap();
    let by_name = format!("http://localhost:{port}/a");
    // The name is resolved, and its address refused, when the connection is made.
    let found = under(&["http://"]).open(&by_name).await;
    assert!(matches!(found, Err(Error::Forbidden { .. })), "{found:?}");
    assert_eq!(server.requests.load(Ordering::Relaxed), 0);
    let named = under(&["http://", &format!("http://localhost:{port}")]);
    let file = named.open(&by_name).await.unwrap();
    assert_eq!(file.read(2..4).await.unwrap(), b"23".as_slice());
}

#[tokio::test]
async fn redirects_are_checked_as_the_first_url() {
    let (server, origin) = Server::start().await;
    server.file("/public/a", b"0123456789", "one");
    server.file("/secret/a", b"secret", "two");
    server.put("/public/good", Answer::Redirect("/public/a".into()));
    server.put("/public/bad", Answer::Redirect("/secret/a".into()));
    server.put(
        "/public/file",
        Answer::Redirect("file:///etc/passwd".into()),
    );
    server.put("/public/loop", Answer::Redirect("/public/loop".into()));
    server.put(
        "/public/inside",
        Answer::Redirect("http://169.254.169.254/latest".into()),
    );
    let files = under(&[&format!("{origin}/public")]);
    let good = files.open(&format!("{origin}/public/good")).await.unwrap();
    assert_eq!(good.read(0..3).await.unwrap(), b"012".as_slice());
    for bad in ["bad", "inside"] {
        let found = files.open(&format!("{origin}/public/{bad}")).await;
        assert!(
            matches!(found, Err(Error::Forbidden { .. })),
            "{bad}: {found:?}"
        );
    }
    for bad in ["file", "loop"] {
        let found = files.open(&format!("{origin}/public/{bad}")).await;
        assert!(found.is_err(), "{bad}: {found:?}");
    }
}

#[tokio::test]
async fn a_file_behind_a_url_that_is_another_is_not_read() {
    let (server, origin) = Server::start().await;
    let url = format!("{origin}/a");
    let files = everything();
    server.file("/a", b"0123456789", "one");
    let opened = files.open(&url).await.unwrap();
    assert_eq!((opened.length(), opened.etag()), (10, "\"one\""));
    assert_eq!(opened.read(0..10).await.unwrap(), b"0123456789".as_slice());
    server.file("/a", b"0123456789", "two");
    let read = opened.read(0..2).await;
    assert!(matches!(read, Err(Error::Changed { .. })), "{read:?}");
    server.files.lock().unwrap().clear();
    let read = opened.read(0..2).await;
    assert!(matches!(read, Err(Error::Changed { .. })), "{read:?}");
    let found = files.open(&url).await;
    assert!(matches!(found, Err(Error::NotFound { .. })), "{found:?}");

    // Without an etag, the time of change and the length tell.
    let modified = |date: &str, bytes: &[u8]| Answer::File {
        bytes: bytes.to_vec(),
        headers: vec![
            ("Last-Modified", date.to_owned()),
            ("ETag", "W/\"weak\"".to_owned()),
        ],
    };
    server.put(
        "/a",
        modified("Mon, 01 Jan 2024 00:00:00 GMT", b"0123456789"),
    );
    let opened = files.open(&url).await.unwrap();
    assert_eq!(opened.read(2..4).await.unwrap(), b"23".as_slice());
    server.put(
        "/a",
        modified("Tue, 02 Jan 2024 00:00:00 GMT", b"0123456789"),
    );
    let read = opened.read(2..4).await;
    assert!(matches!(read, Err(Error::Changed { .. })), "{read:?}");
    server.put("/a", modified("Mon, 01 Jan 2024 00:00:00 GMT", b"01"));
    let read = opened.read(2..4).await;
    assert!(matches!(read, Err(Error::Changed { .. })), "{read:?}");
}

#[tokio::test]
async fn strange_servers_are_told_from_good_ones() {
    let (server, origin) = Server::start().await;
    let files = everything();
    server.put("/whole", Answer::Whole(b"0123456789".to_vec()));
    let whole = files.open(&format!("{origin}/whole")).await.unwrap();
    assert_eq!(whole.read(0..10).await.unwrap(), b"0123456789".as_slice());
    let read = whole.read(1..10).await;
    assert!(matches!(read, Err(Error::Unreachable { .. })), "{read:?}");
    server.put("/other", Answer::Other(b"0123456789".to_vec()));
    let other = files.open(&format!("{origin}/other")).await.unwrap();
    let read = other.read(1..5).await;
    assert!(matches!(read, Err(Error::Unreachable { .. })), "{read:?}");
    // One that is busy for a moment is asked again.
    server.file("/a", b"0123456789", "one");
    server.failures.store(2, Ordering::Relaxed);
    let opened = files.open(&format!("{origin}/a")).await.unwrap();
    server.failures.store(2, Ordering::Relaxed);
    assert_eq!(opened.read(1..3).await.unwrap(), b"12".as_slice());
}

#[tokio::test]
async fn files_behind_urls_are_copied_in_pieces() {
    let (server, origin) = Server::start().await;
    let bytes: Vec<u8> = (0..DOWNLOAD_BYTES as usize * 2 + 5)
        .map(|at| (at % 253) as u8)
        .collect();
    server.file("/a.nc", &bytes, "one");
    let opened = everything().open(&format!("{origin}/a.nc")).await.unwrap();
    assert_eq!(opened.name(), "a.nc");
    assert_eq!(opened.local_path(), None);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    opened.download(&copy, &|_| {}).await.unwrap();
    assert_eq!(std::fs::read(&copy).unwrap(), bytes);
    assert_eq!(server.requests.load(Ordering::Relaxed), 1 + 3);
}
