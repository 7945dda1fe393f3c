//! A rehearsal drawn: mail by day, what went wrong, trust, and the days on which leased IPs get warm.

use crate::ui::units;
use mailrail_queue::sim::report::Report;
use plotters::{
    coord::Shift,
    prelude::{
        ChartBuilder, DrawingArea, IntoDrawingArea, IntoFont, LineSeries, PathElement, Rectangle, SVGBackend,
        SeriesLabelPosition,
    },
    style::{Color, RGBColor, WHITE},
};

const SIZE: (u32, u32) = (1120, 760);
const FONT: &str = "sans-serif";
const GREY: RGBColor = RGBColor(150, 150, 150);
const INK: RGBColor = RGBColor(31, 78, 121);
const AMBER: RGBColor = RGBColor(200, 130, 0);
const RED: RGBColor = RGBColor(178, 34, 34);
const GREEN: RGBColor = RGBColor(46, 125, 50);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// One line: its name, its colour, its value by day.
type Line<'a> = (&'static str, RGBColor, Vec<f64>);

/// The SVG document.
///
/// # Errors
/// What the drawing library says.
pub(super) fn draw(name: &str, report: &Report) -> Result<String, String> {
    let mut svg = String::new();
    draw_into(&mut svg, name, report).map_err(|why| why.to_string())?;
    Ok(svg)
}

fn draw_into(svg: &mut String, name: &str, report: &Report) -> Drawn {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!(
        "{name}: {} messages in {} days, seed {}",
        units::count(report.total.wanted),
        report.days.len(),
        report.seed
    );
    let root = root.titled(&title, (FONT, 18))?;
    let areas = root.split_evenly((2, 2));
    let of = |value: fn(&mailrail_queue::sim::report::Day) -> f64| report.days.iter().map(value).collect::<Vec<_>>();
    let mail = [
        ("wanted", GREY, of(|day| day.sums.wanted as f64)),
        ("sent", INK, of(|day| day.sums.sent as f64)),
        ("overflowed", AMBER, of(|day| day.sums.overflowed as f64)),
    ];
    let trouble = [
        ("deferred", AMBER, of(|day| day.sums.deferred as f64)),
        ("bounced", RED, of(|day| day.sums.bounced as f64)),
        ("expired", GREY, of(|day| day.sums.expired as f64)),
        ("queued at its end", INK, of(|day| day.queued as f64)),
    ];
    let trust = [("mean", INK, of(|day| day.reputation_mean)), ("worst", RED, of(|day| day.reputation_worst))];
    let [one, two, three, four] = &areas[..] else { return Ok(()) };
    lines(one, "recipients a day", &mail, None)?;
    lines(two, "what did not go at once, recipients", &trouble, None)?;
    lines(three, "reputation, 0 to 100", &trust, Some(100.0))?;
    warm(four, report)?;
    root.present()?;
    Ok(())
}

fn lines(area: &Area<'_>, what: &str, lines: &[Line<'_>], top: Option<f64>) -> Drawn {
    let days = lines.iter().map(|(_, _, values)| values.len()).max().unwrap_or(1);
    let highest = lines.iter().flat_map(|(_, _, values)| values).copied().fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(what, (FONT, 15))
        .x_label_area_size(34)
        .y_label_area_size(84)
        .build_cartesian_2d(1.0..days.max(2) as f64, 0.0..top.unwrap_or(highest * 1.08))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(10)
        .x_desc("day")
        .x_label_formatter(&|day| format!("{day:.0}"))
        .y_label_formatter(&|value| units::count(value.round() as u64))
        .label_style((FONT, 12))
        .draw()?;
    for (name, colour, values) in lines {
        let points = values.iter().enumerate().map(|(day, value)| (day as f64 + 1.0, *value));
        let colour = *colour;
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    let place = if top.is_some() { SeriesLabelPosition::LowerRight } else { SeriesLabelPosition::UpperLeft };
    let legend = (FONT, 12).into_font();
    chart.configure_series_labels().position(place).background_style(WHITE.mix(0.8)).label_font(legend).draw()?;
    Ok(())
}

/// How many IPs are warm, and on which days receivers blocked some.
fn warm(area: &Area<'_>, report: &Report) -> Drawn {
    let most = report.days.iter().map(|day| day.ips_warming.max(day.blocks)).max().unwrap_or(1).max(1);
    let days = report.days.len();
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption("leased IPs that are warm, and IPs blocked on a day", (FONT, 15))
        .x_label_area_size(34)
        .y_label_area_size(84)
        .build_cartesian_2d(0.5..days as f64 + 0.5, 0.0..f64::from(most) * 1.08)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(10)
        .x_desc("day")
        .x_label_formatter(&|day| format!("{day:.0}"))
        .y_labels(most.min(8) as usize)
        .y_label_formatter(&|value| format!("{value:.0}"))
        .label_style((FONT, 12))
        .draw()?;
    let bar = |day: u32, value: u32, half: f64, colour: RGBColor| {
        let day = f64::from(day);
        Rectangle::new([(day - half, 0.0), (day + half, f64::from(value))], colour.filled())
    };
    let legend = |colour: RGBColor| move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled());
    chart
        .draw_series(
            report.days.iter().filter(|day| day.ips_warm > 0).map(|day| bar(day.day, day.ips_warm, 0.4, GREEN)),
        )?
        .label("warm")
        .legend(legend(GREEN));
    chart
        .draw_series(report.days.iter().filter(|day| day.blocks > 0).map(|day| bar(day.day, day.blocks, 0.2, RED)))?
        .label("blocked")
        .legend(legend(RED));
    let font = (FONT, 12).into_font();
    let place = SeriesLabelPosition::UpperLeft;
    chart.configure_series_labels().position(place).background_style(WHITE.mix(0.8)).label_font(font).draw()?;
    Ok(())
}
