//! BIRD with the same routes: its kernel protocol alone, from the moment that it is enabled until the kernel holds all.
//!
//! The routes are static and loaded before, so that neither the reading of a file nor BGP is measured. BIRD knows no
//! nexthop objects: each route carries its gateway.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::BenchError;
use super::process::Program;
use super::programming::clear;
use super::routes::Routes;
use crate::eventually::{eventually, timed};

const BIRD: &str = "/usr/sbin/bird";
const BIRDC: &str = "/usr/sbin/birdc";
const CONTROL: &str = "bird.ctl";
const KERNEL: &str = "kernel_of_bench";

const LOADS_WITHIN: Duration = Duration::from_secs(120);
const PROGRAMS_WITHIN: Duration = Duration::from_secs(600);

/// Seconds that it takes.
pub(super) fn program(routes: Routes) -> Result<f64, BenchError> {
    let folder = tempfile::tempdir().map_err(BenchError::system("make a folder"))?;
    let folder = folder.path();
    configure(folder, routes).map_err(BenchError::system("write BIRD's configuration"))?;
    let before = prefixes()?;
    let control = folder.join(CONTROL);
    let (config, socket) = (folder.join("bird.conf"), control.to_string_lossy());
    let mut bird = Program::start(
        Path::new(BIRD),
        &[
            "-f",
            "-c",
            &config.to_string_lossy(),
            "-s",
            &socket,
            "-P",
            &folder.join("bird.pid").to_string_lossy(),
        ],
        &folder.join("bird.log"),
    )?;
    let loaded = format!("{0} of {0} routes", routes.routes);
    eventually("BIRD to load its routes", LOADS_WITHIN, || {
        if bird.ended() {
            let log = fs::read_to_string(folder.join("bird.log")).unwrap_or_default();
            return Ok(Err(BenchError::program("bird", log.trim())));
        }
        let said = ask(&control, "show route count");
        if said.contains(&loaded) { Ok(Ok(())) } else { Err(said) }
    })
    .map_err(|error| BenchError::program("bird", error))??;
    let wanted = before + u64::from(routes.routes);
    let (programmed, took) = timed(|| {
        ask(&control, &format!("enable {KERNEL}"));
        eventually("BIRD to program its routes", PROGRAMS_WITHIN, || match prefixes() {
            Ok(there) if there >= wanted => Ok(()),
            Ok(there) => Err(format!("{} of {}", there.saturating_sub(before), routes.routes)),
            Err(error) => Err(error.to_string()),
        })
    });
    programmed.map_err(|error| BenchError::program("bird", error))?;
    // Killed, so that it does not delete its routes one by one.
    drop(bird);
    clear(routes)?;
    Ok(took.as_secs_f64())
}

fn configure(folder: &Path, routes: Routes) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(folder.join("bird.conf"))?);
    writeln!(
        file,
        "router id 192.168.0.1;\n\
         protocol device {{ }}\n\
         protocol kernel {KERNEL} {{ disabled; scan time 3600; ipv4 {{ import none; export all; }}; }}\n\
         protocol static {{\n  ipv4;"
    )?;
    for (number, gateway) in routes.ascending() {
        let to = Routes::network(number);
        writeln!(file, "  route {}/{} via {};", to.address, to.length, Routes::gateway(gateway))?;
    }
    writeln!(file, "}}")?;
    file.flush()
}

/// What BIRD says to a command; nothing while it does not listen yet.
fn ask(control: &Path, command: &str) -> String {
    let output = Command::new(BIRDC).arg("-s").arg(control).args(command.split(' ')).output();
    output
        .map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// IPv4 routes of the namespace of the calling thread, as the kernel counts them: much cheaper than a dump.
fn prefixes() -> Result<u64, BenchError> {
    let path = "/proc/thread-self/net/fib_triestat";
    let text = fs::read_to_string(path).map_err(BenchError::system(format!("read {path}")))?;
    let count = text.lines().find_map(|line| line.trim().strip_prefix("Prefixes:")?.trim().parse().ok());
    count.ok_or_else(|| BenchError::Wrong(format!("no count in {path}")))
}
