// What all examples share: the real CLI against the scripted model, in this process. Nothing here is needed
// with an account: leave `demo` out of the SessionSpec, and `Config::demo` unset.

use std::path::Path;
use std::sync::Arc;

use castra_model::{Model, Script};
use castra_supervisor::config::{Config, Demo, DemoEndpoint};

struct Scripted(Model);

impl Demo for Scripted {
    fn endpoint(&self) -> futures::future::BoxFuture<'_, castra_supervisor::Result<DemoEndpoint>> {
        let endpoint = DemoEndpoint { base_url: self.0.base_url(), api_key: "made-up".into() };
        Box::pin(std::future::ready(Ok(endpoint)))
    }
}

/// Sessions with `demo: true` find `script` behind this configuration, and the CLI that tests are run with.
#[allow(dead_code)]
pub(crate) async fn scripted_model(
    config: &mut Config,
    script: Script,
) -> Result<(), Box<dyn std::error::Error>> {
    let named = std::env::var_os("CASTRA_TEST_CLAUDE").unwrap_or_default();
    let claude = std::env::split_paths(&named).find(|path| !path.as_os_str().is_empty());
    config.claude.path =
        Some(claude.ok_or("CASTRA_TEST_CLAUDE must name a claude executable; `./test` sets it")?);
    let model = Model::start(script, ([127, 0, 0, 1], 0).into()).await?;
    config.demo = Some(Arc::new(Scripted(model)));
    Ok(())
}

/// With the script that `castra run --demo` uses.
#[allow(dead_code)]
pub(crate) async fn demo_model(config: &mut Config) -> Result<(), Box<dyn std::error::Error>> {
    scripted_model(config, Script::default_demo()?).await
}

#[allow(dead_code)]
pub(crate) async fn demo_config(home: &Path) -> Result<Config, Box<dyn std::error::Error>> {
    let mut config = Config::new(home);
    config.inherited = std::env::vars().collect();
    demo_model(&mut config).await?;
    Ok(config)
}

#[allow(dead_code)]
pub(crate) fn demo_spec() -> castra_proto::SessionSpec {
    castra_proto::SessionSpec { demo: true, ..Default::default() }
}
