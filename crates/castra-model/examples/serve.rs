#![allow(clippy::all, clippy::print_stdout, clippy::unwrap_used)]
#[tokio::main]
async fn main() {
    let a: Vec<String> = std::env::args().collect();
    let s = castra_model::Script::parse(&std::fs::read_to_string(&a[2]).unwrap()).map_err(|e| panic!("{e}")).unwrap();
    let m = castra_model::Model::start_logged(s, a[1].parse().unwrap(), a[3].as_ref()).await.unwrap();
    println!("{}", m.base_url());
    std::future::pending::<()>().await;
}
