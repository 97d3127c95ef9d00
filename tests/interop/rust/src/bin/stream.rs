//! Asks the calculator 10,000 times over one stream: cargo run --bin stream 127.0.0.1:50051

use client::calculator::v1::CalculationRequest;
use client::calculator::v1::calculator_client::CalculatorClient;

const REQUESTS: u32 = 10_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).ok_or("HOST:PORT is missing")?;
    let mut calculator = CalculatorClient::connect(format!("http://{target}")).await?;

    // tonic takes the requests from here as fast as the daemon reads them, and meanwhile the replies come.
    let requests = tokio_stream::iter((0..REQUESTS).map(|number| CalculationRequest {
        a: f64::from(number),
        b: 1.0,
        ..Default::default()
    }));
    let mut replies = calculator.stream(requests).await?.into_inner();
    let mut count = 0;
    while let Some(reply) = replies.message().await? {
        assert_eq!(reply.result, f64::from(count + 1));
        count += 1;
    }
    println!("{count} replies, in the order of their requests");
    Ok(())
}
