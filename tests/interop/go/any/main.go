// Asks a kernel through MessageService, which serves kernels of every type: go run any/main.go 127.0.0.1:50051
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
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

	body, err := anypb.New(&calculator.CalculationRequest{A: 10, B: 5})
	if err != nil {
		log.Fatal(err)
	}
	answer, err := pydotcompute.NewMessageServiceClient(connection).Ask(ctx, &pydotcompute.AskRequest{
		KernelId: "calculator", Message: &pydotcompute.Message{Body: body},
	})
	if err != nil {
		log.Fatal(err)
	}
	reply, err := answer.GetMessage().GetBody().UnmarshalNew()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(reply.(*calculator.CalculationResponse).GetResult())
}
