//! Tells which daemon this is, what it has, and what a kernel takes: cargo run --bin list 127.0.0.1:50051

use client::pydotcompute::v1::kernel_service_client::KernelServiceClient;
use client::pydotcompute::v1::server_service_client::ServerServiceClient;
use client::pydotcompute::v1::{DescribeKernelRequest, GetServerInfoRequest, ListKernelsRequest};
use tonic::transport::Endpoint;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).ok_or("HOST:PORT is missing")?;
    let channel = Endpoint::from_shared(format!("http://{target}"))?
        .connect()
        .await?;

    let mut server = ServerServiceClient::new(channel.clone());
    let info = server
        .get_server_info(GetServerInfoRequest {})
        .await?
        .into_inner();
    println!(
        "messages have at most {} bytes",
        info.limits["max_message_bytes"]
    );

    // A list may have several pages.
    let mut kernels = KernelServiceClient::new(channel);
    let mut request = ListKernelsRequest::default();
    loop {
        let page = kernels.list_kernels(request.clone()).await?.into_inner();
        for kernel in &page.kernels {
            println!("{} is {}", kernel.kernel_id, kernel.state().as_str_name());
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }

    let request = DescribeKernelRequest {
        kernel_id: "calculator".into(),
    };
    let described = kernels.describe_kernel(request).await?.into_inner();
    println!("calculator takes {}", described.sample_json);
    Ok(())
}
