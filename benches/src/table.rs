//! Measured figures as tables of a Markdown document, so that no figure is ever typed by hand.
//!
//! Stands behind every measurement: reads the JSON objects that they print and puts them between the marks of a document,
//! `<!-- figures: nexmark -->` and `<!-- end of figures -->`. A job with guarantees stands in the same row as the one
//! without. Pure.
//!
//! Invariant: only lines between marks change, and there only those of cases that were measured.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

const BEGIN: &str = "<!-- figures: ";
const END: &str = "<!-- end of figures -->";

const HEAD: &str = "\
| case | unit | guarantees off | exactly-once | baseline | off / baseline | on / baseline | runs | spread |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
";

/// A figure as a measurement prints it with `--json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Row {
    /// The group of cases.
    pub bench: String,
    /// What was measured.
    pub case: String,
    /// The median.
    pub value: f64,
    /// The unit of `value` and `baseline`.
    pub unit: String,
    /// What it is compared with.
    pub baseline: Option<f64>,
    /// `value / baseline`.
    pub ratio: Option<f64>,
    /// How many runs.
    pub runs: usize,
    /// Largest minus smallest, as a share of the median.
    pub spread: f64,
}

/// The figures in JSON lines. Empty lines are skipped.
///
/// # Errors
/// A line that is no figure, with its number.
pub fn read(lines: &str) -> Result<Vec<Row>> {
    let lines = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let row = |(index, line)| {
        serde_json::from_str(line).with_context(|| format!("line {} is no figure", index + 1))
    };
    lines.map(row).collect()
}

/// All figures, a table for each group.
pub fn tables(rows: &[Row]) -> String {
    let mut benches: Vec<&str> = Vec::new();
    for row in rows {
        if !benches.contains(&row.bench.as_str()) {
            benches.push(&row.bench);
        }
    }
    let table = |bench: &&str| format!("## {bench}\n\n{HEAD}{}\n", lines(rows, bench, &[]));
    benches.iter().map(table).collect()
}

/// The document with these figures in place of those it had; cases that were not measured keep theirs.
///
/// # Errors
/// A mark without its end.
pub fn fill(document: &str, rows: &[Row]) -> Result<String> {
    let mut filled = String::with_capacity(document.len());
    let mut rest = document;
    while let Some((before, behind)) = rest.split_once(BEGIN) {
        let marked = behind.split_once(END).and_then(|(marked, after)| {
            let (bench, table) = marked.split_once(" -->\n")?;
            Some((bench, table, after))
        });
        let Some((bench, table, after)) = marked else {
            bail!("a table that begins with `{BEGIN}...` does not end with `{END}`");
        };
        let old: Vec<&str> = table.lines().skip(HEAD.lines().count()).collect();
        let new = lines(rows, bench, &old);
        filled.push_str(&format!("{before}{BEGIN}{bench} -->\n{HEAD}{new}{END}"));
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The lines of a group's table: the old ones in their order, renewed where there is a figure, then new ones.
fn lines(rows: &[Row], bench: &str, old: &[&str]) -> String {
    let mut new: Vec<(String, Pair<'_>)> = Vec::new();
    for row in rows.iter().filter(|row| row.bench == bench) {
        let (name, is_exactly_once) = name_and_guarantee(bench, &row.case);
        let place = new.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            new.push((name, Pair::default()));
            new.len() - 1
        });
        let pair = &mut new[place].1;
        *(if is_exactly_once { &mut pair.on } else { &mut pair.off }) = Some(row);
    }
    let mut text = String::new();
    for line in old {
        let renewed = new.iter().position(|(name, _)| line.starts_with(&format!("| `{name}` |")));
        match renewed.map(|index| new.remove(index)) {
            Some((name, pair)) => text.push_str(&pair.line(&name)),
            None => text.push_str(&format!("{line}\n")),
        }
    }
    text.extend(new.iter().map(|(name, pair)| pair.line(name)));
    text
}

/// The name that a case has in both forms, and whether this is the one with guarantees.
fn name_and_guarantee(bench: &str, case: &str) -> (String, bool) {
    let without = |part: &str| case.contains(part).then(|| case.replace(part, ""));
    match (without("_exactly_once"), without("_no_checkpoints")) {
        (Some(name), _) => (name, true),
        (None, Some(name)) => (name, false),
        // There the job with guarantees is the one that has the plain name.
        (None, None) => (case.to_string(), bench == "local"),
    }
}

/// A case without and with guarantees.
#[derive(Default)]
struct Pair<'a> {
    off: Option<&'a Row>,
    on: Option<&'a Row>,
}

impl Pair<'_> {
    fn line(&self, name: &str) -> String {
        let both = [self.off, self.on];
        let rows = || both.into_iter().flatten();
        let unit = rows().next().map_or("", |row| row.unit.as_str());
        let mut baselines: Vec<String> = rows().filter_map(|row| row.baseline).map(number).collect();
        baselines.dedup();
        let baseline = if baselines.is_empty() { "–".to_string() } else { baselines.join(" / ") };
        let [off, on] = both.map(|row| row.map_or("–".to_string(), |row| number(row.value)));
        let ratio = |row: &Row| row.ratio.map(|ratio| format!("{ratio:.2}"));
        let [off_ratio, on_ratio] = both.map(|row| row.and_then(ratio).unwrap_or_else(|| "–".to_string()));
        let runs = rows().map(|row| row.runs).min().unwrap_or(0);
        let spread = rows().map(|row| row.spread * 100.0).fold(0.0, f64::max);
        format!(
            "| `{name}` | {unit} | {off} | {on} | {baseline} | {off_ratio} | {on_ratio} | {runs} | {spread:.0} % |\n"
        )
    }
}

/// Three digits and a unit for thousands and millions, as far as it needs one.
fn number(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, " G"),
        size if size >= 1e6 => (value / 1e6, " M"),
        size if size >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bench: &str, case: &str, value: f64, baseline: Option<f64>) -> Row {
        Row {
            bench: bench.into(),
            case: case.into(),
            value,
            unit: "events/cpu s".into(),
            baseline,
            ratio: baseline.map(|baseline| value / baseline),
            runs: 5,
            spread: 0.04,
        }
    }

    #[test]
    fn a_measurements_own_line_is_read_and_rubbish_is_named() {
        let line = r#"{"bench":"nexmark","case":"q0","value":2.0,"unit":"x","baseline":null,"ratio":null,"runs":5,"spread":0.1}"#;
        let rows = read(&format!("{line}\n\n{line}\n")).expect("figures");
        assert_eq!((rows.len(), rows[0].case.as_str(), rows[0].baseline), (2, "q0", None));
        let error = read("\nrubbish").expect_err("no figure");
        assert_eq!(error.to_string(), "line 2 is no figure");
    }

    #[test]
    fn both_guarantees_stand_in_one_row() {
        let rows = [
            row("nexmark", "q0", 12_345_678.0, Some(24_691_356.0)),
            row("nexmark", "q0_exactly_once", 11e6, Some(24_691_356.0)),
            row("local", "keyed_count_1m", 7e6, Some(10e6)),
            row("local", "keyed_count_1m_no_checkpoints", 9e6, Some(10e6)),
        ];
        let text = tables(&rows);
        let q0 = "| `q0` | events/cpu s | 12.3 M | 11.0 M | 24.7 M | 0.50 | 0.45 | 5 | 4 % |\n";
        assert!(text.contains(q0), "{text}");
        let count =
            "| `keyed_count_1m` | events/cpu s | 9.00 M | 7.00 M | 10.0 M | 0.90 | 0.70 | 5 | 4 % |\n";
        assert!(text.contains(count), "{text}");
    }

    #[test]
    fn only_cases_that_were_measured_change() {
        let document = format!(
            "a ?\n<!-- figures: nexmark -->\n{HEAD}| `q0` | x | ? | ? | ? | ? | ? | ? | ? |\n| `q1` | x | ? |\n{END}\nb\n\
             <!-- figures: local -->\n{HEAD}| `k` | ? |\n{END}\nc\n"
        );
        let filled =
            fill(&document, &[row("nexmark", "q0", 1.5, None), row("nexmark", "q9", 120.0, Some(60.0))]);
        let expected = format!(
            "a ?\n<!-- figures: nexmark -->\n{HEAD}| `q0` | events/cpu s | 1.50 | – | – | – | – | 5 | 4 % |\n\
             | `q1` | x | ? |\n| `q9` | events/cpu s | 120 | – | 60.0 | 2.00 | – | 5 | 4 % |\n{END}\nb\n\
             <!-- figures: local -->\n{HEAD}| `k` | ? |\n{END}\nc\n"
        );
        assert_eq!(filled.expect("well marked"), expected);
        assert_eq!(fill(&document, &[]).expect("well marked"), document);
        assert!(fill("<!-- figures: nexmark -->\n| no end", &[]).is_err());
    }

    #[test]
    fn numbers_keep_three_digits() {
        let texts = [0.123, 1.0, 42.0, 999.4, 9_999.0, 12_345.0, 4_700_000.0, 2.9e9].map(number);
        assert_eq!(texts, ["0.12", "1.00", "42.0", "999", "9999", "12.3 k", "4.70 M", "2.90 G"]);
    }
}
