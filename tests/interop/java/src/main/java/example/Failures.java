package example;

import calculator.v1.CalculationRequest;
import calculator.v1.CalculationResponse;
import calculator.v1.CalculatorGrpc;
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import pydotcompute.v1.AskRequest;
import pydotcompute.v1.KernelNotFoundDetail;
import pydotcompute.v1.Message;
import pydotcompute.v1.MessageServiceGrpc;

/** Reads what an error says. */
public class Failures {
  private static final Metadata.Key<String> KERNEL_ID =
      Metadata.Key.of("pydotcompute-kernel-id", Metadata.ASCII_STRING_MARSHALLER);

  public static void main(String[] args) throws InvalidProtocolBufferException {
    ManagedChannel channel = Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).build();
    try {
      var header = new Metadata();
      header.put(KERNEL_ID, "calculater");
      var elsewhere =
          CalculatorGrpc.newBlockingStub(channel).withInterceptors(MetadataUtils.newAttachHeadersInterceptor(header));
      try {
        elsewhere.ask(CalculationRequest.getDefaultInstance());
      } catch (StatusRuntimeException error) {
        explain(error);
      }

      // The typed service does not compile with a message of another type; MessageService takes any, and refuses it.
      var wrong = Any.pack(CalculationResponse.newBuilder().setResult(1).build());
      var request = AskRequest.newBuilder().setKernelId("calculator").setMessage(Message.newBuilder().setBody(wrong));
      try {
        MessageServiceGrpc.newBlockingStub(channel).ask(request.build());
      } catch (StatusRuntimeException error) {
        explain(error);
      }
    } finally {
      channel.shutdownNow();
    }
  }

  private static void explain(StatusRuntimeException error) throws InvalidProtocolBufferException {
    System.out.println(error.getStatus().getCode() + ": " + error.getStatus().getDescription());
    for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        System.out.println("  reason: " + detail.unpack(ErrorInfo.class).getReason());
      } else if (detail.is(BadRequest.class)) {
        detail.unpack(BadRequest.class).getFieldViolationsList().forEach(violation ->
            System.out.println("  at " + violation.getField()));
      } else if (detail.is(KernelNotFoundDetail.class)) {
        System.out.println("  there are: " + String.join(", ", detail.unpack(KernelNotFoundDetail.class).getAvailableList()));
      }
    }
  }
}
