//! What the roles tell whoever started them, and that it is true.

use super::common::{Home, RabbitNode, Server};
use super::installed::PROGRAM;
use nix::sys::signal::Signal;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

/// Longest wait for the next word.
const PATIENCE: Duration = Duration::from_secs(60);
/// After so much silence a service manager would start the role again, microseconds.
const WATCHDOG_US: &str = "1500000";

/// Stands where a service manager does.
struct Manager(UnixDatagram);

impl Manager {
    fn new(home: &Home) -> Self {
        let socket = UnixDatagram::bind(home.join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// Every line that is told up to this one.
    #[track_caller]
    fn hears(&self, last: &str) -> Vec<String> {
        let (mut lines, mut buffer) = (Vec::new(), [0; 4096]);
        while lines.last().is_none_or(|line| line != last) {
            let length = self.0.recv(&mut buffer).unwrap_or_else(|e| panic!("{last} was not told: {e}; {lines:?}"));
            lines.extend(std::str::from_utf8(&buffer[..length]).unwrap().lines().map(str::to_string));
        }
        lines
    }
}

#[test]
fn a_role_tells_its_service_manager_that_it_is_ready_that_it_is_alive_and_that_it_leaves() {
    let rabbit = RabbitNode::start();
    let home = Home::new();
    std::fs::create_dir(home.join("work")).unwrap();
    let (work, scratch) = (home.join("work"), home.join("scratch"));
    let text = format!(
        "broker = {{ kind = \"rabbitmq\", uri = \"{}\" }}\nwork = {{ store = \"work\" }}\n\
         stores.work = {{ type = \"fs\", root = \"{}\" }}\nscratch.folder = \"{}\"\ncoordinator.listen = \"127.0.0.1:0\"\n",
        rabbit.uri("/"),
        work.display(),
        scratch.display(),
    );
    let config = home.write("fleet.toml", text);
    for (role, idle) in [("worker", "STATUS=working, 0 open"), ("coordinator", "STATUS=working, 0 partitions busy")] {
        let manager = Manager::new(&home);
        let mut command = Command::new(PROGRAM);
        command.arg(role).arg("--config").arg(&config).env("NOTIFY_SOCKET", home.join("notify"));
        command.env("WATCHDOG_USEC", WATCHDOG_US);
        let mut server = Server::start(&home, role, &mut command);
        let before = manager.hears("READY=1");
        assert_eq!(before, ["READY=1"], "nothing is alive before it is ready");
        // Again and again, without being asked.
        let mut told = manager.hears("WATCHDOG=1");
        told.extend(manager.hears("WATCHDOG=1"));
        assert!(told.iter().any(|line| line == idle), "{role}: {told:?}");
        server.signal(Signal::SIGTERM);
        let last = manager.hears("STOPPING=1");
        assert!(last.iter().all(|line| line != "READY=1"), "{last:?}");
        let status = server.wait();
        assert!(status.success(), "{role}: {status}: {}", server.log());
        std::fs::remove_file(home.join("notify")).unwrap();
    }
}
