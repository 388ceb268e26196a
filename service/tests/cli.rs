//! The command line, as a process.

#![allow(
    clippy::unwrap_used,
    reason = "these are tests; Clippy exempts only the functions marked so, not their helpers"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

/// A directory with a sample file, and `./quarr-data` once something is imported.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut file = std::fs::File::create(directory.path().join("day.nc")).unwrap();
        quarr_tests::sample::weather().write(&mut file).unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quarr"));
        command.args(arguments).current_dir(self.path());
        for name in ["QUARR_STORE", "QUARR_SERVER", "QUARR_LISTEN"] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command that succeeds prints.
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        serde_json::from_str(&self.text(&arguments)).unwrap()
    }

    /// The one line a command that fails prints, and its exit code.
    fn error(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        assert!(output.stdout.is_empty(), "{arguments:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), text)
    }
}

/// A running `quarr serve`, stopped when dropped.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(place: &Place) -> Self {
        let mut process = place
            .command(&["serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line
            .split(' ')
            .find(|word| word.starts_with("http://127.0.0.1:"));
        let url = url.unwrap_or_default().to_owned();
        assert!(!url.is_empty(), "{line}");
        Self { process, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn a_file_goes_in_and_answers_come_out() {
    let place = Place::new();
    let imported = place.json(&["import", "day.nc", "--to", "weather", "-m", "first day"]);
    assert_eq!(imported["arrays"].as_array().unwrap().len(), 4);
    assert!(place.path().join("quarr-data/weather/repo.json").exists());

    let listed = place.text(&["ls", "weather"]);
    assert!(listed.contains("t2m") && listed.contains("time=24, latitude=91, longitude=180"));
    let members = place.json(&["ls", "weather"]);
    assert_eq!(members.as_array().unwrap().len(), 4);
    let node = place.json(&["show", "weather/t2m"]);
    assert_eq!(node["shape"], json!([24, 91, 180]));
    assert!(place.text(&["show", "weather/t2m"]).contains("units: K"));
    let log = place.json(&["log", "weather"]);
    assert_eq!(log[1]["operations"][0]["message"], "first day");
    assert_eq!(
        place
            .json(&["log", "weather", "--limit", "1"])
            .as_array()
            .unwrap()
            .len(),
        1
    );

    assert_eq!(
        place
            .text(&["get", "weather/latitude[:3]", "--json"])
            .matches("90")
            .count(),
        1
    );
    let row = place.json(&["get", "weather/t2m[0,45,:4]"]);
    assert_eq!(
        (&row["shape"], &row["data_type"]),
        (&json!([4]), &json!("float64"))
    );
    let mean = place.json(&[
        "get",
        "weather/latitude",
        "--reduce",
        "mean",
        "--dtype",
        "float64",
    ]);
    assert_eq!((&mean["shape"], &mean["values"]), (&json!([]), &json!(0.0)));
    let verified = place.json(&["verify", "weather", "--deep"]);
    assert_eq!(
        (&verified["ok"], &verified["damage"]),
        (&json!(true), &json!([]))
    );

    let commit = imported["commit"].as_str().unwrap();
    place.text(&["tag", "create", "weather", "v1"]);
    let pinned = place.json(&["get", &format!("weather@{commit}/t2m[0,45,:4]")]);
    assert_eq!(pinned, row);
    assert_eq!(place.json(&["get", "weather@v1/t2m[0,45,:4]"]), row);
    assert_eq!(
        place.json(&["tag", "list", "weather"])["refs"][0]["commit"],
        commit
    );
    place.text(&["branch", "create", "weather", "dev", "--from", "v1"]);
    place.text(&["branch", "delete", "weather", "dev"]);
    place.text(&["repo", "delete", "weather", "--yes"]);
    assert_eq!(place.json(&["repo", "list"])["repositories"], json!([]));
}

#[test]
fn a_server_gives_the_answers_the_store_gives() {
    let place = Place::new();
    place.text(&["import", "day.nc", "--to", "weather/day"]);
    let server = Server::start(&place);
    for arguments in [
        vec!["ls", "weather/day"],
        vec!["show", "weather/day/t2m"],
        vec!["log", "weather"],
        vec!["repo", "list"],
        vec!["get", "weather/day/t2m[0,45,::-60]"],
        vec![
            "get",
            "weather/day/t2m[:2]",
            "--reduce",
            "max",
            "--over",
            "latitude,longitude",
        ],
    ] {
        for json in [&[][..], &["--json"]] {
            let here = [&arguments[..], json].concat();
            let there = [&here[..], &["--server", &server.url]].concat();
            assert_eq!(place.text(&here), place.text(&there), "{arguments:?}");
        }
    }
    let get = ["get", "weather/day/t2m[3]", "--decode", "raw", "-o"];
    place.text(&[&get[..], &["here.npy"]].concat());
    place.text(&[&get[..], &["there.npy", "--server", &server.url]].concat());
    let file = |name: &str| std::fs::read(place.path().join(name)).unwrap();
    assert!(file("here.npy") == file("there.npy"));
    assert_eq!(file("here.npy").len() % 64, 91 * 180 * 2 % 64);
}

#[test]
fn what_fails_says_so_on_one_line() {
    let place = Place::new();
    place.text(&["import", "day.nc", "--to", "weather"]);
    std::fs::write(place.path().join("bad.nc"), b"CDF\x01nonsense").unwrap();
    let log = place.text(&["log", "weather"]);
    for (arguments, part) in [
        (vec!["ls", "waether"], "did you mean weather?"),
        (vec!["get", "weather/t2n"], "did you mean /t2m?"),
        (
            vec!["export", "weather/t2n", "x.zarr"],
            "did you mean /t2m?",
        ),
        (vec!["export", "waether", "x.zarr"], "did you mean weather?"),
        (vec!["verify", "waether"], "did you mean weather?"),
        (vec!["ls", "weather@mian"], "did you mean main?"),
        (vec!["ls", "zzz"], "quarr repo list"),
        (vec!["get", "weather/t2m[99]"], "out of bounds"),
        (
            vec!["get", "weather/t2m", "--reduce", "sum", "--over", "tiem"],
            "tiem",
        ),
        (vec!["import", "bad.nc", "--to", "weather"], "bad.nc"),
        (vec!["import", "none.nc", "--to", "weather"], "none.nc"),
        (vec!["import", "bad.nc", "--to", "fresh"], "bad.nc"),
        (vec!["repo", "create", "weather"], "already exists"),
        (vec!["repo", "delete", "weather"], "--yes"),
        (vec!["serve", "--listen", "0.0.0.0:0"], "--insecure"),
        (
            vec!["ls", "weather", "--server", "http://127.0.0.1:9"],
            "127.0.0.1:9",
        ),
        (vec!["ls", "weather", "--store", "ftp://x"], "ftp"),
    ] {
        let (code, text) = place.error(&arguments);
        assert_eq!(code, 1, "{arguments:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
        assert!(
            text.starts_with("error: ") && text.contains(part),
            "{arguments:?}: {text}"
        );
    }
    assert_eq!(place.text(&["log", "weather"]), log);
    assert_eq!(
        place.json(&["repo", "list"])["repositories"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn wrong_usage_exits_with_2() {
    let place = Place::new();
    for arguments in [
        vec!["lss"],
        vec!["ls"],
        vec!["ls", "UPPER"],
        vec!["get", "weather/t2m[0"],
        vec!["get", "weather/t2m[x]"],
        vec!["get", "weather/t2m", "--reduce", "total"],
        vec!["get", "weather/t2m", "--over", "time"],
        vec!["get", "weather/t2m", "--decode", "zip"],
        vec!["get", "weather/t2m", "-o", "out.txt"],
        vec!["import", "day.nc"],
        vec!["import", "day.nc", "--to", "weather", "--chunks", "time"],
        vec!["import", "day.nc", "--to", "weather", "--for", "speed"],
        vec![
            "ls",
            "weather",
            "--store",
            "x",
            "--server",
            "http://localhost:1",
        ],
    ] {
        let (code, text) = place.error(&arguments);
        assert_eq!(code, 2, "{arguments:?}: {text}");
    }
    assert!(!place.path().join("quarr-data").exists());
}

#[test]
fn an_exported_directory_is_new() {
    let place = Place::new();
    place.text(&["import", "day.nc", "--to", "weather"]);
    place.text(&["export", "weather", "out.zarr"]);
    let root = std::fs::read(place.path().join("out.zarr/zarr.json")).unwrap();
    let root: Value = serde_json::from_slice(&root).unwrap();
    assert!(root["consolidated_metadata"]["metadata"]["t2m"].is_object());
    assert!(place.path().join("out.zarr/t2m/c/0/0/0").exists());
    let (code, text) = place.error(&["export", "weather", "out.zarr"]);
    assert_eq!(code, 1, "{text}");
    place.text(&["export", "weather/time", "time.npy"]);
    assert!(
        std::fs::read(place.path().join("time.npy"))
            .unwrap()
            .starts_with(b"\x93NUMPY")
    );
}

#[test]
fn a_doctor_says_what_is_wrong_and_where_settings_are_from() {
    let place = Place::new();
    place.json(&["import", "day.nc", "--to", "weather"]);
    let found = place.json(&["doctor"]);
    assert_eq!(found["healthy"], true, "{found}");
    let text = found.to_string();
    for part in ["created once", "1 repositories", "the disk of the store"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        !place.path().join("quarr-data/.quarr/doctor").exists() || {
            let left = std::fs::read_dir(place.path().join("quarr-data/.quarr/doctor")).unwrap();
            left.count() == 0
        }
    );

    let server = Server::start(&place);
    let found = place.json(&["doctor", "--server", &server.url]);
    assert_eq!(found["healthy"], true, "{found}");
    drop(server);
    let gone = place.run(&["doctor", "--server", "http://127.0.0.1:9", "--json"]);
    assert_eq!(gone.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&gone.stdout).unwrap();
    assert_eq!(found["findings"][0]["health"], "wrong");

    // A commit whose object is gone.
    let log = place.json(&["log", "weather"]);
    let head = log[1]["operations"][0]["to"].as_str().unwrap().to_owned();
    let (folder, name) = head.split_at(2);
    let objects = place.path().join("quarr-data/weather/objects");
    std::fs::remove_file(objects.join(folder).join(name)).unwrap();
    let found = place.run(&["doctor", "--read-only", "--json"]);
    let text = String::from_utf8(found.stdout).unwrap();
    assert_eq!(found.status.code(), Some(1), "{text}");
    assert!(text.contains("weather@main cannot be read"), "{text}");
}

#[test]
fn settings_of_a_file_hold_and_wrong_ones_are_refused_at_start() {
    fn with_file<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        [&["--config", "quarr.toml"], arguments].concat()
    }
    let place = Place::new();
    let file = place.path().join("quarr.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("store = \"./elsewhere\"\njobs = 3\n[import]\nallow = [\"/data\"]\n");
    let shown = place.json(&with_file(&["config", "show", "--max-requests", "9"]));
    let row = |flag: &str| {
        let rows = shown["settings"].as_array().unwrap();
        let row = rows.iter().find(|row| row["setting"] == flag).unwrap();
        (
            row["values"].to_string(),
            row["source"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(
        row("store"),
        ("[\"./elsewhere\"]".into(), "quarr.toml:1".into())
    );
    assert_eq!(row("jobs"), ("[\"3\"]".into(), "quarr.toml:2".into()));
    assert_eq!(
        row("import-allow"),
        ("[\"/data\"]".into(), "quarr.toml:4".into())
    );
    assert_eq!(
        row("max-requests"),
        ("[\"9\"]".into(), "--max-requests".into())
    );
    let mut command = place.command(&with_file(&["config", "show", "--json"]));
    let output = command.env("QUARR_JOBS", "5").output().unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = shown["settings"].as_array().unwrap();
    let jobs = rows.iter().find(|row| row["setting"] == "jobs").unwrap();
    assert_eq!(
        (&jobs["values"], &jobs["source"]),
        (&json!(["5"]), &json!("QUARR_JOBS"))
    );
    place.json(&with_file(&["repo", "create", "one"]));
    assert!(place.path().join("elsewhere/one/repo.json").exists());

    write("\nlisten = \"nowhere\"\n");
    let (code, error) = place.error(&with_file(&["serve"]));
    assert_eq!(code, 2);
    assert!(
        error.contains("quarr.toml:2") && error.contains("nowhere"),
        "{error}"
    );
    for (line, said) in [
        ("gpu = \"sometimes\"", "sometimes"),
        ("gpu-memory = \"1MiB\"", "16MiB is the least"),
        ("[gpu]\ndevices = 0", "1..=64"),
    ] {
        write(line);
        let (code, error) = place.error(&with_file(&["serve"]));
        let is_placed = error.contains("quarr.toml:") && error.contains(said);
        assert!(code == 2 && is_placed, "{line}: {error}");
    }
    let (code, error) = place.error(&["--config", "none.toml", "serve"]);
    assert!(code == 2 && error.contains("none.toml"), "{error}");
}
