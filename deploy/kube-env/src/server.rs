//! One running environment.
//!
//! Owns a temporary directory, an etcd and an API server, and ends them by their own ids when it is dropped; a test that panics
//! prints the ends of their logs first. Each environment has its own ports, certificates and users: any number run side by side.
//! Refuses to be ready before the API server says it is, its bootstrap roles included.

mod audit;
mod certificates;
mod client;
mod definition;
mod store;
mod supervised;

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

pub use self::audit::Asked;
pub use self::client::{Answer, Client, Watch};
pub use self::definition::{definition, multi_network_policies};
use self::{certificates::Certificates, supervised::Supervised};
use crate::Parts;

/// How long etcd and the API server may each take to be ready. Quiet, both together need three to four seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often a start is tried again: another process may take a free port before we do.
const ATTEMPTS: u32 = 3;

/// Who may do everything.
const ADMIN: &str = "admin";

/// Whom the API server knows by a token, besides `admin`.
#[derive(Clone, Debug)]
pub struct User {
    /// Its name, which is its token's name here, too.
    pub name: String,
    /// Its groups; `system:authenticated` comes by itself.
    pub groups: Vec<String>,
}

/// What may be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API server listens; it must be this machine's. Loopback by default.
    pub address: IpAddr,
    /// Users besides `admin`; none by default. What they may do is for the test to grant.
    pub users: Vec<User>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            users: Vec::new(),
        }
    }
}

/// A running API server and its store.
#[derive(Debug)]
pub struct KubeEnv {
    // Fields end in this order: the API server before its store, the directory last.
    apiserver: Option<Supervised>,
    etcd: Supervised,
    certificates: Certificates,
    parts: Parts,
    options: Options,
    address: SocketAddr,
    etcd_address: SocketAddr,
    directory: tempfile::TempDir,
}

impl KubeEnv {
    /// Starts one on loopback that knows only `admin`.
    pub fn start() -> Result<Self> {
        Self::with(Options::default())
    }

    /// Starts one as chosen.
    pub fn with(options: Options) -> Result<Self> {
        let parts = Parts::cached()?;
        for attempt in 1.. {
            match Self::attempt(parts.clone(), options.clone()) {
                Err(error) if attempt < ATTEMPTS => eprintln!("kube-env: trying again: {error:#}"),
                result => return result,
            }
        }
        unreachable!("the loop ends by returning")
    }

    fn attempt(parts: Parts, options: Options) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("bulkhead-kube-env-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        let certificates = Certificates::write(directory.path(), options.address)?;
        write_users(&directory.path().join("users.csv"), &options.users)?;
        audit::write_policy(directory.path())?;

        let etcd_address = free_port(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
        let peers = format!("http://{}", free_port(IpAddr::V4(Ipv4Addr::LOCALHOST))?);
        let clients = format!("http://{etcd_address}");
        let mut command = Command::new(&parts.etcd);
        command
            .arg("--data-dir")
            .arg(directory.path().join("etcd"))
            .args([
                "--listen-client-urls",
                &clients,
                "--advertise-client-urls",
                &clients,
            ])
            .args([
                "--listen-peer-urls",
                &peers,
                "--initial-advertise-peer-urls",
                &peers,
            ])
            .args(["--initial-cluster", &format!("default={peers}")]);
        let etcd = Supervised::start("etcd", &command, directory.path())?;

        let address = free_port(options.address)?;
        let mut env = Self {
            apiserver: None,
            etcd,
            certificates,
            parts,
            options,
            address,
            etcd_address,
            directory,
        };
        let healthy = Client::plain(&format!("{clients}/health"));
        wait_until(&mut env.etcd, || healthy.ok())?;
        env.start_apiserver()?;
        Ok(env)
    }

    /// Starts the API server again after [`KubeEnv::stop_apiserver`], on the same port with the same certificate, and waits until
    /// it is ready. Does nothing when it runs.
    pub fn start_apiserver(&mut self) -> Result<()> {
        if self.apiserver.is_some() {
            return Ok(());
        }
        let file = |name: &str| self.directory.path().join(name).display().to_string();
        let mut command = Command::new(&self.parts.apiserver);
        command
            .arg(format!("--etcd-servers=http://{}", self.etcd_address))
            .arg(format!("--bind-address={}", self.address.ip()))
            .arg(format!("--secure-port={}", self.address.port()))
            // No service points at it: it need not know by which address others would reach it.
            .arg(format!("--advertise-address={}", self.address.ip()))
            .arg("--endpoint-reconciler-type=none")
            .arg(format!("--tls-cert-file={}", file(certificates::SERVER)))
            .arg(format!(
                "--tls-private-key-file={}",
                file(certificates::SERVER_KEY)
            ))
            .arg(format!("--token-auth-file={}", file("users.csv")))
            .arg("--authorization-mode=RBAC")
            .arg(format!("--audit-policy-file={}", file(audit::POLICY)))
            .arg(format!("--audit-log-path={}", file(audit::LOG)))
            // What is asked is in the log before the answer is on its way.
            .arg("--audit-log-mode=blocking")
            .arg(format!(
                "--service-account-key-file={}",
                file(certificates::ACCOUNTS)
            ))
            .arg(format!(
                "--service-account-signing-key-file={}",
                file(certificates::ACCOUNTS_KEY)
            ))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            // It gives pods a token of their account, which a controller that is not here would have to make first.
            .arg("--disable-admission-plugins=ServiceAccount")
            .arg("--service-cluster-ip-range=10.96.0.0/16")
            .arg("--allow-privileged=true")
            .arg(format!("--cert-dir={}", file("certificates")));
        let mut apiserver = Supervised::start("kube-apiserver", &command, self.directory.path())?;
        let admin = self.client(ADMIN)?;
        wait_until(&mut apiserver, || {
            // The first start makes the namespace `default` a moment after it is ready.
            ["/readyz", "/api/v1/namespaces/default"]
                .iter()
                .all(|path| admin.get(path).is_ok_and(|answer| answer.status == 200))
        })?;
        self.apiserver = Some(apiserver);
        Ok(())
    }

    /// Ends the API server at once, as a crash would; the store goes on. Every connection is cut.
    pub fn stop_apiserver(&mut self) {
        self.apiserver = None;
    }

    /// Forgets the history of the store: who goes on with a watch from a revision before now is told that it expired (410), as
    /// soon as the API server's own memory of recent events is gone. It has none after a restart, so that
    /// [`stop_apiserver`](Self::stop_apiserver), this and [`start_apiserver`](Self::start_apiserver) expire every older watch for
    /// certain. Returns the revision.
    pub fn compact(&self) -> Result<i64> {
        let url = |call: &str| format!("http://{}/v3/kv/{call}", self.etcd_address);
        // The key is one zero byte; only the header of the answer is of interest.
        let range = Client::plain(&url("range")).post_json(&json!({"key": "AA=="}))?;
        let revision: i64 = range["header"]["revision"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .with_context(|| format!("etcd did not tell its revision: {range}"))?;
        Client::plain(&url("compaction")).post_json(&json!({"revision": revision, "physical": true}))?;
        Ok(revision)
    }

    /// Writes objects of a namespaced core resource (`pods`) straight into the store, as the API server would have stored them: many
    /// at once. Whoever watches is told of them.
    pub fn store(&self, resource: &str, objects: &[Value]) -> Result<()> {
        store::put(&format!("http://{}", self.etcd_address), resource, objects)
    }

    /// Where the API server is: `https://ADDRESS:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate authority of the API server, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.certificates.ca
    }

    /// A file with [`KubeEnv::ca_pem`].
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join(certificates::CA)
    }

    /// A directory that ends with the environment, for files of the test's own.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// helm, kubectl and the rest.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The token of `admin`, who may do everything, or of one of [`Options::users`].
    pub fn token(&self, user: &str) -> Result<String> {
        if user == ADMIN || self.options.users.iter().any(|known| known.name == user) {
            return Ok(format!("token-of-{user}"));
        }
        bail!("no user {user}: name it in Options::users")
    }

    /// A new token of a service account, which must exist: what a pod would find mounted.
    pub fn service_account_token(&self, namespace: &str, name: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let answer = self.client(ADMIN)?.post(&path, &request)?.expect(201)?;
        let token = answer["status"]["token"].as_str();
        Ok(token.with_context(|| format!("no token in {answer}"))?.to_owned())
    }

    /// A client that shows `user`'s token.
    pub fn client(&self, user: &str) -> Result<Client> {
        self.client_with_token(&self.token(user)?)
    }

    /// A client that shows `token`.
    pub fn client_with_token(&self, token: &str) -> Result<Client> {
        Client::new(&self.url(), self.ca_pem(), token)
    }

    /// A kubeconfig, as text, that shows `token`.
    pub fn kubeconfig(&self, token: &str) -> String {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {
                "server": self.url(),
                "certificate-authority": self.ca_file(),
            }}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        });
        // JSON is YAML.
        format!("{config:#}\n")
    }

    /// [`KubeEnv::kubeconfig`] in a file that ends with the environment.
    pub fn kubeconfig_file(&self, user: &str) -> Result<PathBuf> {
        let path = self
            .directory
            .path()
            .join(format!("kubeconfig-{}", user.replace('/', "-")));
        write_private(&path, &self.kubeconfig(&self.token(user)?))?;
        Ok(path)
    }

    /// What a user has asked so far, in the order of the answers; a watch is there from its beginning.
    pub fn asked(&self, user: &str) -> Result<Vec<Asked>> {
        audit::asked(self.directory.path(), user)
    }

    /// What a user has asked and no role grants.
    pub fn refused(&self, user: &str) -> Result<Vec<Asked>> {
        Ok(audit::refused(self.asked(user)?))
    }

    /// The ends of both logs.
    pub fn logs(&self) -> String {
        let mut text = self.etcd.log_tail();
        match &self.apiserver {
            Some(apiserver) => text.push_str(&apiserver.log_tail()),
            None => text.push_str("kube-apiserver is stopped\n"),
        }
        text
    }
}

impl Drop for KubeEnv {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

/// `token,user,uid,"groups"`, one line each.
fn write_users(path: &Path, users: &[User]) -> Result<()> {
    let mut lines = format!("token-of-{ADMIN},{ADMIN},{ADMIN},system:masters\n");
    for User { name, groups } in users {
        if name == ADMIN || name.contains([',', '"', '\n']) {
            bail!("not a name for a user: {name:?}");
        }
        writeln!(lines, "token-of-{name},{name},{name},\"{}\"", groups.join(","))?;
    }
    write_private(path, &lines)
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A port that nobody listens on just now.
fn free_port(address: IpAddr) -> Result<SocketAddr> {
    TcpListener::bind((address, 0))
        .and_then(|listener| listener.local_addr())
        .with_context(|| format!("cannot listen on {address}"))
}

/// Waits for `ready`, while the process lives.
fn wait_until(process: &mut Supervised, ready: impl Fn() -> bool) -> Result<()> {
    let began = Instant::now();
    while !ready() {
        if let Some(how) = process.ended()? {
            bail!(
                "{} ended by itself ({how}):\n{}",
                process.name(),
                process.log_tail()
            );
        }
        if began.elapsed() > PATIENCE {
            bail!(
                "{} was not ready after {} s:\n{}",
                process.name(),
                PATIENCE.as_secs(),
                process.log_tail()
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
