//! Other people's programs: Debian's nginx and Python servers, in a directory of their own, on ephemeral ports.
//!
//! A machine without them skips, loudly: the functions return `None` after printing `SKIPPED: …`.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::wait;

/// A foreign server; dropping it ends it.
pub struct Part {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Part {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its own directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended already; what it left behind is in the temporary directory.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// nginx with one worker that serves the files of `directory()/www` and `/echo`.
pub fn nginx() -> Option<Part> {
    let program = find("nginx")?;
    let directory = scratch();
    std::fs::create_dir(directory.join("www")).expect("a directory");
    for (name, length) in [("empty", 0), ("small", 128), ("page", 16_384), ("large", 5_000_000)] {
        std::fs::write(directory.join("www").join(name), super::noise::body(length, length))
            .expect("a file");
    }
    // Somebody else may take the port between the look and the start: then another one is tried.
    for _ in 0..10 {
        let port = free_port();
        let path = directory.join("nginx.conf");
        std::fs::write(&path, nginx_conf(&directory, port)).expect("a file");
        let mut command = Command::new(&program);
        command.arg("-c").arg(&path).arg("-p").arg(&directory).args(["-e", "stderr"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("nginx starts");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let is_up = wait::happens(START, || {
            TcpStream::connect(address).is_ok() || child.try_wait().expect("a child").is_some()
        });
        if is_up && child.try_wait().expect("a child").is_none() {
            return Some(Part { child, address, directory });
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("nginx did not start on ten different ports");
}

/// A Python HTTP/1.1 server (http.server) that answers `python METHOD PATH LENGTH` to GET and POST.
pub fn python_http() -> Option<Part> {
    python(PYTHON_HTTP, None)
}

/// A Python `websockets` server at /ws that pushes `frame` at once and then every 200 ms.
pub fn python_agent(frame: &str) -> Option<Part> {
    python(PYTHON_AGENT, Some(frame))
}

/// A program in PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push("/usr/sbin".into());
    let found = places.into_iter().map(|place| place.join(name)).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: {name} is not installed");
    }
    found
}

/// A new empty directory.
pub fn scratch() -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("live-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a temporary directory");
    path
}

fn python(script: &str, argument: Option<&str>) -> Option<Part> {
    let program = find("python3")?;
    let mut command = Command::new(program);
    command.args(["-u", "-c", script]).args(argument);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().expect("python starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut line).expect("the script's first line");
    let Ok(port) = line.trim().parse::<u16>() else {
        eprintln!("SKIPPED: python says {:?}", line.trim());
        let _ = child.wait();
        return None;
    };
    Some(Part { child, address: ([127, 0, 0, 1], port).into(), directory: scratch() })
}

/// A port that was free just now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("an ephemeral port").port()
}

fn nginx_conf(directory: &Path, port: u16) -> String {
    let own = directory.display();
    format!(
        "daemon off; master_process off; worker_processes 1; pid {own}/pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; keepalive_requests 1000000;
  client_body_temp_path {own}/a; proxy_temp_path {own}/b; fastcgi_temp_path {own}/c;
  uwsgi_temp_path {own}/d; scgi_temp_path {own}/e;
  server {{
    listen 127.0.0.1:{port}; root {own}/www;
    location = /echo {{ return 200 \"$request_method $request_uri $http_host\\n\"; }}
  }}
}}
"
    )
}

const START: Duration = Duration::from_secs(10);

const PYTHON_HTTP: &str = r#"
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        text = f"python {self.command} {self.path} {length}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)
    do_GET = do_POST = do_HEAD = answer
    def log_message(self, *args): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
print(server.server_address[1])
server.serve_forever()
"#;

const PYTHON_AGENT: &str = r#"
import asyncio, sys
try:
    import websockets
except ImportError:
    print("the websockets module is not installed"); sys.exit()
async def serve(link, path=None):
    while True:
        await link.send(sys.argv[1])
        await asyncio.sleep(0.2)
async def main():
    async with websockets.serve(serve, "127.0.0.1", 0) as server:
        print(list(server.sockets)[0].getsockname()[1])
        await asyncio.Future()
asyncio.run(main())
"#;
