// Asks a kernel through MessageService, which serves kernels of every type: node built/any.js 127.0.0.1:50051
import { create } from "@bufbuild/protobuf";
import { anyPack, anyUnpack } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { CalculationRequestSchema, CalculationResponseSchema } from "./gen/calculator/v1/calculator_pb.js";
import { MessageService } from "./gen/pydotcompute/v1/message_service_pb.js";

const transport = createGrpcTransport({ baseUrl: `http://${process.argv[2]}` });
const messages = createClient(MessageService, transport);

const body = anyPack(CalculationRequestSchema, create(CalculationRequestSchema, { a: 10, b: 5 }));
const answer = await messages.ask({ kernelId: "calculator", message: { body } }, { timeoutMs: 5_000 });
console.log(anyUnpack(answer.message!.body!, CalculationResponseSchema)!.result);
