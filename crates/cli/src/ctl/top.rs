//! `top`: members, roles, terms, indices, rates, sync times and watchers, live.
//!
//! All of it comes from the status call and from the metrics page, under names that etcd has, too; so a real etcd can be looked at. Rates are
//! differences between two looks.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::Constraint;
use ratatui::style::{Color, Modifier, Style};
use ratatui::widgets::{Block, Row, Table};
use synod_api::Method;
use synod_api::etcdserverpb as pb;
use synod_load::client::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::print;
use super::target::Connection;

/// A metrics page is not longer than this.
const PAGE_MAX: u64 = 8 << 20;
/// A member that does not answer within this time is silent.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// `synod top`
#[derive(Args)]
pub(crate) struct Top {
    /// Seconds between two looks
    #[arg(long, default_value_t = 1.0)]
    every: f64,
    /// Look twice, print a table, and end
    #[arg(long)]
    once: bool,
}

/// One look at one member.
struct Look {
    at: Instant,
    status: pb::StatusResponse,
    /// The page's figures, those with several labels added up.
    figures: BTreeMap<String, f64>,
}

const HEAD: [&str; 12] = [
    "endpoint",
    "id",
    "role",
    "term",
    "index",
    "applied",
    "calls/s",
    "decided/s",
    "sync",
    "peers sent/s",
    "watchers",
    "size",
];

pub(super) async fn run(connection: &Connection, top: &Top) -> Result<ExitCode> {
    if !(0.1..=3600.0).contains(&top.every) {
        bail!("--every={}: allowed is 0.1 to 3600 seconds", top.every);
    }
    let every = Duration::from_secs_f64(top.every);
    if !top.once && !std::io::stdout().is_terminal() {
        bail!("standard output is no terminal; --once prints one table");
    }
    let mut before = look(connection).await;
    if top.once {
        tokio::time::sleep(every).await;
        let now = look(connection).await;
        print::table(&HEAD, rows(&connection.endpoints, &before, &now));
        let silent = now.iter().any(Option::is_none);
        return Ok(if silent { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    let mut terminal = ratatui::try_init().context("the terminal cannot be used")?;
    let outcome = async {
        let mut table = rows(&connection.endpoints, &before, &before);
        loop {
            terminal.draw(|frame| frame.render_widget(widget(&table), frame.area()))?;
            let until = Instant::now() + every;
            while Instant::now() < until {
                // Keys are looked for between two looks; nothing else happens meanwhile.
                if event::poll(Duration::from_millis(50))? && is_end(&event::read()?) {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            let now = look(connection).await;
            table = rows(&connection.endpoints, &before, &now);
            before = now;
        }
    };
    let outcome = outcome.await;
    ratatui::restore();
    outcome
}

fn is_end(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
        || (key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL))
}

fn widget(rows: &[Vec<String>]) -> Table<'_> {
    let coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let shown = rows.iter().map(|row| {
        let leads = matches!(row[2].as_str(), "leads");
        let style = match () {
            () if !coloured => Style::new(),
            () if row[1] == "silent" => Style::new().fg(Color::Red),
            () if leads => Style::new().fg(Color::Green),
            () => Style::new(),
        };
        Row::new(row.iter().map(String::as_str).collect::<Vec<_>>()).style(style)
    });
    let widths = (0..HEAD.len()).map(|column| {
        let longest = rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        Constraint::Length(longest.max(HEAD[column].len()) as u16)
    });
    Table::new(shown, widths)
        .header(Row::new(HEAD).style(Style::new().add_modifier(Modifier::BOLD)))
        .column_spacing(2)
        .block(Block::bordered().title(" synod top ").title_bottom(" q ends "))
}

async fn look(connection: &Connection) -> Vec<Option<Look>> {
    let mut looks = Vec::new();
    for endpoint in &connection.endpoints {
        let looking = tokio::time::timeout(ANSWER_MAX, async {
            let mut client = Client::connect(&[*endpoint], Vec::new()).await?;
            let status = client.call(Method::Status, &pb::StatusRequest {}).await?;
            let figures = figures(&page(*endpoint).await?);
            Ok::<_, anyhow::Error>(Look { at: Instant::now(), status, figures })
        });
        looks.push(looking.await.ok().and_then(Result::ok));
    }
    looks
}

/// `GET /metrics`
async fn page(endpoint: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(endpoint).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {endpoint}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = Vec::new();
    stream.take(PAGE_MAX).read_to_end(&mut page).await?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// The figures of a metrics page by name; samples of one name are added up, buckets left out.
fn figures(page: &str) -> BTreeMap<String, f64> {
    let mut figures = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket{")) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let name = name.split('{').next().unwrap_or_default();
        if let Ok(value) = value.parse::<f64>() {
            *figures.entry(name.to_owned()).or_default() += value;
        }
    }
    figures
}

fn rows(endpoints: &[SocketAddr], before: &[Option<Look>], now: &[Option<Look>]) -> Vec<Vec<String>> {
    let row = |(at, endpoint): (usize, &SocketAddr)| {
        let mut row = vec![endpoint.to_string()];
        let Some(look) = &now[at] else {
            row.push("silent".to_owned());
            row.resize(HEAD.len(), "-".to_owned());
            return row;
        };
        let earlier = before[at].as_ref();
        let figure = |look: &Look, name: &str| look.figures.get(name).copied().unwrap_or(0.0);
        let gained =
            |name: &str| earlier.map_or(0.0, |earlier| (figure(look, name) - figure(earlier, name)).max(0.0));
        let seconds = earlier.map_or(0.0, |earlier| look.at.duration_since(earlier.at).as_secs_f64());
        let rate = |name: &str| if seconds > 0.0 { gained(name) / seconds } else { 0.0 };
        let id = look.status.header.as_ref().map_or(0, |header| header.member_id);
        let role = match () {
            () if look.status.is_learner => "learns",
            () if look.status.leader == id => "leads",
            () if look.status.leader == 0 => "alone",
            () => "follows",
        };
        let syncs = gained("etcd_disk_wal_fsync_duration_seconds_count");
        let sync = match syncs > 0.0 {
            true => format!("{:.2} ms", gained("etcd_disk_wal_fsync_duration_seconds_sum") / syncs * 1e3),
            false => "-".to_owned(),
        };
        row.extend([
            print::hex(id),
            role.to_owned(),
            look.status.raft_term.to_string(),
            look.status.raft_index.to_string(),
            look.status.raft_applied_index.to_string(),
            format!("{:.0}", rate("grpc_server_handled_total")),
            format!("{:.0}", rate("etcd_server_proposals_committed_total")),
            sync,
            print::size(rate("etcd_network_peer_sent_bytes_total") as i64),
            format!("{:.0}", figure(look, "etcd_debugging_mvcc_watcher_total")),
            print::size(look.status.db_size),
        ]);
        row
    };
    endpoints.iter().enumerate().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples with labels are added up, and buckets do not count.
    #[test]
    fn figures_of_a_page() {
        let page = "HTTP/1.1 200 OK\r\n\r\n# HELP a b\na{x=\"1\"} 2\na{x=\"2\"} 3\nb_bucket{le=\"1\"} 9\nb_sum 0.5\nnothing\n";
        let figures = figures(page);
        assert_eq!((figures["a"], figures["b_sum"]), (5.0, 0.5));
        assert!(!figures.contains_key("b_bucket"));
    }

    /// A member that does not answer has a row that says so.
    #[test]
    fn silence_has_a_row() {
        let rows = rows(&[([127, 0, 0, 1], 1).into()], &[None], &[None]);
        assert_eq!((rows[0].len(), rows[0][1].as_str()), (HEAD.len(), "silent"));
    }
}
