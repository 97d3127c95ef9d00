// Leads a kernel of its own through its life: node built/lifecycle.js 127.0.0.1:50051
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Calculator } from "./gen/calculator/v1/calculator_pb.js";
import { type Kernel, KernelService, KernelState } from "./gen/pydotcompute/v1/kernel_service_pb.js";

const transport = createGrpcTransport({ baseUrl: `http://${process.argv[2]}`, defaultTimeoutMs: 10_000 });
const kernels = createClient(KernelService, transport);
const kernelId = "from-typescript";

function show({ kernel }: { kernel?: Kernel }) {
  console.log(kernel!.kernelId, "is", KernelState[kernel!.state]);
}

show(await kernels.launch({ kernelId, kernelType: "calculator" }));
show(await kernels.activate({ kernelId }));

// Without this header the kernel that is asked has the name of its type.
const headers = { "pydotcompute-kernel-id": kernelId };
const response = await createClient(Calculator, transport).ask({ a: 2, b: 3 }, { headers });
console.log("2 + 3 =", response.result);

show(await kernels.deactivate({ kernelId }));
show(await kernels.reactivate({ kernelId }));
show(await kernels.terminate({ kernelId }));
