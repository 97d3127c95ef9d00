// Leads a kernel of its own through its life: go run lifecycle/main.go 127.0.0.1:50051
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

	calculator "example.com/client/gen/calculator/v1"
	pydotcompute "example.com/client/gen/pydotcompute/v1"
)

const id = "from-go"

func main() {
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	kernels := pydotcompute.NewKernelServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	launched, err := kernels.Launch(ctx, &pydotcompute.LaunchRequest{KernelId: id, KernelType: "calculator"})
	show(launched.GetKernel(), err)
	activated, err := kernels.Activate(ctx, &pydotcompute.ActivateRequest{KernelId: id})
	show(activated.GetKernel(), err)

	// Without this header the kernel that is asked has the name of its type.
	toIt := metadata.AppendToOutgoingContext(ctx, "pydotcompute-kernel-id", id)
	response, err := calculator.NewCalculatorClient(connection).Ask(toIt, &calculator.CalculationRequest{A: 2, B: 3})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("2 + 3 =", response.GetResult())

	deactivated, err := kernels.Deactivate(ctx, &pydotcompute.DeactivateRequest{KernelId: id})
	show(deactivated.GetKernel(), err)
	reactivated, err := kernels.Reactivate(ctx, &pydotcompute.ReactivateRequest{KernelId: id})
	show(reactivated.GetKernel(), err)
	terminated, err := kernels.Terminate(ctx, &pydotcompute.TerminateRequest{KernelId: id})
	show(terminated.GetKernel(), err)
}

func show(kernel *pydotcompute.Kernel, err error) {
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(kernel.GetKernelId(), "is", kernel.GetState())
}
