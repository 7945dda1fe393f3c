//! Draws the view: from 80 columns and 24 lines on.

use super::view::{Line, Panel, View, per_second};
use crate::ui::units;
use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line as Text, Span},
    widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Sparkline, Table},
};
use std::time::Duration;

/// Errors shown.
const ERRORS: u16 = 2;
/// Shards shown where another table has the focus.
const SHARDS: u16 = 3;

const HELP: [&str; 9] = [
    "tab, ← →     next table, table before",
    "↑ ↓ PgUp PgDn  scroll the table",
    "s, S         sort by the next column, the one before",
    "r            turn the order round",
    "/            show only lines with this text; Esc clears it",
    "space, p     pause, go on",
    "?            this help",
    "q, Esc, ^C   quit",
    "any key closes this",
];

/// The whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let shards = view.now.status.shards.len() as u16;
    let of_shards =
        if view.focus == Panel::Shards { Constraint::Fill(3) } else { Constraint::Length(1 + shards.clamp(1, SHARDS)) };
    let weight = |panel: Panel| Constraint::Fill(if view.focus == panel { 3 } else { 2 });
    let [head, spark, ips, providers, sites, shards, errors, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2),
        weight(Panel::Ips),
        weight(Panel::Providers),
        weight(Panel::Sites),
        of_shards,
        Constraint::Length(1 + ERRORS),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    header(frame, head, view);
    throughput(frame, spark, view);
    table(frame, ips, view, Panel::Ips);
    table(frame, providers, view, Panel::Providers);
    table(frame, sites, view, Panel::Sites);
    table(frame, shards, view, Panel::Shards);
    last_errors(frame, errors, view);
    footer(frame, foot, view);
    if view.help {
        help(frame);
    }
}

fn header(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let status = &view.now.status;
    let up = units::duration(Duration::from_secs(status.uptime_s));
    let (taken, sent) = (view.rate(|status| status.totals.accepted), view.rate(|status| status.totals.delivered));
    let mut spans = vec![
        Span::from(format!("{} ", status.hostname)).bold(),
        Span::from(format!("up {up}  ")).dim(),
        Span::from(format!("queued {}  ", units::count(status.queued))),
        Span::from(format!("in {}/s  ", per_second(taken))),
        Span::from(format!("out {}/s  ", per_second(sent))).green(),
    ];
    if !status.silent_shards.is_empty() {
        spans.push(Span::from(format!("silent shards {:?} ", status.silent_shards)).red());
    }
    if view.paused {
        spans.push(Span::from("PAUSED").black().on_yellow());
    }
    frame.render_widget(Text::from(spans), area);
}

fn throughput(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let [label, line] = Layout::horizontal([Constraint::Length(14), Constraint::Fill(1)]).areas(area);
    let most = view.rates.iter().copied().max().unwrap_or(0);
    let words = vec![Text::from("delivered/s").dim(), Text::from(format!("top {}", units::count(most))).dim()];
    frame.render_widget(Paragraph::new(words), label);
    let shown = view.rates.len().saturating_sub(usize::from(line.width));
    let rates: Vec<u64> = view.rates.iter().skip(shown).copied().collect();
    frame.render_widget(Sparkline::default().data(rates).style(Style::new().green()), line);
}

/// Widths of the columns, and which of them are figures.
fn columns(panel: Panel, view: &View) -> Vec<(Constraint, bool)> {
    let figure = |width| (Constraint::Length(width), true);
    let text = |width| (Constraint::Length(width), false);
    match panel {
        Panel::Ips => {
            let long = view.now.status.shards.iter().flat_map(|shard| &shard.ips).any(|ip| ip.address.is_ipv6());
            let address = if long { Constraint::Max(39) } else { Constraint::Length(15) };
            let warms = view.now.status.shards.iter().flat_map(|shard| &shard.ips).any(|ip| ip.warmup.is_some());
            // Without warm-up the pools' names have its room.
            let bar = if warms { 13 } else { 7 };
            let rest = [text(bar), figure(9), figure(6), figure(5), figure(5), figure(5), figure(6)];
            [(address, false), (Constraint::Fill(1), false)].into_iter().chain(rest).collect()
        }
        Panel::Providers => {
            let figures = [figure(7), figure(6), figure(5), figure(5)];
            let ends = [text(9), (Constraint::Fill(2), false)];
            let starts = [(Constraint::Max(12), false), text(13)];
            starts.into_iter().chain(figures).chain(ends).collect()
        }
        Panel::Sites => {
            let known = view.now.queue.rows.iter().any(|row| row.provider.is_some());
            let provider = if known { 10 } else { 0 };
            let reason = (Constraint::Fill(3), false);
            vec![(Constraint::Fill(2), false), text(provider), figure(8), figure(8), figure(5), text(10), reason]
        }
        Panel::Shards => {
            vec![text(6), figure(10), figure(9), figure(9), figure(8), figure(8), (Constraint::Fill(1), false)]
        }
    }
}

fn table(frame: &mut Frame<'_>, area: Rect, view: &View, panel: Panel) {
    let (lines, all) = view.lines(panel);
    let look = view.look(panel);
    let columns = columns(panel, view);
    let focused = view.focus == panel;
    let headings = panel.columns().iter().zip(&columns).enumerate().map(|(number, (name, (_, figure)))| {
        let mark = match (number == look.sort, look.reverse) {
            (true, false) => "▾",
            (true, true) => "▴",
            _ => "",
        };
        cell(format!("{name}{mark}"), *figure)
    });
    let style =
        if focused { Style::new().black().on_cyan() } else { Style::new().add_modifier(Modifier::REVERSED).dim() };
    let headings = Row::new(headings).style(style);
    let hidden = all.saturating_sub(usize::from(area.height.saturating_sub(1)));
    let rows = lines.iter().map(|line| row(line, &columns));
    let widths: Vec<Constraint> = columns.iter().map(|(width, _)| *width).collect();
    frame.render_widget(Table::new(rows, widths).header(headings).column_spacing(1), area);
    if all == 0 && area.height > 1 {
        let none = match panel {
            Panel::Ips if view.filter.is_empty() => "no leased IP: `mailrail apply` gives the server some",
            Panel::Providers if view.filter.is_empty() => "no mail has gone to a known provider",
            Panel::Sites if view.filter.is_empty() => "nothing is queued",
            Panel::Shards => "no shard answers",
            _ => "nothing fits the filter",
        };
        frame.render_widget(Text::from(none).dim(), Rect { y: area.y + 1, height: 1, ..area });
    } else if hidden > 0 && focused && area.height > 1 {
        let more = Paragraph::new(format!(" {all} in all ")).alignment(Alignment::Right).dim();
        frame.render_widget(
            more,
            Rect { y: area.bottom() - 1, height: 1, x: area.right().saturating_sub(16), width: 16.min(area.width) },
        );
    }
}

fn cell(text: String, figure: bool) -> Cell<'static> {
    let alignment = if figure { Alignment::Right } else { Alignment::Left };
    Cell::from(Text::from(text).alignment(alignment))
}

fn row(line: &Line, columns: &[(Constraint, bool)]) -> Row<'static> {
    let cells = line.cells.iter().zip(columns).map(|(text, (_, figure))| cell(text.clone(), *figure));
    let style = if line.troubled { Style::new().fg(Color::Yellow) } else { Style::new() };
    Row::new(cells).style(style)
}

fn last_errors(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let now = view.now.status.time;
    let mut lines = vec![Text::from("last errors").dim()];
    for (at, text) in view.errors().into_iter().take(ERRORS.into()) {
        lines.push(Text::from(vec![
            Span::from(format!("{:>8}  ", units::relative(at, now))).dim(),
            text.to_owned().yellow(),
        ]));
    }
    if lines.len() == 1 {
        lines.push(Text::from("none").dim());
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn footer(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let line = if view.typing {
        Text::from(format!("filter: {}▏  Enter keeps it, Esc clears it", view.filter)).yellow()
    } else if let Some(error) = &view.error {
        Text::from(error.clone()).red()
    } else if view.filter.is_empty() {
        Text::from("tab table  ↑↓ scroll  s sort  r reverse  / filter  space pause  ? help  q quit").dim()
    } else {
        Text::from(format!("only lines with \"{}\"; / changes that", view.filter)).yellow()
    };
    frame.render_widget(line, area);
}

fn help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let (width, height) = (60.min(area.width), (HELP.len() as u16 + 2).min(area.height));
    let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    let lines: Vec<Text<'_>> = HELP.iter().map(|line| Text::from(format!(" {line}"))).collect();
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(Block::new().borders(Borders::ALL).title(" mailrail top ")), place);
}

#[cfg(test)]
mod tests {
    use super::super::view::Sample;
    use super::*;
    use crate::cmd::provider;
    use mailrail_engine::{
        control::api::types::provider::ProviderRow,
        link::{IpStatus, ProviderIp, ProviderState, QueueRow, ShardStatus, WarmupStanding},
    };
    use ratatui::{
        Terminal,
        backend::TestBackend,
        crossterm::event::{KeyCode, KeyEvent},
    };

    fn ip(n: u8, warmup: Option<WarmupStanding>) -> IpStatus {
        IpStatus {
            address: [192, 0, 2, n].into(),
            helo: "out".into(),
            pool: if n.is_multiple_of(2) { "acme" } else { "main" }.into(),
            queued: u64::from(n) * 1000,
            connections: 2,
            delivered: 0,
            deferred: 3,
            bounced: 1,
            warmup,
        }
    }

    fn sample(delivered: u64, time: u64) -> Sample {
        let warming = WarmupStanding { percentage: 40, sent: 120, cap: Some(840), ..Default::default() };
        let ips = (1..=20).map(|n| ip(n, (n == 2).then(|| warming.clone()))).collect();
        let mut shard = ShardStatus { ips, delivered, ..ShardStatus::default() };
        shard.last_errors = vec![(time - 1000, "from 192.0.2.1: connection refused".into())];
        let row = |site: &str, queued| QueueRow { site: site.into(), queued, oldest: 1, ..QueueRow::default() };
        let mut sample = Sample::default();
        sample.status.hostname = "mta.example.net".into();
        sample.status.time = time;
        sample.status.totals.delivered = delivered;
        sample.status.shards = vec![shard];
        let held = QueueRow { reason: "451 greylisted".into(), next_try: Some(time + 60_000), ..row("mx.b.test", 7) };
        sample.queue.rows = vec![row("mx.a.test", 3), held];
        let slowed = ProviderIp {
            rate: Some("5/s".into()),
            recovers_at: Some(time + 120_000),
            reason: Some("421 4.7.28 unusual rate".into()),
            reason_at: Some(time - 5000),
            delivered: delivered / 2,
            ..provider::tests::ip(ProviderState::Slowed)
        };
        let row = |name: &str, ips| ProviderRow { name: name.into(), ips, ..ProviderRow::default() };
        sample.providers.providers = vec![row("gmail", vec![slowed]), row("yahoo", Vec::new())];
        sample
    }

    fn screen(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned() + "\n";
        (0..height).map(line).collect()
    }

    fn press(view: &mut View, keys: &str) {
        for key in keys.chars() {
            let code = match key {
                '\t' => KeyCode::Tab,
                '\n' => KeyCode::Enter,
                letter => KeyCode::Char(letter),
            };
            view.key(KeyEvent::from(code));
        }
    }

    #[test]
    fn everything_is_there_at_80_by_24_and_at_120_by_40() {
        let mut view = View::new(sample(0, 10_000));
        view.take(Ok(sample(500, 11_000)));
        for (width, height) in [(80, 24), (120, 40)] {
            let shown = screen(&view, width, height);
            for part in
                ["mta.example.net", "out 500/s", "delivered/s", "192.0.2.1", "████░░░░ 40%", "120/840", "mx.a.test"]
                    .into_iter()
                    .chain(["gmail", "slowed (1)", "5/s", "250", "in 2m", "421 4.7.28"])
                    .chain(["mx.b.test", "451 greylisted", "in 1m", "SHARD", "connection refused", "q quit", "BOUNCE"])
            {
                assert!(shown.contains(part), "{part} at {width}x{height} in\n{shown}");
                assert!(!shown.contains("yahoo"), "nobody has met it");
            }
        }
    }

    #[test]
    fn a_table_is_sorted_filtered_and_scrolled() {
        let mut view = View::new(sample(0, 10_000));
        let first = |view: &View| view.lines(Panel::Ips).0[0].cells[0].clone();
        assert_eq!(first(&view), "192.0.2.1");
        press(&mut view, "ssss");
        assert_eq!(first(&view), "192.0.2.20", "most queued first");
        press(&mut view, "r");
        assert_eq!(first(&view), "192.0.2.1");
        press(&mut view, "/acme\n");
        assert_eq!((view.lines(Panel::Ips).1, first(&view)), (10, "192.0.2.2".into()));
        view.key(KeyEvent::from(KeyCode::Down));
        assert_eq!(first(&view), "192.0.2.4");
        assert!(screen(&view, 80, 24).contains("only lines with \"acme\""));
        press(&mut view, "/");
        view.key(KeyEvent::from(KeyCode::Esc));
        assert_eq!((view.lines(Panel::Ips).1, view.quits()), (20, false));
    }

    #[test]
    fn a_pause_keeps_the_screen_and_an_error_is_shown() {
        let mut view = View::new(sample(0, 10_000));
        press(&mut view, " ");
        view.take(Ok(sample(900, 11_000)));
        assert!(screen(&view, 80, 24).contains("PAUSED") && view.now.status.totals.delivered == 0);
        view.take(Err("there is no server".into()));
        assert!(screen(&view, 80, 24).contains("there is no server"));
        press(&mut view, "?");
        assert!(screen(&view, 80, 24).contains("any key closes this"));
        press(&mut view, "x\t\t\tq");
        assert!(view.quits() && view.focus == Panel::Shards);
    }

    #[test]
    fn the_smallest_screens_are_no_trouble() {
        let view = View::new(Sample::default());
        for (width, height) in [(1, 1), (10, 3), (20, 8), (79, 12)] {
            screen(&view, width, height);
        }
    }
}
