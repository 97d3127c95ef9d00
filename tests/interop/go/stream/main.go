// Asks the calculator 10,000 times over one stream: go run stream/main.go 127.0.0.1:50051
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	calculator "example.com/client/gen/calculator/v1"
)

const requests = 10_000

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stream, err := calculator.NewCalculatorClient(connection).Stream(ctx)
	if err != nil {
		log.Fatal(err)
	}

	// In a goroutine of its own: the daemon reads no more while too many replies wait to be received.
	go func() {
		for number := range requests {
			if err := stream.Send(&calculator.CalculationRequest{A: float64(number), B: 1}); err != nil {
				return // Recv says why.
			}
		}
		stream.CloseSend()
	}()

	replies := 0
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		if response.GetResult() != float64(replies+1) {
			log.Fatalf("reply %d is %v", replies, response.GetResult())
		}
		replies++
	}
	fmt.Println(replies, "replies, in the order of their requests")
}
