//! A RabbitMQ node of a test's own: Debian's server on loopback ports, with its own cookie, port mapper and data.
//!
//! It is this machine's, or, where [`ROOT_VARIABLE`] names a folder, the one of another Debian whose root that is: so the
//! same tests meet other versions (`make brokers`).

use super::http::percent_encoded;
use super::server::{Home, Server, free_port, until};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often a start is tried: another process may have taken a port in between.
const STARTS: u32 = 3;
/// Longest start, on a machine that has much else to do.
const BOOTS_WITHIN: Duration = Duration::from_secs(180);
/// Longest wait for an answer to the first bytes of a connection.
const HANDSHAKE: Duration = Duration::from_secs(2);
const NODE: &str = "narrows@localhost";
/// Names the root of another Debian with RabbitMQ in it; this machine's is taken where it is not set. Not `NARROWS_`: the
/// programs take that for a setting.
const ROOT_VARIABLE: &str = "TEST_RABBITMQ_ROOT";
/// Starts a program of another root, in its own process.
const WITHIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/within");
/// Where a Debian has its programs.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A running node; dropped, it is gone with its data. All its methods block: from asynchronous code on a runtime of one
/// thread, nothing else runs meanwhile.
pub struct RabbitNode {
    // In this order they are dropped.
    node: Option<Server>,
    mapper: Server,
    ports: Ports,
    home: Home,
}

#[derive(Clone, Copy)]
struct Ports {
    amqp: u16,
    mapper: u16,
    distribution: u16,
}

impl RabbitNode {
    /// Starts a node and waits until it takes connections: the user `guest` may do everything.
    #[track_caller]
    pub fn start() -> Self {
        let mut said = String::new();
        for _ in 0..STARTS {
            let home = Home::new();
            let ports = Ports { amqp: free_port(), mapper: free_port(), distribution: free_port() };
            configure(&home, ports);
            let mut mapper = program(&home, "epmd");
            mapper.args(["-address", "127.0.0.1", "-port", &ports.mapper.to_string()]);
            let mapper = Server::start(&home, "epmd", &mut mapper);
            let mut node = Self { node: None, mapper, ports, home };
            match node.boot() {
                Ok(()) => return node,
                Err(why) => said = why,
            }
        }
        panic!("no RabbitMQ node: {said}")
    }

    /// Starts the server and waits for its listener, which it opens last of all.
    fn boot(&mut self) -> Result<(), String> {
        let mut command = self.command("rabbitmq-server");
        // Without its shell around it, so that a signal meets the server itself.
        command.env("RABBITMQ_ALLOW_INPUT", "1").arg("-noinput");
        let mut server = Server::start(&self.home, "rabbit", &mut command);
        let port = self.ports.amqp;
        let up = until(BOOTS_WITHIN, || match server.ended() {
            Some(status) => Some(Err(format!("it ended, {status}"))),
            None => greets(port).then_some(Ok(())),
        });
        let up = up.unwrap_or_else(|| Err(format!("not up within {BOOTS_WITHIN:?}")));
        let result = up.map_err(|why| format!("{why}; it said:\n{}\n{}", server.log(), self.log()));
        self.node = Some(server);
        result
    }

    /// Its own log, warnings and worse.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("log/node.log")).unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    pub fn pid(&self) -> u32 {
        self.node.as_ref().expect("the node runs").pid()
    }

    /// Where `guest` finds a virtual host; `/` is there from the beginning.
    pub fn uri(&self, vhost: &str) -> String {
        self.uri_at(self.ports.amqp, "guest", "guest", vhost)
    }

    /// The same by another port (a proxy's) or as another user.
    pub fn uri_at(&self, port: u16, user: &str, password: &str, vhost: &str) -> String {
        format!("amqp://{user}:{password}@127.0.0.1:{port}/{}", percent_encoded(vhost))
    }

    /// Makes an empty virtual host for `guest`: queues of the same names know nothing of each other in two of them.
    #[track_caller]
    pub fn add_vhost(&self, name: &str) {
        let made = format!("rabbit_vhost:add(<<\"{name}\">>, <<\"test\">>), {}", permission("guest", name));
        self.eval(&made);
    }

    /// Makes a user who may do everything in a virtual host, and nothing elsewhere.
    #[track_caller]
    pub fn add_user(&self, name: &str, password: &str, vhost: &str) {
        let user = format!("rabbit_auth_backend_internal:add_user(<<\"{name}\">>, <<\"{password}\">>, <<\"test\">>)");
        self.eval(&format!("{user}, {}", permission(name, vhost)));
    }

    #[track_caller]
    fn eval(&self, expression: &str) -> String {
        // One call of the tool is one start of a virtual machine; so everything is said in one.
        self.ctl(&["eval", &format!("{expression}, ok.")])
    }

    /// Runs `rabbitmqctl` and returns what it printed.
    #[track_caller]
    pub fn ctl(&self, words: &[&str]) -> String {
        let mut command = self.command("rabbitmqctl");
        let first = free_port();
        command.env("RABBITMQ_CTL_DIST_PORT_MIN", first.to_string());
        command.env("RABBITMQ_CTL_DIST_PORT_MAX", (first + 20).to_string());
        command.env("RABBITMQ_CTL_ERL_ARGS", "+S 1:1 -start_epmd false -kernel inet_dist_use_interface {127,0,0,1}");
        let output = command.args(["--quiet"]).args(words).stdin(Stdio::null()).output().expect("rabbitmqctl starts");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "rabbitmqctl {words:?}: {out}{err}");
        out.into_owned()
    }

    /// Ready and unacknowledged messages of every queue of a virtual host. RabbitMQ counts every few seconds: look again.
    #[track_caller]
    pub fn queues(&self, vhost: &str) -> BTreeMap<String, (u64, u64)> {
        let columns = ["name", "messages_ready", "messages_unacknowledged"];
        let words = [&["list_queues", "--formatter", "json", "-p", vhost][..], &columns].concat();
        let text = self.ctl(&words);
        let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let number = |row: &serde_json::Value, name: &str| row[name].as_u64().unwrap_or_default();
        let row = |row: &serde_json::Value| {
            let counts = (number(row, columns[1]), number(row, columns[2]));
            (row["name"].as_str().unwrap_or_default().to_string(), counts)
        };
        rows.iter().map(row).collect()
    }

    /// Does the disk know this quorum queue? RabbitMQ writes its list of them half a second late: a node that is killed
    /// before has the queue's messages, and does not find them.
    pub fn knows(&self, queue: &str) -> bool {
        let list = self.home.join(&format!("data/{NODE}/quorum/{NODE}/names.dets"));
        let bytes = std::fs::read(list).unwrap_or_default();
        bytes.windows(queue.len()).any(|window| window == queue.as_bytes())
    }

    /// SIGKILL, as a machine that loses its power; the data stay.
    pub fn kill(&mut self) {
        drop(self.node.take());
    }

    /// Starts it again on its data and its ports, after ending it where it still runs.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        if let Err(why) = self.boot() {
            panic!("the RabbitMQ node does not start again: {why}");
        }
    }

    /// Stops it in its tracks: connections stay open and nobody answers.
    pub fn pause(&mut self) {
        self.node.as_mut().expect("the node runs").signal(Signal::SIGSTOP);
    }

    pub fn resume(&mut self) {
        self.node.as_mut().expect("the node runs").signal(Signal::SIGCONT);
    }

    /// One of RabbitMQ's programs with this node's environment and nothing of the user's.
    fn command(&self, name: &str) -> Command {
        let (home, ports) = (&self.home, self.ports);
        let mut command = program(home, programs().join(name));
        let folder = |name: &str| home.join(name).display().to_string();
        for (name, value) in [
            ("HOME", home.path().display().to_string()),
            ("TMPDIR", home.path().display().to_string()),
            ("LC_ALL", "C.UTF-8".into()),
            ("ERL_EPMD_PORT", ports.mapper.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            // Not the machine's own file.
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
            ("RABBITMQ_NODENAME", NODE.into()),
            ("RABBITMQ_DIST_PORT", ports.distribution.to_string()),
            ("RABBITMQ_CONFIG_FILE", folder("rabbitmq.conf")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", folder("advanced.config")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", folder("enabled_plugins")),
            ("RABBITMQ_MNESIA_BASE", folder("data")),
            ("RABBITMQ_LOG_BASE", folder("log")),
            ("RABBITMQ_PID_FILE", folder("pid")),
            // Two schedulers will do, on however many cores; the port mapper is ours.
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+S 2:2 -start_epmd false -kernel inet_dist_use_interface {127,0,0,1}".into(),
            ),
        ] {
            command.env(name, value);
        }
        command
    }
}

fn configure(home: &Home, ports: Ports) {
    let lines = [
        format!("listeners.tcp.local = 127.0.0.1:{}", ports.amqp),
        // Small, as the data of a test are; the log of the quorum queues is kept in memory up to its size.
        "vm_memory_high_watermark.absolute = 1GB".into(),
        "raft.wal_max_size_bytes = 16777216".into(),
        "disk_free_limit.absolute = 50MB".into(),
        "log.file = node.log".into(),
        "log.file.level = warning".into(),
        "log.console = false".into(),
    ];
    home.write("rabbitmq.conf", lines.join("\n") + "\n");
    home.write("enabled_plugins", "[].\n");
    // A message that was put off and whose queue was not up yet when it was to go back there, after a restart, waits for
    // this long: three minutes where nobody says otherwise.
    home.write("advanced.config", "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 5000}]}].\n");
    let cookie = home.write(".erlang.cookie", format!("NARROWSTEST{}", ports.distribution));
    std::fs::set_permissions(&cookie, std::fs::Permissions::from_mode(0o400)).expect("the cookie is ours");
}

fn permission(user: &str, vhost: &str) -> String {
    let all = "<<\".*\">>";
    format!("rabbit_auth_backend_internal:set_permissions(<<\"{user}\">>, <<\"{vhost}\">>, {all}, {all}, {all}, <<\"test\">>)")
}

/// Does an AMQP server answer there? It begins a connection with the protocol's name and is to get a method frame.
fn greets(port: u16) -> bool {
    let talk = || -> std::io::Result<u8> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(HANDSHAKE))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first[0])
    };
    talk().is_ok_and(|kind| kind == 1)
}

/// A program of the Debian that RabbitMQ is taken from, with nothing of the user's environment.
fn program(home: &Home, path: impl AsRef<OsStr>) -> Command {
    let (mut command, search) = match root() {
        None => (Command::new(path), std::env::var_os("PATH")),
        Some(root) => {
            let mut command = Command::new(WITHIN);
            command.arg(root).arg(path);
            (command, None)
        }
    };
    command.env_clear().env("PATH", search.unwrap_or_else(|| PATH.into())).current_dir(home.path());
    command
}

/// The root of the other Debian, where one was asked for.
fn root() -> Option<PathBuf> {
    std::env::var_os(ROOT_VARIABLE).filter(|root| !root.is_empty()).map(PathBuf::from)
}

/// Where the package keeps its programs, as seen from its own root: `/usr/lib/rabbitmq/lib/rabbitmq_server-<version>/sbin`.
/// The ones on the path are wrappers that change the user.
#[track_caller]
fn programs() -> PathBuf {
    let root = root().unwrap_or_else(|| "/".into());
    let versions = std::fs::read_dir(root.join("usr/lib/rabbitmq/lib")).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("sbin")).filter(|sbin| is_whole(sbin)).collect();
    found.sort();
    let Some(newest) = found.pop() else { panic!("RabbitMQ is not installed in {} (make setup)", root.display()) };
    Path::new("/").join(newest.strip_prefix(&root).expect("it was found there"))
}

fn is_whole(sbin: &Path) -> bool {
    sbin.join("rabbitmq-server").exists()
}
