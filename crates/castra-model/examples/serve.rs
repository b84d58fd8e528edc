//! Serves a script: `serve PORT [FILE]`.
#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let script = match args.get(2) {
        Some(f) => castra_model::Script::parse(&std::fs::read_to_string(f).unwrap()).unwrap(),
        None => castra_model::Script::default_demo().unwrap(),
    };
    let m =
        castra_model::Model::start(script, format!("127.0.0.1:{}", args[1]).parse().unwrap()).await.unwrap();
    println!("{}", m.base_url());
    std::future::pending::<()>().await;
}
