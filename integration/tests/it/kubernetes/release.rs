//! The archive for sites without a network: it is whole, and the same bytes every time.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::integration;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes the archive of the image that `make lab-cluster-image` has compiled.
fn release(folder: &Path) -> Vec<u8> {
    run(Command::new(integration().join("release.sh")).arg(folder).env("PROFILE", "dev"));
    fs::read(folder.join(concat!("pairway-", env!("CARGO_PKG_VERSION"), ".tar"))).unwrap()
}

#[test]
fn the_archive_is_whole_and_the_same_every_time() {
    let temporary = tempfile::tempdir().unwrap();
    let first = release(&temporary.path().join("first"));
    let second = release(&temporary.path().join("second"));
    assert!(first == second, "{} and {} bytes that differ", first.len(), second.len());

    let name = concat!("pairway-", env!("CARGO_PKG_VERSION"));
    let archive = temporary.path().join("first").join(format!("{name}.tar"));
    run(Command::new("tar").arg("--extract").arg("--file").arg(&archive).arg("-C").arg(temporary.path()));
    let root = temporary.path().join(name);
    run(Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&root));
    let sums = fs::read_to_string(root.join("SHA256SUMS")).unwrap();
    for file in [
        "config/deploy/pairway.yaml",
        "config/deploy/remove.yaml",
        "config/deploy/kustomization.yaml",
        "config/deploy/crds/blockclaims.yaml",
        "docs/install.md",
        "LICENSE",
    ] {
        assert!(sums.lines().any(|line| line.ends_with(&format!(" {file}"))), "{file} is not among {sums}");
    }
    assert_eq!(fs::read_dir(root.join("images")).unwrap().count(), 1, "the image of this architecture");

    // The packed chart is the chart.
    let helm = |chart: &Path| {
        let mut helm = Command::new(integration::kubernetes::program("helm").unwrap());
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(variable, temporary.path());
        }
        run(helm.args(["template", "pairway", "--namespace", "pairway"]).arg(chart))
    };
    let packed = helm(&root.join(format!("{name}.tgz")));
    assert_eq!(packed, helm(&integration().join("../config/deploy/helm/pairway")));
    assert!(packed.contains("kind: DaemonSet"));
}
