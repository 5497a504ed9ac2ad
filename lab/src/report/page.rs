//! HTML around the drawings: one page, no scripts, nothing from elsewhere.
//!
//! All text of the results goes through [`escape`]; drawings have escaped theirs.

use super::plot::{escape, style};
use super::recovery::path;
use super::summary::{ClientSummary, Share, WaySummary};
use super::{Outcome, Plots, Recovery, Results, Verdict};

/// How it looks; colours come from [`style`].
const STYLE: &str = "\
:root{color-scheme:light dark}
body{margin:0 auto;max-width:62rem;padding:1.5rem 1rem 3rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0}
h2{font-size:1.15rem;margin:2.25rem 0 .5rem}
p{margin:.4rem 0}
.about{color:var(--faint);font-size:.875rem;overflow-wrap:anywhere}
.verdict{font-size:1.1rem;font-weight:600;border-left:.35rem solid #0072b2;padding-left:.75rem;margin:1rem 0}
.verdict.red{border-color:#b01e28}
.red{color:var(--red);font-weight:600}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;margin:.5rem 0}
th,td{text-align:left;padding:.3rem .9rem .3rem 0;border-bottom:1px solid var(--grid);vertical-align:top}
th{color:var(--faint);font-weight:500}
td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
figure{margin:.75rem 0}
summary{color:var(--faint);font-size:.875rem;cursor:pointer}
svg{max-width:100%;height:auto}
";

/// The page.
pub(super) fn html(results: &Results, plots: &Plots) -> String {
    let sections = [
        summary(results),
        matrices(results, plots),
        recoveries(results, plots),
        throughputs(plots),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Portway on simulated networks, {date}</title>\n<style>\n{}{STYLE}</style>\n</head>\n<body>\n\
         <h1>Portway on simulated networks</h1>\n\
         <p class=\"about\">{date} · commit {} · {}</p>\n{}</body>\n</html>\n",
        style(),
        escape(&results.commit),
        escape(&results.machine),
        sections.concat(),
        date = escape(&results.date),
    )
}

fn summary(results: &Results) -> String {
    let connected = Share::connected(&results.matrix);
    let recovered = Share::recovered(&results.recovery);
    let mut words = Vec::new();
    if connected.all > 0 {
        words.push(format!("{}/{} connected", connected.good, connected.all));
    }
    if recovered.all > 0 {
        words.push(format!(
            "{}/{} recoveries good",
            recovered.good, recovered.all
        ));
    }
    if words.is_empty() {
        words.push("neither connections nor recoveries were measured".to_owned());
    }
    let class = if connected.is_all() && recovered.is_all() {
        "verdict"
    } else {
        "verdict red"
    };
    let mut text = format!("<p class=\"{class}\">{}</p>\n", words.join(" · "));
    let rows: Vec<Vec<Cell>> = results
        .clients()
        .into_iter()
        .map(|client| client_row(&ClientSummary::of(client, &results.attempts(client))))
        .collect();
    text.push_str(&table(
        &[
            "client",
            "connected",
            "direct",
            "median to open",
            "relayed",
            "median to open",
        ],
        &rows,
    ));
    text
}

fn client_row(summary: &ClientSummary) -> Vec<Cell> {
    let connected = format!("{}/{}", summary.connected(), summary.attempts);
    let connected = if summary.connected() == summary.attempts {
        Cell::Figure(connected)
    } else {
        Cell::Red(connected)
    };
    let mut row = vec![Cell::Text(summary.client.to_string()), connected];
    for way in [&summary.direct, &summary.relayed] {
        row.push(Cell::Figure(way.count.to_string()));
        row.push(median(way));
    }
    row
}

/// The median against its bar.
fn median(way: &WaySummary) -> Cell {
    let Some(median) = way.median else {
        return Cell::Figure("–".to_owned());
    };
    match way.is_good() {
        Some(false) => Cell::Red(format!("✗ {median}, bar {}", way.bar)),
        Some(true) | None => Cell::Figure(format!("✓ {median}, bar {}", way.bar)),
    }
}

fn matrices(results: &Results, plots: &Plots) -> String {
    if plots.matrices.is_empty() {
        return String::new();
    }
    let mut text = "<h2>Who reaches whom</h2>\n".to_owned();
    for (_, svg) in &plots.matrices {
        text.push_str(&figure(svg));
    }
    let failed: Vec<Vec<Cell>> = results
        .matrix
        .iter()
        .filter_map(|attempt| match &attempt.outcome {
            Outcome::Connected { .. } => None,
            Outcome::Failed { error } => Some(vec![
                Cell::Text(attempt.client.to_string()),
                Cell::Text(attempt.from.clone()),
                Cell::Text(attempt.to.clone()),
                Cell::Red(
                    error
                        .clone()
                        .unwrap_or_else(|| "no reason given".to_owned()),
                ),
            ]),
        })
        .collect();
    text.push_str(&table(&["client", "from", "to", "why it failed"], &failed));
    text
}

fn recoveries(results: &Results, plots: &Plots) -> String {
    let Some(svg) = &plots.recovery else {
        return String::new();
    };
    let rows: Vec<Vec<Cell>> = results.recovery.iter().map(recovery_row).collect();
    let head = [
        "scenario", "client", "path", "silence", "allowed", "lost", "intact", "verdict", "note",
    ];
    format!(
        "<h2>Recovery</h2>\n{}<details><summary>The same as a table</summary>\n{}</details>\n",
        figure(svg),
        table(&head, &rows)
    )
}

fn recovery_row(recovery: &Recovery) -> Vec<Cell> {
    let allowed = recovery.bar.map(|bar| bar.to_string());
    vec![
        Cell::Text(recovery.scenario.clone()),
        Cell::Text(recovery.client.to_string()),
        Cell::Text(path(recovery)),
        Cell::Figure(recovery.stall.to_string()),
        Cell::Figure(allowed.unwrap_or_else(|| "–".to_owned())),
        Cell::Figure(recovery.lost.to_string()),
        if recovery.intact {
            Cell::Text("yes".to_owned())
        } else {
            Cell::Red("no".to_owned())
        },
        match recovery.verdict {
            Verdict::Good => Cell::Figure(format!("✓ {}", recovery.verdict)),
            Verdict::Red => Cell::Red(format!("✗ {}", recovery.verdict)),
        },
        Cell::Text(recovery.note.clone().unwrap_or_default()),
    ]
}

fn throughputs(plots: &Plots) -> String {
    match &plots.throughput {
        Some(svg) => format!("<h2>Throughput</h2>\n{}", figure(svg)),
        None => String::new(),
    }
}

fn figure(svg: &str) -> String {
    format!("<figure>{svg}</figure>\n")
}

/// A cell of a table, not yet escaped.
enum Cell {
    Text(String),
    Figure(String),
    /// Not as it must be.
    Red(String),
}

/// Nothing without rows.
fn table(head: &[&str], rows: &[Vec<Cell>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head: String = head.iter().map(|name| format!("<th>{name}</th>")).collect();
    let cell = |cell: &Cell| match cell {
        Cell::Text(text) => format!("<td>{}</td>", escape(text)),
        Cell::Figure(text) => format!("<td class=\"n\">{}</td>", escape(text)),
        Cell::Red(text) => format!("<td class=\"red\">{}</td>", escape(text)),
    };
    let rows: String = rows
        .iter()
        .map(|row| format!("<tr>{}</tr>\n", row.iter().map(cell).collect::<String>()))
        .collect();
    format!("<div class=\"wide\"><table>\n<tr>{head}</tr>\n{rows}</table></div>\n")
}
