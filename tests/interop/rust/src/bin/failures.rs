//! Reads what an error says: cargo run --bin failures 127.0.0.1:50051

use client::calculator::v1::calculator_client::CalculatorClient;
use client::calculator::v1::{CalculationRequest, CalculationResponse};
use client::pydotcompute::v1::message_service_client::MessageServiceClient;
use client::pydotcompute::v1::{AskRequest, KernelNotFoundDetail, Message};
use prost::{Message as _, Name};
use prost_types::Any;
use tonic::transport::Endpoint;
use tonic::{Request, Status};
use tonic_types::StatusExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).ok_or("HOST:PORT is missing")?;
    let channel = Endpoint::from_shared(format!("http://{target}"))?
        .connect()
        .await?;

    let mut elsewhere = Request::new(CalculationRequest::default());
    elsewhere
        .metadata_mut()
        .insert("pydotcompute-kernel-id", "calculater".parse()?);
    if let Err(error) = CalculatorClient::new(channel.clone()).ask(elsewhere).await {
        explain(&error)?;
    }

    // The typed service does not compile with a message of another type; MessageService takes any, and refuses it.
    let wrong = CalculationResponse {
        result: 1.0,
        ..Default::default()
    };
    let message = Message {
        body: Some(Any::from_msg(&wrong)?),
        ..Default::default()
    };
    let request = AskRequest {
        kernel_id: "calculator".into(),
        message: Some(message),
        ..Default::default()
    };
    if let Err(error) = MessageServiceClient::new(channel).ask(request).await {
        explain(&error)?;
    }
    Ok(())
}

fn explain(error: &Status) -> Result<(), prost::DecodeError> {
    println!("{:?}: {}", error.code(), error.message());
    // tonic-types knows Google's details; the daemon's own are beside them.
    if let Some(info) = error.get_details_error_info() {
        println!("  reason: {}", info.reason);
    }
    if let Some(request) = error.get_details_bad_request() {
        for violation in request.field_violations {
            println!("  at {}", violation.field);
        }
    }
    for detail in client::google::rpc::Status::decode(error.details())?.details {
        if detail.type_url == KernelNotFoundDetail::type_url() {
            let detail = KernelNotFoundDetail::decode(&detail.value[..])?;
            println!("  there are: {}", detail.available.join(", "));
        }
    }
    Ok(())
}
