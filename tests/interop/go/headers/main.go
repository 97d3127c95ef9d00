// Sends a message and receives its reply with a lease: go run headers/main.go 127.0.0.1:50051
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	calculator "example.com/client/gen/calculator/v1"
	pydotcompute "example.com/client/gen/pydotcompute/v1"
)

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	kernel := calculator.NewCalculatorClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	mine := metadata.AppendToOutgoingContext(ctx, "pydotcompute-client-id", "go")

	// With an id of our own this can be sent again if the answer is lost: the kernel gets the message once.
	sending := metadata.AppendToOutgoingContext(mine,
		"pydotcompute-message-id", "6f1c2a9e-58c4-4b0e-9d3a-0c7f5b1e2d34", "pydotcompute-priority", "200")
	if _, err := kernel.Send(sending, &calculator.CalculationRequest{A: 1, B: 2}); err != nil {
		log.Fatal(err)
	}

	var header metadata.MD
	receiving := metadata.AppendToOutgoingContext(mine, "pydotcompute-lease", "30s")
	response, err := kernel.Receive(receiving, &emptypb.Empty{}, grpc.Header(&header))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(response.GetResult(), "answers", header.Get("pydotcompute-correlation-id")[0])

	// Without this the reply comes again when the lease has run out.
	answer, err := pydotcompute.NewMessageServiceClient(connection).Acknowledge(ctx, &pydotcompute.AcknowledgeRequest{
		KernelId: "calculator", DeliveryIds: header.Get("pydotcompute-delivery-id"),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(answer.GetUnknownDeliveryIds()), "acknowledged too late")
}
