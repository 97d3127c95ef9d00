package example;

import calculator.v1.CalculationRequest;
import calculator.v1.CalculationResponse;
import calculator.v1.CalculatorGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.util.concurrent.CompletableFuture;

/** Asks the calculator 10,000 times over one stream. */
public class Stream {
  private static final int REQUESTS = 10_000;

  public static void main(String[] args) {
    ManagedChannel channel = Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).build();
    try {
      var conversation = new Conversation();
      CalculatorGrpc.newStub(channel).stream(conversation);
      System.out.println(conversation.done.join() + " replies, in the order of their requests");
    } finally {
      channel.shutdownNow();
    }
  }

  private static class Conversation implements ClientResponseObserver<CalculationRequest, CalculationResponse> {
    final CompletableFuture<Integer> done = new CompletableFuture<>();
    private int sent = 0;
    private int received = 0;

    @Override
    public void beforeStart(ClientCallStreamObserver<CalculationRequest> requests) {
      // Not all at once: the daemon stops reading when too many replies wait to be read.
      requests.setOnReadyHandler(
          () -> {
            while (requests.isReady() && sent < REQUESTS) {
              requests.onNext(CalculationRequest.newBuilder().setA(sent++).setB(1).build());
              if (sent == REQUESTS) {
                requests.onCompleted();
              }
            }
          });
    }

    @Override
    public void onNext(CalculationResponse reply) {
      if (reply.getResult() != ++received) {
        done.completeExceptionally(new IllegalStateException("reply " + received + " is " + reply.getResult()));
      }
    }

    @Override
    public void onError(Throwable error) {
      done.completeExceptionally(error);
    }

    @Override
    public void onCompleted() {
      done.complete(received);
    }
  }
}
