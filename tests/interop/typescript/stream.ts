// Asks the calculator 10,000 times over one stream: node built/stream.js 127.0.0.1:50051
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Calculator } from "./gen/calculator/v1/calculator_pb.js";

const transport = createGrpcTransport({ baseUrl: `http://${process.argv[2]}` });
const kernel = createClient(Calculator, transport);

async function* requests() {
  for (let number = 0; number < 10_000; number++) {
    yield { a: number, b: 1 };
  }
}

let replies = 0;
for await (const response of kernel.stream(requests(), { timeoutMs: 60_000 })) {
  if (response.result !== replies + 1) {
    throw new Error(`reply ${replies} is ${response.result}`);
  }
  replies++;
}
console.log(replies, "replies, in the order of their requests");
