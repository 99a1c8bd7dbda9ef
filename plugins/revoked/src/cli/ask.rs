//! What each command does.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    Cli, Command, ConfigCommand, Connection, Daemon, Exit, Form, OnOff, Selection,
    exit::Failure,
    lines, print,
    print::say,
    select::token_in,
    work::{How, Reach, Wanted},
};
use crate::serve;

pub(super) async fn run(command: Command, daemon: Daemon) -> Result<Exit, Failure> {
    match command {
        Command::Serve { check: false } => serve_until_stopped(daemon.config).await,
        Command::Serve { check: true } => check_config(&daemon.config).await,
        Command::Config(ConfigCommand::Check { file }) => check_config(&file).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "revoked", &mut script);
            say!("{}", String::from_utf8_lossy(&script).trim_end());
            Ok(Exit::Done)
        }
        Command::Man => {
            let page = clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout());
            page.map(|()| Exit::Done).map_err(|error| Failure::failed(error.to_string()))
        }
        asks => ask(asks, Connection::new(daemon)?).await,
    }
}

async fn serve_until_stopped(file: PathBuf) -> Result<Exit, Failure> {
    log();
    serve::Daemon::run(file).await.map(|()| Exit::Done).map_err(|error| failed(&error))
}

async fn check_config(file: &Path) -> Result<Exit, Failure> {
    match serve::Daemon::check(file).await {
        Ok(()) => {
            say!("{}: can be used", file.display());
            Ok(Exit::Done)
        }
        Err(error) => {
            // As compilers do it, for editors.
            eprintln!("{error}");
            Ok(Exit::Usage)
        }
    }
}

fn failed(error: &serve::ServeError) -> Failure {
    match error {
        serve::ServeError::Config(_) => Failure::usage(error.to_string()),
        _ => Failure::failed(error.to_string()),
    }
}

/// To standard error: text, or JSON where `REVOKED_LOG_FORMAT=json`; `RUST_LOG` chooses what.
fn log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::env::var("REVOKED_LOG_FORMAT").is_ok_and(|format| format == "json") {
        builder.json().init();
    } else {
        builder.with_ansi(false).init();
    }
}

async fn ask(command: Command, connection: Connection) -> Result<Exit, Failure> {
    match command {
        Command::Check { token, file, form } => check(&connection, token, file.as_deref(), form).await,
        Command::Revoke { what, how, form } => revoke(&connection, what, how, form).await,
        Command::Lift { ids, what, enable, by, form } => {
            let asked = if ids.is_empty() { what.read()? } else { json!({}) };
            lift(&connection, ids, asked, enable, by, form).await
        }
        Command::Preview { what, reach, form } => preview(&connection, what, reach, form).await,
        Command::List { what, form } => list(&connection, &what, form).await,
        Command::Watch { form } => watch(&connection, form).await,
        Command::Denials { form } => denials(&connection, form).await,
        Command::Status { form } => status(&connection, form).await,
        Command::Nodes { form } => nodes(&connection, form).await,
        Command::Report { form } => report(&connection, form).await,
        Command::Endpoints { name, to, form } => endpoints(&connection, name.zip(to), form).await,
        Command::Import { file } => import(&connection, &file).await,
        Command::Export { file } => {
            let count = lines::export(&connection, &file).await?;
            eprintln!("{count} revocations exported");
            Ok(Exit::Done)
        }
        Command::Serve { .. } | Command::Config(_) | Command::Completions { .. } | Command::Man => Ok(Exit::Done),
    }
}

async fn check(
    connection: &Connection,
    token: Option<String>,
    file: Option<&Path>,
    form: Form,
) -> Result<Exit, Failure> {
    let token = token_in(token, file)?.ok_or_else(|| Failure::usage("say which token"))?;
    let body = json!({ "token": token.as_str() });
    let said = connection.success(Method::POST, "/api/v1/check", Some(&body)).await?;
    if !form.raw(&said) {
        print::pairs(&[("verdict", print::word(&said["verdict"])), ("why", print::word(&said["detail"]))]);
        for revocation in said["revocations"].as_array().into_iter().flatten() {
            let (id, scope) = (print::word(&revocation["id"]), &revocation["scope"]);
            say!("revoked  {id}  {} {}", print::word(&scope["kind"]), print::scope(scope));
        }
    }
    Ok(match said["verdict"].as_str() {
        Some("allow") => Exit::Done,
        Some("deny") => Exit::Denied,
        _ => Exit::Unknown,
    })
}

async fn revoke(connection: &Connection, what: Selection, how: How, form: Form) -> Result<Exit, Failure> {
    let mut asked = what.read()?;
    how.add_to(&mut asked)?;
    let answer = connection.json(Method::POST, "/api/v1/revocations", Some(&asked)).await?;
    let said = &answer.body;
    let not_everywhere = said["error"] == "not_everywhere";
    if !answer.status.is_success() && !not_everywhere {
        return Err(connection.refusal(&answer));
    }
    if !form.raw(said) {
        let scope = &said["scope"];
        let id = said["id"].as_str().unwrap_or("-");
        say!("{}  {id}  {} {}", print::word(&said["outcome"]), print::word(&scope["kind"]), print::scope(scope));
    }
    if not_everywhere {
        let nodes: Vec<_> = said["unconfirmed"].as_array().into_iter().flatten().map(print::word).collect();
        eprintln!("revoked: recorded, but not every node has confirmed: {}", nodes.join(", "));
        return Ok(Exit::NotEverywhere);
    }
    Ok(Exit::Done)
}

async fn lift(
    connection: &Connection,
    mut ids: Vec<String>,
    mut asked: Value,
    enable: bool,
    by: Option<String>,
    form: Form,
) -> Result<Exit, Failure> {
    if asked.get("token").is_some() {
        // Only the daemon can tell which scope a token is.
        let known = connection.success(Method::POST, "/api/v1/revocations/preview", Some(&asked)).await?;
        asked = json!({ "scope": known["scope"] });
    } else if asked.get("scope").is_some() {
        let known = connection.success(Method::POST, "/api/v1/revocations/preview", Some(&asked)).await?;
        asked["scope"] = known["scope"].clone();
    }
    if enable {
        asked["enable"] = true.into();
    } else {
        if let Some(scope) = asked.get("scope") {
            ids = ids_of(connection, scope).await?;
            if ids.is_empty() {
                return Err(Failure::failed("there is no live revocation of this scope"));
            }
        }
        asked["ids"] = json!(ids);
    }
    if let Some(by) = by.filter(|by| !by.is_empty()) {
        asked["by"] = by.into();
    }
    let said = connection.success(Method::POST, "/api/v1/revocations/lift", Some(&asked)).await?;
    if !form.raw(&said) {
        for id in said["lifted"].as_array().into_iter().flatten() {
            say!("lifted  {}", print::word(id));
        }
        if said["enabled"].is_object() {
            say!("enabled  {}", print::scope(&said["enabled"]));
        }
    }
    Ok(Exit::Done)
}

/// The live revocations of exactly this scope, as they are now.
async fn ids_of(connection: &Connection, scope: &Value) -> Result<Vec<String>, Failure> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", "1000");
    for (name, value) in scope.as_object().into_iter().flatten() {
        let name = if name == "kind" { "scope" } else { name.as_str() };
        query.append_pair(name, value.as_str().unwrap_or_default());
    }
    let path = format!("/api/v1/revocations?{}", query.finish());
    let said = connection.success(Method::GET, &path, None).await?;
    let found = said["revocations"].as_array().into_iter().flatten();
    Ok(found.filter_map(|revocation| revocation["id"].as_str().map(str::to_owned)).collect())
}

async fn preview(connection: &Connection, what: Selection, reach: Reach, form: Form) -> Result<Exit, Failure> {
    let mut asked = what.read()?;
    reach.add_to(&mut asked);
    let said = connection.success(Method::POST, "/api/v1/revocations/preview", Some(&asked)).await?;
    if !form.raw(&said) {
        print::pairs(&[
            ("scope", format!("{} {}", print::word(&said["scope"]["kind"]), print::scope(&said["scope"]))),
            ("would refuse", print::time(&said["would"]["cutoff"])),
            ("kept until", print::time(&said["would"]["retain_until"])),
            ("revocations", print::word(&said["revocations"])),
            ("cutoff", print::time(&said["cutoff"])),
            ("sessions", print::word(&said["sessions"])),
            ("grants", print::word(&said["grants"])),
        ]);
    }
    Ok(Exit::Done)
}

/// How many to ask for at once.
const PAGE: usize = 500;

async fn list(connection: &Connection, wanted: &Wanted, form: Form) -> Result<Exit, Failure> {
    let mut left = wanted.limit.map_or(usize::MAX, usize::from);
    let mut place: Option<String> = None;
    let mut rows = Vec::new();
    loop {
        let said = connection.success(Method::GET, &wanted.page(left.min(PAGE), place.as_deref()), None).await?;
        let page = said["revocations"].as_array().map(Vec::as_slice).unwrap_or_default();
        left = left.saturating_sub(page.len());
        for revocation in page {
            if form.json {
                say!("{revocation}");
            } else {
                rows.push(row(revocation));
            }
        }
        place = said["next"].as_str().map(str::to_owned);
        if said["unreadable"].as_u64().is_some_and(|count| count > 0) {
            eprintln!("revoked: the store holds records that this node cannot read; see `revoked status`");
        }
        if place.is_none() || left == 0 || page.is_empty() {
            break;
        }
    }
    if !form.json {
        print::table(&["ID", "KIND", "CUTOFF", "KEPT UNTIL", "BY", "SCOPE", "REASON"], &rows);
    }
    Ok(Exit::Done)
}

fn row(revocation: &Value) -> Vec<String> {
    let scope = &revocation["scope"];
    vec![
        print::word(&revocation["id"]),
        print::word(&scope["kind"]),
        print::time(&revocation["cutoff"]),
        print::time(&revocation["retain_until"]),
        print::word(&revocation["revoked_by"]),
        print::scope(scope),
        print::word(&revocation["reason"]),
    ]
}

async fn watch(connection: &Connection, form: Form) -> Result<Exit, Failure> {
    let response = connection.open("/api/v1/watch").await?;
    let told = |line: &[u8]| {
        let unreadable = |_| Failure::failed("the daemon told something that is no JSON");
        let change: Value = serde_json::from_slice(line).map_err(unreadable)?;
        if !form.raw(&change) {
            match change["event"].as_str() {
                Some("revoked") => say!("revoked   {}", row(&change["revocation"]).join("  ")),
                Some("lifted") => {
                    let ids: Vec<_> = change["ids"].as_array().into_iter().flatten().map(print::word).collect();
                    let by = print::word(&change["lifted_by"]);
                    say!("lifted    {}  {by}  {}", ids.join(","), print::scope(&change["scope"]));
                }
                _ => say!("{}", print::word(&change["event"])),
            }
        }
        Ok(())
    };
    lines::read(response, told).await?;
    Err(Failure::failed("the daemon ended the feed"))
}

async fn denials(connection: &Connection, form: Form) -> Result<Exit, Failure> {
    let said = connection.success(Method::GET, "/api/v1/denials", None).await?;
    if !form.raw(&said) {
        let row = |denied: &Value| {
            let at = denied["denied_at"].as_u64().map_or(Value::Null, |millis| (millis / 1000).into());
            let names = ["door", "reason", "scope", "method", "path"];
            [print::time(&at)].into_iter().chain(names.map(|name| print::word(&denied[name]))).collect::<Vec<_>>()
        };
        let rows: Vec<_> = said["denials"].as_array().into_iter().flatten().map(row).collect();
        print::table(&["TIME", "DOOR", "REASON", "SCOPE", "METHOD", "PATH"], &rows);
    }
    Ok(Exit::Done)
}

async fn status(connection: &Connection, form: Form) -> Result<Exit, Failure> {
    let said = connection.success(Method::GET, "/api/v1/status", None).await?;
    if !form.raw(&said) {
        let all = |list: &Value| list.as_array().into_iter().flatten().map(print::word).collect::<Vec<_>>().join("; ");
        print::pairs(&[
            ("node", print::word(&said["node"])),
            ("version", print::word(&said["version"])),
            ("ready", print::word(&said["ready"])),
            ("why not", all(&said["why"])),
            ("rollout", rollout(&said["rollout"])),
            ("staleness", print::seconds(&said["staleness"])),
            ("stale after", print::seconds(&said["stale_after"])),
            ("applied", print::word(&said["applied"])),
            ("records", format!("{} of {}", print::word(&said["records"]), print::word(&said["budget"]))),
            ("durability", print::word(&said["durability"])),
            ("last error", print::word(&said["last_error"])),
        ]);
    }
    Ok(if said["ready"] == true { Exit::Done } else { Exit::Unknown })
}

async fn nodes(connection: &Connection, form: Form) -> Result<Exit, Failure> {
    let said = connection.success(Method::GET, "/api/v1/nodes", None).await?;
    if !form.raw(&said) {
        let row = |node: &Value| {
            vec![
                print::word(&node["node"]),
                print::word(&node["state"]),
                print::seconds(&node["silent_for"]),
                behind(&node["behind"]),
                print::word(&node["enforces"]),
                print::word(&node["applied"]),
            ]
        };
        let rows: Vec<_> = said["nodes"].as_array().into_iter().flatten().map(row).collect();
        print::table(&["NODE", "STATE", "SILENT FOR", "BEHIND", "ENFORCES", "APPLIED"], &rows);
    }
    Ok(Exit::Done)
}

/// How far a node is behind the newest place that was announced.
fn behind(behind: &Value) -> String {
    match (behind["amount"].as_u64(), behind["unit"].as_str()) {
        (Some(amount), Some(unit)) => format!("{amount} {}", print::plain(unit)),
        _ => "-".to_owned(),
    }
}

/// What is enforced, in a sentence.
fn rollout(rollout: &Value) -> String {
    let shadow: Vec<_> = rollout["shadow"].as_array().into_iter().flatten().map(print::word).collect();
    // 100, not 100.0.
    let percent =
        rollout["percent"].as_f64().map_or_else(|| print::word(&rollout["percent"]), |number| number.to_string());
    match shadow.is_empty() {
        true => format!("for {percent}% of the users"),
        false => format!("for {percent}% of the users; in shadow: {}", shadow.join(", ")),
    }
}

async fn report(connection: &Connection, form: Form) -> Result<Exit, Failure> {
    let said = connection.success(Method::GET, "/api/v1/report", None).await?;
    if form.raw(&said) {
        return Ok(Exit::Done);
    }
    let sender = |row: &Value| match row["sender"].as_str() {
        Some("client") => [print::word(&row["client_id"]), print::word(&row["iss"])],
        other => [format!("({})", other.unwrap_or("unknown")), "-".to_owned()],
    };
    let cells = |row: &Value, names: &[&str]| {
        let counts = names.iter().map(|name| print::word(&row[*name]));
        counts.chain([print::time(&row["last_seen"])]).chain(sender(row)).collect::<Vec<_>>()
    };
    print::pairs(&[
        ("since", print::time(&said["since"])),
        ("enforced", rollout(&said["rollout"])),
        ("refused", print::word(&said["refused_in_all"])),
        ("would be refused", print::word(&said["would_refuse_in_all"])),
        ("left out", print::word(&said["left_out"])),
    ]);
    let rows = |name: &str, columns: &[&str]| {
        said[name].as_array().into_iter().flatten().map(|row| cells(row, columns)).collect::<Vec<_>>()
    };
    say!("");
    let head = ["WOULD REFUSE", "REFUSED", "REASON", "SCOPE", "LAST SEEN", "CLIENT", "ISSUER"];
    print::table(&head, &rows("refused", &["would_refuse", "refused", "reason", "scope"]));
    say!("");
    let head = ["NO JTI", "NO SID", "NO IAT", "LAST SEEN", "CLIENT", "ISSUER"];
    print::table(&head, &rows("missing", &["jti", "sid", "iat"]));
    Ok(Exit::Done)
}

async fn endpoints(connection: &Connection, turn: Option<(String, OnOff)>, form: Form) -> Result<Exit, Failure> {
    let said = match turn {
        Some((name, to)) => {
            let asked = json!({ name: to == OnOff::On });
            connection.success(Method::PUT, "/api/v1/endpoints", Some(&asked)).await?
        }
        None => connection.success(Method::GET, "/api/v1/endpoints", None).await?,
    };
    if !form.raw(&said) {
        let state = |on: &Value| if *on == true { "on" } else { "off" }.to_owned();
        let row = |(name, is): (&String, &Value)| vec![name.clone(), state(&is["enabled"]), print::word(&is["path"])];
        let rows: Vec<_> = said["endpoints"].as_object().into_iter().flatten().map(row).collect();
        print::table(&["ENDPOINT", "STATE", "PATH"], &rows);
    }
    Ok(Exit::Done)
}

async fn import(connection: &Connection, file: &Path) -> Result<Exit, Failure> {
    let answer = lines::import(connection, file).await?;
    let said = &answer.body;
    if let Some(recorded) = said["recorded"].as_u64() {
        let read = said["read"].as_u64().unwrap_or_default();
        eprintln!("{recorded} recorded, {} known already or over", read.saturating_sub(recorded));
    }
    for error in said["errors"].as_array().into_iter().flatten() {
        eprintln!("{}:{}: {}", file.display(), error["line"], print::word(&error["error"]));
    }
    if answer.status == StatusCode::OK { Ok(Exit::Done) } else { Err(connection.refusal(&answer)) }
}

impl Form {
    /// Prints JSON where that was asked for.
    fn raw(self, said: &Value) -> bool {
        if self.json {
            say!("{said}");
        }
        self.json
    }
}
