//! A real API server without nodes: etcd and `kube-apiserver` of one test process, for the `api` tests.
//!
//! Schemas, CEL rules, server-side apply, subresources and RBAC are the real thing; no controllers run, so nothing
//! makes pods and nothing collects garbage. Ready in about three seconds, 400 MB. Both processes die with the thread that
//! started them (`setpriv --pdeathsig`), whatever happens to the test. Namespaces keep tests apart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::cluster::run;
use crate::ports::free_port;
use crate::wait::wait_until;

/// How long etcd and the API server may take to start on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(90);
/// Longest a single `kubectl` or `helm` may take.
const TOOL_DEADLINE: Duration = Duration::from_secs(120);

/// Whether a process ended while it was waited for.
enum Ended {
    Not,
    BeforeReady,
}

/// An API server of our own.
#[derive(Debug)]
pub struct ApiServer {
    tools: PathBuf,
    dir: PathBuf,
    children: Vec<Child>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Both calls fail only when the process is gone already.
            let _gone = child.kill();
            let _reaped = child.wait();
        }
        // The next start sweeps what cannot be removed now.
        let _left = fs::remove_dir_all(&self.dir);
    }
}

impl ApiServer {
    /// The server that all tests of this process share, started by the first.
    pub fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceLock<Result<ApiServer, String>> = OnceLock::new();
        let started = SHARED.get_or_init(|| {
            let (send, receive) = mpsc::channel();
            // Its own thread, because the servers die with the thread that started them, and tests end one by one.
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let server = match runtime {
                    Ok(runtime) => runtime
                        .block_on(Self::start())
                        .map_err(|error| format!("{error:#}")),
                    Err(error) => Err(format!("making a runtime: {error}")),
                };
                if send.send(server).is_ok() {
                    loop {
                        std::thread::park();
                    }
                }
            });
            receive
                .recv()
                .map_err(|_| "the starting thread ended".to_owned())?
        });
        started.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// Starts etcd and an API server and waits until it is ready.
    pub async fn start() -> anyhow::Result<Self> {
        // Fails only when another test of this process has installed it already.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let tools = tools()?;
        sweep();
        let (etcd_port, peer_port, api_port) = (free_port()?, free_port()?, free_port()?);
        let mut server = Self {
            tools,
            dir: new_directory()?,
            children: Vec::new(),
        };
        let dir = server.dir.clone();
        let etcd = format!("http://127.0.0.1:{etcd_port}");
        let peer = format!("http://127.0.0.1:{peer_port}");
        server.spawn(
            "etcd",
            &[
                format!("--data-dir={}", dir.join("etcd").display()),
                "--unsafe-no-fsync".to_owned(),
                "--log-level=warn".to_owned(),
                format!("--listen-client-urls={etcd}"),
                format!("--advertise-client-urls={etcd}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
            ],
        )?;
        let key = dir.join("service-account.key");
        make_key(&key).await?;
        let tokens = dir.join("tokens.csv");
        let token = format!("test-{}-{api_port}", std::process::id());
        fs::write(&tokens, format!("{token},admin,admin,system:masters\n"))
            .context("writing the token file")?;
        server.spawn(
            "kube-apiserver",
            &[
                format!("--etcd-servers={etcd}"),
                format!("--secure-port={api_port}"),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--cert-dir={}", dir.join("certificates").display()),
                format!("--token-auth-file={}", tokens.display()),
                "--authorization-mode=RBAC".to_owned(),
                "--disable-admission-plugins=ServiceAccount".to_owned(),
                // Not a default, and some clusters have it: what the operator writes must pass.
                "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".to_owned(),
                "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", key.display()),
                format!("--service-account-signing-key-file={}", key.display()),
                "--profiling=false".to_owned(),
            ],
        )?;
        server.wait_for_certificate().await?;
        server.write_kubeconfig(api_port, &token)?;
        server.wait_ready().await?;
        Ok(server)
    }

    fn spawn(&mut self, program: &str, args: &[String]) -> anyhow::Result<()> {
        let log = fs::File::create(self.log(program)).context("creating a log file")?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(self.tools.join(program))
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing a log file")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        self.children.push(child);
        Ok(())
    }

    fn log(&self, program: &str) -> PathBuf {
        self.dir.join(format!("{program}.log"))
    }

    /// The server signs its own certificate at start; clients trust exactly that one.
    async fn wait_for_certificate(&self) -> anyhow::Result<()> {
        let certificate = self.certificate();
        wait_until("the API server's certificate", START_DEADLINE, || async {
            Ok(fs::read_to_string(&certificate)
                .ok()
                .filter(|text| text.contains("END CERTIFICATE")))
        })
        .await?;
        Ok(())
    }

    fn certificate(&self) -> PathBuf {
        self.dir.join("certificates/apiserver.crt")
    }

    fn write_kubeconfig(&self, port: u16, token: &str) -> anyhow::Result<()> {
        let certificate = self.certificate();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]\n\
             clusters: [{{name: test, cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority: {}}}}}]\n\
             users: [{{name: admin, user: {{token: {token}}}}}]\n",
            certificate.display()
        );
        fs::write(self.kubeconfig(), text).context("writing the kubeconfig")
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let mut children = std::mem::take(&mut self.children);
        let server = &*self;
        let ready = wait_until("the API server", START_DEADLINE, || {
            let ended = children
                .iter_mut()
                .any(|child| matches!(child.try_wait(), Ok(Some(_))));
            async move {
                if ended {
                    return Ok(Some(Ended::BeforeReady));
                }
                let answer = server.kubectl(&["get", "--raw", "/readyz"]).await?;
                Ok((answer.trim() == "ok").then_some(Ended::Not))
            }
        })
        .await;
        self.children = children;
        match ready? {
            Ended::Not => Ok(()),
            Ended::BeforeReady => bail!(
                "etcd or the API server ended while starting:\n{}\n{}",
                tail(&self.log("etcd")),
                tail(&self.log("kube-apiserver"))
            ),
        }
    }

    /// Path of a kubeconfig with administrator rights.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// A client with administrator rights, for the present runtime.
    pub async fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::try_from(self.config().await?)?)
    }

    /// A client with the rights of a ServiceAccount.
    pub async fn client_as(&self, namespace: &str, account: &str) -> anyhow::Result<Client> {
        let mut config = self.config().await?;
        config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:{account}"));
        config.auth_info.impersonate_groups = Some(vec![
            "system:serviceaccounts".to_owned(),
            "system:authenticated".to_owned(),
        ]);
        Ok(Client::try_from(config)?)
    }

    async fn config(&self) -> anyhow::Result<Config> {
        let kubeconfig =
            Kubeconfig::read_from(self.kubeconfig()).context("reading the kubeconfig")?;
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .context("using the kubeconfig")
    }

    /// Runs `kubectl`; an error holds its complaint.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.tool("kubectl", args, "").await
    }

    /// Runs `kubectl` with text on its standard input.
    pub async fn kubectl_with_input(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        self.tool("kubectl", args, input).await
    }

    /// Runs `helm`; an error holds its complaint.
    pub async fn helm(&self, args: &[&str]) -> anyhow::Result<String> {
        self.tool("helm", args, "").await
    }

    async fn tool(&self, program: &str, args: &[&str], input: &str) -> anyhow::Result<String> {
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfig().display());
        let mut all = vec![kubeconfig.as_str()];
        all.extend(args);
        let path = self.tools.join(program).display().to_string();
        tokio::time::timeout(TOOL_DEADLINE, run(&path, &all, input))
            .await
            .with_context(|| format!("{program} {} did not return", args.join(" ")))?
    }

    /// One object as JSON.
    pub async fn get(&self, what: &str, namespace: &str) -> anyhow::Result<Value> {
        let text = self
            .kubectl(&["get", what, "-n", namespace, "-o", "json"])
            .await?;
        serde_json::from_str(&text).context("reading kubectl's JSON")
    }

    /// Name and version of each object of a manifest as it is stored, for comparing before and after; `source` is
    /// `-f` or `-k` and a path. What kubectl itself says about changes is not reliable for every kind.
    pub async fn versions(
        &self,
        source: &[&str; 2],
        namespace: &str,
    ) -> anyhow::Result<Vec<String>> {
        let [how, path] = *source;
        let text = self
            .kubectl(&["get", "-n", namespace, how, path, "-o", "json"])
            .await?;
        let found: Value = serde_json::from_str(&text).context("reading kubectl's JSON")?;
        let items = found["items"]
            .as_array()
            .cloned()
            .unwrap_or_else(|| vec![found.clone()]);
        let version = |item: &Value| {
            format!(
                "{}/{} {}",
                item["kind"], item["metadata"]["name"], item["metadata"]["resourceVersion"]
            )
        };
        Ok(items.iter().map(version).collect())
    }

    /// Waits until a definition is served. A definition made a moment ago has no conditions yet, which `kubectl wait`
    /// takes for an error.
    pub async fn wait_established(&self, definition: &str) -> anyhow::Result<()> {
        let name = format!("crd/{definition}");
        let args = [
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            &name,
        ];
        wait_until("the definition", START_DEADLINE, || async {
            self.kubectl(&args).await.map(Some)
        })
        .await
        .map(drop)
    }

    /// Makes a namespace that holds pods to the `restricted` profile.
    pub async fn namespace(&self, name: &str) -> anyhow::Result<()> {
        let yaml = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {{pod-security.kubernetes.io/enforce: restricted}}\n"
        );
        self.kubectl_with_input(&["create", "-f", "-"], &yaml)
            .await
            .map(drop)
    }
}

/// The directory of `etcd`, `kube-apiserver`, `kubectl` and `helm`.
pub fn tools() -> anyhow::Result<PathBuf> {
    let given = ["KUBEBUILDER_ASSETS", "REDFLEET_TOOLS"]
        .into_iter()
        .find_map(std::env::var_os);
    let script = repository().join("tests/cluster/build.sh");
    let dir = match given {
        Some(dir) => PathBuf::from(dir),
        None => {
            let output = Command::new(&script)
                .arg("--print")
                .output()
                .with_context(|| format!("running {}", script.display()))?;
            PathBuf::from(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
    };
    for program in ["etcd", "kube-apiserver", "kubectl", "helm"] {
        ensure!(
            dir.join(program).is_file(),
            "no {program} in {:?}: build Kubernetes once with {}, or set KUBEBUILDER_ASSETS to a directory with etcd, kube-apiserver, kubectl and helm",
            dir,
            script.display()
        );
    }
    Ok(dir)
}

/// The root of the checkout.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

async fn make_key(path: &Path) -> anyhow::Result<()> {
    let out = path.display().to_string();
    run(
        "openssl",
        &[
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            &out,
        ],
        "",
    )
    .await
    .map(drop)
}

const DIRECTORY_PREFIX: &str = "redfleet-api-";

fn new_directory() -> anyhow::Result<PathBuf> {
    let prefix = format!("{DIRECTORY_PREFIX}{}-", std::process::id());
    let dir = tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir()
        .context("making a directory")?;
    Ok(dir.keep())
}

/// Removes what processes left behind that were killed before they could.
fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(DIRECTORY_PREFIX) else {
            continue;
        };
        let alive = rest
            .split('-')
            .next()
            .is_some_and(|pid| Path::new("/proc").join(pid).exists());
        if !alive {
            // Somebody else's sweep may be faster.
            let _swept = fs::remove_dir_all(entry.path());
        }
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
