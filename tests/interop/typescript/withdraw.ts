// Gives requests up before the kernel takes them: node built/withdraw.js 127.0.0.1:50051
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Calculator } from "./gen/calculator/v1/calculator_pb.js";
import { ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { KernelService } from "./gen/pydotcompute/v1/kernel_service_pb.js";
import { TelemetryService } from "./gen/pydotcompute/v1/telemetry_service_pb.js";

const transport = createGrpcTransport({ baseUrl: `http://${process.argv[2]}`, defaultTimeoutMs: 10_000 });
const kernels = createClient(KernelService, transport);
const kernel = createClient(Calculator, transport);
const kernelId = "paused-by-typescript";
const headers = { "pydotcompute-kernel-id": kernelId };

const patience = AbortSignal.timeout(20_000);

/** Returns when so many messages are in the kernel's mailbox. */
async function waitFor(messages: number) {
  while ((await kernels.describeKernel({ kernelId }, { signal: patience })).kernel!.queueDepth !== messages);
}

function told(error: unknown) {
  const failure = ConnectError.from(error);
  return [Code[failure.code], ...failure.findDetails(ErrorInfoSchema).map((info) => info.reason)].join(" ");
}

// A kernel that is paused takes no message, so all requests stay in its mailbox.
await kernels.launch({ kernelId, kernelType: "calculator" });
await kernels.activate({ kernelId });
await kernels.deactivate({ kernelId });

// A deadline: the daemon gives up a little before it, so that its error still arrives.
await kernel.ask({ a: 1 }, { headers, timeoutMs: 500 }).catch((error) => console.log("after its deadline:", told(error)));

// A cancelled call.
const calling = new AbortController();
const call = kernel.ask({ a: 2 }, { headers, signal: calling.signal });
await Promise.all([
  call.catch((error) => console.log("when cancelled:", told(error))),
  waitFor(1).then(() => calling.abort()),
]);
await waitFor(0);

// A cancelled stream.
async function* five() {
  yield* Array.from({ length: 5 }, () => ({ a: 2 }));
}
const streaming = new AbortController();
const stream = kernel.stream(five(), { headers, signal: streaming.signal });
await Promise.all([
  stream[Symbol.asyncIterator]().next().catch((error) => console.log("when its stream is:", told(error))),
  waitFor(5).then(() => streaming.abort()),
]);
await waitFor(0);

// The kernel goes on, and the first request that it takes is this one.
await kernels.reactivate({ kernelId });
const response = await kernel.ask({ a: 3 }, { headers });
const telemetry = await createClient(TelemetryService, transport).getTelemetry({ kernelIds: [kernelId] });
console.log(response.result, "is the reply to message", Number(telemetry.kernels[0].messagesProcessed));
await kernels.terminate({ kernelId });
