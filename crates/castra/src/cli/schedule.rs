//! `castra schedule`: tasks by the clock.

use super::Ctx;
use super::escape::one_line;
use super::failure::Failure;
use super::task::task_of_file;
use castra_proto::Timestamp;
use castra_proto::task::{Firing, Missed, Overlap, Schedule, SchedulePatch, ScheduleSpec};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Subcommand, Debug)]
pub(super) enum ScheduleCommand {
    /// Make a schedule
    Add(Box<AddArgs>),
    /// List schedules
    #[command(alias = "ls")]
    List,
    /// One schedule: its next times, and what came of the last ones
    Show(OneArg),
    /// Remove schedules; their tasks go on
    Rm(ManyArgs),
    /// Fire now, beside the plan, and print the task's id
    Run(OneArg),
    /// Switch on again; what passed meanwhile is not made up for
    Enable(ManyArgs),
    /// Switch off
    Disable(ManyArgs),
}

#[derive(Args, Debug)]
pub(super) struct OneArg {
    /// Schedule: its name or id
    name: String,
}

#[derive(Args, Debug)]
pub(super) struct ManyArgs {
    /// Schedules: names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct AddArgs {
    /// Its name, and its tasks' label `schedule`
    name: String,
    /// When: '30 2 * * *' (minute hour day month weekday), with a field for seconds in front if need be; or @daily
    cron: String,
    /// The task: TOML, YAML or JSON; `-` reads YAML or JSON from stdin
    #[arg(required_unless_present = "definition", conflicts_with = "definition")]
    file: Option<PathBuf>,
    /// The definition that is launched, instead of a file
    #[arg(long, value_name = "NAME")]
    definition: Option<String>,
    /// A parameter's value; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = super::task::pair)]
    values: Vec<(String, String)>,
    /// e.g. Europe/Berlin; this machine's own when unset
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// Firings for which no daemon was there: skip, once (the newest), or all=N (the newest N)
    #[arg(long, default_value = "once", value_parser = missed)]
    missed: Missed,
    /// While a task of an earlier firing is not over: skip, queue, or allow both
    #[arg(long, default_value = "skip", value_parser = overlap)]
    overlap: Overlap,
    /// Make it, and leave it off
    #[arg(long)]
    disabled: bool,
    /// The real CLI against a scripted model: no account, no cost
    #[arg(long, conflicts_with = "definition")]
    demo: bool,
}

fn missed(text: &str) -> Result<Missed, &'static str> {
    match text {
        "skip" => Ok(Missed::Skip),
        "once" => Ok(Missed::Once),
        _ => text
            .strip_prefix("all=")
            .and_then(|max| max.parse().ok())
            .filter(|max| (1..=1000).contains(max))
            .map(|max| Missed::All { max })
            .ok_or("skip, once, or all=N with N up to 1000"),
    }
}

fn overlap(text: &str) -> Result<Overlap, &'static str> {
    match text {
        "skip" => Ok(Overlap::Skip),
        "queue" => Ok(Overlap::Queue),
        "allow" => Ok(Overlap::Allow),
        _ => Err("skip, queue or allow"),
    }
}

pub(super) async fn schedule(command: ScheduleCommand, ctx: Ctx) -> Result<(), Failure> {
    match command {
        ScheduleCommand::Add(args) => add(*args, ctx).await,
        ScheduleCommand::List => list(ctx).await,
        ScheduleCommand::Show(args) => {
            let schedule = ctx.client().await?.schedule(&args.name).await?;
            ctx.out.either(&schedule, || describe(&schedule))
        }
        ScheduleCommand::Rm(args) => {
            let client = ctx.client().await?;
            for name in &args.names {
                client.delete_schedule(name).await?;
                ctx.out.either(&json!({ "removed": name }), || name.clone())?;
            }
            Ok(())
        }
        ScheduleCommand::Run(args) => {
            let task = ctx.client().await?.run_schedule(&args.name).await?;
            ctx.out.either(&task, || task.id.to_string())
        }
        ScheduleCommand::Enable(args) => switch(args, true, ctx).await,
        ScheduleCommand::Disable(args) => switch(args, false, ctx).await,
    }
}

async fn switch(args: ManyArgs, enabled: bool, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    let patch = SchedulePatch { enabled: Some(enabled) };
    for name in &args.names {
        let schedule = client.patch_schedule(name, &patch).await?;
        ctx.out.either(&schedule, || format!("{} {}", schedule.spec.name, state(&schedule)))?;
    }
    Ok(())
}

async fn add(args: AddArgs, ctx: Ctx) -> Result<(), Failure> {
    let values = args.values.into_iter().map(|(key, value)| (key, Value::String(value)));
    let mut spec = ScheduleSpec {
        name: args.name,
        cron: args.cron,
        timezone: args.timezone.unwrap_or_else(own_zone),
        task: args.file.map(|file| task_of_file(&file, &std::env::current_dir()?)).transpose()?,
        definition: args.definition,
        values: Default::default(),
        missed: args.missed,
        overlap: args.overlap,
        enabled: !args.disabled,
    };
    match &mut spec.task {
        Some(task) => {
            task.session.demo |= args.demo;
            task.values.extend(values);
        }
        None => spec.values.extend(values),
    }
    let schedule = ctx.client().await?.create_schedule(&spec).await?;
    ctx.out.either(&schedule, || schedule.spec.name.clone())?;
    if let (Some(next), false) = (schedule.next.first(), ctx.out.json) {
        ctx.out.note(&format!(
            "next: {} ({})",
            local(*next, &schedule.spec.timezone),
            schedule.spec.timezone
        ));
    }
    Ok(())
}

/// As crontab has it: what a person writes is meant where they are.
fn own_zone() -> String {
    jiff::tz::TimeZone::system().iana_name().unwrap_or("UTC").to_owned()
}

async fn list(ctx: Ctx) -> Result<(), Failure> {
    let schedules = ctx.client().await?.schedules().await?;
    if ctx.out.json {
        return ctx.out.json(&json!({ "items": schedules, "next": null }));
    }
    if schedules.is_empty() {
        ctx.out.note("no schedules; `castra schedule add NAME '30 2 * * *' FILE` makes one");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = schedules
        .iter()
        .map(|one| {
            vec![
                one.spec.name.clone(),
                one.spec.cron.clone(),
                one.spec.timezone.clone(),
                state(one),
                one.last.first().map_or_else(|| "-".into(), |last| last.outcome.as_str().to_owned()),
                one.by.clone(),
            ]
        })
        .collect();
    ctx.out.table(&["NAME", "CRON", "ZONE", "NEXT", "LAST", "BY"], &rows)
}

/// When it fires next, or why it does not.
fn state(schedule: &Schedule) -> String {
    match schedule.next.first() {
        Some(next) => local(*next, &schedule.spec.timezone),
        None if schedule.enabled => "never again".into(),
        None => "off".into(),
    }
}

/// In the schedule's own zone, with its offset: around a change of the clock that is what matters.
fn local(at: Timestamp, zone: &str) -> String {
    let shown = jiff::Timestamp::from_microsecond(at.0).and_then(|at| at.in_tz(zone));
    shown.map_or_else(|_| at.to_string(), |shown| shown.strftime("%Y-%m-%d %H:%M:%S %:z").to_string())
}

fn describe(schedule: &Schedule) -> String {
    let spec = &schedule.spec;
    let zone = &spec.timezone;
    let (missed, overlap) = rules(spec);
    let mut lines = vec![
        ("name", spec.name.clone()),
        ("id", schedule.id.to_string()),
        ("cron", format!("{} ({zone})", spec.cron)),
        ("missed", missed),
        ("overlap", overlap.into()),
        ("by", schedule.by.clone()),
    ];
    if let Some(definition) = &spec.definition {
        lines.push(("definition", definition.clone()));
    }
    if let Some(task) = &spec.task {
        lines.push(("instructions", one_line(task.instructions.as_deref().unwrap_or("-"), 200)));
    }
    if !schedule.enabled {
        lines.push(("next", "off".into()));
    }
    lines.extend(schedule.next.iter().map(|at| ("next", local(*at, zone))));
    lines.extend(schedule.last.iter().map(|firing| ("last", told(firing, zone))));
    let lines = lines.iter().map(|(name, value)| format!("{name:<13} {}", one_line(value, 2000)));
    lines.collect::<Vec<_>>().join("\n")
}

/// As they are written.
fn rules(spec: &ScheduleSpec) -> (String, &'static str) {
    let missed = match spec.missed {
        Missed::Skip => "skip".into(),
        Missed::Once => "once".into(),
        Missed::All { max } => format!("all={max}"),
    };
    let overlap = match spec.overlap {
        Overlap::Skip => "skip",
        Overlap::Queue => "queue",
        Overlap::Allow => "allow",
    };
    (missed, overlap)
}

fn told(firing: &Firing, zone: &str) -> String {
    let task = firing.task_id.map(|id| format!(" {id}")).unwrap_or_default();
    let message = firing.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    format!("{} {}{task}{message}", local(firing.at, zone), firing.outcome.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_they_are_written() {
        assert_eq!(missed("skip"), Ok(Missed::Skip));
        assert_eq!(missed("all=3"), Ok(Missed::All { max: 3 }));
        assert_eq!(overlap("queue"), Ok(Overlap::Queue));
        for wrong in ["all", "all=", "all=0", "all=1001", "never"] {
            assert!(missed(wrong).is_err(), "{wrong}");
        }
        assert!(overlap("both").is_err());
    }

    #[test]
    fn a_time_is_shown_where_it_is_meant() {
        let at = |text: &str| serde_json::from_value::<Timestamp>(text.into()).unwrap();
        let berlin = |text| local(at(text), "Europe/Berlin");
        assert_eq!(berlin("2026-03-29T00:59:59Z"), "2026-03-29 01:59:59 +01:00");
        assert_eq!(berlin("2026-03-29T01:00:00Z"), "2026-03-29 03:00:00 +02:00");
        assert_eq!(local(at("2026-03-29T01:00:00Z"), "Nowhere/Here"), "2026-03-29T01:00:00.000000Z");
    }
}
