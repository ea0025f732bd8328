//! `make demo` with the cluster of somebody else: it asks for what it needs before it changes anything, and takes away
//! what it brought and nothing else.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use redfleet_tests::apiserver::{ApiServer, repository, tools};

const SYSTEM: &str = "redfleet-system";
/// The label by which `demo.sh` knows its releases.
const LABEL: &str = "--labels=made-by=redfleet-demo";
/// What is left of an earlier set of the example's name.
const CLAIM: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: data-orders-0
  namespace: default
  labels: {app.kubernetes.io/name: redfleet-server, app.kubernetes.io/instance: orders}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;
const OTHER: &str = r#"
apiVersion: redfleet.dev/v1alpha1
kind: RedisReplicaSet
metadata: {name: carts, namespace: default}
spec: {storage: {ephemeral: {}}}
"#;

/// `demo.sh` with this kubeconfig, as with images that the nodes can pull.
fn demo(kubeconfig: &Path) -> anyhow::Result<Command> {
    let path = std::env::var("PATH").context("PATH")?;
    let mut command = Command::new(repository().join("tests/cluster/demo.sh"));
    command
        .env("PATH", format!("{}:{path}", tools()?.display()))
        .env("KUBECONFIG", kubeconfig)
        .env("REDFLEET_OPERATOR_IMAGE", "host.example:5000/operator")
        .env("REDFLEET_SERVER_IMAGE", "host.example:5000/server");
    Ok(command)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// That it ends with an error that has these words.
fn refuses(mut command: Command, verb: &str, words: &str) -> anyhow::Result<()> {
    let output = command.arg(verb).output().context("running demo.sh")?;
    let said = said(&output);
    ensure!(
        !output.status.success() && said.contains(words),
        "demo.sh {verb}: expected {words:?}, but: {said}"
    );
    Ok(())
}

async fn install(server: &ApiServer, more: &[&str]) -> anyhow::Result<()> {
    for release in ["redfleet-crds", "redfleet"] {
        let chart = repository().join("charts").join(release);
        let chart = chart.display().to_string();
        let install = ["upgrade", "--install", release, &chart, "-n", SYSTEM];
        server.helm(&[&install[..], more].concat()).await?;
    }
    Ok(())
}

#[test]
fn images_that_nobody_publishes_have_to_be_named() -> anyhow::Result<()> {
    for missing in ["REDFLEET_OPERATOR_IMAGE", "REDFLEET_SERVER_IMAGE"] {
        let mut command = demo(Path::new("/no/such/kubeconfig"))?;
        command.env_remove(missing);
        refuses(command, "up", missing)?;
    }
    Ok(())
}

#[tokio::test]
async fn what_the_demo_brought_goes_and_nothing_else() -> anyhow::Result<()> {
    let server = ApiServer::start().await?;
    let config = server.kubeconfig();
    server.namespace(SYSTEM).await?;
    refuses(demo(&config)?, "down", "make demo has installed nothing")?;
    server
        .kubectl_with_input(&["apply", "-f", "-"], CLAIM)
        .await?;
    refuses(demo(&config)?, "up", "persistentvolumeclaim/data-orders-0")?;
    // No controller runs here that would lift the protection.
    let free = [
        "patch",
        "pvc",
        "data-orders-0",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ];
    server.kubectl(&free).await?;
    server.kubectl(&["delete", "pvc", "data-orders-0"]).await?;

    install(&server, &[]).await?;
    refuses(
        demo(&config)?,
        "up",
        "Redfleet is installed in this cluster already",
    )?;
    refuses(demo(&config)?, "down", "make demo has installed nothing")?;

    install(&server, &[LABEL]).await?;
    server
        .wait_established("redisreplicasets.redfleet.dev")
        .await?;
    let example = repository()
        .join("examples/quickstart.yaml")
        .display()
        .to_string();
    server.kubectl(&["apply", "-f", &example]).await?;
    server
        .kubectl_with_input(&["apply", "-f", "-"], OTHER)
        .await?;
    refuses(demo(&config)?, "down", "other sets: default/carts")?;
    let left = server.kubectl(&["get", "rrs", "-o", "name"]).await?;
    ensure!(
        left.trim() == "redisreplicaset.redfleet.dev/carts",
        "{left}"
    );
    server.kubectl(&["delete", "rrs", "carts"]).await?;
    let output = demo(&config)?.arg("down").output()?;
    ensure!(output.status.success(), "{}", said(&output));
    let left = server.helm(&["list", "-a", "-q", "-n", SYSTEM]).await?;
    ensure!(left.trim().is_empty(), "{left}");
    Ok(())
}
