//! Asks the calculator: cargo run --bin ask 127.0.0.1:50051

use std::time::Duration;

use client::calculator::v1::CalculationRequest;
use client::calculator::v1::calculator_client::CalculatorClient;
use tonic::Request;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).ok_or("HOST:PORT is missing")?;
    let mut calculator = CalculatorClient::connect(format!("http://{target}")).await?;

    let mut request = Request::new(CalculationRequest {
        a: 10.0,
        b: 5.0,
        operation: Some("div".into()),
    });
    request.set_timeout(Duration::from_secs(5));
    println!("{}", calculator.ask(request).await?.into_inner().result);
    Ok(())
}
