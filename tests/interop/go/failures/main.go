// Reads what an error says: go run failures/main.go 127.0.0.1:50051
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	calculator "example.com/client/gen/calculator/v1"
	pydotcompute "example.com/client/gen/pydotcompute/v1"
)

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()

	elsewhere := metadata.AppendToOutgoingContext(ctx, "pydotcompute-kernel-id", "calculater")
	_, err = calculator.NewCalculatorClient(connection).Ask(elsewhere, &calculator.CalculationRequest{})
	explain(err)

	// The typed service does not compile with a message of another type; MessageService takes any, and refuses it.
	body, err := anypb.New(&calculator.CalculationResponse{Result: 1})
	if err != nil {
		log.Fatal(err)
	}
	_, err = pydotcompute.NewMessageServiceClient(connection).Ask(ctx, &pydotcompute.AskRequest{
		KernelId: "calculator", Message: &pydotcompute.Message{Body: body},
	})
	explain(err)
}

func explain(err error) {
	failure := status.Convert(err)
	fmt.Printf("%s: %s\n", failure.Code(), failure.Message())
	for _, detail := range failure.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			fmt.Println("  reason:", detail.GetReason())
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				fmt.Println("  at", violation.GetField())
			}
		case *pydotcompute.KernelNotFoundDetail:
			fmt.Println("  there are:", strings.Join(detail.GetAvailable(), ", "))
		}
	}
}
