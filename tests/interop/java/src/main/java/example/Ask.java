package example;

import calculator.v1.CalculationRequest;
import calculator.v1.CalculatorGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import java.util.concurrent.TimeUnit;

/** Asks the calculator: java -cp 'target/classes:target/dependency/*' example.Ask 127.0.0.1:50051 */
public class Ask {
  public static void main(String[] args) {
    ManagedChannel channel = Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).build();
    try {
      var calculator = CalculatorGrpc.newBlockingStub(channel).withDeadlineAfter(30, TimeUnit.SECONDS);
      var request = CalculationRequest.newBuilder().setA(10).setB(5).setOperation("div").build();
      System.out.println(calculator.ask(request).getResult());
    } finally {
      channel.shutdownNow();
    }
  }
}
