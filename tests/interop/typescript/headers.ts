// Sends a message and receives its reply with a lease: node built/headers.js 127.0.0.1:50051
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Calculator } from "./gen/calculator/v1/calculator_pb.js";
import { MessageService } from "./gen/pydotcompute/v1/message_service_pb.js";

const transport = createGrpcTransport({ baseUrl: `http://${process.argv[2]}`, defaultTimeoutMs: 10_000 });
const kernel = createClient(Calculator, transport);
const mine = { "pydotcompute-client-id": "typescript" };

// With an id of our own this can be sent again if the answer is lost: the kernel gets the message once.
const sending = {
  ...mine,
  "pydotcompute-message-id": "d3b1f6a0-2c47-4f5e-8a19-5e0c9b7d4821",
  "pydotcompute-priority": "200",
};
await kernel.send({ a: 1, b: 2 }, { headers: sending });

let header = new Headers();
const response = await kernel.receive(
  {},
  { headers: { ...mine, "pydotcompute-lease": "30s" }, onHeader: (received) => (header = received) },
);
console.log(response.result, "answers", header.get("pydotcompute-correlation-id"));

// Without this the reply comes again when the lease has run out.
const answer = await createClient(MessageService, transport).acknowledge({
  kernelId: "calculator",
  deliveryIds: [header.get("pydotcompute-delivery-id")!],
});
console.log(answer.unknownDeliveryIds.length, "acknowledged too late");
