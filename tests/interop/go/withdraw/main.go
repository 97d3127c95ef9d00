// Gives requests up before the kernel takes them: go run withdraw/main.go 127.0.0.1:50051
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	calculator "example.com/client/gen/calculator/v1"
	pydotcompute "example.com/client/gen/pydotcompute/v1"
)

const id = "paused-by-go"

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	kernels := pydotcompute.NewKernelServiceClient(connection)
	kernel := calculator.NewCalculatorClient(connection)
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	toIt := metadata.AppendToOutgoingContext(ctx, "pydotcompute-kernel-id", id)

	// A kernel that is paused takes no message, so all requests stay in its mailbox.
	_, err = kernels.Launch(ctx, &pydotcompute.LaunchRequest{KernelId: id, KernelType: "calculator"})
	check(err)
	_, err = kernels.Activate(ctx, &pydotcompute.ActivateRequest{KernelId: id})
	check(err)
	_, err = kernels.Deactivate(ctx, &pydotcompute.DeactivateRequest{KernelId: id})
	check(err)

	// A deadline: the daemon gives up a little before it, so that its error still arrives.
	short, cancel := context.WithTimeout(toIt, 500*time.Millisecond)
	_, err = kernel.Ask(short, &calculator.CalculationRequest{A: 1})
	cancel()
	fmt.Println("after its deadline:", status.Code(err), reason(err))

	// A cancelled call.
	cancelled, cancel := context.WithCancel(toIt)
	done := make(chan error)
	go func() {
		_, err := kernel.Ask(cancelled, &calculator.CalculationRequest{A: 2})
		done <- err
	}()
	waitFor(ctx, kernels, 1)
	cancel()
	fmt.Println("when cancelled:", status.Code(<-done))
	waitFor(ctx, kernels, 0)

	// A cancelled stream.
	cancelled, cancel = context.WithCancel(toIt)
	stream, err := kernel.Stream(cancelled)
	check(err)
	for range 5 {
		check(stream.Send(&calculator.CalculationRequest{A: 2}))
	}
	waitFor(ctx, kernels, 5)
	cancel()
	_, err = stream.Recv()
	fmt.Println("when its stream is:", status.Code(err))
	waitFor(ctx, kernels, 0)

	// The kernel goes on, and the first request that it takes is this one.
	_, err = kernels.Reactivate(ctx, &pydotcompute.ReactivateRequest{KernelId: id})
	check(err)
	response, err := kernel.Ask(toIt, &calculator.CalculationRequest{A: 3})
	check(err)
	telemetry, err := pydotcompute.NewTelemetryServiceClient(connection).GetTelemetry(
		ctx, &pydotcompute.GetTelemetryRequest{KernelIds: []string{id}})
	check(err)
	fmt.Println(response.GetResult(), "is the reply to message", telemetry.GetKernels()[0].GetMessagesProcessed())
	_, err = kernels.Terminate(ctx, &pydotcompute.TerminateRequest{KernelId: id})
	check(err)
}

// waitFor returns when so many messages are in the kernel's mailbox.
func waitFor(ctx context.Context, kernels pydotcompute.KernelServiceClient, messages uint32) {
	for {
		described, err := kernels.DescribeKernel(ctx, &pydotcompute.DescribeKernelRequest{KernelId: id})
		check(err)
		if described.GetKernel().GetQueueDepth() == messages {
			return
		}
	}
}

func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, found := detail.(*errdetails.ErrorInfo); found {
			return info.GetReason()
		}
	}
	return ""
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
