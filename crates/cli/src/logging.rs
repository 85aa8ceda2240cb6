//! Log lines: levels, form and place as `--log-level`, `--log-format` and `--log-outputs` say.
//!
//! JSON lines carry etcd's field names where tools look for them: `level`, `ts`, `msg`.

use std::fmt;
use std::io;

use synod_server::config::{LogFormat, LogOutput};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Starts logging for the whole process. `SYNOD_LOG` overrides the level in `tracing`'s own syntax.
pub(crate) fn start(level: &str, format: LogFormat, output: LogOutput) {
    let filter = EnvFilter::try_from_env("SYNOD_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let writer = move || -> Box<dyn io::Write> {
        match output {
            LogOutput::Stderr => Box::new(io::stderr()),
            LogOutput::Stdout => Box::new(io::stdout()),
        }
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_target(false)
        // Whoever read our lines may go away; to complain of that there, too, would be a panic of whoever logs.
        .log_internal_errors(false);
    // A second start in one process (a test's) keeps the first.
    let _ = match format {
        LogFormat::Json => builder.event_format(EtcdJson).try_init(),
        LogFormat::Console => builder.with_ansi(wants_colour()).try_init(),
    };
}

/// Colours only for a terminal whose owner did not say no (<https://no-color.org>).
fn wants_colour() -> bool {
    use std::io::IsTerminal;
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && io::stderr().is_terminal()
}

/// One JSON object a line, flat, with etcd's names.
struct EtcdJson;

impl<S, N> FormatEvent<S, N> for EtcdJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut now = String::new();
        SystemTime.format_time(&mut Writer::new(&mut now))?;
        let level = event.metadata().level().as_str().to_lowercase();
        let mut fields = Fields { message: String::new(), rest: serde_json::Map::new() };
        event.record(&mut fields);
        let (level, now) = (serde_json::Value::from(level), serde_json::Value::from(now));
        write!(
            writer,
            "{{\"level\":{level},\"ts\":{now},\"msg\":{}",
            serde_json::Value::from(fields.message)
        )?;
        for (name, value) in fields.rest {
            write!(writer, ",{}:{value}", serde_json::Value::from(name))?;
        }
        writeln!(writer, "}}")
    }
}

struct Fields {
    message: String,
    rest: serde_json::Map<String, serde_json::Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<serde_json::Value>) {
        // Etcd writes its names with hyphens.
        self.rest.insert(field.name().replace('_', "-"), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.put(field, format!("{value:?}"));
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.put(field, value);
        }
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}
