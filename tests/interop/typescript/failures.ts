// Reads what an error says: node built/failures.js 127.0.0.1:50051
import { create } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { CalculationResponseSchema } from "./gen/calculator/v1/calculator_pb.js";
import { Calculator } from "./gen/calculator/v1/calculator_pb.js";
import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { KernelNotFoundDetailSchema } from "./gen/pydotcompute/v1/errors_pb.js";
import { MessageService } from "./gen/pydotcompute/v1/message_service_pb.js";

const transport = createGrpcTransport({ baseUrl: `http://${process.argv[2]}`, defaultTimeoutMs: 5_000 });

function explain(error: unknown) {
  const failure = ConnectError.from(error);
  console.log(`${Code[failure.code]}: ${failure.rawMessage}`);
  for (const info of failure.findDetails(ErrorInfoSchema)) {
    console.log("  reason:", info.reason);
  }
  for (const request of failure.findDetails(BadRequestSchema)) {
    for (const violation of request.fieldViolations) {
      console.log("  at", violation.field);
    }
  }
  for (const detail of failure.findDetails(KernelNotFoundDetailSchema)) {
    console.log("  there are:", detail.available.join(", "));
  }
}

const elsewhere = { "pydotcompute-kernel-id": "calculater" };
await createClient(Calculator, transport).ask({}, { headers: elsewhere }).catch(explain);

// The typed service does not compile with a message of another type; MessageService takes any, and refuses it.
const body = anyPack(CalculationResponseSchema, create(CalculationResponseSchema, { result: 1 }));
await createClient(MessageService, transport).ask({ kernelId: "calculator", message: { body } }).catch(explain);
