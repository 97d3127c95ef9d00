// Asks the calculator: node built/ask.js 127.0.0.1:50051
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Calculator } from "./gen/calculator/v1/calculator_pb.js";

const transport = createGrpcTransport({ baseUrl: `http://${process.argv[2]}` });
const kernel = createClient(Calculator, transport);

const response = await kernel.ask({ a: 10, b: 5, operation: "div" }, { timeoutMs: 5_000 });
console.log(response.result);
