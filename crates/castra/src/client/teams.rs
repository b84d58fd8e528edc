//! The calls to teams, one function each. `team` may be an id, a unique prefix or a name.

use super::api::V1;
use super::{Call, Client, Error, escape};
use castra_proto::api::Page;
use castra_proto::team::{
    Answer, Answers, AskAgent, ClearTeam, Fanout, FlowRun, RouteAnswer, Routed, RunFlow, StopTeam,
};
use castra_proto::{Team, TeamSpec};
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn team_path(team: &str, rest: &str) -> String {
    format!("{V1}/teams/{}{rest}", escape(team))
}

impl Client {
    /// `key` makes it safe to repeat.
    pub async fn create_team(&self, spec: &TeamSpec, keep: bool, key: &str) -> Result<Team, Error> {
        self.read(Call::post(format!("{V1}/teams?keep={keep}")).json(spec)?.key(key)?).await
    }

    /// All pages.
    pub async fn teams(&self) -> Result<Vec<Team>, Error> {
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let more = cursor.as_deref().map(|cursor| format!("?cursor={}", escape(cursor)));
            let page: Page<Team> =
                self.read(Call::get(format!("{V1}/teams{}", more.unwrap_or_default()))).await?;
            found.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(found),
            }
        }
    }

    pub async fn team(&self, team: &str) -> Result<Team, Error> {
        self.read(Call::get(team_path(team, ""))).await
    }

    pub async fn remove_team(&self, team: &str, force: bool) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, team_path(team, &format!("?force={force}")));
        self.read::<Value>(call).await.map(drop)
    }

    pub async fn clear_team(&self, team: &str, request: &ClearTeam) -> Result<Team, Error> {
        self.read(Call::post(team_path(team, "/clear")).json(request)?).await
    }

    pub async fn stop_team(&self, team: &str, request: &StopTeam) -> Result<Team, Error> {
        self.read(Call::post(team_path(team, "/stop")).json(request)?).await
    }

    /// What has become of it after `wait` seconds, as with the calls below: with the same `key` it is the same request.
    pub async fn ask_agent(
        &self,
        team: &str,
        agent: &str,
        ask: &AskAgent,
        key: &str,
        wait: u64,
    ) -> Result<Answer, Error> {
        let path = team_path(team, &format!("/agents/{}/messages?wait={wait}", escape(agent)));
        self.keyed(path, ask, key).await
    }

    pub async fn route(
        &self,
        team: &str,
        route: &RouteAnswer,
        key: &str,
        wait: u64,
    ) -> Result<Routed, Error> {
        self.keyed(team_path(team, &format!("/route?wait={wait}")), route, key).await
    }

    pub async fn fan_out(&self, team: &str, fanout: &Fanout, key: &str, wait: u64) -> Result<Answers, Error> {
        self.keyed(team_path(team, &format!("/fanout?wait={wait}")), fanout, key).await
    }

    /// Answered when more than `seen` steps are over, too.
    pub async fn run_flow(
        &self,
        team: &str,
        run: &RunFlow,
        key: &str,
        wait: u64,
        seen: usize,
    ) -> Result<FlowRun, Error> {
        self.keyed(team_path(team, &format!("/run?wait={wait}&seen={seen}")), run, key).await
    }

    async fn keyed<T: DeserializeOwned>(
        &self,
        path: String,
        body: &impl Serialize,
        key: &str,
    ) -> Result<T, Error> {
        self.read(Call::post(path).json(body)?.key(key)?).await
    }
}
