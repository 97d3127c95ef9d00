//! Leads a kernel of its own through its life: cargo run --bin lifecycle 127.0.0.1:50051

use client::calculator::v1::CalculationRequest;
use client::calculator::v1::calculator_client::CalculatorClient;
use client::pydotcompute::v1::kernel_service_client::KernelServiceClient;
use client::pydotcompute::v1::{
    ActivateRequest, DeactivateRequest, Kernel, LaunchRequest, ReactivateRequest, TerminateRequest,
};
use tonic::Request;
use tonic::transport::Endpoint;
use uuid::Uuid;

const ID: &str = "from-rust";

fn show(kernel: Option<Kernel>) {
    let kernel = kernel.unwrap_or_default();
    println!("{} is {}", kernel.kernel_id, kernel.state().as_str_name());
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).ok_or("HOST:PORT is missing")?;
    let channel = Endpoint::from_shared(format!("http://{target}"))?
        .connect()
        .await?;
    let mut kernels = KernelServiceClient::new(channel.clone());

    // With the same request_id this can be sent again if the answer is lost.
    let launch = LaunchRequest {
        kernel_id: ID.into(),
        kernel_type: "calculator".into(),
        request_id: Uuid::new_v4().to_string(),
        ..Default::default()
    };
    show(kernels.launch(launch).await?.into_inner().kernel);
    let kernel_id = String::from(ID);
    let activate = ActivateRequest {
        kernel_id: kernel_id.clone(),
    };
    show(kernels.activate(activate).await?.into_inner().kernel);

    // Without this header the kernel that is asked has the name of its type.
    let mut request = Request::new(CalculationRequest {
        a: 2.0,
        b: 3.0,
        ..Default::default()
    });
    request
        .metadata_mut()
        .insert("pydotcompute-kernel-id", ID.parse()?);
    let response = CalculatorClient::new(channel)
        .ask(request)
        .await?
        .into_inner();
    println!("2 + 3 = {}", response.result);

    let deactivate = DeactivateRequest {
        kernel_id: kernel_id.clone(),
    };
    show(kernels.deactivate(deactivate).await?.into_inner().kernel);
    let reactivate = ReactivateRequest {
        kernel_id: kernel_id.clone(),
    };
    show(kernels.reactivate(reactivate).await?.into_inner().kernel);
    let terminate = TerminateRequest {
        kernel_id,
        ..Default::default()
    };
    show(kernels.terminate(terminate).await?.into_inner().kernel);
    Ok(())
}
