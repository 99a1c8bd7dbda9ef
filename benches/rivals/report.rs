//! Makes one report and one plot of what the benchmarks wrote: `report target/bench-results target/criterion`.
//!
//! Criterion's results count where they are newer than the folder's file `began`; without that file, all do.

use std::{
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::Value;

/// In the order of the report. What prints Markdown or text itself is taken over as it is.
const BENCHES: [&str; 5] = ["rivals", "overhead", "end_to_end", "memory", "storm"];
const PRINTED: [&str; 3] = ["instructions", "propagation", "endpoint"];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(folder), Some(criterion)) = (arguments.next(), arguments.next()) else {
        return Err("usage: report RESULTS CRITERION".into());
    };
    let mut benches = Vec::new();
    for bench in BENCHES {
        let file = folder.join(format!("{bench}.json"));
        if file.is_file() {
            let text = fs::read(&file)?;
            benches
                .push(serde_json::from_slice::<Value>(&text).map_err(|error| format!("{}: {error}", file.display()))?);
        }
    }
    let overhead = overhead(&criterion, fs::metadata(folder.join("began")).and_then(|file| file.modified()).ok())?;
    fs::write(folder.join("report.md"), markdown(&benches, &overhead, &folder)?)?;
    fs::write(folder.join("report.svg"), svg(&benches))?;
    println!("{}", folder.join("report.md").display());
    println!("{}", folder.join("report.svg").display());
    Ok(())
}

/// A benchmark of criterion's: nanoseconds, the median and its confidence interval.
struct Estimate {
    name: String,
    median: f64,
    low: f64,
    high: f64,
}

fn overhead(criterion: &Path, since: Option<SystemTime>) -> Result<Vec<Estimate>, Box<dyn Error>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(criterion).into_iter().flatten().flatten() {
        let (about, estimates) = (entry.path().join("new/benchmark.json"), entry.path().join("new/estimates.json"));
        let Ok(modified) = fs::metadata(&estimates).and_then(|file| file.modified()) else { continue };
        if since.is_some_and(|since| modified < since) {
            continue;
        }
        let (about, estimates): (Value, Value) =
            (serde_json::from_slice(&fs::read(about)?)?, serde_json::from_slice(&fs::read(estimates)?)?);
        let Some(name) = about["full_id"].as_str() else { continue };
        let (median, interval) = (&estimates["median"], &estimates["median"]["confidence_interval"]);
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        all.push(Estimate {
            name: name.to_owned(),
            median: number(&median["point_estimate"]),
            low: number(&interval["lower_bound"]),
            high: number(&interval["upper_bound"]),
        });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn markdown(benches: &[Value], overhead: &[Estimate], folder: &Path) -> Result<String, Box<dyn Error>> {
    let mut text = String::from("# Benchmarks\n\n");
    if let Some(machine) = benches.first().map(|bench| &bench["machine"]) {
        let of = |name: &str| machine[name].as_str().unwrap_or("?").to_owned();
        writeln!(
            text,
            "{} cores of {}, Linux {}, {}; load average {} when the first benchmark ended.\n",
            machine["cores"],
            of("cpu"),
            of("kernel"),
            of("rustc"),
            of("load")
        )?;
    }
    text.push_str("Medians, and what a tenth of the samples are below and above.\n\n![The plot](report.svg)\n");

    text.push_str("\n## Goals\n\n| benchmark | what | goal | measured | 10 % to 90 % | |\n");
    text.push_str("| --- | --- | ---: | ---: | ---: | --- |\n");
    for bench in benches {
        for row in rows(bench).iter().filter(|row| !row["goal"].is_null()) {
            let (sign, limit) = match (&row["goal"]["at_most"], &row["goal"]["at_least"]) {
                (Value::Null, least) => ("≥", least),
                (most, _) => ("≤", most),
            };
            let met = if row["met"] == Value::Bool(true) { "met" } else { "**missed**" };
            writeln!(
                text,
                "| {} | {}: {} | {sign} {} | {} | {} | {met} |",
                name(bench),
                cell(&row["group"]),
                cell(&row["name"]),
                amount(limit, row),
                amount(&row["median"], row),
                range(row)
            )?;
        }
    }

    for bench in benches {
        writeln!(text, "\n## {} ({})", name(bench), cell(&bench["length"]))?;
        let mut group = "";
        for row in rows(bench) {
            let this = row["group"].as_str().unwrap_or_default();
            if this != group {
                group = this;
                writeln!(text, "\n### {group}\n\n| | median | 10 % to 90 % | samples |\n| --- | ---: | ---: | ---: |")?;
            }
            let median = amount(&row["median"], row);
            writeln!(text, "| {} | {median} | {} | {} |", cell(&row["name"]), range(row), row["samples"])?;
        }
    }
    if !overhead.is_empty() {
        text.push_str("\n## criterion\n\n| | median | 95 % interval |\n| --- | ---: | ---: |\n");
        for Estimate { name, median, low, high } in overhead {
            let [median, low, high] = [median, low, high].map(|value| number(*value));
            writeln!(text, "| {} | {median} ns | {low} to {high} ns |", name.replace('|', "/"))?;
        }
    }
    for bench in PRINTED {
        if let Ok(printed) = fs::read_to_string(folder.join(format!("{bench}.txt"))) {
            let fence = if printed.trim_start().starts_with('|') { "" } else { "```text\n" };
            let end = if fence.is_empty() { "" } else { "\n```" };
            writeln!(text, "\n## {bench}\n\n{fence}{}{end}", printed.trim())?;
        }
    }
    Ok(text)
}

fn name(bench: &Value) -> &str {
    bench["bench"].as_str().unwrap_or("?")
}

fn rows(bench: &Value) -> &[Value] {
    bench["rows"].as_array().map_or(&[], Vec::as_slice)
}

fn cell(value: &Value) -> String {
    value.as_str().unwrap_or_default().replace('|', "/")
}

fn range(row: &Value) -> String {
    if row["samples"] == 1 {
        return "–".to_owned();
    }
    format!("{} to {}", amount(&row["p10"], row), amount(&row["p90"], row))
}

fn amount(value: &Value, row: &Value) -> String {
    let unit = row["unit"].as_str().unwrap_or_default();
    format!("{} {unit}", number(value.as_f64().unwrap_or(f64::NAN))).trim_end().to_owned()
}

/// Three digits that count, and thousands apart.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        ..0.001 => 0,
        ..1.0 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut apart = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            apart.push(',');
        }
        apart.push(digit);
    }
    format!("{sign}{apart}{}{rest}", if rest.is_empty() { "" } else { "." })
}

/// Bars on a logarithmic scale, each with the line from its 10th to its 90th percentile.
fn svg(benches: &[Value]) -> String {
    let of = |bench: &str, group: Option<&str>, end: &str| -> Vec<Value> {
        let rows = benches.iter().filter(|value| name(value) == bench).flat_map(rows);
        let wanted = rows.filter(|row| {
            group.is_none_or(|group| row["group"] == group)
                && row["name"].as_str().is_some_and(|name| name.ends_with(end))
        });
        wanted.cloned().collect()
    };
    let charts = [
        ("What each adds to a request", of("rivals", Some("per request"), "")),
        ("What the layer adds, by path", of("overhead", Some("over the bare service"), "")),
        ("CPU per request, end to end", of("end_to_end", None, "CPU per request")),
    ];
    let mut y = 10.0;
    let mut body = String::new();
    for (title, rows) in charts.iter().filter(|(_, rows)| !rows.is_empty()) {
        y = chart(&mut body, title, rows, y) + 30.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 900 {y}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"900\" height=\"{y}\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

fn chart(body: &mut String, title: &str, rows: &[Value], mut y: f64) -> f64 {
    const LEFT: f64 = 420.0;
    const WIDTH: f64 = 360.0;
    let value = |row: &Value, name: &str| row[name].as_f64().unwrap_or(1.0).max(1e-2);
    let low = rows.iter().map(|row| value(row, "p10")).fold(f64::INFINITY, f64::min).log10().floor();
    let high = rows.iter().map(|row| value(row, "p90")).fold(0.0, f64::max).log10().ceil();
    let x = |value: f64| LEFT + (value.log10() - low) / (high - low).max(1.0) * WIDTH;
    let unit = rows[0]["unit"].as_str().unwrap_or_default();
    y += 20.0;
    body.push_str(&format!(
        "<text x=\"10\" y=\"{y}\" font-weight=\"bold\">{} ({unit}, logarithmic)</text>\n",
        escape(title)
    ));
    let (top, bottom) = (y + 10.0, y + 10.0 + 24.0 * rows.len() as f64);
    for power in low as i32..=high as i32 {
        let at = x(10_f64.powi(power));
        body.push_str(&format!(
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#666\" font-size=\"11\">{}</text>\n",
            bottom + 14.0,
            number(10_f64.powi(power))
        ));
    }
    for row in rows {
        let group = row["group"]
            .as_str()
            .filter(|group| !["per request", "over the bare service"].contains(group))
            .map(|group| format!("{group}: "));
        let label = format!("{}{}", group.unwrap_or_default(), row["name"].as_str().unwrap_or_default());
        let label = label.trim_end_matches(", CPU per request").to_owned();
        let colour = if label.contains("tower-revocation") || label.contains("hot token") { "#2a7" } else { "#79b" };
        let (end, middle) = (x(value(row, "median")), y + 22.0);
        body.push_str(&format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{}\" width=\"{:.1}\" height=\"16\" fill=\"{colour}\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#222\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text>\n",
            LEFT - 8.0,
            middle + 4.0,
            escape(&label),
            middle - 8.0,
            (end - LEFT).max(1.0),
            x(value(row, "p10")),
            x(value(row, "p90")),
            x(value(row, "p90")).max(end) + 6.0,
            middle + 4.0,
            number(value(row, "median"))
        ));
        y += 24.0;
    }
    bottom + 20.0
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
