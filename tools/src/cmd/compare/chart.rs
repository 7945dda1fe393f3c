//! Figures drawn: throughput, and CPU a message, over what was varied.

use plotters::{
    coord::Shift,
    prelude::{
        ChartBuilder, Circle, DrawingArea, ErrorBar, IntoDrawingArea, IntoSegmentedCoord, LineSeries, Rectangle,
        SVGBackend, SegmentValue,
    },
    style::{Color, RGBColor, ShapeStyle, WHITE},
};

/// Median, least, most.
pub(super) type Spread = (f64, f64, f64);

/// What stands on the horizontal axis.
pub(super) enum Axis {
    /// Numbers, with what they count.
    Numbers(&'static str, Vec<u64>),
    /// Names.
    Names(Vec<String>),
}

/// One chart: two panels over the same axis.
pub(super) struct Chart {
    pub(super) title: String,
    /// What it was measured on.
    pub(super) host: String,
    pub(super) axis: Axis,
    /// Messages a second.
    pub(super) rate: Vec<Spread>,
    /// Microseconds of CPU a message.
    pub(super) cost: Vec<Spread>,
}

const SIZE: (u32, u32) = (860, 400);
const INK: RGBColor = RGBColor(31, 78, 121);
/// Seen on white and on a bar.
const LIGHT: RGBColor = RGBColor(240, 140, 40);
const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The SVG document.
///
/// # Errors
/// What the drawing library says.
pub(super) fn draw(chart: &Chart) -> Result<String, String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|why| why.to_string())?;
        let root = root.titled(&chart.title, (FONT, 16)).map_err(|why| why.to_string())?;
        let root = root.titled(&chart.host, (FONT, 11)).map_err(|why| why.to_string())?;
        let (left, right) = root.split_horizontally(SIZE.0 / 2);
        panel(&left, &chart.axis, "messages a second", &chart.rate)?;
        panel(&right, &chart.axis, "CPU a message, microseconds", &chart.cost)?;
        root.present().map_err(|why| why.to_string())?;
    }
    Ok(svg)
}

fn panel(area: &Area<'_>, axis: &Axis, what: &str, values: &[Spread]) -> Result<(), String> {
    let top = values.iter().map(|(_, _, most)| *most).fold(1.0, f64::max) * 1.15;
    match axis {
        Axis::Numbers(unit, numbers) => lines(area, (unit, numbers), what, values, top),
        Axis::Names(names) => bars(area, names, what, values, top),
    }
    .map_err(|why| why.to_string())
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn lines(area: &Area<'_>, (unit, numbers): (&str, &[u64]), what: &str, values: &[Spread], top: f64) -> Drawn {
    // Queue lengths span powers of ten: places are even, labels are true.
    let last = numbers.len().saturating_sub(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(what, (FONT, 14))
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d(-0.25..last + 0.25, 0.0..top)?;
    let label = |at: &f64| {
        let place = at.round();
        let exact = (at - place).abs() < 1e-6 && place >= 0.0;
        let number = exact.then(|| numbers.get(place as usize)).flatten();
        number.map_or_else(String::new, |number| crate::ui::units::count(*number))
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_desc(unit)
        .x_labels(2 * numbers.len() + 1)
        .x_label_formatter(&label)
        .y_label_formatter(&|v| crate::ui::units::count(v.round() as u64))
        .label_style((FONT, 12))
        .draw()?;
    let places = || values.iter().enumerate().map(|(place, value)| (place as f64, *value));
    chart.draw_series(LineSeries::new(places().map(|(x, (median, ..))| (x, median)), INK.stroke_width(2)))?;
    let bar = |(x, (median, least, most)): (f64, Spread)| ErrorBar::new_vertical(x, least, median, most, INK, 8);
    chart.draw_series(places().map(bar))?;
    chart.draw_series(places().map(|(x, (median, ..))| Circle::new((x, median), 3, ShapeStyle::from(INK).filled())))?;
    Ok(())
}

fn bars(area: &Area<'_>, names: &[String], what: &str, values: &[Spread], top: f64) -> Drawn {
    let places = (0..names.len()).into_segmented();
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(what, (FONT, 14))
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d(places, 0.0..top)?;
    let label = |at: &SegmentValue<usize>| match at {
        SegmentValue::CenterOf(place) => names.get(*place).cloned().unwrap_or_default(),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_label_formatter(&label)
        .y_label_formatter(&|v| crate::ui::units::count(v.round() as u64))
        .label_style((FONT, 12))
        .draw()?;
    chart.draw_series(values.iter().enumerate().map(|(place, (median, ..))| {
        let (from, to) = (SegmentValue::Exact(place), SegmentValue::Exact(place + 1));
        let mut bar = Rectangle::new([(from, 0.0), (to, *median)], INK.filled());
        bar.set_margin(0, 0, 24, 24);
        bar
    }))?;
    let spread = |(place, (median, least, most)): (usize, &Spread)| {
        ErrorBar::new_vertical(SegmentValue::CenterOf(place), *least, *median, *most, LIGHT, 8)
    };
    chart.draw_series(values.iter().enumerate().map(spread))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_of_both_kinds_are_drawn() {
        let values = vec![(10_000.0, 9_000.0, 11_000.0), (19_000.0, 18_000.0, 21_000.0)];
        for axis in [Axis::Numbers("shards", vec![1, 2]), Axis::Names(vec!["mailrail".into(), "postfix".into()])] {
            let last = if matches!(axis, Axis::Names(_)) { "postfix" } else { "shards" };
            let chart = Chart {
                title: "a <title>".into(),
                host: "a host".into(),
                axis,
                rate: values.clone(),
                cost: values.clone(),
            };
            let svg = draw(&chart).unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            for text in [last, "messages a second", "20,000", "a &lt;title&gt;"] {
                assert!(svg.contains(text), "{text} is not in {svg}");
            }
        }
    }
}
