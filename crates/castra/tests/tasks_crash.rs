//! The daemon is killed at each step of a task's life: what comes of it is what comes of an undisturbed one.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "task/crash.rs"]
mod crash;
mod task;
mod team;

use castra_proto::api::Page;
use castra_proto::task::TaskEventKind;
use castra_proto::{Task as Shown, TaskState};
use castra_testkit::{Http, Task, World, clis};
use crash::{Doomed, OF_FILES, Story, ask, first, script, undisturbed};
use hyper::Method;
use serde_json::{Value, json};
use task::{CASTRA, instructed, work};
use team::Team;

const TASKS: &str = "/api/v1/tasks";
const KICKOFF: &str =
    "read CLAUDE.md in this folder, do the task it describes, and report as it says. Begin now.";

fn in_world(world: &World, mut body: Value) -> Value {
    body["session"] = world.spec(body["session"].take());
    body
}

/// A file that is taken, one that is refused, one that is taken, one that is left behind; then it is done.
fn of_files(world: &World) -> Value {
    in_world(world, instructed(&first("echo one")))
}

fn nothing(_: &Http, shown: &Shown) -> bool {
    shown.state.is_final()
}

/// Nothing was made twice: all in this world is of so many tasks.
fn assert_tasks(http: &Http, tasks: usize) {
    let listed: Page<Shown> = http.get("/api/v1/tasks?all=true&limit=500").expect(200);
    assert_eq!(listed.items.len(), tasks);
}

fn assert_of_files(story: &Story) {
    assert_eq!(story.end, (TaskState::Done, Some("one".into()), 1), "{story:#?}");
    assert_eq!(story.heard, [[&[KICKOFF], &OF_FILES[..]].concat()], "{story:#?}");
    let paths: Vec<_> =
        story.deliverables.iter().map(|(path, version, _)| (path.as_str(), *version)).collect();
    assert_eq!(paths, [("first.txt", 1), ("last.txt", 1), ("left.txt", 1)], "{story:#?}");
}

/// One daemon after the other, each killed where the last one's successor comes next.
#[test]
fn killed_at_each_step_of_a_task() {
    let world = World::new(CASTRA, &clis()[0].path, &script());
    let daemon = world.daemon();
    let expected = Story::of(&undisturbed(&daemon, &of_files(&world), nothing), &world);
    assert_of_files(&expected);
    let mut doomed = Doomed::new(daemon, &world, TASKS, of_files(&world));
    doomed.dies_at(&[
        "task.created",
        // Its admission.
        "task.commit",
        "task.start",
        "task.begun",
        // It has begun, and the agent was told to.
        "task.commit",
        // The file that is taken, the one that is refused, the last one.
        "task.reply",
        "task.commit",
        "task.committed",
        "task.reply",
        "task.commit",
        "task.committed",
        "task.reply",
        "task.commit",
        "task.ending",
        "task.stopped",
        // Its end.
        "task.commit",
        "task.committed",
    ]);
    let task = doomed.task();
    assert_eq!(Story::of(&task, &world), expected);
    assert_tasks(&task.http, 2);
}

/// A place with nothing dead before it.
#[test]
fn killed_once() {
    let world = World::new(CASTRA, &clis()[0].path, &script());
    let mut doomed = Doomed::new(world.daemon(), &world, TASKS, of_files(&world));
    doomed.dies_at(&["task.committed:3"]);
    let task = doomed.task();
    assert_of_files(&Story::of(&task, &world));
    assert_tasks(&task.http, 1);
}

/// Undisturbed, and killed before and after each commit: the same. What it is like, for what the test says of it.
fn killed_around_every_commit(body: fn(&World) -> Value, act: fn(&Http, &Shown) -> bool) -> Vec<Story> {
    let world = World::new(CASTRA, &clis()[0].path, &script());
    let daemon = world.daemon();
    let expected = Story::of_all(&undisturbed(&daemon, &body(&world), act), &world);
    let mut doomed = Doomed::new(daemon, &world, TASKS, body(&world));
    let commits = doomed.dies_around_each_commit(act);
    let task = doomed.task();
    let stories = Story::of_all(&task, &world);
    assert_eq!(stories, expected);
    assert_tasks(&task.http, 2 * stories.len());
    // Each change of state was such a commit, but the first, with which it is made, and what is committed at once.
    let changes: usize = stories.iter().map(|story| story.said(TaskEventKind::State).len() - 1).sum();
    assert!(commits >= changes, "{commits} commits, {changes} changes of state");
    stories
}

#[test]
fn killed_around_every_commit_of_a_task_that_is_done() {
    assert_of_files(&killed_around_every_commit(of_files, nothing)[0]);
}

#[test]
fn killed_around_every_commit_of_a_task_that_fails_twice() {
    let body = |world: &World| {
        let mut body = instructed("echo 'STATUS: trying' >> optio.log; echo 'ERROR: no coffee' >> optio.log");
        body["retries"] = 1.into();
        in_world(world, body)
    };
    let story = &killed_around_every_commit(body, nothing)[0];
    assert_eq!(story.end, (TaskState::Failed, None, 2), "{story:#?}");
    assert_eq!(story.heard, [[KICKOFF], [KICKOFF]], "{story:#?}");
}

fn cancel(http: &Http, shown: &Shown) {
    let path = format!("/api/v1/tasks/{}/cancel", shown.id);
    let body = json!({"grace_s": 1}).to_string().into();
    // Nobody may be there to hear it.
    let _ = http.try_call(Method::POST, &path, &[], body);
}

#[test]
fn killed_around_every_commit_of_a_task_that_is_cancelled_while_it_needs_input() {
    let body = |world: &World| {
        let session = json!({"allowed_tools": ["Bash", "Read"]});
        in_world(world, json!({"instructions": "TOOLS:", "session": session}))
    };
    let act = |http: &Http, shown: &Shown| {
        if shown.state == TaskState::NeedsInput {
            cancel(http, shown);
        }
        shown.state.is_final()
    };
    let story = &killed_around_every_commit(body, act)[0];
    assert_eq!(story.end, (TaskState::Cancelled, None, 1), "{story:#?}");
    let states = ["queued", "starting", "running", "needs_input", "cancelled: by token:ID"];
    assert_eq!(story.said(TaskEventKind::State), states, "{story:#?}");
    let told: Vec<_> =
        story.heard[0].iter().map(|text| text.split_once(':').map_or("", |(who, _)| who)).collect();
    assert_eq!(story.heard.len(), 1);
    assert_eq!(told[1..], ["report_status", "deliver", "deliver"], "{story:#?}");
}

#[test]
fn killed_around_every_commit_of_a_group_that_is_cancelled() {
    let body = |world: &World| {
        let child = |name: &str| {
            let mut child = instructed("echo 'STATUS: at it' >> optio.log; sleep 300");
            child["name"] = name.into();
            child.as_object_mut().unwrap().remove("session");
            child
        };
        let session = json!({"allowed_tools": ["Bash", "Read"]});
        in_world(
            world,
            json!({"session": session, "group": {"order": "parallel"}, "children": [child("a"), child("b")]}),
        )
    };
    let act = |http: &Http, shown: &Shown| {
        let at_it = |id: &dyn std::fmt::Display| {
            let child: Option<Shown> = ask(http, &format!("/api/v1/tasks/{id}"));
            child.is_some_and(|child| child.progress.message.is_some())
        };
        if shown.children.len() == 2 && shown.children.iter().all(|child| at_it(&child.id)) {
            cancel(http, shown);
        }
        shown.state.is_final()
    };
    let stories = killed_around_every_commit(body, act);
    let ends: Vec<_> = stories.iter().map(|story| (story.end.0, story.heard.len())).collect();
    let cancelled = TaskState::Cancelled;
    assert_eq!(ends, [(cancelled, 0), (cancelled, 1), (cancelled, 1)], "{stories:#?}");
}

/// An agent that scribbles into its instructions, so that they are other ones when it goes on.
fn scribbler(world: &World) -> Value {
    in_world(world, instructed("echo scribbled >> CLAUDE.md; echo 'DONE: once' >> optio.log"))
}

/// Has it go on when it is done.
fn resume(http: &Http, shown: &Shown) -> bool {
    if shown.state.is_final() && shown.attempt == 1 {
        // Nobody may be there to hear it.
        let _ = http.try_call(
            Method::POST,
            &format!("/api/v1/tasks/{}/resume", shown.id),
            &[],
            Default::default(),
        );
    }
    shown.state.is_final() && shown.attempt == 2
}

/// What it had said before, and its resumes without their time.
fn put_away(task: &Task) -> (String, String) {
    let read = |name: &str| std::fs::read_to_string(work(task).join(name)).unwrap();
    let resumes: Vec<_> = read("resume.log")
        .lines()
        .map(|line| line.split_once(' ').map_or("", |(_, more)| more).to_owned())
        .collect();
    (read("optio.log.old"), resumes.join("\n"))
}

/// At each place once; and around each commit from its resume on.
#[test]
fn killed_while_a_task_goes_on() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, &script());
    let daemon = world.daemon();
    let task = undisturbed(&daemon, &scribbler(&world), resume);
    let expected = Story::of(&task, &world);
    assert_eq!(expected.end, (TaskState::Done, Some("again".into()), 2), "{expected:#?}");
    let resumed = "you have been resumed (resume.log). CLAUDE.md has changed: read it again first. Processes you had started \
                   are gone. Go on with the task.";
    assert_eq!(expected.heard, [[KICKOFF, resumed]], "{expected:#?}");
    let away = ("DONE: once\n".to_owned(), "REFRESHED:CLAUDE.md".to_owned());
    assert_eq!(put_away(&task), away);
    let places =
        ["task.start", "task.refreshed", "task.refreshed", "task.begun", "task.ending", "task.stopped"];
    for places in [&places[..], &[]] {
        let world = World::new(CASTRA, &cli.path, &script());
        let mut doomed = Doomed::new(world.daemon(), &world, TASKS, scribbler(&world));
        assert_eq!(doomed.task().wait().result.as_deref(), Some("once"));
        doomed.dies_while(places, resume);
        doomed.dies_around_each_commit(resume);
        let task = doomed.task();
        similar_asserts::assert_eq!(Story::of(&task, &world), expected, "{places:?}");
        assert_eq!(put_away(&task), away, "{places:?}");
        assert_tasks(&task.http, 1);
    }
}

/// Nothing of the conversation is left: it is told what to do as at first, whoever comes to tell it.
#[test]
fn killed_while_a_task_goes_on_that_remembers_nothing() {
    let world = World::new(CASTRA, &clis()[0].path, &script());
    let body = in_world(&world, instructed("echo more >> kept.txt; echo 'DONE: once' >> optio.log"));
    let mut doomed = Doomed::new(world.daemon(), &world, TASKS, body);
    let task = doomed.task();
    assert_eq!(task.wait().result.as_deref(), Some("once"));
    let session = world.home().join("sessions").join(task.session().id);
    std::fs::remove_dir_all(session.join("home/.claude/projects")).unwrap();
    // However much it has said is put away.
    let work = work(&task);
    let mut said = std::fs::read(work.join("optio.log")).unwrap();
    said.resize(65 << 20, b'x');
    std::fs::write(work.join("optio.log"), &said).unwrap();
    doomed.dies_while(&["task.refreshed", "task.begun"], resume);
    let task = doomed.task();
    let story = Story::of(&task, &world);
    assert_eq!(story.end, (TaskState::Done, Some("once".into()), 2), "{story:#?}");
    assert_eq!(story.heard, [[KICKOFF]], "{story:#?}");
    assert_eq!(std::fs::read_to_string(work.join("kept.txt")).unwrap(), "more\nmore\n");
    assert!(std::fs::read(work.join("optio.log.old")).unwrap() == said, "it is all there, and once");
}

/// A parent with work of its own and two children, one after the other.
fn family(world: &World) -> Value {
    let child = |name: &str| json!({"name": name, "instructions": format!("RUN: {}", first(&format!("echo {name}"))), "protocol": "log"});
    let mut body = instructed(&first("cat uploads/children/*/first.txt"));
    body["group"] = json!({"order": "sequential"});
    body["children"] = json!([child("one"), child("two")]);
    in_world(world, body)
}

#[test]
fn a_family_of_tasks_is_killed_from_its_first_child_to_its_parents_end() {
    let world = World::new(CASTRA, &clis()[0].path, &script());
    let daemon = world.daemon();
    let expected = Story::of_all(&undisturbed(&daemon, &family(&world), nothing), &world);
    let ends: Vec<_> = expected.iter().map(|story| story.end.clone()).collect();
    let done = |result: &str| (TaskState::Done, Some(result.to_owned()), 1);
    assert_eq!(ends, [done("one two"), done("one"), done("two")], "{expected:#?}");
    let heard = vec![[&[KICKOFF], &OF_FILES[..]].concat()];
    assert!(expected.iter().all(|story| story.heard == heard), "{expected:#?}");
    let mut doomed = Doomed::new(daemon, &world, TASKS, family(&world));
    doomed.dies_at(&[
        // Made, one after the other; a child that is there is found again.
        "task.child",
        "task.created",
        "task.child:2",
        "task.created:2",
        "task.commit",
    ]);
    let each = ["task.start", "task.begun", "task.reply", "task.commit", "task.ending", "task.stopped"];
    // The first child and the second.
    doomed.dies_at(&each);
    doomed.dies_at(&each);
    doomed.dies_at(&["task.gathered"]);
    // The parent's own work.
    doomed.dies_at(&each);
    let task = doomed.task();
    assert_eq!(Story::of_all(&task, &world), expected);
    assert_tasks(&task.http, 6);
}

/// It is made, and nobody was told: whoever asks again gets the same team, whose agents begin once.
#[test]
fn a_team_is_killed_when_it_is_made() {
    let world = World::new(CASTRA, &clis()[0].path, team::SCRIPT);
    let body = team::spec(&world, &[("one", ""), ("two", "")]);
    let mut doomed = Doomed::new(world.daemon(), &world, "/api/v1/teams", body);
    doomed.dies_at(&["team.created"]);
    let team = Team { id: doomed.lives(), http: doomed.daemon.http() };
    for agent in ["one", "two"] {
        assert_eq!(team.ask(agent, "hello", None), "heard: hello");
    }
    let teams: Page<castra_proto::Team> = team.http.get("/api/v1/teams").expect(200);
    let ids: Vec<_> = teams.items.iter().map(|one| one.id.to_string()).collect();
    assert_eq!((ids, team.sessions().len()), (vec![team.id.clone()], 2));
}
