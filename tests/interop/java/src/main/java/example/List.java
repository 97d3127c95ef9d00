package example;

import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import pydotcompute.v1.DescribeKernelRequest;
import pydotcompute.v1.GetServerInfoRequest;
import pydotcompute.v1.KernelServiceGrpc;
import pydotcompute.v1.ListKernelsRequest;
import pydotcompute.v1.ServerServiceGrpc;

/** Tells which daemon this is, what it has, and what a kernel takes. */
public class List {
  public static void main(String[] args) {
    ManagedChannel channel = Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).build();
    try {
      var info = ServerServiceGrpc.newBlockingStub(channel).getServerInfo(GetServerInfoRequest.getDefaultInstance());
      System.out.printf("messages have at most %.0f bytes%n", info.getLimitsOrThrow("max_message_bytes"));

      // A list may have several pages.
      var kernels = KernelServiceGrpc.newBlockingStub(channel);
      var request = ListKernelsRequest.newBuilder();
      do {
        var page = kernels.listKernels(request.build());
        page.getKernelsList().forEach(kernel -> System.out.println(kernel.getKernelId() + " is " + kernel.getState()));
        request.setPageToken(page.getNextPageToken());
      } while (!request.getPageToken().isEmpty());

      var described = kernels.describeKernel(DescribeKernelRequest.newBuilder().setKernelId("calculator").build());
      System.out.println("calculator takes " + described.getSampleJson());
    } finally {
      channel.shutdownNow();
    }
  }
}
