package example;

import calculator.v1.CalculationRequest;
import calculator.v1.CalculatorGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;
import java.util.UUID;
import pydotcompute.v1.ActivateRequest;
import pydotcompute.v1.DeactivateRequest;
import pydotcompute.v1.Kernel;
import pydotcompute.v1.KernelServiceGrpc;
import pydotcompute.v1.LaunchRequest;
import pydotcompute.v1.ReactivateRequest;
import pydotcompute.v1.TerminateRequest;

/** Leads a kernel of its own through its life. */
public class Lifecycle {
  private static final String ID = "from-java";
  private static final Metadata.Key<String> KERNEL_ID =
      Metadata.Key.of("pydotcompute-kernel-id", Metadata.ASCII_STRING_MARSHALLER);

  public static void main(String[] args) {
    ManagedChannel channel = Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).build();
    try {
      var kernels = KernelServiceGrpc.newBlockingStub(channel);

      // With the same request_id this can be sent again if the answer is lost.
      var launch = LaunchRequest.newBuilder().setKernelId(ID).setKernelType("calculator");
      launch.setRequestId(UUID.randomUUID().toString());
      show(kernels.launch(launch.build()).getKernel());
      show(kernels.activate(ActivateRequest.newBuilder().setKernelId(ID).build()).getKernel());

      // Without this header the kernel that is asked has the name of its type.
      var header = new Metadata();
      header.put(KERNEL_ID, ID);
      var calculator =
          CalculatorGrpc.newBlockingStub(channel).withInterceptors(MetadataUtils.newAttachHeadersInterceptor(header));
      var response = calculator.ask(CalculationRequest.newBuilder().setA(2).setB(3).build());
      System.out.printf("2 + 3 = %.0f%n", response.getResult());

      show(kernels.deactivate(DeactivateRequest.newBuilder().setKernelId(ID).build()).getKernel());
      show(kernels.reactivate(ReactivateRequest.newBuilder().setKernelId(ID).build()).getKernel());
      show(kernels.terminate(TerminateRequest.newBuilder().setKernelId(ID).build()).getKernel());
    } finally {
      channel.shutdownNow();
    }
  }

  private static void show(Kernel kernel) {
    System.out.println(kernel.getKernelId() + " is " + kernel.getState());
  }
}
