// Asks the calculator: go run ask/main.go 127.0.0.1:50051
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	calculator "example.com/client/gen/calculator/v1"
)

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	kernel := calculator.NewCalculatorClient(connection)

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	response, err := kernel.Ask(ctx, &calculator.CalculationRequest{A: 10, B: 5, Operation: proto.String("div")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(response.GetResult())
}
