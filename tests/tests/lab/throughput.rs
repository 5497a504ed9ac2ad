//! How fast downloads are between nodes, beside plain TCP over the same links.

use anyhow::ensure;
use portway_tests::lab::Lab;
use serde_json::{Value, json};

use crate::results::Results;
use crate::scenario;

pub(crate) const SCENARIOS: &[crate::Scenario] = &[scenario!(downloads_are_measured_beside_tcp)];

/// Of each download: half a second on the links below.
const SIZE_MIB: &str = "4";

/// What `bench` tells is what `report` reads.
async fn downloads_are_measured_beside_tcp(results: &Results) -> anyhow::Result<()> {
    let link = "{ delay = \"10ms\", rate = \"50mbit\" }";
    let lab = Lab::describe(&format!(
        "[host.sig1]\nrun = \"signaling\"\n[host.relay1]\nrun = \"relay\"\n\
         [lan.here]\nnat = \"open\"\nlink = {link}\n[host.n1]\nlan = \"here\"\nrun = \"gateway\"\n\
         [lan.there]\nnat = \"open\"\nlink = {link}\n[host.n2]\nlan = \"there\"\nrun = \"gateway\"\n",
    ))
    .await?;
    let bench = lab.ask(&["bench", "--size", SIZE_MIB]).await?;
    let rows: Vec<Value> = bench["throughput"].as_array().cloned().unwrap_or_default();
    ensure!(
        rows.len() == 2
            && rows
                .iter()
                .all(|row| row["reference_mbytes_per_s"].is_number()),
        "each of two nodes downloads from the other, beside TCP: {bench}"
    );
    let folder = tempfile::tempdir()?;
    let (file, page) = (folder.path().join("results"), folder.path().join("page"));
    let report = json!({"v": 1, "date": "", "commit": "", "machine": "", "throughput": rows});
    std::fs::write(&file, report.to_string())?;
    let (file, page) = (file.display().to_string(), page.display().to_string());
    lab.ask(&["report", &file, "--output", &page]).await?;
    for row in rows {
        results.throughput(row);
    }
    Ok(())
}
