//! Committed files that are made from something else are fresh: the CRD in all its forms, the versions of the charts, the
//! contract between operator and servers, and the manifests of `kubectl apply -k`, which are the chart's own.
//!
//! `REDFLEET_WRITE=1 cargo test -p redfleet-tests --test generated` writes them anew instead.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use redfleet_operator::api::crd::{self, Form};
use redfleet_tests::apiserver::{repository, tools};

const HEAD: &str = "# Made from charts/redfleet by tests/tests/generated.rs; do not edit.\n";

fn compare(path: &str, wanted: &str) -> anyhow::Result<()> {
    let file = repository().join(path);
    if std::env::var_os("REDFLEET_WRITE").is_some() {
        return fs::write(&file, wanted).with_context(|| format!("writing {path}"));
    }
    let found = fs::read_to_string(&file).with_context(|| format!("reading {path}"))?;
    ensure!(
        found == wanted,
        "{path} is not fresh: run REDFLEET_WRITE=1 cargo test -p redfleet-tests --test generated, and commit what changed"
    );
    Ok(())
}

#[test]
fn the_definition_is_fresh_everywhere() -> anyhow::Result<()> {
    compare("crds/redisreplicasets.yaml", &crd::text(Form::Plain))?;
    compare(
        "charts/redfleet-crds/templates/redisreplicasets.yaml",
        &crd::text(Form::Chart),
    )?;
    compare("docs/crd.md", &crd::text(Form::Reference))
}

/// Operator and servers of a set are of two versions during every upgrade: what one of them says must mean the same to
/// the other.
#[test]
fn the_control_contract_only_grows() -> anyhow::Result<()> {
    let path = "server/control/contract.txt";
    let committed = fs::read_to_string(repository().join(path)).unwrap_or_default();
    let lost = lost(&committed, control::CONTRACT);
    ensure!(
        lost.is_empty(),
        "server/control/proto/control.proto: only additions are allowed, since servers and operators of other versions \
         go by what there was. A name keeps its number and type for ever; what nobody needs any more stays and is not \
         used. Changed, removed or renumbered:\n{}",
        lost.join("\n")
    );
    compare(path, control::CONTRACT)
}

/// Lines of `before` that are not in `now`.
fn lost<'a>(before: &'a str, now: &str) -> Vec<&'a str> {
    let now: BTreeSet<&str> = now.lines().collect();
    before.lines().filter(|line| !now.contains(line)).collect()
}

#[test]
fn a_contract_may_gain_lines_and_lose_none() {
    let before = "message State\nfield State.boot = 2: uint64\n";
    let grown =
        "message State\nfield State.id = 1: MemberId\nfield State.boot = 2: uint64\nenum Role\n";
    assert_eq!(lost(before, grown), Vec::<&str>::new());
    for changed in [
        "field State.boot = 3: uint64",
        "field State.boot = 2: uint32",
        "field State.boot = 2: optional uint64",
        "field State.start = 2: uint64",
        "",
    ] {
        let now = format!("message State\n{changed}\n");
        assert_eq!(lost(before, &now), ["field State.boot = 2: uint64"]);
    }
}

#[test]
fn charts_have_the_version_of_the_workspace() -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    for chart in ["redfleet", "redfleet-crds"] {
        let text = fs::read_to_string(repository().join("charts").join(chart).join("Chart.yaml"))?;
        for key in ["version", "appVersion"] {
            let line = format!("{key}: {version}");
            ensure!(
                text.lines().any(|found| found == line),
                "charts/{chart}/Chart.yaml must say {line:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn the_manifests_of_kustomize_are_the_charts_own() -> anyhow::Result<()> {
    let chart = repository().join("charts/redfleet");
    let output = Command::new(tools()?.join("helm"))
        .args([
            "template",
            "redfleet",
            "--namespace",
            "redfleet-system",
            "--kube-version",
            "1.36.0",
        ])
        .arg(&chart)
        .output()
        .context("running helm template")?;
    ensure!(
        output.status.success(),
        "helm template: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    // What only a Helm release may carry, so that the two ways of installing are not mistaken for each other.
    let rendered: String = String::from_utf8(output.stdout)?
        .lines()
        .filter(|line| !line.trim_start().starts_with("helm.sh/chart:"))
        .map(|line| {
            line.replace(
                "app.kubernetes.io/managed-by: Helm",
                "app.kubernetes.io/managed-by: kustomize",
            ) + "\n"
        })
        .collect();
    compare(
        "examples/install/operator.yaml",
        &format!("{HEAD}{rendered}"),
    )
}

/// The kustomization that README shows, as its readers would use it.
#[test]
fn the_overlay_of_the_readme_sets_both_images() -> anyhow::Result<()> {
    let readme = fs::read_to_string(repository().join("README.md"))?;
    let block = readme.split("```yaml\n").nth(1).context("no block")?;
    let (overlay, _) = block.split_once("```").context("no end of the block")?;
    let dir = tempfile::tempdir()?;
    std::os::unix::fs::symlink(repository(), dir.path().join("redfleet"))?;
    let mine = dir.path().join("mine");
    fs::create_dir(&mine)?;
    fs::write(mine.join("kustomization.yaml"), overlay)?;
    let output = Command::new(tools()?.join("kubectl"))
        .arg("kustomize")
        .arg(&mine)
        .output()
        .context("running kubectl kustomize")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let manifests = String::from_utf8(output.stdout)?;
    let version = env!("CARGO_PKG_VERSION");
    for wanted in ["image: REGISTRY/operator", "value: REGISTRY/server"] {
        let wanted = wanted.replace("REGISTRY", "registry.example.com/redfleet");
        ensure!(
            manifests.contains(&format!("{wanted}:{version}\n")),
            "no {wanted}"
        );
    }
    for published in ["image: redfleet.dev/", "value: redfleet.dev/"] {
        ensure!(!manifests.contains(published), "{published} is left");
    }
    Ok(())
}

#[test]
fn charts_pass_helms_own_checks() -> anyhow::Result<()> {
    for chart in ["redfleet", "redfleet-crds"] {
        let output = Command::new(tools()?.join("helm"))
            .args(["lint", "--strict", "--kube-version", "1.36.0"])
            .arg(repository().join("charts").join(chart))
            .output()
            .context("running helm lint")?;
        ensure!(
            output.status.success(),
            "helm lint {chart}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(())
}

/// What the chart makes of these values; an error is Helm's complaint.
fn rendered(values: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(tools()?.join("helm"))
        .args(["template", "redfleet", "--kube-version", "1.36.0"])
        .args(values)
        .arg(repository().join("charts/redfleet"))
        .output()
        .context("running helm template")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn the_chart_refuses_values_that_it_does_not_know() -> anyhow::Result<()> {
    for wrong in [
        "replicas=0",
        "replica=2",
        "image.repository=",
        "image.pullPolicy=Sometimes",
        "serverImage.pullPolicy=Always",
    ] {
        ensure!(rendered(&["--set", wrong]).is_err(), "{wrong} was accepted");
    }
    Ok(())
}

#[test]
fn every_form_of_an_image_reaches_the_pods() -> anyhow::Result<()> {
    let digest = format!("name@sha256:{}", "0a".repeat(32));
    for (image, pulled) in [
        ("host.example/name:0.1", "host.example/name:0.1"),
        ("host.example:5000/name:1", "host.example:5000/name:1"),
        ("host.example:5000/name", "host.example:5000/name:latest"),
        ("name", "name:latest"),
        (&digest, &digest),
    ] {
        let script = ". tests/cluster/lib.sh; image_values image \"$1\"";
        let output = Command::new("bash")
            .args(["-c", script, "bash", image])
            .current_dir(repository())
            .output()
            .context("running bash")?;
        let values = String::from_utf8(output.stdout)?;
        let chart = rendered(&values.lines().collect::<Vec<_>>())?;
        ensure!(
            chart.contains(&format!("image: \"{pulled}\"\n")),
            "{image} became {values}"
        );
    }
    Ok(())
}

/// Without a name it would be `default`, and every pod of the namespace could read all Secrets.
#[test]
fn a_service_account_that_the_chart_does_not_make_has_to_be_named() -> anyhow::Result<()> {
    const NOT_MADE: &str = "serviceAccount.create=false";
    let Err(refused) = rendered(&["--set", NOT_MADE]) else {
        bail!("no name was accepted");
    };
    let cure = "serviceAccount.name is needed";
    ensure!(format!("{refused:#}").contains(cure), "{refused:#}");
    let named = rendered(&["--set", NOT_MADE, "--set", "serviceAccount.name=mine"])?;
    ensure!(
        named.contains("serviceAccountName: mine") && !named.contains("kind: ServiceAccount\nmeta"),
        "{named}"
    );
    Ok(())
}
