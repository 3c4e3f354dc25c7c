//! etcd and kube-apiserver for tests: the real ones, on loopback, with files of their own.
//!
//! They end with the test process, whatever becomes of it: `setpriv` has the kernel tell a shell, which ends the server
//! and removes its files.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// Where a server's program is. A test that needs one fails loudly where it is missing.
fn program(name: &str) -> PathBuf {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder =
        std::env::var_os("KUBEBUILDER_ASSETS").map_or_else(|| target.join("kubernetes"), PathBuf::from);
    let program = folder.join(name);
    assert!(
        program.is_file(),
        "{} is missing: `make kubernetes` builds it (that needs Go), or set KUBEBUILDER_ASSETS to a folder with etcd and \
         kube-apiserver; `make test-core` runs the tests that need neither",
        program.display()
    );
    program
}

/// A port that nobody has at this moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Ends the server when its parent ends, and removes the files when that is how it ended.
const WRAPPER: &str = r#"
    root=$1 folder=$2; shift 2
    trap 'kill -KILL $server 2>/dev/null; wait $server 2>/dev/null; rm -rf "$root"; exit' TERM
    "$@" >>"$folder/log" 2>&1 &
    server=$!
    echo $server >"$folder/pid"
    wait $server
"#;

/// A thread that starts processes and lives as long as the process: "the parent" is a thread to the kernel.
fn spawn(command: Command) -> Child {
    type Order = (Command, mpsc::Sender<Child>);
    static SPAWNER: OnceLock<std::sync::Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let orders = SPAWNER.get_or_init(|| {
        let (orders, takes) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in takes {
                answer.send(command.spawn().unwrap()).unwrap();
            }
        });
        std::sync::Mutex::new(orders)
    });
    let (answer, child) = mpsc::channel();
    orders.lock().unwrap().send((command, answer)).unwrap();
    child.recv().unwrap()
}

/// A server that runs.
struct Running {
    child: Child,
    folder: PathBuf,
}

impl Running {
    /// `root` is removed if the tests end before the server does.
    fn start(root: &Path, folder: &Path, program: &Path, arguments: &[String]) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "sh", "-c", WRAPPER, "server"]);
        command.arg(root).arg(folder).arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Self { child: spawn(command), folder: folder.to_owned() }
    }

    /// As a power cut would; its files stay.
    fn kill(&mut self) {
        let pid = until(Duration::from_secs(10), "the server's process", || {
            std::fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse::<i32>().ok()
        });
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        self.child.wait().unwrap();
        std::fs::remove_file(self.folder.join("pid")).unwrap();
    }

    fn end(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// Waits, bounded, for what a server does in its own time.
pub(crate) fn until<T>(longest: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let pause = Duration::from_millis(50);
    for _ in 0..longest.as_millis() / pause.as_millis() {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(pause);
    }
    panic!("{what} did not come within {longest:?}");
}

fn answers(port: u16) -> Option<()> {
    std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
}

/// A certificate for 127.0.0.1 and `localhost`, one for a client, and the authority of both, as PEM files.
pub(crate) struct Certificates {
    pub(crate) authority: PathBuf,
    pub(crate) server: (PathBuf, PathBuf),
    pub(crate) client: (PathBuf, PathBuf),
}

impl Certificates {
    pub(crate) fn make(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let certificate = authority.self_signed(&key).unwrap();
        let path = write("ca.crt", certificate.pem());
        let issuer = Issuer::new(authority, key);
        let make = |name: &str| {
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            let mut params = CertificateParams::new(names).unwrap();
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            (
                write(&format!("{name}.crt"), certificate.pem()),
                write(&format!("{name}.key"), key.serialize_pem()),
            )
        };
        Self { authority: path, server: make("server"), client: make("client") }
    }
}

/// etcd, of one or more members on one machine.
pub(crate) struct EtcdServer {
    folder: PathBuf,
    members: Vec<Member>,
    tls: Option<Certificates>,
}

struct Member {
    client: u16,
    peer: u16,
    running: Option<Running>,
}

impl EtcdServer {
    pub(crate) fn start() -> Self {
        Self::start_with(1, false)
    }

    pub(crate) fn start_with(members: usize, tls: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("pairway-etcd-").tempdir().unwrap().keep();
        let tls = tls.then(|| Certificates::make(&folder.join("tls")));
        let ports = (0..members).map(|_| Member { client: free_port(), peer: free_port(), running: None });
        let mut server = Self { folder, members: ports.collect(), tls };
        for member in 0..members {
            server.start_member(member);
        }
        for member in &server.members {
            until(Duration::from_secs(60), "etcd", || answers(member.client));
        }
        server
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        self.members.iter().map(|member| format!("{scheme}://127.0.0.1:{}", member.client)).collect()
    }

    pub(crate) fn port(&self) -> u16 {
        self.members[0].client
    }

    pub(crate) fn tls(&self) -> Option<&Certificates> {
        self.tls.as_ref()
    }

    pub(crate) fn start_member(&mut self, member: usize) {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let all: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .map(|(index, member)| format!("m{index}=http://127.0.0.1:{}", member.peer))
            .collect();
        let Member { client, peer, .. } = self.members[member];
        let folder = self.folder.join(format!("m{member}"));
        let mut arguments: Vec<String> = [
            ("--name", format!("m{member}")),
            ("--data-dir", folder.join("data").display().to_string()),
            ("--listen-client-urls", format!("{scheme}://127.0.0.1:{client}")),
            ("--advertise-client-urls", format!("{scheme}://127.0.0.1:{client}")),
            ("--listen-peer-urls", format!("http://127.0.0.1:{peer}")),
            ("--initial-advertise-peer-urls", format!("http://127.0.0.1:{peer}")),
            ("--initial-cluster", all.join(",")),
            ("--log-level", "warn".to_owned()),
        ]
        .into_iter()
        .map(|(flag, value)| format!("{flag}={value}"))
        .collect();
        arguments.push("--unsafe-no-fsync".to_owned());
        if let Some(tls) = &self.tls {
            let path = |path: &Path| path.display().to_string();
            arguments.extend([
                format!("--cert-file={}", path(&tls.server.0)),
                format!("--key-file={}", path(&tls.server.1)),
                format!("--trusted-ca-file={}", path(&tls.authority)),
                "--client-cert-auth".to_owned(),
            ]);
        }
        self.members[member].running =
            Some(Running::start(&self.folder, &folder, &program("etcd"), &arguments));
    }

    pub(crate) fn kill_member(&mut self, member: usize) {
        self.members[member].running.take().unwrap().kill();
    }

    /// Ends all members and removes what they held.
    pub(crate) fn wipe(&mut self) {
        for member in 0..self.members.len() {
            self.kill_member(member);
            std::fs::remove_dir_all(self.folder.join(format!("m{member}/data"))).unwrap();
        }
    }

    /// Starts what does not run and waits until it answers.
    pub(crate) fn restart(&mut self) {
        for member in 0..self.members.len() {
            if self.members[member].running.is_none() {
                self.start_member(member);
            }
        }
        for member in &self.members {
            until(Duration::from_secs(60), "etcd", || answers(member.client));
        }
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        for running in self.members.iter_mut().filter_map(|member| member.running.as_mut()) {
            running.end();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// kube-apiserver, with an etcd of its own.
pub(crate) struct ApiServer {
    pub(crate) etcd: EtcdServer,
    folder: PathBuf,
    certificates: Certificates,
    port: u16,
    running: Option<Running>,
}

/// Who may do everything.
pub(crate) const ADMIN_TOKEN: &str = "admin-token";

impl ApiServer {
    pub(crate) fn start() -> Self {
        let etcd = EtcdServer::start();
        let folder = tempfile::Builder::new().prefix("pairway-apiserver-").tempdir().unwrap().keep();
        let certificates = Certificates::make(&folder.join("tls"));
        let mut server = Self { etcd, folder, certificates, port: free_port(), running: None };
        server.set_tokens(&[(ADMIN_TOKEN, "admin", "system:masters")]);
        server.restart();
        server
    }

    /// Tokens, users and groups; known from the next start on.
    pub(crate) fn set_tokens(&self, tokens: &[(&str, &str, &str)]) {
        let lines = tokens.iter().map(|(token, user, group)| format!("{token},{user},{user},\"{group}\"\n"));
        std::fs::write(self.folder.join("tokens.csv"), lines.collect::<String>()).unwrap();
    }

    pub(crate) fn restart(&mut self) {
        let path = |path: &Path| path.display().to_string();
        let (cert, key) = &self.certificates.server;
        let arguments: Vec<String> = [
            ("--etcd-servers", self.etcd.endpoints().join(",")),
            ("--bind-address", "127.0.0.1".to_owned()),
            ("--advertise-address", "127.0.0.1".to_owned()),
            ("--secure-port", self.port.to_string()),
            ("--cert-dir", path(&self.folder)),
            ("--tls-cert-file", path(cert)),
            ("--tls-private-key-file", path(key)),
            ("--token-auth-file", path(&self.folder.join("tokens.csv"))),
            ("--authorization-mode", "RBAC".to_owned()),
            ("--disable-admission-plugins", "ServiceAccount".to_owned()),
            ("--endpoint-reconciler-type", "none".to_owned()),
            ("--service-account-issuer", "https://kubernetes.default.svc".to_owned()),
            ("--service-account-key-file", path(cert)),
            ("--service-account-signing-key-file", path(key)),
            ("--service-cluster-ip-range", "10.96.0.0/24".to_owned()),
        ]
        .into_iter()
        .map(|(flag, value)| format!("{flag}={value}"))
        .collect();
        let run = self.folder.join("run");
        self.running = Some(Running::start(&self.folder, &run, &program("kube-apiserver"), &arguments));
        let port = self.port;
        let log = || std::fs::read_to_string(run.join("log")).unwrap_or_default();
        for _ in 0..1200 {
            if answers(port).is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("kube-apiserver did not begin: {}", log());
    }

    pub(crate) fn kill(&mut self) {
        self.running.take().unwrap().kill();
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A kubeconfig for the bearer of a token, which is read from a file beside it.
    pub(crate) fn kubeconfig(&self, token: &str) -> PathBuf {
        self.kubeconfig_through(self.port, token)
    }

    /// The same for whoever goes another way to the server.
    pub(crate) fn kubeconfig_through(&self, port: u16, token: &str) -> PathBuf {
        let token_file = self.folder.join(format!("token-of-{token}"));
        if !token_file.exists() {
            write_whole(&token_file, token);
        }
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: \"https://127.0.0.1:{}\", \
             certificate-authority: \"{}\"}}}}]\nusers: [{{name: u, user: {{tokenFile: \"{}\"}}}}]\ncontexts: [{{name: c, \
             context: {{cluster: c, user: u, namespace: default}}}}]\n",
            port,
            self.certificates.authority.display(),
            token_file.display()
        );
        let path = self.folder.join(format!("kubeconfig-{port}-{token}"));
        write_whole(&path, &text);
        path
    }

    /// The file that a kubeconfig's token is read from.
    pub(crate) fn token_file(&self, token: &str) -> PathBuf {
        self.folder.join(format!("token-of-{token}"))
    }
}

/// Other tests may be reading it.
fn write_whole(path: &Path, text: &str) {
    let folder = path.parent().unwrap();
    let mut file = tempfile::NamedTempFile::new_in(folder).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.persist(path).unwrap();
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            running.end();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The etcd that tests share which leave it as it is; each has a prefix of its own.
pub(crate) fn shared_etcd() -> &'static EtcdServer {
    static SERVER: OnceLock<EtcdServer> = OnceLock::new();
    SERVER.get_or_init(EtcdServer::start)
}

/// The API server that tests share which leave it as it is; each has an API group of its own.
pub(crate) fn shared_api_server() -> &'static ApiServer {
    static SERVER: OnceLock<ApiServer> = OnceLock::new();
    SERVER.get_or_init(ApiServer::start)
}

/// A way to a server that can be cut and clogged.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    way: tokio::sync::watch::Sender<Way>,
    _accepts: tokio::task::JoinSet<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Everything passes.
    Open,
    /// Connections stand, and nothing passes.
    Clogged,
    /// Connections are cut, and new ones are refused.
    Cut,
}

impl Proxy {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (way, ways) = tokio::sync::watch::channel(Way::Open);
        let mut accepts = tokio::task::JoinSet::new();
        accepts.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if *ways.borrow() == Way::Cut {
                    continue;
                }
                connections.spawn(pass(client, server, ways.clone()));
            }
        });
        Self { port, way, _accepts: accepts }
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn pass(client: tokio::net::TcpStream, server: u16, mut ways: tokio::sync::watch::Receiver<Way>) {
    let Ok(server) = tokio::net::TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let (there, back) = (ways.clone(), ways.clone());
    tokio::select! {
        () = one_way(client_reads, server_writes, there) => {}
        () = one_way(server_reads, client_writes, back) => {}
        _ = ways.wait_for(|way| *way == Way::Cut) => {}
    }
}

async fn one_way(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut ways: tokio::sync::watch::Receiver<Way>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if ways.wait_for(|way| *way == Way::Open).await.is_err()
            || to.write_all(&buffer[..read]).await.is_err()
        {
            return;
        }
    }
}
