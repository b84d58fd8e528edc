//! One turn of claude through the embedded supervisor: `one_turn HOME CLAUDE BASE_URL PROMPT`.
use castra_supervisor::*;
use std::time::Duration;
#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let mut config = Config::new(&args[1]);
    config.claude.path = Some(args[2].clone().into());
    config.inherited.insert("PATH".into(), std::env::var("PATH").unwrap());
    let sup = Supervisor::open(config).await.unwrap();
    let spec = serde_json::from_value(serde_json::json!({"sandbox":"off","env":{"ANTHROPIC_BASE_URL":args[3],"ANTHROPIC_API_KEY":"sk-fake-key-000000","CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC":"1"}})).unwrap();
    let caller = Caller::embedded();
    let t = std::time::Instant::now();
    let s = sup.create(spec, None, &caller).await.unwrap();
    eprintln!("created {} {:?}", s.id, t.elapsed());
    let mut sub = sup.subscribe(s.id, 0).await.unwrap();
    let h = tokio::spawn(async move {
        while let Some(Ok(frames)) = sub.next().await {
            for f in frames {
                match f {
                    Frame::Event(e) => {
                        println!("{}", String::from_utf8_lossy(&e.json[..e.json.len().min(300)]))
                    }
                    Frame::Partial(p) => println!("PARTIAL {}", String::from_utf8_lossy(&p)),
                }
            }
        }
    });
    for text in &args[4..] {
        let m = sup
            .send(
                s.id,
                castra_proto::api::SendMessage { text: Some(text.clone()), ..Default::default() },
                None,
                &caller,
            )
            .await
            .unwrap();
        let t = std::time::Instant::now();
        let r = sup.wait(s.id, m.message_id, Duration::from_secs(20)).await.unwrap();
        println!("RESULT {:?} {}", t.elapsed(), serde_json::to_string(&r).unwrap());
    }
    let s = sup.stop(s.id, &caller).await.unwrap();
    println!("STOPPED {}", serde_json::to_string_pretty(&s).unwrap());
    sup.close().await;
    h.abort();
}
