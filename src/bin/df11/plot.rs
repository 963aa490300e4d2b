//! The picture that `df11 inspect --plot` draws: how often each exponent occurs, and how long its code is.
//!
//! Both are on one scale. A code of one word per exponent is best if an exponent of share p has −log2 p bits,
//! so the left axis (share, logarithmic) and the right axis (bits) are the same axis with two sets of labels. A dot on
//! the end of its bar is a code of exactly the right length, a dot above it is too short, one below too long.
//!
//! The file is a self-contained SVG: no scripts, no style sheets, no fonts of its own. A title, a description and a
//! text for each bar serve those who cannot see it.

use crate::Failure;
use crate::histogram::{self, GroupHistogram};
use crate::output::Output;
use crate::terminal::{Progress, counted, fit};
use crate::thousands::thousands;
use df11::{Error, Group, Model};
use std::fmt::Write as _;
use std::path::Path;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 560.0;
/// The plotting area.
const LEFT: f64 = 92.0;
const RIGHT: f64 = WIDTH - 84.0;
const TOP: f64 = 104.0;
const BOTTOM: f64 = HEIGHT - 88.0;

const BAR: &str = "#6f9fc8";
const DOT: &str = "#b3360b";
const INK: &str = "#1c1c1c";
const FAINT: &str = "#d9d9d9";

/// Counts the exponents of a model, or of one group, and draws them into a file.
pub fn run(
    model: &Model,
    path: &Path,
    group: Option<&str>,
    to: &Path,
    threads: usize,
    quiet: bool,
) -> Result<(), Failure> {
    let groups: Vec<Group> = match group {
        None => model.groups().collect(),
        Some(name) => {
            vec![model.find_group(name).ok_or_else(|| Error::NotFound(format!("there is no group '{name}'")))?]
        }
    };
    let weights: u64 = groups.iter().map(|g| g.element_count()).sum();
    if weights == 0 {
        return Err(Failure::cannot("there is nothing to draw: no weights are compressed"));
    }
    // The file is created first, so that a failure to create it is known before the work and not after it.
    let output = Output::new(to, model.files().map(|f| f.file))?.begin(0)?;
    let progress = Progress::new("counting", 2 * weights, quiet);
    let histograms = histogram::count(groups, threads, &progress)?;
    drop(progress);
    let shown = path.display().to_string();
    let name = match group {
        Some(group) => format!("{} of {}", fit(group, 40), fit(&shown, 36)),
        None => fit(&shown, 64),
    };
    output.file().write_at(0, svg(&name, &histograms).as_bytes())?;
    output.commit()
}

/// An exponent that occurs.
struct Column {
    exponent: usize,
    count: u64,
    /// Its share of all weights.
    share: f64,
    /// Bits of its code: in the group that has the shortest, by use, and in the one that has the longest.
    bits: (f64, f64, f64),
}

fn columns(histograms: &[GroupHistogram]) -> Vec<Column> {
    let all: u64 = histograms.iter().map(GroupHistogram::weights).sum();
    let column = |exponent: usize| {
        let used = histograms.iter().filter(|h| h.counts[exponent] > 0);
        let count: u64 = used.clone().map(|h| h.counts[exponent]).sum();
        let spent: f64 = used.clone().map(|h| h.counts[exponent] as f64 * f64::from(h.lengths[exponent])).sum();
        let lengths = used.map(|h| f64::from(h.lengths[exponent]));
        let (low, high) = lengths.fold((f64::MAX, 0.0), |(low, high), n| (f64::min(low, n), f64::max(high, n)));
        (count > 0).then(|| Column {
            exponent,
            count,
            share: count as f64 / all as f64,
            bits: (low, spent / count as f64, high),
        })
    };
    (0..256).filter_map(column).collect()
}

/// Returns the whole file.
fn svg(name: &str, histograms: &[GroupHistogram]) -> String {
    let columns = columns(histograms);
    let weights: u64 = columns.iter().map(|c| c.count).sum();
    let mean = histograms.iter().map(GroupHistogram::code_bits).sum::<u64>() as f64 / weights as f64;
    let entropy = histograms.iter().map(GroupHistogram::entropy_bits).sum::<f64>() / weights as f64;
    let (first, last) = (columns.first().map_or(0, |c| c.exponent), columns.last().map_or(0, |c| c.exponent));
    let deepest = columns.iter().map(|c| c.bits.2.max(-c.share.log2())).fold(2.0, f64::max);
    // Room for a stub of the rarest bar.
    let deepest = (deepest + 0.6).ceil();

    let y = |bits: f64| TOP + bits / deepest * (BOTTOM - TOP);
    let step = (RIGHT - LEFT) / (last - first + 1) as f64;
    let x = |exponent: usize| LEFT + (exponent - first) as f64 * step;

    let mut out = String::new();
    let title = escape(&format!("Exponents of {name}"));
    let summary = format!(
        "{} in {}; a code has {mean:.3} bits on average, and the exponents' entropy is {entropy:.3} bits",
        counted(weights, "weight"),
        counted(histograms.len() as u64, "group")
    );
    let _ = write!(
        out,
        r##"<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="title desc" font-family="system-ui, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif" font-size="13" fill="{INK}">
<title id="title">{title}</title>
<desc id="desc">{summary}. Bars show how often each exponent from {first} to {last} occurs, on a logarithmic scale; dots show how long its code is.</desc>
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
<text x="{LEFT}" y="30" font-size="19" font-weight="600">{title}</text>
<text x="{LEFT}" y="52">{summary}</text>
"##
    );
    legend(&mut out, columns.iter().any(|c| c.bits.0 < c.bits.2));
    grid(&mut out, deepest, y);

    let _ = writeln!(out, r#"<g fill="{BAR}">"#);
    for c in &columns {
        let top = y(-c.share.log2());
        let _ = writeln!(
            out,
            r#"<rect x="{:.2}" y="{top:.2}" width="{:.2}" height="{:.2}"><title>{}</title></rect>"#,
            x(c.exponent) + step * 0.1,
            step * 0.8,
            BOTTOM - top,
            describe(c)
        );
    }
    let radius = (step * 0.3).clamp(1.5, 4.5);
    // A ring sets a dot off from its bar; around a small one it would hide the dot.
    let ring = if radius < 2.5 { 0.0 } else { 0.75 };
    let _ = writeln!(out, "</g>\n<g fill=\"{DOT}\" stroke=\"{DOT}\" stroke-width=\"1.5\">");
    for c in &columns {
        let (middle, (low, mean, high)) = (x(c.exponent) + step / 2.0, c.bits);
        if low < high {
            let _ = writeln!(out, r#"<path d="M{middle:.2} {:.2}V{:.2}" stroke-opacity="0.6"/>"#, y(low), y(high));
        }
        let _ = writeln!(
            out,
            r##"<circle cx="{middle:.2}" cy="{:.2}" r="{radius:.2}" stroke="#ffffff" stroke-width="{ring}"><title>{}</title></circle>"##,
            y(mean),
            describe(c)
        );
    }
    let _ = writeln!(out, "</g>");
    exponent_axis(&mut out, first, last, |e| x(e) + step / 2.0);
    out.push_str("</svg>\n");
    out
}

/// Describes a bar and its dot in words.
fn describe(c: &Column) -> String {
    let (low, mean, high) = c.bits;
    let code = if low < high {
        format!("a code of {low} to {high} bits, {mean:.2} on average")
    } else {
        format!("a code of {}", counted(low as u64, "bit"))
    };
    let Column { exponent, count, share, .. } = c;
    format!(
        "exponent {exponent} ({}): {}, {}, {code}",
        magnitude(*exponent),
        counted(*count, "weight"),
        percent(*share)
    )
}

fn legend(out: &mut String, ranges: bool) {
    let dot = if ranges { "code length: mean, shortest and longest of all groups" } else { "code length" };
    let (bar_at, dot_at, y) = (LEFT, LEFT + 150.0, 78.0);
    let _ = write!(
        out,
        r##"<rect x="{bar_at}" y="{}" width="12" height="12" fill="{BAR}"/>
<text x="{}" y="{y}">share of weights</text>
<circle cx="{}" cy="{}" r="4.5" fill="{DOT}"/>
<text x="{}" y="{y}">{dot} (on the end of its bar: just right)</text>
"##,
        y - 11.0,
        bar_at + 18.0,
        dot_at + 6.0,
        y - 5.0,
        dot_at + 18.0
    );
}

/// Draws the two vertical axes, which are one scale: shares to the left, bits to the right.
fn grid(out: &mut String, deepest: f64, y: impl Fn(f64) -> f64) {
    let _ = writeln!(out, r#"<g stroke="{FAINT}" stroke-width="1">"#);
    let decades = || (0..).map(|k| (k, f64::from(k) * 10f64.log2())).take_while(|&(_, bits)| bits <= deepest);
    for (_, bits) in decades() {
        let _ = writeln!(out, r#"<path d="M{LEFT} {0:.2}H{RIGHT}"/>"#, y(bits));
    }
    let _ = writeln!(out, r#"</g>{}<g text-anchor="end">"#, '\n');
    for (k, bits) in decades() {
        let _ = writeln!(out, r#"<text x="{:.2}" y="{:.2}">{}</text>"#, LEFT - 8.0, y(bits) + 4.5, decade(k));
    }
    let _ = writeln!(out, r#"</g>{}<g fill="{DOT}">"#, '\n');
    let every = if deepest > 40.0 {
        8
    } else if deepest > 14.0 {
        4
    } else {
        2
    };
    for bits in (0..=deepest as u32).step_by(every) {
        let at = y(f64::from(bits));
        let _ = writeln!(out, r#"<path d="M{RIGHT} {at:.2}h5" stroke="{DOT}"/>"#);
        let _ = writeln!(out, r#"<text x="{:.2}" y="{:.2}">{bits}</text>"#, RIGHT + 9.0, at + 4.5);
    }
    let middle = (TOP + BOTTOM) / 2.0;
    let (left, right) = (24.0, WIDTH - 26.0);
    let _ = write!(
        out,
        r#"<text transform="translate({right} {middle}) rotate(90)" text-anchor="middle">code length in bits</text>
</g>
<text transform="translate({left} {middle}) rotate(-90)" text-anchor="middle">share of weights (1 is all; logarithmic)</text>
<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}V{TOP}" fill="none" stroke="{INK}"/>
"#
    );
}

/// Draws the horizontal axis: the exponent as it is stored, and the magnitude that it stands for.
fn exponent_axis(out: &mut String, first: usize, last: usize, middle: impl Fn(usize) -> f64) {
    let every = match last - first {
        0..=15 => 1,
        16..=33 => 2,
        34..=80 => 5,
        81..=160 => 10,
        _ => 20,
    };
    let _ = writeln!(out, r#"<g text-anchor="middle">"#);
    for exponent in (first..=last).filter(|e| e % every == 0) {
        let (x, tick, stored, value) = (middle(exponent), BOTTOM + 5.0, BOTTOM + 20.0, BOTTOM + 38.0);
        let _ = write!(
            out,
            r##"<path d="M{x:.2} {BOTTOM}V{tick}" stroke="{INK}"/>
<text x="{x:.2}" y="{stored}">{exponent}</text>
<text x="{x:.2}" y="{value}" fill="#595959">{}</text>
"##,
            magnitude(exponent)
        );
    }
    let _ = write!(
        out,
        r##"<text x="{}" y="{}">exponent as stored (0 to 255), and the magnitude that it stands for</text>
</g>
"##,
        (LEFT + RIGHT) / 2.0,
        HEIGHT - 20.0
    );
}

/// Returns the smallest magnitude of an exponent: 2^(e − 127). Exponent 0 is for zero and magnitudes below 2^−126.
fn magnitude(exponent: usize) -> String {
    match exponent {
        0 => "0".into(),
        _ => format!("2{}", superscript(exponent as i32 - 127)),
    }
}

/// Formats 10^−k.
fn decade(k: u32) -> String {
    if k == 0 { "1".into() } else { format!("10{}", superscript(-(k as i32))) }
}

fn percent(share: f64) -> String {
    if share >= 1e-4 {
        format!("{:.4} %", 100.0 * share)
    } else {
        format!("1 in {}", thousands((1.0 / share).round() as u64))
    }
}

fn superscript(number: i32) -> String {
    let raise = |c: char| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        other => other.to_digit(10).and_then(|d| char::from_u32(0x2070 + d)).unwrap_or(other),
    };
    number.to_string().chars().map(raise).collect()
}

/// Escapes a text between tags. Control characters were escaped before; two more characters are not allowed in XML.
fn escape(text: &str) -> String {
    let text = text.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}");
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[(usize, u64, u8)]) -> GroupHistogram {
        let mut histogram = GroupHistogram { counts: [0; 256], lengths: [0; 256] };
        for &(exponent, count, bits) in counts {
            (histogram.counts[exponent], histogram.lengths[exponent]) = (count, bits);
        }
        histogram
    }

    #[test]
    fn columns_weigh_code_lengths_by_use() {
        let groups = [histogram(&[(120, 3, 1), (121, 1, 2)]), histogram(&[(120, 1, 5)])];
        let columns = columns(&groups);
        assert_eq!(columns.len(), 2);
        assert_eq!((columns[0].exponent, columns[0].count, columns[0].share), (120, 4, 0.8));
        assert_eq!(columns[0].bits, (1.0, 2.0, 5.0));
        assert_eq!(columns[1].bits, (2.0, 2.0, 2.0));
        assert!(describe(&columns[0]).ends_with("4 weights, 80.0000 %, a code of 1 to 5 bits, 2.00 on average"));
    }

    #[test]
    fn extreme_histograms_give_finite_coordinates() {
        let one = vec![histogram(&[(0, 1, 1)])];
        let all = vec![histogram(&(0..240).map(|e| (e, 1 << (e % 40), 32)).collect::<Vec<_>>())];
        for groups in [one, all] {
            let text = svg("<a & b>\u{ffff}", &groups);
            assert!(text.contains("&lt;a &amp; b&gt;\u{fffd}") && !text.contains("NaN") && !text.contains("inf"));
        }
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([magnitude(0), magnitude(127), magnitude(120), magnitude(239)], ["0", "2⁰", "2⁻⁷", "2¹¹²"]);
        assert_eq!([decade(0), decade(1), decade(12)], ["1", "10⁻¹", "10⁻¹²"]);
        assert_eq!([percent(0.25), percent(1e-6)], ["25.0000 %", "1 in 1,000,000"]);
    }
}
